"""What share of the card's arithmetic a training step reaches (model FLOPs utilisation).

Counted are the products that the model asks for, forward and backward: 6 FLOP for every weight
that a token is multiplied with, the output head only where a token is scored; and attention's,
6 x H x D x L for each token and each position that it sees on average, half of its row. What is
computed again (logits in chunks, layers with `recompute`) earns nothing, nor does padding.
Timed is `RLTrainer.update` as a run calls it: batches, gradient, clipping, AdamW.
"""

import math
import statistics

import torch

from aha.core.config import RunConfig
from aha.core.records import Completion, Graded
from aha.plan.shapes import Shape
from aha.plan.speed import Training
from aha.training.rl import RLTrainer

from .._common import spread
from .bench import PROMPT, Bench, Endless, extreme
from .rows import Check

NAME = "Qwen2.5-1.5B"


def training(bench: Bench) -> tuple[dict, list[Check]]:
    shape, new = bench.shape(NAME), bench.pick(1024, 1024, 16)
    cases = [
        bench.attempt(
            f"{NAME}, micro-batches of {micro} tokens", lambda m=micro: update(bench, shape, new, m)
        )
        for micro in bench.pick((4_736, 9_472, 18_944), (9_472,), (400,))
    ]
    name, card = bench.card
    numbers = {"cases": cases, "card_row": name, "matmul_flops": bench.matmul_peak}
    key = "mfu_of_data_sheet" if card else "mfu_of_matmul"
    ended = [case for case in cases if "error" not in case]
    against = "data sheet" if card else "measured product"
    best = extreme(max, ended, key)
    return numbers, [Check(f"MFU, the best micro-batch ({against})", 0.35, 0.45, True, best)]


def flops(shape: Shape, rows: int, prompt: int, new: int) -> float:
    """Of one update on `rows` rows of `prompt + new` tokens."""
    work = Training(rows * (prompt + new), prompt + new, 1)
    unscored_head = work.work * shape.V * shape.C * rows * prompt
    return work.products(shape) - unscored_head + work.attention(shape)


def ready_made(bench: Bench, shape: Shape, new: int, rows: int, group: int) -> list[list[Graded]]:
    """Groups of completions that nobody wrote: random tokens, all equally probable."""
    generator = torch.Generator().manual_seed(0)
    logprobs = (-math.log(shape.V),) * new
    groups = []
    for prompt in bench.prompts(rows // group, shape):
        tokens = torch.randint(shape.V, (group, new), generator=generator).tolist()
        members = [Completion(prompt, tuple(row), logprobs, "", "length") for row in tokens]
        groups.append([Graded(0.0, False, "", {}, completion) for completion in members])
    return groups


def update(bench: Bench, shape: Shape, new: int, micro: int) -> dict:
    group = bench.pick(8, 8, 2)
    rows = bench.pick(64, 32, 4)
    sections = {
        "model": {"device": bench.device.type},
        "task": {"template": "r1"},
        "rollout": {"max_new_tokens": new, "group_size": group, "prompts": rows // group},
        "optim": {"lr": 1e-6, "micro_batch_tokens": micro},
    }
    cfg = RunConfig.model_validate(sections)
    # Neither task nor engine: the completions are there already.
    policy = bench.policy(cfg, shape)
    trainer = RLTrainer(policy, Endless(shape.V), None, None, cfg)
    graded = ready_made(bench, shape, new, rows, group)
    # No advantage is 0, so that every row is computed.
    advantages_PG = torch.tensor([1.0, -1.0]).repeat(rows // 2).view(-1, group)
    scores = trainer.rollout.scores(graded)
    estimate = trainer.advantages.estimate_from(graded, scores, advantages_PG)
    trainer.update(estimate)  # what is built at first use
    rounds = bench.pick(5, 3, 1)
    seconds = [bench.timed(lambda: trainer.update(estimate))[0] for _ in range(rounds)]
    elapsed, work = statistics.median(seconds), flops(shape, rows, PROMPT, new)
    _, card = bench.card
    result = {
        "tokens_per_second": rows * (PROMPT + new) / elapsed,
        "seconds": spread(seconds),
        "model_flops": work,
        "rows": rows,
        "tokens_of_a_row": PROMPT + new,
        "micro_batch_tokens": trainer.micro_batch.tokens,
        "dtype": str(trainer.dtype),
        "mfu_of_matmul": work / elapsed / bench.matmul_peak,
    }
    return result | ({"mfu_of_data_sheet": work / elapsed / (card.tflops * 1e12)} if card else {})
