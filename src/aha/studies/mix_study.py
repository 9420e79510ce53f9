"""The study `task-mix`: does a second task help, or harm?

One base that has read puzzles and products, then RL on Countdown, on multiplication, or on both in
the same number of steps; every model is tested on both. Source: row 18 of docs/studies.md, Sky-T1
(NovaSky 2025), where code beside mathematics first cost accuracy.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from aha.pretrain.settings import PretrainJob, make_job
from aha.studies.study_page import StudyTable
from aha.studies.training_cells import Chain, Scale
from aha.studies.training_results import Outcomes, learning_curves, rates_table
from aha.studies.training_stages import HeldOutTest
from aha.studies.training_study import Claim, TrainingStudy
from aha.web.svg_curves import Figure

RUNGS = {
    "countdown": ("countdown3",),
    "multiply": ("multiply",),
    "both": ("countdown3", "multiply"),
}
FULL = Scale(tokens=5_000_000, steps=60, limit=320, every=20, final=0)
QUICK = Scale(20_000, steps=2, prompts=4, group_size=4, limit=64, every=0, final=0)
LENGTHS = {"countdown": 75.0, "multiply": 36.0, "both": 56.0}


class MixStudy(TrainingStudy):
    """Implements `Study`."""

    name = "task-mix"
    title = "Task mix: does a second task help, or harm?"
    claim = (
        "The same base on Countdown, on products, on both in as many steps, and on both in twice "
        "as many, so with as many problems of each. If tasks interfere, the last one ends below "
        "each task alone."
    )
    varies = ("recipe.task.options", "recipe.steps")

    @property
    def scale(self) -> Scale:
        return QUICK if self.quick else FULL

    @property
    def conditions(self) -> tuple[str, ...]:
        return (*RUNGS, "both-doubled")

    def base(self, seed: int) -> PretrainJob:
        """The packaged base, trained further on products."""
        job = make_job("multiply", Path(f"base-seed{seed}"), None, {"seed": seed})
        shards = 200 if self.quick else job.cfg.shard_documents
        cfg = replace(job.cfg, tokens=self.scale.tokens, shard_documents=shards)
        return replace(job, cfg=cfg)

    def chain(self, condition: str, seed: int) -> Chain:
        scale, doubled = self.scale, condition == "both-doubled"
        tasks = condition.removesuffix("-doubled")
        changes: dict[str, Any] = {"task.name": "ladder", "task.options": {"rungs": RUNGS[tasks]}}
        if doubled:
            changes["steps"] = 2 * scale.steps
        sizes = (12, 12) if self.quick else (1_000, 206)
        limit = scale.limit
        tests = (
            HeldOutTest("countdown", n=sizes[0], max_new_tokens=limit),
            HeldOutTest("multiply", "multiply", n=sizes[1], max_new_tokens=limit),
        )
        recipe = scale.recipe(seed, changes)
        return Chain(self.base(seed), None, recipe, tests, True, LENGTHS[tasks])

    def claims(self, outcomes: Outcomes) -> list[Claim]:
        puzzles = outcomes.gap(("both-doubled",), ("countdown",), "countdown")
        products = outcomes.gap(("both-doubled",), ("multiply",), "multiply")
        half = outcomes.gap(("both",), ("countdown",), "countdown")
        to_products = outcomes.gap_of_tests("countdown", "multiply", "multiply, before")
        to_puzzles = outcomes.gap_of_tests("multiply", "countdown", "countdown, before")
        return [
            Claim(18, "as many puzzles, with products: less alone", "-6.6", *puzzles, most=-0.02),
            Claim("mix", "as many products, with puzzles: less alone", "-", *products, most=-0.02),
            Claim("mix", "half as many puzzles, with products: less alone", "-", *half, most=-0.02),
            Claim("transfer", "products after Countdown alone", "-", *to_products, 0.02),
            Claim("transfer", "Countdown after products alone", "-", *to_puzzles, 0.02),
        ]

    def tables(self, outcomes: Outcomes) -> list[StudyTable]:
        tests = ("countdown, before", "countdown", "multiply, before", "multiply")
        return [rates_table(outcomes, "Solve rate of both tasks", tests)]

    def figures(self, outcomes: Outcomes) -> list[Figure]:
        return learning_curves(outcomes)
