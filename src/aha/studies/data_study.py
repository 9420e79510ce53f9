"""The study `data`: what do problems and grades matter, when the tokens are the same?

RL of the packaged base on many easy puzzles, few hard ones, a mixture, or by a curriculum, all with
the same number of completion tokens; and on the mixture with a share of wrong grades. Source: the
claim of TinyZero (Pan et al. 2025) that task and data matter more than size.
"""

from typing import Any

from aha.studies.study_page import StudyTable
from aha.studies.training_cells import Chain, Scale
from aha.studies.training_results import (
    Outcomes,
    behaviours_table,
    learning_curves,
    rates_table,
)
from aha.studies.training_study import Claim, TrainingStudy
from aha.web.svg_curves import Figure

TOKENS = 2_000_000  # of completions in RL, in every cell
FULL = Scale(tokens=0, steps=1_000, limit=320, final=1_000)
QUICK = Scale(0, steps=1_000, prompts=4, group_size=4, limit=96, every=0, final=16)
QUICK_TOKENS = 4_000
EASY, HARD = (2, 10_000), (1, 1)  # solutions of a puzzle: three quarters of them have more than one
OPTIONS: dict[str, dict[str, Any]] = {
    "many-easy": {"ways": EASY},
    "few-hard": {"ways": HARD, "count": 300},
    "mixed": {},
    "curriculum": {},
    "noise-10": {"noise": 0.1},
    "noise-20": {"noise": 0.2},
    "noise-30": {"noise": 0.3},
}
PROBLEMS, NOISE = tuple(OPTIONS)[:4], tuple(OPTIONS)[4:]
LENGTH = 75.0


class DataStudy(TrainingStudy):
    """Implements `Study`."""

    name = "data"
    title = "Data: which problems, and how many wrong grades?"
    claim = (
        "The same base and the same number of completion tokens, but other training problems or "
        "wrong grades; all are tested on the same puzzles of every difficulty."
    )
    varies = ("recipe.task.options", "recipe.algo.curriculum")

    @property
    def scale(self) -> Scale:
        return QUICK if self.quick else FULL

    @property
    def conditions(self) -> tuple[str, ...]:
        return tuple(OPTIONS)

    def chain(self, condition: str, seed: int) -> Chain:
        budget = QUICK_TOKENS if self.quick else TOKENS
        changes = {"task.name": "curated", "task.options": OPTIONS[condition], "tokens": budget}
        if condition == "curriculum":
            changes["algo.curriculum"] = "pools"
        return Chain("aha-tiny", None, self.scale.recipe(seed, changes), length=LENGTH)

    def claims(self, outcomes: Outcomes) -> list[Claim]:
        few = outcomes.gap(("few-hard",), ("mixed",))
        easy = outcomes.gap(("many-easy",), ("mixed",))
        curriculum = outcomes.gap(("curriculum",), ("mixed",))
        noise = outcomes.gap(("noise-30",), ("mixed",))
        words = "data matter (no number)"
        return [
            Claim("TinyZero", "few hard puzzles less a mixture", words, *few, most=-0.02),
            Claim("TinyZero", "many easy puzzles less a mixture", words, *easy, most=-0.02),
            Claim("TinyZero", "a curriculum less a mixture", words, *curriculum, 0.0),
            Claim("noise", "30 % wrong grades less none", "RL bears noise", *noise, -0.1),
        ]

    def tables(self, outcomes: Outcomes) -> list[StudyTable]:
        return [
            rates_table(outcomes, "Solve rate of the same problems", ("before", "after")),
            behaviours_table(outcomes),
        ]

    def figures(self, outcomes: Outcomes) -> list[Figure]:
        return [*learning_curves(outcomes, PROBLEMS), *learning_curves(outcomes, ("mixed", *NOISE))]
