"""One of two processes that share a step: `python -m tests.training.one_rank RANK FOLDER`.

Every other row is its own, the totals are those of all rows, and the gradients are summed over
both processes by gloo. Rank 0 writes what came out.
"""

import sys
from pathlib import Path

import torch
from torch import distributed

from aha.algo.aggregation import AGGREGATIONS
from aha.batching.batch import TrainingRow, pack_parts, totals_of
from aha.core.config import RunConfig
from aha.rollout.native import NativeEngine
from aha.training.rl import RLTrainer
from aha.training.rollouts import PhaseClock

from ..tiny import TOKENIZER, StartsWith, tiny_transformer

PART_TOKENS = 100
# Every way of adding up, and one choice among all tokens of the step.
WAYS = [(aggregation, "none") for aggregation in AGGREGATIONS] + [("token_mean", "top_entropy")]


def make(aggregation: str, control: str) -> RLTrainer:
    raw = {
        "rollout": {"prompts": 3, "group_size": 6, "max_new_tokens": 12, "dtype": "float32"},
        "optim": {"dtype": "float32"},
        "algo": {"loss": "ppo_clip", "aggregation": aggregation, "entropy_control": control},
    }
    cfg, policy = RunConfig.model_validate(raw), tiny_transformer()
    engine = NativeEngine(policy, TOKENIZER, "float32")
    return RLTrainer(policy, TOKENIZER, StartsWith("0123456789"), engine, cfg)


def rows_of(trainer: RLTrainer) -> list[TrainingRow]:
    """All rows of the step, the same in every process: draws are functions of names and places."""
    collected = trainer.rollout.collect(trainer.problems(), trainer.seeds, PhaseClock())
    estimate = trainer.advantages.estimate(collected.groups, collected.scores)
    return trainer.objective.begin_update(estimate.counted_rows(), 0)


def gradient(trainer: RLTrainer, rows: list[TrainingRow], totals) -> torch.Tensor:
    """Of these rows, as their share of a step with these totals."""
    trainer.optimizer.clear()
    for part in pack_parts(rows, TOKENIZER.pad_id, PART_TOKENS):
        trainer.objective.backward(part, totals)
    return torch.cat([p.grad.flatten() for p in trainer.policy.parameters()])


def main(rank: int, folder: Path) -> None:
    meeting = f"file://{folder / 'meeting'}"
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    found = []
    for way in WAYS:
        trainer = make(*way)
        rows = rows_of(trainer)
        shared = gradient(trainer, rows[rank::2], totals_of(rows, 12))
        distributed.all_reduce(shared)
        found.append(shared)
    if rank == 0:
        torch.save(found, folder / "gradients.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
