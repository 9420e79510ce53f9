"""Gradients against those of another implementation of the same model."""

import torch


def assert_gradients_like(policy, oracle, tokens_BT, atol: float) -> None:
    """Of the summed log-probs, each tensor by its largest element in `oracle` (of transformers)."""
    policy.token_logprobs(tokens_BT).sum().backward()
    theirs = torch.log_softmax(oracle(tokens_BT).logits[:, :-1], -1)
    theirs.gather(-1, tokens_BT[:, 1:, None]).sum().backward()
    wanted = dict(oracle.named_parameters())
    for name, parameter in policy.named_parameters():
        scale = wanted[name].grad.abs().max()
        torch.testing.assert_close(
            parameter.grad / scale, wanted[name].grad / scale, rtol=1e-3, atol=atol, msg=name
        )
