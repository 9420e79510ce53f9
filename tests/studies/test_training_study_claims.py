"""The claims of the studies: what was published lies in the range that reproduces it, and what does
not change reproduces nothing."""

import re
from pathlib import Path

import pytest

from aha.cli.training_studies import STUDIES, study_of
from aha.studies.size_study import AT_EQUAL_MINUTES
from aha.studies.study_bases import base_seconds
from aha.studies.training_results import Outcomes

from .test_study_frame import MACHINE

ROOT = Path(__file__).resolve().parents[2]
SEEDS = (0, 1, 2)
OF = 1_000  # completions of a problem: with the same rate for each, rates have no width


def answered(rate: float, **behaviours: float) -> dict:
    """A test in which every problem has this rate."""
    numbers = {"completions": OF, "behaviors": behaviours, "mean_tokens": 9.0, "truncated": 0.0}
    return {"right": [round(OF * rate)] * 5, **numbers}


def trained(before: dict, after: dict, checks: tuple[float, ...] = ()) -> dict:
    """A cell's result with RL; `checks` by validation."""
    curve = [{"step": n, "behaviors": {"checks": count}} for n, count in enumerate(checks)]
    return {"before": before, "after": after, "tests": {}, "curve": curve}


def in_tests(**rates: dict) -> dict:
    """A cell's result with tests by name, `_` for a space, `__` for a comma and a space."""
    names = {name.replace("__", ", ").replace("_", " "): test for name, test in rates.items()}
    return {"tests": names, "curve": []}


def passes(share: float, right: int) -> dict:
    """A test with 64 completions, of which so many are right in this share of the problems."""
    solved = round(400 * share)
    return {"right": [right] * solved + [0] * (400 - solved), "completions": 64}


# By study: the published numbers, as results of cells (Llama; Stream of Search; Kempner; Sky-T1).
PRIMED = {
    "nothing": 0.334,
    "all": 0.715,
    "backtracking": 0.761,
    "backtracking-verification": 0.763,
    "backtracking-backward": 0.769,
    "backtracking-subgoal": 0.707,
    "wrong-only": 0.735,
    "empty": 0.415,
    "dots": 0.362,
}
COUNTS = (
    {"checks": 1.67, "backtracks": 2.6, "subgoals": 3.4, "backward_chains": 1.6},
    {"checks": 3.8, "backtracks": 4.6, "subgoals": 0.1, "backward_chains": 0.04},
)
SOLVER_TESTS = {
    "unsolved__before": answered(0.293),
    "unsolved": answered(0.359),
    "difficult__before": answered(0.0135),
    "difficult": answered(0.0265),
}
PUBLISHED = {
    "priming": {
        name: trained(answered(0.0, **COUNTS[0]), answered(rate, **COUNTS[1]))
        for name, rate in PRIMED.items()
    },
    "corpus": {
        "0-percent": trained(answered(0.33), answered(0.367)),
        "1-percent": trained(answered(0.33), answered(0.4)),
        "5-percent": trained(answered(0.33), answered(0.493)),
        "20-percent": trained(answered(0.006, checks=0.62), answered(0.57), (2.0, 11.6, 0.27)),
    },
    "search": {
        "solutions-rl": in_tests(test__before=answered(0.257), test=answered(0.3)),
        "searches-rl": in_tests(
            test__before=answered(0.513, line_errors=2.25),
            test=answered(0.573, line_errors=0.67),
            **{"held-out_targets": answered(0.55)},
            **SOLVER_TESTS,
        ),
        "searches-star": in_tests(test__before=answered(0.513), test=answered(0.563)),
    },
    "sharpen": {
        "direct": in_tests(problems__before=passes(0.7, 8), problems=passes(0.45, 47)),
        "search": in_tests(problems__before=passes(0.9, 30), problems=passes(0.85, 60)),
    },
    "task-mix": {
        "countdown": in_tests(
            countdown=answered(0.433), multiply=answered(0.1), multiply__before=answered(0.1)
        ),
        "both-doubled": in_tests(countdown=answered(0.367), multiply=answered(0.1)),
    },
}


def claims_of(name: str, cells: dict) -> list:
    """The claims of a study in which all seeds have these results."""
    study = study_of(name, "0,1,2", False)
    done = {f"{c}-seed{seed}": result for c, result in cells.items() for seed in SEEDS}
    return study.claims(Outcomes(study.conditions, SEEDS, done))


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_numbers_reproduce_the_claims(name):
    claims = {claim.text: claim for claim in claims_of(name, PUBLISHED[name])}
    numbered = [claim for claim in claims.values() if isinstance(claim.row, int)]
    assert numbered, name
    for claim in numbered:
        assert claim.seeds == 3 and claim.verdict == "reproduced", (claim, claim.ours)


