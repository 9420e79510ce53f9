from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from aha.web.curves import MAX_COLUMNS, BehaviorCurves, Curves, spread_first, thin
from aha.web.runs import RunFolder

from .conftest import metrics, write_rows


@given(st.lists(st.none() | st.floats(-1e6, 1e6), min_size=1, max_size=400), st.integers(2, 60))
def test_thinning_keeps_the_highest_and_the_lowest(column, points):
    kept = thin(column, points)
    known = [value for value in column if value is not None]
    shown = [column[place] for place in kept]
    assert kept == sorted(set(kept))
    # Gaps stay, one for several rows in a row; there is none before the first value.
    assert all(a is not None or b is not None for a, b in pairwise([None, *shown]))
    assert len(kept) <= points
    if known:
        values = [value for value in shown if value is not None]
        assert max(values) == max(known) and min(values) == min(known)


def test_behaviours_are_counted_first_in_steps_far_apart(run):
    curves = BehaviorCurves(RunFolder(run))
    found = [curves.count(40, 0.0) for _ in range(5)]  # no time: one step each
    assert [counts["step"] for counts in found] == [
        *([5], [1, 5], [1, 3, 5], [1, 2, 3, 5], [1, 2, 3, 4, 5])
    ]
    assert [counts["waiting"] for counts in found] == [4, 3, 2, 1, 0]


@given(st.sets(st.integers(0, 10_000)).map(sorted))
def test_the_steps_to_count_are_all_and_each_once(steps):
    assert sorted(spread_first(steps)) == steps


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
    assert curves.thinned(["reward"])["reward"]["value"] == [0.1, 0.2, 0.3, 0.4, 0.5, None]
    assert curves.last()["solve_rate"] is None
    assert curves.faults() == [
        f"metrics.jsonl: 1 values of {name} that are no finite number"
        for name in ("reward", "solve_rate")
    ]


def test_a_number_that_was_not_measured_is_a_gap_and_no_fault(run):
    rows = [metrics(step, entropy=None if step in (6, 8) else 0.5) for step in range(6, 10)]
    write_rows(run / "metrics.jsonl", [row for row in rows])
    curves = Curves(RunFolder(run))
    curves.refresh()
    curve = curves.thinned(["entropy"])["entropy"]
    assert curve["value"] == [*[0.3] * 5, None, 0.5, None, 0.5] and curves.faults() == []
    assert curves.axes_at([6, 99]) == {"total_tokens": [6000.0, None], "elapsed_s": [12.0, None]}


def test_a_column_without_any_number_is_no_curve(run):
    write_rows(run / "metrics.jsonl", [metrics(6, kl=None)])
    curves = Curves(RunFolder(run))
    curves.refresh()
    assert "kl" not in curves.thinned(["kl"])


def test_rows_without_a_step_and_too_many_columns_are_counted(run):
    write_rows(
        run / "metrics.jsonl",
        [{"reward": 1.0}, {"step": "6"}, {"step": None}],
    )
    write_rows(
        run / "metrics.jsonl", [{"step": 6, **{f"m{i}": 1.0 for i in range(2 * MAX_COLUMNS)}}]
    )
    curves = Curves(RunFolder(run))
    curves.refresh()
    assert curves.rows == 6 and len(curves.columns) == MAX_COLUMNS
    told = " | ".join(curves.faults())
    assert "3 rows without a step" in told and "columns beyond the first 200" in told


def test_sums_of_huge_numbers_do_not_overflow(run):
    write_rows(
        run / "metrics.jsonl", [metrics(6, tokens=n) for n in (10**400, 10**308, 1e308, 1e99)]
    )
    curves = Curves(RunFolder(run))
    curves.refresh()
    assert curves.rows == 9 and "3 values of tokens" in " ".join(curves.faults())


def test_completions_that_could_not_be_graded_are_told_with_their_share(run):
    curves = Curves(RunFolder(run))
    curves.refresh()
    assert curves.grading_note() == ""
    # 1000 tokens of 40 each are 25 completions.
    write_rows(run / "metrics.jsonl", [metrics(6, grade_errors=0), metrics(7, grade_errors=5)])
    curves.refresh()
    assert curves.thinned(["grade_error_share"])["grade_error_share"]["value"] == [0.0, 0.2]
    assert "failed on 5 completions (10.0% of all)" in curves.grading_note()
