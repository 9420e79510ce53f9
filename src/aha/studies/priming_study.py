"""The study `priming`: do behaviours, and not right answers, decide what RL can improve?

One base that has read no search (guesses and arithmetic alone) is fine-tuned on examples of one
kind and then trained by the same RL. Source: Gandhi et al., arXiv 2503.01307.
"""

from aha.corpus.bases import GUESSES
from aha.studies.example_kinds import CONTROLS, KINDS
from aha.studies.judgement import Measured, mean_of_seeds
from aha.studies.study_bases import guesser
from aha.studies.study_page import StudyTable
from aha.studies.training_cells import Chain, Primer, Scale
from aha.studies.training_results import (
    Outcomes,
    behaviour,
    behaviours_table,
    learning_curves,
    rate_text,
    rates_table,
)
from aha.studies.training_study import Claim, TrainingStudy
from aha.web.svg_curves import Figure

FULL = Scale(tokens=0, steps=80)
QUICK = Scale(200_000, steps=3, prompts=4, group_size=4, every=2, problems=8, final=24)
EXAMPLES, QUICK_EXAMPLES = 6_000, 64
EPOCHS = 2
PRIMED = tuple(kind for kind in KINDS if kind not in CONTROLS and kind != "wrong-only")
# Mean tokens of a completion over a run, for the plan: searches with verdicts grow.
CHECKED = ("all", "backtracking-verification", "wrong-only")
LENGTHS = {"empty": 12.0, "nothing": 16.0, "dots": 60.0} | dict.fromkeys(CHECKED, 115.0)
PRIMED_LENGTH = 50.0


class PrimingStudy(TrainingStudy):
    """Implements `Study`."""

    name = "priming"
    title = "Priming: which examples before RL let a model improve?"
    claim = (
        "A base without the behaviours learns from examples of one kind, then by the same RL. If "
        "behaviours decide, all kinds that go back end high, wrong answers do as well as right "
        "ones, and the controls stay low."
    )
    varies = ("primer",)

    @property
    def scale(self) -> Scale:
        return QUICK if self.quick else FULL

    @property
    def conditions(self) -> tuple[str, ...]:
        return ("nothing", *KINDS)  # both ends of the comparison first

    def chain(self, condition: str, seed: int) -> Chain:
        scale = self.scale
        primer = None
        if condition != "nothing":
            primer = Primer(condition, QUICK_EXAMPLES if self.quick else EXAMPLES, EPOCHS)
        return Chain(
            scale.base(f"base-seed{seed}", seed, GUESSES) if self.quick else guesser(),
            primer,
            scale.recipe(seed),
            length=LENGTHS.get(condition, PRIMED_LENGTH),
        )

    def about(self) -> list[str]:
        return [
            "the controls are empty thoughts, dots, and no examples; rows 2 to 4 have the "
            "published gaps of Llama-3.2-3B and of Qwen2.5-3B"
        ]

    def claims(self, outcomes: Outcomes) -> list[Claim]:
        against = outcomes.gap(("backtracking",), CONTROLS)
        primed = outcomes.gap(PRIMED, CONTROLS)
        wrong = outcomes.gap(("wrong-only",), ("all",))
        dots = outcomes.gap(("dots",), ("empty",))
        empty = outcomes.gap(("empty",), ("nothing",))
        claims = [
            Claim(2, "backtracking less the mean of the controls", "+.39, +.31", *against, 0.15),
            Claim(2, "mean of the kinds that go back, less it", "+.37, +.31", *primed, 0.15),
            Claim(3, "empty thoughts less nothing", "+.08, -.13", *empty, most=0.1),
            Claim(3, "dots less empty thoughts", "-.05, -.07", *dots, most=0.0),
            Claim(4, "wrong answers only less all four", "+.02, -.02", *wrong, -0.03, 0.03),
        ]
        for name, words, published, least, most in AMPLIFIED:
            ours, seeds = amplification(outcomes, name)
            text = f"{words} after RL over before, all four"
            claims.append(Claim(5, text, published, ours, seeds, least, most))
        return claims

    def tables(self, outcomes: Outcomes) -> list[StudyTable]:
        return [
            rates_table(outcomes, "Solve rate of the same problems", ("before", "after")),
            gaps_table(outcomes),
            behaviours_table(outcomes),
        ]

    def figures(self, outcomes: Outcomes) -> list[Figure]:
        return learning_curves(outcomes)


def gaps_table(outcomes: Outcomes) -> StudyTable:
    """Each kind of examples less the mean of the controls: which kinds make the difference?"""
    kinds = [kind for kind in outcomes.conditions if kind not in CONTROLS]
    rows = [
        (kind, *(rate_text(outcomes.gap((kind,), CONTROLS, t)[0]) for t in ("before", "after")))
        for kind in kinds
    ]
    note = "Differences over the same seeds and problems, with 95 % intervals."
    return StudyTable(
        "Less the mean of the three controls", ("examples", "before RL", "after RL"), rows, note
    )


# Row 5: the count of a behaviour after RL over that before it.
AMPLIFIED = (
    ("checks", "checks", "1.7 -> 3.8", 1.5, float("inf")),
    ("backtracks", "going back", "2.6 -> 4.6", 1.5, float("inf")),
    ("subgoals", "subgoals", "3.4 -> .1", -float("inf"), 0.2),
    ("backward_chains", "backward chaining", "1.6 -> .04", -float("inf"), 0.2),
)


def amplification(outcomes: Outcomes, name: str) -> tuple[Measured | None, int]:
    """The ratio of a behaviour's count after RL to that before, with an interval over seeds; None
    where a seed had none before."""
    results, ratios = outcomes.results("all"), []
    for result in results:
        before, after = (behaviour(result[when], name) for when in ("before", "after"))
        if not before or after is None:
            return None, len(results)
        ratios.append(after / before)
    return (mean_of_seeds(ratios) if ratios else None), len(results)
