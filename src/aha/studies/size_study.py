"""The study `size`: can task and model shrink together, and where is the threshold?

Models of 0.1 to 2.3 million parameters, made here, and puzzles of 2 to 5 numbers. Two ways to be
fair, both shown: all models read the same number of tokens for each parameter, or all train for the
same minutes. RL mixes the four sizes of puzzles; each is tested by itself, before and after. The
seeds share the base of a size, which is most of the time: they are seeds of RL.
Source: TinyZero (Pan et al. 2025), whose models of 0.5 billion guess and of 1.5 and more search.
"""

from dataclasses import replace
from math import log10

from aha.corpus.bases import TraceMix
from aha.studies.judgement import of_difference
from aha.studies.study_page import StudyTable
from aha.studies.training_cells import Chain, Scale
from aha.studies.training_results import (
    Outcomes,
    learning_curves,
    measured_line,
    rate_text,
)
from aha.studies.training_stages import HeldOutTest
from aha.studies.training_study import Claim, TrainingStudy
from aha.web.svg_curves import Figure

NUMBERS = (2, 3, 4, 5)
# Searches by chance: those in order are documents of hundreds of tokens, of which a small model
# reads too few. Pages of arithmetic, which is what the smallest models lack, are more frequent.
CORPUS = replace(TraceMix(), numbers=NUMBERS, drill=0.6, orderly=0.0)
# Width, width of the MLP, layers, and the parameters that this makes.
SIZES = {
    "0.1M": ((64, 160, 2), 99_360),
    "0.3M": ((128, 256, 2), 321_408),
    "0.8M": ((128, 384, 4), 814_592),
    "2.3M": ((192, 576, 5), 2_253_888),
}
MIDDLE = "0.8M"  # reads the same in both ways
PER_PARAMETER = 8  # tokens
# Tokens that each size reads in the minutes in which MIDDLE reads PER_PARAMETER of its own: by the
# plan of two cores.
AT_EQUAL_MINUTES = {"0.1M": 29_400_000, "0.3M": 13_900_000, "2.3M": 2_530_000}
FULL = Scale(tokens=0, steps=48, limit=320, every=12, final=0)
QUICK = Scale(0, steps=2, prompts=4, group_size=4, limit=64, every=0, final=0)
QUICK_TOKENS = {"tokens": 30_000, "minutes": 40_000}
BASE_SEED = 0  # of the bases, which all seeds of the study share
GAIN = 0.1  # by RL, from which on a model has learnt a size of puzzles
LENGTH = 100.0


