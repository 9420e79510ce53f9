"""Several seeds as one curve: which runs belong together, and what is drawn of them."""

import pytest

from aha.web.curves import Curves
from aha.web.runs import RunFolder
from aha.web.seed_bands import band_of, seed_groups

from .conftest import metrics, write_rows


def curves_of(folder, rows) -> Curves:
    folder.mkdir()
    write_rows(folder / "metrics.jsonl", rows)
    curves = Curves(RunFolder(folder))
    curves.refresh()
    return curves


def test_runs_that_differ_in_the_seed_alone_belong_together():
    base = {"seed": 0, "steps": 5, "optim": {"lr": 0.1}}
    other = base | {"optim": {"lr": 0.2}}
    configs = [base, other, base | {"seed": 1}, {}, {}, other | {"seed": 7}, base]
    assert seed_groups(configs) == [[0, 2, 6], [1, 5]]
    assert seed_groups([]) == []


def test_a_band_is_the_mean_between_the_lowest_and_the_highest(tmp_path):
    one = [metrics(step, reward=float(step)) for step in (1, 2, 3, 4)]
    two = [metrics(step, reward=3.0 * step, elapsed_s=8.0 * step) for step in (1, 2, 3)]
    two[1]["reward"] = None
    runs = [curves_of(tmp_path / "a", one), curves_of(tmp_path / "b", two)]
    band = band_of(runs, ["reward", "nothing"])
    assert band.keys() == {"reward"}
    # Step 2 is a gap, because one of the runs has no number; step 4 is not in both.
    assert band["reward"] == {
        "step": [1, 2, 3],
        "total_tokens": [1000, 2000, 3000],
        "elapsed_s": [5.0, 10.0, 15.0],
        "value": [2.0, None, 6.0],
        "low": [1.0, None, 3.0],
        "high": [3.0, None, 9.0],
    }


def test_a_band_of_long_runs_is_thinned_and_keeps_its_spikes(tmp_path):
    rows = [metrics(step, reward=float(step == 777)) for step in range(1, 3001)]
    runs = [curves_of(tmp_path / name, rows) for name in "ab"]
    band = band_of(runs, ["reward"], points=100)["reward"]
    assert len(band["value"]) <= 100 and max(band["value"]) == max(band["high"]) == 1.0


def test_a_run_without_steps_has_no_band(tmp_path):
    runs = [curves_of(tmp_path / "a", []), curves_of(tmp_path / "b", [metrics(1)])]
    assert band_of(runs, ["reward"]) == {}


def test_stacked_columns_share_their_rows(tmp_path):
    rows = [metrics(n, rollout_s=1.0 + n % 7, train_s=float(n == 500)) for n in range(1, 2001)]
    curves = curves_of(tmp_path / "a", rows)
    stack = curves.thinned_together(["rollout_s", "train_s", "judge_s"], points=60)
    assert stack.keys() == {"rollout_s", "train_s"}
    assert (
        stack["rollout_s"]["step"] == stack["train_s"]["step"]
        and len(stack["train_s"]["step"]) <= 60
    )
    sums = [a + b for a, b in zip(*(stack[name]["value"] for name in stack), strict=True)]
    assert max(sums) == pytest.approx(max(1.0 + n % 7 + (n == 500) for n in range(1, 2001)))
