"""One RL step on a CPU in seconds, with the library's own parts: `python examples/rl_step.py`.

`aha.training` does the same, with micro-batches, schedules, a critic and checkpoints around it.
"""

from itertools import islice

import torch

from aha.algo.advantages import dr_grpo
from aha.algo.aggregation import token_mean
from aha.algo.losses import policy_gradient
from aha.batching.batch import TrainingRow, pack, totals_of
from aha.core.records import Graded, Prompt
from aha.model.folders import resolve_model
from aha.model.weights import load_model
from aha.rollout.engine import Sampling
from aha.rollout.native import open_engine
from aha.tasks.countdown import Countdown

task, model = Countdown(numbers=(3,)), load_model(resolve_model("aha-tiny"))
policy, tokenizer = model.policy, model.tokenizer
engine = open_engine(policy, tokenizer)  # holds a copy of the weights, version 0
optimizer = torch.optim.AdamW(policy.trainable(), lr=4e-4)

problems = islice(task.problems("train", seed=0), 8)
prompts = [Prompt.of(problem, task, tokenizer) for problem in problems]
groups = engine.generate(prompts, Sampling(max_new_tokens=160, group_size=16, seed=0))
graded = [[Graded.of(completion, task) for completion in group] for group in groups]

rewards_PG = torch.tensor([[row.reward for row in group] for group in graded])
advantages_PG = dr_grpo(rewards_PG)  # each completion against its own group
rows = list(map(TrainingRow.of, sum(graded, []), advantages_PG.flatten().tolist()))
batch = pack(rows, tokenizer.pad_id)

logprobs_BT = policy.token_logprobs(batch.tokens_BT, batch.start, layout=batch.layout)
losses_BT = policy_gradient(logprobs_BT, batch.old_logprobs_BT, batch.advantages_BT)
weights_BT = token_mean(batch.mask_BT, totals_of(rows, max_new_tokens=160))
loss = (losses_BT * weights_BT).sum()
loss.backward()
grad_norm = torch.nn.utils.clip_grad_norm_(policy.trainable(), 1.0)
optimizer.step()
engine.load(policy, 1)  # version 1: the next completions come from the new weights

print(f"{rewards_PG.mean():.3f} of {rewards_PG.numel()} completions right; "
      f"loss {loss:+.4f}, gradient norm {grad_norm:.3f}, version {engine.version}")  # fmt: skip
