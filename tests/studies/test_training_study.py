"""A study that trains, in small: cells, plans, a whole run in this process, claims and tables."""

import json

import numpy as np
import pytest

from aha.core.errors import ConfigError
from aha.plan.machines import load_cards
from aha.studies.cell_files import Cell
from aha.studies.judgement import Measured
from aha.studies.lesson_view import LessonView
from aha.studies.search_study import SearchStudy
from aha.studies.study_frame import StudyFolder, check_cells
from aha.studies.training_cells import Chain, Scale
from aha.studies.training_results import Outcomes, behaviours_table, learning_curves, rates_table
from aha.studies.training_stages import HeldOutTest
from aha.studies.training_stages import test_model as draw_test
from aha.studies.training_study import Claim, TrainingStudy

from ..tiny import answering_folder
from .test_study_frame import MACHINE

SMALL = Scale(0, steps=1, prompts=2, group_size=2, limit=12, every=1, problems=2, final=4)


class Rates(TrainingStudy):
    """Two learning rates from one base."""

    name, title, claim = "rates", "Rates", "a higher rate learns more"
    varies = ("recipe.optim.lr",)
    conditions = ("low", "high")

    def __init__(self, seeds, model, **more):
        super().__init__(seeds)
        self.model, self.more = str(model), more

    def chain(self, condition, seed):
        changes = {
            "optim.lr": {"low": 1e-4, "high": 1e-3}[condition],
            **self.more.get(condition, {}),
        }
        test = HeldOutTest("two", settings={"numbers": (2,)}, n=3, max_new_tokens=12)
        return Chain(self.model, None, SMALL.recipe(seed, changes), (test,), True, 6.0)

    def claims(self, outcomes):
        return [Claim(1, "high less low", "1.0", *outcomes.gap(("high",), ("low",)), 0.1)]

    def tables(self, outcomes):
        tests = ("before", "after", "two, before", "two")
        return [rates_table(outcomes, "Rates", tests), behaviours_table(outcomes)]

    def figures(self, outcomes):
        return learning_curves(outcomes)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return answering_folder(tmp_path_factory.mktemp("model") / "tiny")


def test_a_whole_study_in_small_is_judged_and_not_repeated(model, tmp_path):
    folder = StudyFolder(Rates([0], model), tmp_path, "aha study rates")
    assert folder.run_cells(MACHINE, lambda line: None) is None and not folder.failed
    result = folder.done["low-seed0"]
    assert len(result["after"]["right"]) == 4 and result["tests"].keys() == {"two", "two, before"}
    assert result["steps"] == 1 and [row["step"] for row in result["curve"]] == [1]
    content = json.loads((tmp_path / "study.json").read_text())
    (claim,) = content["results"]["claims"]
    assert claim["seeds"] == 1 and claim["verdict"] is None, "one seed gives no verdict"
    assert content["command"] == "aha study rates" and content["cpu_seconds"] > 0
    page = (tmp_path / "study.html").read_text()
    assert "no verdict for rows 1: fewer than 3 seeds" in page
    folded = page.partition("<details>")[2].partition("</details>")[0]
    assert "<h2>Settings</h2>" in folded and "recipe.optim.lr" in folded
    assert page.count("<details>") == 1 and 'class="band' not in page, "one seed has no interval"
    assert (tmp_path / "runs" / "low-seed0-rl" / "summary.json").is_file()
    view = LessonView(folder.study.page(folder.done), page, {"x": "no"})
    assert "high less low" in str(view) and "the cell x failed: no" in str(view)
    assert StudyFolder(Rates([0], model), tmp_path).to_do == []


def test_cells_that_share_a_base_draw_its_test_each_for_themselves(model, tmp_path):
    test = HeldOutTest("three", n=8, completions=2, max_new_tokens=12)
    drawn = [
        draw_test(str(model), test, seed, tmp_path / f"{n}.json")
        for n, seed in enumerate((0, 0, 1))
    ]
    assert drawn[0] == drawn[1] and drawn[0]["mean_tokens"] != drawn[2]["mean_tokens"]
    assert drawn[0]["ways"] == drawn[2]["ways"], "the same problems"
    chain = SearchStudy([5]).chain("searches-star", 5)
    assert chain.recipe is None and chain.seed == 5


def test_cells_that_differ_in_more_than_the_study_varies_are_refused(model, tmp_path):
    with pytest.raises(ConfigError, match="recipe.optim.beta1 0.9 in low-seed0 and 0.5 in high"):
        StudyFolder(Rates([0], model, high={"optim.beta1": 0.5}), tmp_path)
    with pytest.raises(ConfigError, match="each once"):
        Rates([0, 0], model)
    with pytest.raises(ConfigError, match="the cell high-seed0 twice"):
        StudyFolder(Rates([0], model, high={"optim.lr": 1e-4}), tmp_path)


