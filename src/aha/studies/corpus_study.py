"""The study `corpus`: how much of a behaviour must a base have read for RL to improve it?

One base that has read no search goes on with corpora that differ in one dial, the share of puzzles
that are searched; then the same RL. Source: Gandhi et al., arXiv 2503.01307: continued pre-training
on behaviour-rich and behaviour-free text.
"""

from dataclasses import replace

from aha.corpus.bases import GUESSES
from aha.studies.example_kinds import ALL_FOUR
from aha.studies.judgement import Measured, mean_of_seeds
from aha.studies.priming_study import QUICK
from aha.studies.study_page import StudyTable
from aha.studies.training_cells import Chain, Scale
from aha.studies.training_results import (
    Outcomes,
    behaviours_table,
    learning_curves,
    measured_line,
    rates_table,
)
from aha.studies.training_study import Claim, TrainingStudy
from aha.web.svg_curves import Figure

RATES = {"0 %": 0.0, "1 %": 0.01, "5 %": 0.05, "20 %": 0.2}
FULL = Scale(tokens=4_000_000, steps=80)
# Every dial but `search` is the same in all bases: without a search they change nothing.
SEARCHED = replace(ALL_FOUR, numbers=(3,), drill=1.0, gold_guess=GUESSES.gold_guess, orderly=0.0)
LENGTHS = {"0 %": 16.0, "1 %": 30.0, "5 %": 60.0, "20 %": 70.0}


class CorpusStudy(TrainingStudy):
    """Implements `Study`."""

    name = "corpus"
    title = "Corpus: how much of the behaviours must a base have read?"
    claim = (
        "A base without searches reads on, in a corpus that searches in 0, 1, 5 or 20 % of its "
        "puzzles; then the same RL. If the "
        "pre-training decides, the result rises with the rate, and the base without any stays flat."
    )
    varies = ("base.pretraining.mix.search",)

    @property
    def scale(self) -> Scale:
        return QUICK if self.quick else FULL

    @property
    def conditions(self) -> tuple[str, ...]:
        return tuple(name.replace(" %", "-percent") for name in RATES)

    def chain(self, condition: str, seed: int) -> Chain:
        scale, name = self.scale, condition.replace("-percent", " %")
        mix = replace(SEARCHED, search=RATES[name])
        base = scale.base_after_guesses(f"base-{condition}-seed{seed}", seed, mix, self.quick)
        return Chain(base, recipe=scale.recipe(seed), length=LENGTHS[name])

    def claims(self, outcomes: Outcomes) -> list[Claim]:
        rich = outcomes.gap(("20-percent",), ("0-percent",))
        few = outcomes.gap(("5-percent",), ("0-percent",))
        flat, seeds = outcomes.gap_of_tests("0-percent", "after", "before")
        rise, fall, checked = rise_and_fall(outcomes, "20-percent", "checks")
        return [
            Claim(1, "20 % less 0 %", ".53-.61 less .33", *rich, 0.1),
            Claim(6, "5 % less 0 %", ".493 less .367", *few, 0.1),
            Claim(6, "0 %: gain by RL", "flat", flat, seeds, most=0.1),
            Claim(7, "20 %: most checks over those before", "11.6 of .62", rise, checked, 1.5),
            Claim(7, "20 %: checks at the end over most", ".27 of 11.6", fall, checked, most=0.5),
        ]

    def tables(self, outcomes: Outcomes) -> list[StudyTable]:
        return [
            rates_table(outcomes, "Solve rate of the same problems", ("before", "after")),
            behaviours_table(outcomes),
        ]

    def figures(self, outcomes: Outcomes) -> list[Figure]:
        return [*learning_curves(outcomes), dial_figure(outcomes)]


def dial_figure(outcomes: Outcomes) -> Figure:
    """The solve rate after RL against the rate in the corpus."""
    lines = []
    for test in ("before", "after"):
        rates = [outcomes.rate(condition, test) for condition in outcomes.conditions]
        places = [100 * rate for rate in RATES.values()]
        lines.append(measured_line(f"{test} RL", places, rates))
    note = "test problems, with 95 % intervals"
    return Figure("Solve rate by per cent of searches", lines, rate=True, note=note)


def rise_and_fall(
    outcomes: Outcomes, condition: str, behaviour: str
) -> tuple[Measured | None, Measured | None, int]:
    """(the most of a behaviour in a validation over that before RL, that in the last validation
    over the most, seeds); None where a seed had none, or has no validation."""
    results, rises, falls = outcomes.results(condition), [], []
    for result in results:
        before = result["before"]["behaviors"].get(behaviour)
        counts = [row["behaviors"].get(behaviour) for row in result["curve"]]
        if not before or not counts or None in counts or not max(counts):
            return None, None, len(results)
        rises.append(max(counts) / before)
        falls.append(counts[-1] / max(counts))
    if not results:
        return None, None, 0
    return mean_of_seeds(rises), mean_of_seeds(falls), len(results)
