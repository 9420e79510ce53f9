"""What a lab concludes, from run folders whose numbers are written by hand."""

import json
from math import sqrt
from pathlib import Path

import pytest

from aha.eval.statistics import over_seeds, wilson
from aha.store.run_folder import Run
from aha.studies.lab_page import HEADER, lab_html, table
from aha.studies.verdicts import RecipeResult, as_json, recipe_result, results_by_recipe, verdicts


def report(rate: float, tokens: float = 40.0, problems: int = 1000) -> dict:
    return {"solve_rate": rate, "problems": problems, "mean_tokens": tokens, "truncated": 0.1}


def make(path: Path, before: float, middle: float, after: float, spent: float = 1000.0) -> Run:
    """A finished run of four steps, looked at after two."""
    path.mkdir(parents=True)
    rows = [
        {"step": s, "generated": spent * s / 4, "elapsed_s": 30.0 * s, "entropy": 1.0 - s / 10}
        for s in (1, 2, 3, 4)
    ]
    del rows[0]["entropy"]  # the critic's warm-up
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    look = {"step": 2} | report(middle, 60.0, 200)
    (path / "evals.jsonl").write_text(json.dumps(look) + "\n")
    run = Run(path)
    run.write("before.json", report(before))
    run.write("after.json", report(after, 100.0))
    run.write("pass_at_k.json", {"pass_at_k": {"1": after, "4": min(1.0, after + 0.1)}})
    return run


@pytest.fixture
def found(tmp_path):
    """Findings of {recipe: final rate of each seed}, all from 0.2."""

    def build(ends: dict[str, list[float]], spent: float = 1000.0) -> list[RecipeResult]:
        return results_by_recipe(
            [
                (name, seed, make(tmp_path / f"{name}-{seed}", 0.2, 0.5, rate, spent))
                for name, rates in ends.items()
                for seed, rate in enumerate(rates)
            ]
        )

    return build


# -- intervals ------------------------------------------------------------------------------


def test_seeds_that_differ_widen_the_interval_by_students_t():
    # deviation of .4, .5, .6 is .1; 4.303 * .1 / sqrt(3) = .2484
    low, high = over_seeds([0.4, 0.5, 0.6], 1000)
    assert low == pytest.approx(0.5 - 4.303 * 0.1 / sqrt(3))
    assert high == pytest.approx(0.5 + 4.303 * 0.1 / sqrt(3))


def test_seeds_that_agree_leave_what_the_problems_leave_open():
    """Three seeds on the same 100 problems are not 300 problems."""
    assert over_seeds([0.5, 0.5, 0.5], 100) == wilson(50, 100)
    assert over_seeds([0.5], 100) == wilson(50, 100)
    low, high = over_seeds([0.0, 1.0], 100)
    assert (low, high) == (0.0, 1.0)


# -- means over seeds -----------------------------------------------------------------------


def test_a_finding_is_the_mean_of_its_seeds(tmp_path):
    runs = [make(tmp_path / "a", 0.2, 0.4, 0.6, 800), make(tmp_path / "b", 0.2, 0.5, 0.8, 1200)]
    one = recipe_result("grpo", runs, [0, 7])
    assert [point.tokens for point in one.points] == [0.0, 500.0, 1000.0]
    assert [point.solve_rate for point in one.points] == pytest.approx([0.2, 0.45, 0.7])
    assert [point.mean_tokens for point in one.points] == [40.0, 60.0, 100.0]
    assert [point.entropy for point in one.points] == [None, pytest.approx(0.8), pytest.approx(0.6)]
    assert one.end.rates == [0.6, 0.8] and one.end.interval == over_seeds([0.6, 0.8], 1000)
    assert one.spent == [800.0, 1200.0] and one.seconds == 120.0
    assert one.pass_at_k == pytest.approx({"1": 0.7, "4": 0.8})
    runs[1].write("pass_at_k.json", {"pass_at_k": {"1": 0.8, "8": 0.9}})
    assert recipe_result("grpo", runs, [0, 7]).pass_at_k == pytest.approx({"1": 0.7})


# -- verdicts -------------------------------------------------------------------------------


def test_a_verdict_stands_only_where_intervals_part(found):
    rates = {"up": [0.80, 0.81, 0.80], "near": [0.76, 0.76, 0.76], "flat": [0.20, 0.21, 0.19]}
    results = found(rates | {"down": [0.1, 0.1, 0.1]})
    claims, notes = verdicts(results, 1000)
    assert notes == []
    assert {name: claim.change for name, claim in claims.items()} == {
        "up": "learnt",
        "near": "learnt",
        "flat": "no evidence",
        "down": "worse",
    }
    assert {name: claim.above for name, claim in claims.items()} == {
        # and not above "near": its mean lies below all of "up", its interval does not
        "up": ["flat", "down"],
        "near": ["flat", "down"],
        "flat": ["down"],
        "down": [],
    }


def test_seeds_that_quarrel_prove_nothing(found):
    """The mean has doubled, and two other seeds might not."""
    claims, _ = verdicts(found({"wild": [0.1, 0.4, 0.8], "flat": [0.2, 0.2, 0.2]}), 1000)
    assert claims["wild"].change == "no evidence" and claims["wild"].above == []


def test_too_few_seeds_or_an_unspent_budget_are_no_verdict(found):
    few = found({"a": [0.8, 0.8], "b": [0.2, 0.2, 0.2]})
    claims, notes = verdicts(few, 1000)
    assert claims == {} and notes == ["fewer than 3 finished seeds: a"]
    for tokens, reason in ((1001, "budget was spent: a, b"), (0, "no token budget")):
        claims, notes = verdicts(few, tokens)
        assert claims == {} and reason in notes[-1]
    assert verdicts([], 1000) == ({}, [])


# -- what is shown --------------------------------------------------------------------------


def test_the_page_shows_numbers_curves_and_claims(found):
    results = found({"up": [0.80, 0.81, 0.80], "<flat>": [0.20, 0.21, 0.19]})
    page = lab_html(results, 1000, 6, ["about this"])
    assert "learnt; above &lt;flat&gt;" in page and "<flat>" not in page
    assert "No verdict" not in page and "<script" not in page and "http:" not in page
    # three pictures of all and one of each recipe; three grey seeds in each of those
    assert page.count("<svg") == 5 and page.count('class="curve s2"') == 2
    assert "0.803 [0.7" in page and "about this" in page
    assert "4 of 9 runs" not in page and "6 of 9 runs are done" in lab_html(results, 1000, 9, [])


def test_a_lab_without_a_finished_run_says_so():
    assert "0 of 6 runs are done" in lab_html([], 1000, 6, [])


def test_the_table_and_the_json_hold_the_same(found):
    results = found({"a": [0.8, 0.8, 0.8], "b": [0.2, 0.2, 0.2]})
    claims, _ = verdicts(results, 1000)
    (row, _) = (dict(zip(HEADER, cells, strict=True)) for cells in table(results, claims))
    assert row["recipe"] == "a" and row["solved before"] == "0.200" and row["training"] == "2:00"
    assert (
        row["verdict"] == "learnt; above b" and row["pass@4"] == "0.900" and row["pass@16"] == "-"
    )
    rows = as_json(results, 1000)["recipes"]
    assert json.loads(json.dumps(rows))[0]["looks"][-1]["solve_rate"] == pytest.approx(0.8)
    assert rows[1]["verdict"] == {"change": "no evidence", "above": []}
    assert as_json(results, 2000)["recipes"][0]["verdict"] is None