def test_a_need_comes_before_what_needs_it():
    cells = [Cell("b", {"n": 1}, {}, needs=("a",)), Cell("a", {"n": 2}, {})]
    with pytest.raises(ConfigError, match="b needs a"):
        check_cells(cells)


@pytest.mark.parametrize(
    "name", ["priming", "corpus", "size", "search", "sharpen", "data", "task-mix"]
)
def test_every_study_is_a_sound_grid_that_fits_into_three_hours(name, tmp_path):
    from aha.cli.training_studies import study_of

    card = load_cards()[1]["cpu-2-cores"]
    for quick, most in ((False, 3 * 3600 / 1.15), (True, 300)):
        study = study_of(name, None, quick)
        folder = StudyFolder(study, tmp_path / name)
        seconds = folder.planned_seconds(study.cells, MACHINE)
        assert 0 < seconds < most and study.name == name
        assert all(study.seconds_of(cell, card) > 0 for cell in study.cells)
        page = study.page({})
        assert page.results["claims"] and all(
            claim["ours"] is None for claim in page.results["claims"]
        )
    assert len(study_of(name, "0,1,2", False).seeds) == 3


def result(*right: int) -> dict:
    """A cell's result with these test problems right after training, and none before."""
    test = {"completions": 1, "mean_tokens": 5.0, "truncated": 0.0, "behaviors": {"checks": 2.0}}
    return {
        "before": test | {"right": [0] * len(right)},
        "after": test | {"right": list(right)},
        "tests": {},
        "curve": [{"step": 1, "solve_rate": 0.5, "mean_tokens": 5.0, "behaviors": {}}],
    }


def test_curves_have_the_interval_over_seeds_where_few_stand_in_a_figure():
    def at(rate: float) -> dict:
        row = {"step": 1, "solve_rate": rate, "mean_tokens": 5.0, "behaviors": {}}
        return result(1) | {"curve": [row, row | {"step": 2}]}

    names = ("a", "b", "c", "d", "e")
    done = {f"{c}-seed{s}": at(r) for c in names for s, r in enumerate((0.9, 1.0))}
    outcomes = Outcomes(names, [0, 1], done)
    rates, tokens = learning_curves(outcomes, names[:4])
    (first, _) = rates.lines[0].intervals
    # Student's t of two: .95 +- 12.706 * .0707 / sqrt(2), and no rate lies outside of 0 and 1.
    assert first == (pytest.approx(0.95 - 12.706 * 0.05), 1.0)
    assert tokens.lines[0].intervals == [(5.0, 5.0)] * 2 and "intervals" in rates.note
    every, _ = learning_curves(outcomes)
    assert all(not line.intervals for line in every.lines) and "intervals" not in every.note
    of_one, _ = learning_curves(Outcomes(names, [0], done), names[:4])
    assert "intervals" not in of_one.note, "one seed has none"


def test_gaps_are_over_the_seeds_that_both_have():
    done = {f"a-seed{s}": result(1, 1, 0, 1) for s in (0, 1, 2)}
    done |= {f"b-seed{s}": result(0, 1, 0, 0) for s in (0, 1)}
    outcomes = Outcomes(("a", "b"), (0, 1, 2), done)
    gap, seeds = outcomes.gap(("a",), ("b",))
    assert gap.value == pytest.approx(0.5) and seeds == 2
    alike, _ = outcomes.gap(("a",), ("a",))
    assert alike.value == 0 and alike.interval[0] < 0 < alike.interval[1]
    assert outcomes.rate("a").interval[1] < 1, "problems by Wilson, as in the lab"
    assert outcomes.gap_of_tests("a", "after", "before")[0].value == pytest.approx(0.75)
    assert outcomes.summary_of("b")["seeds"] == [0, 1]
    assert Outcomes(("c",), (0,), {}).rate("c") is None
    assert np.isclose(outcomes.over_results("a", lambda r: r["after"]["mean_tokens"]), 5.0)


def test_a_claim_has_a_verdict_with_three_seeds_alone():
    claim = Claim(2, "x", "y", Measured(0.3, (0.2, 0.4)), 3, 0.15)
    assert claim.verdict == "reproduced" and claim.range_text == "at least 0.15"
    assert Claim(2, "x", "y", Measured(0.3, (0.2, 0.4)), 2, 0.15).verdict is None
    assert Claim(2, "x", "y", None, 3, 0.15).verdict is None
    assert Claim(2, "x", "y", Measured(0.0, (-0.1, 0.1)), 3, 0.15).verdict == "not reproduced"
    assert Claim(2, "x", "y", Measured(0.1, (0.0, 0.2)), 3, -0.03, 0.03).verdict == "no evidence"
