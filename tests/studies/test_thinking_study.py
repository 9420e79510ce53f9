"""The study `thinking` on a small random model: cells, results, page, stops, wrong settings."""

import json
from pathlib import Path

import pytest

from aha.core.errors import ConfigError
from aha.model.lora import add_lora, save_adapter
from aha.model.weights import load_model
from aha.studies.study_frame import StudyFolder
from aha.studies.thinking_cells import (
    SEARCHES,
    Subject,
    ThinkingGrid,
    cells_of,
    default_budgets,
    seconds_of,
    subjects_of,
)
from aha.studies.thinking_study import ThinkingStudy, powers_of_two

from ..tiny import answering_folder
from .test_study_frame import MACHINE

BUDGETS, WAITS = (0, 4, 8), (1,)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return str(answering_folder(tmp_path_factory.mktemp("models") / "tiny"))


def grid_of(model: str, seeds=(0, 1, 2), **changes) -> ThinkingGrid:
    settings = {
        "subjects": (Subject("tiny", (model,)),),
        "seeds": seeds,
        "problems": 6,
        "budgets": BUDGETS,
        "waits": WAITS,
        "completions": 2,
        "max_new_tokens": 40,
        "task_settings": {"numbers": (3,)},
    }
    return ThinkingGrid(**(settings | changes))