class SizeStudy(TrainingStudy):
    """Implements `Study`."""

    name = "size"
    title = "Size: can task and model shrink together?"
    claim = (
        "TinyZero: with a smaller task a smaller model finds out how to search, from some size on. "
        "Four models and four sizes of puzzles; the threshold of a puzzle is the smallest model "
        "that gains at least a tenth of the problems by RL."
    )
    varies = ("base",)

    @property
    def scale(self) -> Scale:
        return QUICK if self.quick else FULL

    @property
    def conditions(self) -> tuple[str, ...]:
        ways = {"tokens": [*SIZES], "minutes": [*AT_EQUAL_MINUTES]}
        return tuple(f"{size}-{way}" for way, sizes in ways.items() for size in reversed(sizes))

    def chain(self, condition: str, seed: int) -> Chain:
        size, way = condition.split("-")
        (hidden, mlp, layers), parameters = SIZES[size]
        tokens = PER_PARAMETER * parameters if way == "tokens" else AT_EQUAL_MINUTES[size]
        shape: dict[str, int | None] = {"hidden_size": hidden, "intermediate_size": mlp}
        shape["num_hidden_layers"] = layers
        read = QUICK_TOKENS[way] if self.quick else tokens
        base = self.scale.base(f"base-{condition}", BASE_SEED, CORPUS, shape, read)
        numbers = {"task.numbers": NUMBERS}
        n, limit = (12 if self.quick else 400), self.scale.limit
        tests = tuple(
            HeldOutTest(f"{k} numbers", settings={"numbers": (k,)}, n=n, max_new_tokens=limit)
            for k in NUMBERS
        )
        return Chain(base, None, self.scale.recipe(seed, numbers), tests, True, LENGTH)

    def about(self) -> list[str]:
        return [
            f"tokens: {PER_PARAMETER} tokens read for each parameter; minutes: as many as {MIDDLE} "
            "reads so, by the plan of two cores",
            "the seeds are those of RL: a size has one base for each way of being fair, and the "
            "luck of a base is in no interval",
        ]

    def claims(self, outcomes: Outcomes) -> list[Claim]:
        claims = []
        for k in NUMBERS[1:]:
            test = f"{k} numbers"
            gap = outcomes.gap(("2.3M-tokens",), ("0.1M-tokens",), test)
            text = f"{k} numbers: 2.3 M less 0.1 M parameters, after RL"
            claims.append(Claim("TinyZero", text, "0.5B guesses, 1.5B searches", *gap, 0.1))
        return claims

    def tables(self, outcomes: Outcomes) -> list[StudyTable]:
        return [
            map_table(outcomes, "tokens", "equal tokens for each parameter"),
            map_table(outcomes, "minutes", "equal minutes"),
        ]

    def figures(self, outcomes: Outcomes) -> list[Figure]:
        return [
            size_figure(outcomes, "tokens", "Solve rate by size, equal tokens a parameter"),
            size_figure(outcomes, "minutes", "Solve rate by size, equal minutes"),
            *learning_curves(outcomes),
        ]


def condition_of(size: str, way: str) -> str:
    """The name of a cell; the middle size is the same in both ways."""
    return f"{size}-tokens" if size == MIDDLE else f"{size}-{way}"


def map_table(outcomes: Outcomes, way: str, words: str) -> StudyTable:
    """Before -> after for every size of model and of puzzle, and the threshold below."""
    rows = []
    for size in SIZES:
        own, cells = condition_of(size, way), []
        for k in NUMBERS:
            ends = [outcomes.rate(own, test) for test in (f"{k} numbers, before", f"{k} numbers")]
            before = "-" if ends[0] is None else f"{ends[0].value:.3f}"
            cells.append(f"{before} -> {rate_text(ends[1])}")
        rows.append((size, str(len(outcomes.seeds_of(own))), *cells))
    thresholds = [threshold(outcomes, way, k) for k in NUMBERS]
    rows.append(("threshold", "", *thresholds))
    header = ("parameters", "seeds", *(f"{k} numbers" for k in NUMBERS))
    note = (
        f"Threshold: the smallest model that gains at least {GAIN:g} by RL, with an interval that "
        "leaves out 0, three seeds."
    )
    return StudyTable(f"The map, {words}: before -> after RL", header, rows, note)


def threshold(outcomes: Outcomes, way: str, k: int) -> str:
    """The smallest size that learns puzzles of k numbers; "none", or - where not all are done."""
    for size in SIZES:
        test = f"{k} numbers"
        gain, seeds = outcomes.gap_of_tests(condition_of(size, way), test, f"{test}, before")
        if gain is None or seeds < 3:
            return "-"
        if gain.value >= GAIN and of_difference(gain.interval) == "above":
            return size
    return "none"


def size_figure(outcomes: Outcomes, way: str, title: str) -> Figure:
    """The rate after RL by parameters, a line for each size of puzzle."""
    lines = []
    for k in NUMBERS:
        rates = [outcomes.rate(condition_of(size, way), f"{k} numbers") for size in SIZES]
        places = [log10(one[1] / 1e6) for one in SIZES.values()]
        lines.append(measured_line(f"{k} numbers", places, rates))
    return Figure(
        title,
        lines,
        rate=True,
        note="by million parameters, on a log scale; with 95 % intervals",
        names={log10(one[1] / 1e6): size for size, one in SIZES.items()},
    )
