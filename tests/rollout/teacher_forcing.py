"""A completion read as one row, which is what an engine's log-probs are held to."""

import torch

from aha.core.records import Completion


@torch.no_grad()
def forced(policy, completion: Completion, temperature: float = 1.0) -> torch.Tensor:
    """The log-probs of a completion's tokens, read as one row by the training pass's maths."""
    row = torch.tensor([completion.prompt.tokens + completion.tokens])
    start = len(completion.prompt.tokens)
    logits = policy(row)[0, start - 1 : -1] / temperature
    return torch.log_softmax(logits, -1).gather(1, row[0, start:, None]).squeeze(1)