@pytest.fixture(scope="module")
def out(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    StudyFolder(ThinkingStudy(grid_of(model)), folder).run_cells(MACHINE, lambda line: None)
    return folder


@pytest.fixture(scope="module")
def report(out) -> dict:
    return json.loads((out / "study.json").read_text())


def test_every_budget_is_kept(report):
    """Control is 100 %, whatever the model."""
    assert report["failed"] == {} and len(report["done"]) == 3 * 5 + len(SEARCHES)
    tiny = report["results"]["tiny"]
    assert tiny["seeds"] == 3
    assert tiny["metrics"]["maximum"]["control"] == 1.0
    points = tiny["points"]["maximum"]
    assert [point["label"] for point in points] == ["at most 0", "at most 4", "at most 8"]
    for point, most in zip(points, BUDGETS, strict=True):
        assert point["control"] == 1.0 and point["thinking_tokens"] <= most
        assert len(point["rates"]) == 3
    assert points[0]["closed_by_budget"] == 1.0


def test_parallel_thoughts_have_their_tokens_added_up(report):
    points = report["results"]["tiny"]["points"]
    one, two = points["vote"]
    assert two["thinking_tokens"] == pytest.approx(2 * one["thinking_tokens"])
    assert [point["label"] for point in points["vote of short ones"]] == [
        "vote, 2 of at most 4",
        "vote, 2 of at most 0",
    ]


def test_the_searches_stand_at_the_tokens_of_the_budgets(report):
    searches = report["results"]["tiny"]["searches"]
    assert searches.keys() == {*SEARCHES}
    lengths = [
        point["completion_tokens"] for point in report["results"]["tiny"]["points"]["maximum"]
    ]
    for rows in searches.values():
        assert all(row["mean_tokens"] <= n for row, n in zip(rows, lengths, strict=True))


def test_the_page_shows_it_all(out):
    page = (out / "study.html").read_text()
    assert page.count("<svg") == 3 and page.count("<table") == 4
    for text in ("control, scaling, performance", "at most 8", "1 waits", "blind search"):
        assert text in page
    assert "no verdict" not in page


def test_the_page_has_the_problems_that_there_were_and_not_those_that_were_asked_for(model, out):
    """Countdown with two numbers has 118 test problems, a file perhaps fewer."""
    done = StudyFolder(ThinkingStudy(grid_of(model)), out).done
    asked = ThinkingStudy(grid_of(model, problems=1_000))
    assert "6 problems of the split test" in asked.page(done).about[0]
    assert "1000 problems of the split test" in asked.page({}).about[0]


def test_before_three_seeds_there_is_no_verdict_and_half_a_seed_is_left_out(model, tmp_path):
    study = ThinkingStudy(grid_of(model, problems=3))
    folder = StudyFolder(study, tmp_path)
    first, second = (
        [cell for cell in study.cells if cell.varied["seed"] == seed] for seed in (0, 1)
    )
    done = {cell.name: study.run(cell, tmp_path) for cell in [*first, second[0]]}
    (result,) = study.results(done)
    assert result.seeds == 1
    page = study.page(done)
    assert page.verdicts == [] and page.notes == ["no verdict: fewer than 3 finished seeds: tiny"]
    assert study.page({}).tables == [] and folder.to_do == study.cells


def test_a_longer_budget_goes_on_where_the_shorter_one_was_closed(model, tmp_path):
    """The draws are the same until then, so that budgets are paired."""
    study = ThinkingStudy(grid_of(model, seeds=(0,)))
    kinds = {cell.varied["kind"]: cell for cell in study.cells}
    short, long = (study.run(kinds[f"max-{most}"], tmp_path) for most in (4, 8))
    pairs = list(zip(short["thinking"], long["thinking"], strict=True))
    assert all(a[0] == b[0] if b[0] < 4 else a[0] == 4 for a, b in pairs)


# -- settings ---------------------------------------------------------------------------------


def test_runs_with_commas_are_the_seeds_of_one_method(model, tmp_path):
    other = str(answering_folder(tmp_path / "other"))
    (subject,) = subjects_of([f"{model},{other}"])
    assert subject == Subject("tiny + other", (model, other))
    cells = cells_of(grid_of(model, seeds=(0, 1), subjects=(subject,)))
    assert {cell.varied["seed"]: cell.varied["model"] for cell in cells} == {0: model, 1: other}
    with pytest.raises(ConfigError, match="2 models in tiny . other and 3 seeds.*--seeds 0,1"):
        grid_of(model, subjects=(subject,))


def test_subjects_of_one_name_are_told_apart():
    labels = [subject.label for subject in subjects_of(["a/tiny", "b/tiny", "c/tiny"])]
    assert labels == ["tiny", "tiny #2", "tiny #3"]
    for names in ([], [","], ["a,a"]):
        with pytest.raises(ConfigError):
            subjects_of(names)


def test_budgets_are_closer_together_where_thoughts_are_short():
    assert default_budgets(288, quick=False) == (16, 32, 48, 72, 108, 162, 216, 288)
    assert default_budgets(288, quick=True) == (48, 108, 192, 288)
    assert powers_of_two(16) == [1, 2, 4, 8, 16] and powers_of_two(6) == [1, 2, 4]


def test_as_many_short_thoughts_as_one_long_one_has_tokens(model):
    grid = grid_of(model, budgets=(16, 100, 288), completions=16, max_new_tokens=320)
    assert [grid.group_size(most) for most in grid.budgets] == [16, 2, 1]


def test_a_model_with_an_adapter_takes_as_long_as_its_base(model, tmp_path):
    """A run with LoRA keeps an adapter alone, whose folder has no config.json of a model."""
    loaded = load_model(Path(model))
    add_lora(loaded.policy, 2, 4.0, 7)
    save_adapter(tmp_path / "adapter", loaded.policy, model)
    times = [
        sum(seconds_of(cell, MACHINE.card) for cell in cells_of(grid_of(name)))
        for name in (model, str(tmp_path / "adapter"))
    ]
    assert times[0] == times[1] > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budgets": (8, 4)}, "numbers that increase"),
        ({"budgets": (4,)}, "at least two"),
        ({"budgets": (4, 9)}, "for the answer"),
        ({"waits": (0, 1)}, "1 or more"),
        ({"seeds": (0, 0, 1)}, "each once"),
        ({"seeds": ()}, "each once"),
    ],
)
def test_grids_that_make_no_sense(model, changes, message):
    with pytest.raises(ConfigError, match=message):
        grid_of(model, **changes)
