"""The study `search`: is it better to read searches than solutions, and what improves them?

From a base that calculates and guesses, two read as many tokens: solutions alone, or searches of
which many fail. Both go on by RL; the base of searches also teaches itself (STaR). Source: Stream
of Search, arXiv 2404.03683.
"""

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from aha.plan.speed import Card
from aha.studies.cell_files import Result
from aha.studies.hard_puzzles import SEARCHING
from aha.studies.judgement import Measured, mean_of_seeds, ratio_over_seeds
from aha.studies.self_teaching import SelfTeaching, teach_itself
from aha.studies.study_page import StudyTable
from aha.studies.training_cells import (
    Chain,
    Scale,
    all_tests,
    base_of,
    carry_chain,
    chain_seconds,
    test_seconds,
    tuning_seconds,
)
from aha.studies.training_results import (
    Outcomes,
    behaviour,
    change_text,
    learning_curves,
    rates_table,
    test_of,
)
from aha.studies.training_stages import HeldOutTest
from aha.studies.training_study import Claim, TrainingStudy
from aha.web.svg_curves import Figure

# One attempt that follows a solution; the writer makes no verdict and never goes back.
SOLUTIONS = replace(
    SEARCHING, orderly=0.0, gold_attempt=1.0, verify=0.0, backtrack=0.0, backward=0.0, subgoal=0.0
)
MIXES = {"solutions": SOLUTIONS, "searches": SEARCHING}
FULL = Scale(tokens=5_000_000, steps=80, limit=320, final=0)
QUICK = Scale(200_000, steps=2, prompts=4, group_size=4, limit=96, every=0, final=0)
STAR = SelfTeaching(rounds=3, problems=4_000, completions=2, epochs=3, limit=320)
QUICK_STAR = SelfTeaching(rounds=1, problems=96, completions=2, epochs=1, limit=96)
TESTS = ("test", "held-out targets", "unsolved", "difficult")
ENDS = ("test, before", "test")
LENGTHS = {"solutions-rl": 25.0, "searches-rl": 85.0, "searches-star": 85.0}
STAR_RIGHT = 0.4  # of the completions, assumed for the plan
HARD_SECONDS = 10.0  # to look for puzzles that searches do not solve


