"""`aha select` on the command line: stages, solvers, controls."""

import json
from itertools import islice

import pytest

from aha.tasks.countdown import Countdown

TASK = Countdown()


@pytest.fixture
def pool(tmp_path):
    rows = []
    for problem in islice(TASK.problems("train", 0), 8):
        text = TASK.solve(problem)
        row = {"id": problem.id, "task": "countdown", **problem.given, "prompt": TASK.ask(problem)}
        rows.append(row | {"completion": text, "tokens": len(text), "correct": True})
    rows += [rows[0], {"prompt": "no answer"}]
    path = tmp_path / "pool.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    path.with_suffix(".cost.json").write_text('{"name": "t", "cost_usd": 2.0, "kwh": 1.0}')
    return path


def test_stages_solvers_and_what_it_cost(aha, model, pool, tmp_path):
    words = ("select", pool, "--n", 3, "--solver", model, "--max-new-tokens", 4, "--name", "one")
    done = aha(*words)
    assert done.code == 0, done.err
    assert "1 without an answer" in done.out and "1 that repeat another" in done.out
    assert "difficulty" in done.out and "domains, the largest" in done.out
    selected = (tmp_path / "data/one/selected.jsonl").read_text()
    assert len(selected.splitlines()) == 3
    cost = json.loads((tmp_path / "data/one/selected.cost.json").read_text())
    assert cost["cost_usd"] > 2.0 and cost["name"] == "3 of pool.jsonl"
    assert aha(*words).code == 0 and (tmp_path / "data/one/selected.jsonl").read_text() == selected
    learnt = aha("sft", model, "--data", "data/one/selected.jsonl", "--epochs", 1)
    assert learnt.code == 0 and "3 of pool.jsonl (data)" in learnt.out


@pytest.mark.parametrize("way", ["random", "longest", "diverse", "all"])
def test_controls(aha, pool, tmp_path, way):
    done = aha("select", pool, "--n", 3, "--by", way, "--name", way)
    assert done.code == 0, done.err
    rows = (tmp_path / f"data/{way}/selected.jsonl").read_text().splitlines()
    assert len(rows) == (8 if way == "all" else 3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--n", 9), "--n 8, or a larger pool"),
        (("--solver", "nobody"), "no model called 'nobody'"),
        (("--by", "luck"), "--by"),
        (("--domain", "topic"), "--domain topic, a column that none"),
        (("--n", 0), "--n"),
    ],
)
def test_bad_input_is_one_line(aha, pool, words, message):
    done = aha("select", pool, *words)
    assert done.code == 2 and message in done.err, done.err


def test_what_nobody_has_priced_has_no_price(aha, pool, tmp_path):
    pool.with_suffix(".cost.json").unlink()
    assert aha("select", pool, "--n", 3, "--name", "one").code == 0
    assert not (tmp_path / "data/one/selected.cost.json").exists()
    stages = json.loads((tmp_path / "data/one/stages.json").read_text())
    assert stages[0]["file"] == str(pool)
    refused = aha("select", pool, "--n", 2, "--name", "one")
    assert "--name one-2" in refused.err and "--reuse" not in refused.err


def test_a_pool_that_is_none(aha, tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    assert "empty.jsonl" in aha("select", "empty.jsonl").err
    assert "is no file" in aha("select", "none.jsonl").err