@pytest.mark.parametrize("name", STUDIES)
def test_the_page_of_studies_has_the_row_and_the_published_numbers_of_every_claim(name):
    """Differences are computed from the page's numbers, and stand in the study alone."""
    page = (ROOT / "docs/studies.md").read_text(encoding="utf-8")
    study = study_of(name, "0", True)
    faults = []
    for claim in study.claims(Outcomes(study.conditions, study.seeds, {})):
        if not isinstance(claim.row, int):
            continue
        (row,) = re.findall(rf"^\| {claim.row} \|.*", page, re.MULTILINE)
        numbers = re.findall(r"(?<![\d.+-])\d*\.?\d+\b(?!M)", claim.published)
        named = re.findall(r"\d*\.?\d+", row.split("|", 2)[2])
        faults += [f"row {claim.row}: {one}" for one in numbers if one not in named]
        faults += [] if f"`{name}`" in row else [f"row {claim.row}: not `{name}`"]
    assert faults == []


def test_pass_at_k_that_nothing_changes_reproduces_neither_a_rise_nor_a_fall():
    """Where all problems are solved before and after, nothing was seen to differ."""
    same = in_tests(problems__before=passes(1.0, 60), problems=passes(1.0, 60))
    for claim in claims_of("sharpen", {"direct": same, "search": same}):
        assert claim.verdict in ("no evidence", "not reproduced"), claim
    two_thirds = passes(0.9, 30)
    direct = in_tests(problems__before=two_thirds, problems=passes(0.9, 45))
    more, *_ = claims_of("sharpen", {"direct": direct, "search": same})
    assert more.ours.value == pytest.approx(1.5) and more.verdict == "not reproduced"


def test_checks_that_only_fall_have_not_risen_first():
    falling = trained(answered(0.3, checks=8.0), answered(0.6), (7.0, 4.0, 1.0))
    rise, fall = (c for c in claims_of("corpus", {"20-percent": falling}) if c.row == 7)
    assert rise.verdict == "not reproduced" and fall.verdict == "reproduced"


def test_a_ratio_to_nothing_is_no_value_and_not_too_few_seeds():
    cells = PUBLISHED["priming"] | {"all": trained(answered(0.1, checks=0.0), answered(0.7))}
    study = study_of("priming", "0,1,2", False)
    page = study.page({f"{c}-seed{seed}": cell for c, cell in cells.items() for seed in SEEDS})
    assert page.notes == ["no value for rows 5: too few completions, or a ratio to a count of 0"]
    claims = next(table for table in page.tables if table.title == "Claims")
    assert [row[3] for row in claims.rows if row[0] == "5"] == ["no value"] * 4
    settings = next(table for table in page.tables if table.title == "Settings")
    assert "recipe.model.path" not in {row[0] for row in settings.rows}, "it is the base's"


def test_the_page_of_priming_shows_which_kinds_make_the_difference():
    study, cells = study_of("priming", "0,1,2", False), PUBLISHED["priming"]
    page = study.page({f"{c}-seed{seed}": cell for c, cell in cells.items() for seed in SEEDS})
    (table,) = (table for table in page.tables if table.title.startswith("Less the mean"))
    after = {kind: cell for kind, _, cell in table.rows}
    assert after["backtracking"].startswith("0.391 [") and after["all"].startswith("0.345 [")
    assert not {"nothing", "empty", "dots"} & after.keys() and len(after) == 6


def test_a_ratio_of_one_seed_is_shown_without_an_interval():
    """As in a lesson: nothing was measured that tells how far another seed would be from it."""
    study = study_of("priming", "0", False)
    page = study.page({"all-seed0": PUBLISHED["priming"]["all"]})
    claims = next(table for table in page.tables if table.title == "Claims")
    shown = [row[3] for row in claims.rows if row[0] == "5"]
    assert shown[0] == "2.275, no interval" and len(shown) == 4


def test_equal_minutes_are_those_of_the_plan():
    cells = {c.name: c for c in study_of("size", "0", False).cells if c.kind == "base"}
    study = study_of("size", "0", False)
    middle = base_seconds(study.chains["base-0.8M-tokens"].base, MACHINE.card)
    for size in AT_EQUAL_MINUTES:
        seconds = study.seconds_of(cells[f"base-{size}-minutes"], MACHINE.card)
        assert seconds == pytest.approx(middle, rel=0.05), size