class SearchStudy(TrainingStudy):
    """Implements `Study`."""

    name = "search"
    title = "Search: solutions or searches in the corpus, STaR or RL?"
    claim = (
        "A base that has read searches solves more than one that has read as many tokens of "
        "solutions; STaR adds a few points, RL more, and its arithmetic errors fall."
    )
    varies = ("base.pretraining.mix", "recipe", "star")

    @property
    def scale(self) -> Scale:
        return QUICK if self.quick else FULL

    @property
    def star(self) -> SelfTeaching:
        return QUICK_STAR if self.quick else STAR

    @property
    def conditions(self) -> tuple[str, ...]:
        return tuple(LENGTHS)

    def chain(self, condition: str, seed: int) -> Chain:
        scale = self.scale
        corpus, way = condition.split("-")
        name = f"base-{corpus}-seed{seed}"
        base = scale.base_after_guesses(name, seed, MIXES[corpus], self.quick)
        n = 12 if self.quick else 1_000
        tests = (
            HeldOutTest("test", n=n, max_new_tokens=scale.limit),
            HeldOutTest("held-out targets", split="test_targets", n=n, max_new_tokens=scale.limit),
            HeldOutTest("unsolved", n=n // 4, puzzles="unsolved", max_new_tokens=scale.limit),
            HeldOutTest("difficult", n=n // 10, puzzles="difficult", max_new_tokens=scale.limit),
        )
        star = {"star": asdict(self.star) | {"seed": seed} if way == "star" else None}
        recipe = scale.recipe(seed) if way == "rl" else None
        return Chain(base, None, recipe, tests, True, LENGTHS[condition], star)

    def carry(self, chain: Chain, runs: Path, name: str) -> Result:
        """Do a condition; STaR is a stage of this study."""
        result = carry_chain(chain, runs, name)
        star = chain.more["star"]
        if star is None:
            return result
        model, learnt = str(base_of(chain, runs, print)), []
        rounds = teach_itself(self.star, model, star["seed"], runs / f"{name}-star", print)
        for number, (model, examples) in enumerate(rounds, 1):
            learnt.append(examples)
            when = "" if number == self.star.rounds else f", round {number}"
            result["tests"] |= all_tests(chain, model, runs / f"{name}-star-tests", when)
        return result | {"examples": learnt}

    def planned(self, chain: Chain, card: Card) -> float:
        seconds = chain_seconds(chain, card) + HARD_SECONDS
        if chain.more.get("star") is None:
            return seconds
        plan, shape = self.star, chain.shape
        drawn = HeldOutTest("", n=plan.problems, completions=plan.completions)
        drawn = replace(drawn, max_new_tokens=plan.limit)
        examples = int(STAR_RIGHT * plan.problems * plan.completions)
        one = test_seconds(drawn, shape, card, chain.length)
        one += tuning_seconds(examples, plan.epochs, chain.length, shape, card)
        tests = sum(test_seconds(test, shape, card, chain.length) for test in chain.tests)
        return seconds + plan.rounds * one + (plan.rounds - 1) * tests

    def claims(self, outcomes: Outcomes) -> list[Claim]:
        ratio, of_ratio = ratio_of_bases(outcomes)
        star = outcomes.gap_of_tests("searches-star", "test", "test, before")
        against = outcomes.gap(("searches-rl",), ("searches-star",), "test")
        held = outcomes.gap_of_problems("searches-rl", "test", "held-out targets")
        errors, of_errors = ratio_of_errors(outcomes)
        unsolved = outcomes.gap_of_tests("searches-rl", "unsolved", "unsolved, before")
        difficult = outcomes.gap_of_tests("searches-rl", "difficult", "difficult, before")
        return [
            Claim(8, "searches over solutions, before RL", ".513 over .257", ratio, of_ratio, 1.7),
            Claim(9, "STaR, three rounds: gain", "+.05", *star, 0.03),
            Claim(10, "RL less STaR", "APA +.06, Kempner 3M +.265", *against, 0.0),
            Claim(
                10, "wrong lines after RL over before", "2.25 -> .67", errors, of_errors, most=0.5
            ),
            Claim(11, "test less held-out targets", ".565 less .542", *held, most=0.04),
            Claim(12, "unsolved puzzles: gain by RL", ".293 -> .359", *unsolved, 0.0),
            Claim(12, "difficult puzzles: gain by RL", ".0135 -> .0265", *difficult, 0.0),
        ]

    def tables(self, outcomes: Outcomes) -> list[StudyTable]:
        before = rates_table(outcomes, "Before RL or STaR", [f"{test}, before" for test in TESTS])
        return [before, rates_table(outcomes, "After", TESTS), errors_table(outcomes)]

    def figures(self, outcomes: Outcomes) -> list[Figure]:
        return learning_curves(outcomes, ("solutions-rl", "searches-rl"))


def ratio_of_bases(outcomes: Outcomes) -> tuple[Measured | None, int]:
    """(the rate of the base of searches over that of solutions, seeds)."""
    conditions = ("searches-rl", "solutions-rl")
    seeds = outcomes.seeds_of(*conditions)
    if not seeds:
        return None, 0
    sides = [outcomes.rates(condition, "test, before", seeds) for condition in conditions]
    return ratio_over_seeds(*sides), len(seeds)


def errors_per_line(test: Result) -> float | None:
    """Wrong lines over all lines of a test."""
    lines, wrong = (behaviour(test, name) for name in ("lines", "line_errors"))
    return wrong / lines if lines and wrong is not None else None


def ratio_of_errors(outcomes: Outcomes) -> tuple[Measured | None, int]:
    """Wrong lines of a completion after RL over those before, with an interval over seeds; None
    where a seed had none before."""
    results, ratios = outcomes.results("searches-rl"), []
    for result in results:
        before, after = (
            behaviour(test_of(result, t), "line_errors") for t in ("test, before", "test")
        )
        if not before or after is None:
            return None, len(results)
        ratios.append(after / before)
    return (mean_of_seeds(ratios) if ratios else None), len(results)


KINDS_OF_ERRORS = {
    "line_errors": "wrong arithmetic",
    "illegal": "numbers that are on no table",
    "repeats": "attempts made before",
}


def errors_table(outcomes: Outcomes) -> StudyTable:
    """Kinds of errors of a completion, before and after."""
    rows = []
    for condition in outcomes.conditions:
        kinds = [
            change_text(outcomes, condition, partial(behaviour, name=name), 3, ENDS)
            for name in KINDS_OF_ERRORS
        ]
        rows.append((condition, *kinds, change_text(outcomes, condition, errors_per_line, 4, ENDS)))
    header = ("condition", *KINDS_OF_ERRORS.values(), "wrong lines over all lines")
    note = "Of a completion in the test, counted by the exact detector; before -> after."
    return StudyTable("Errors", header, rows, note)
