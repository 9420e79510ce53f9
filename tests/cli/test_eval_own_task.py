"""A run is evaluated on its own task; a file is tested whole where that was typed."""

import json

import pytest

from ..tiny import answering_folder

ROWS = [{"question": f"What is {n} and {n}?", "answer": f"#### {2 * n}"} for n in range(59)]


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def test_a_run_is_evaluated_on_its_own_task_from_any_folder(aha, data, tmp_path, monkeypatch):
    base = answering_folder(tmp_path / "base")
    words = ("--task", "math", "--task.data", "rows.jsonl", "--task.bad_rows", "drop")
    words += ("--steps", 1, "--rollout.prompts", 2, "--rollout.group_size", 2)
    words += ("--rollout.max_new_tokens", 12, "--eval.every", 0, "--eval.final", 4)
    with data.open("a") as out:
        out.write('{"question": "?"}\n')
    done = aha("train", "demo", "--model", base, *words, "--name", "own")
    assert done.code == 0, done.err
    run = tmp_path / "runs" / "own"
    assert json.loads((run / "config.json").read_text())["task"]["data"] == str(data)
    findings = [json.loads(line) for line in (run / "findings.jsonl").read_text().splitlines()]
    assert any("row 60" in row["message"] and "1 rows" in row["message"] for row in findings)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    done = aha("eval", run, "--n", 3, "--json")
    row = json.loads(done.out)
    assert (row["task"], row["data"], row["max_new_tokens"]) == ("math", str(data), 12)
    assert (row["problems"], row["rows"]) == (3, 59) and "row 60" in done.err
    short = ("--n", 2, "--max-new-tokens", 8, "--json")
    other = json.loads(aha("eval", run, "--task", "countdown", *short).out)
    assert other["task"] == "countdown" and other["rows"] is None
    asked = aha("ask", "--model", run, "--max-new-tokens", 4)
    assert asked.code == 0 and asked.out.startswith("What is ")
    typed = aha("ask", 3, 7, "--target", 10, "--model", run, "--max-new-tokens", 4)
    assert typed.code == 0 and typed.out.startswith("numbers 3 7 target 10")


def test_eval_says_how_many_rows_of_how_many(aha, data, model):
    words = ("eval", model, "--task", "math", "--data", data, "--max-new-tokens", 2)
    part = aha(*words)
    assert part.code == 0 and "of the split test (--split all takes all 59 of the file)" in part.out
    whole = aha(*words, "--split", "all")
    assert whole.code == 0 and "59 problems of the file" in whole.out
    some = aha(*words, "--split", "all", "--n", 5)
    assert some.code == 0 and "5 of 59 problems of the file" in some.out
    drawn = aha("eval", model, "--split", "all")
    assert drawn.code == 2 and "--data FILE" in drawn.err


def test_a_recipe_with_a_file_is_examined_with_its_rows(aha, data):
    data.write_text(data.read_text() + '{"question": "?"}\n')
    words = ("--task", "math", "--task.data", data)
    refused = aha("problems", *words)
    assert refused.code == 2 and "row 60" in refused.err and "--task.bad_rows drop" in refused.err
    done = aha("problems", *words, "--task.bad_rows", "drop", "--split", "all")
    assert done.code == 0 and len(done.out.splitlines()) == 59 and "1 rows" in done.err
