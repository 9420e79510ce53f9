from hypothesis import given
from hypothesis import strategies as st

from aha.web.curves import Curves, thin
from aha.web.runs import RunFolder

from .conftest import metrics, write_rows


@given(st.lists(st.none() | st.floats(-1e6, 1e6), min_size=1, max_size=400), st.integers(2, 60))
def test_thinning_keeps_the_highest_and_the_lowest(column, points):
    kept = thin(column, points)
    known = [value for value in column if value is not None]
    shown = [column[place] for place in kept]
    assert kept == sorted(set(kept)) and None not in shown
    assert len(kept) <= max(points, len(known) if len(column) <= points else points)
    if known:
        assert max(shown) == max(known) and min(shown) == min(known)


def test_columns_grow_with_the_file(run):
    curves = Curves(RunFolder(run))
    curves.refresh()
    write_rows(run / "metrics.jsonl", [metrics(6, new_number=1.0)])
    curves.refresh()
    found = curves.thinned(["solve_rate", "new_number", "unknown"])
    assert found["solve_rate"]["step"] == [1, 2, 3, 4, 5, 6]
    assert found["solve_rate"]["total_tokens"][-1] == 6000
    assert found["new_number"] == {
        "step": [6], "total_tokens": [6000.0], "elapsed_s": [12.0], "value": [1.0]
    }  # fmt: skip
    assert "unknown" not in found


def test_a_resumed_run_begins_its_columns_anew(run):
    curves = Curves(RunFolder(run))
    curves.refresh()
    partial = run / "metrics.partial"
    write_rows(partial, [metrics(1)])
    partial.replace(run / "metrics.jsonl")
    curves.refresh()
    assert curves.rows == 1 and curves.thinned(["reward"])["reward"]["step"] == [1]


def test_what_is_no_number_is_a_gap(run):
    write_rows(run / "metrics.jsonl", [metrics(6, reward=float("nan"), solve_rate="high")])
    curves = Curves(RunFolder(run))
    curves.refresh()
    assert curves.thinned(["reward"])["reward"]["step"] == [1, 2, 3, 4, 5]
    assert curves.last()["solve_rate"] is None
