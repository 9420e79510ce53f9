"""`--task NAME` through every command, and what a stranger's grader may cost."""

import json

import pytest

from ..tiny import answering_folder

MOODY = """
from aha.core.records import Problem

def problems(split, seed):
    for number in range(100):
        if (number % 5 == 0) == (split == "test") and (number % 5 == 1) == (split == "validation"):
            yield Problem(f"moody/{number}", "moody", {"number": number})

def ask(problem):
    return f"numbers {problem.given['number']} target 1\\n<think>\\n"

def grade(problem, text):
    if len(text) % 3 == 0:
        raise RuntimeError("a bad day")
    return len(text) % 3 - 1.0
"""


@pytest.fixture
def moody(tmp_path):
    (tmp_path / "moody.py").write_text(MOODY)
    return "moody.py"


def rows_of(done) -> list[dict]:
    assert done.code == 0, done.err
    return [json.loads(line) for line in done.out.splitlines()]


def test_problems_of_a_task_go_back_into_grade(aha):
    words = ("--task", "multiply", "--options", "digits = 3")
    rows = rows_of(aha("problems", *words, "--n", 3))
    assert all(set(row) == {"id", "a", "b"} for row in rows) and len(rows) == 3
    lines = [
        row | {"completion": f"<answer>{row['a'] * row['b'] + wrong}</answer>"}
        for row in rows
        for wrong in (0, 1)
    ]
    text = "\n".join(map(json.dumps, lines)).encode()
    verdicts = rows_of(aha("grade", *words, stdin=text))
    assert [verdict["reward"] for verdict in verdicts] == [1.0, 0.0] * 3
    bad = aha("grade", *words, stdin=text + b'\n{"completion": "<answer>1</answer>"}')
    assert bad.code == 2 and "line 7" in bad.err and bad.err.count("\n") == 1


def test_eval_takes_a_task_and_its_options(aha, model):
    words = ("--task", "multiply", "--options", "digits = [1, 2]", "--n", 4, "--json")
    (row,) = rows_of(aha("eval", model, *words, "--max-new-tokens", 8))
    assert (row["task"], row["digits"], row["problems"]) == ("multiply", [1, 2], 4)
    assert row["grade_errors"] == 0 and row["behaviors"] == {}


def test_ask_takes_a_task_and_a_problem(aha, model):
    words = ("ask", "--model", model, "--task", "multiply", "--max-new-tokens", 8)
    done = aha(*words, "--given", '{"a": 3, "b": 4}')
    assert done.code == 0 and done.out.startswith("multiply 3 times 4\n<think>\n")
    drawn = aha(*words, "--options", "digits = 2")
    assert drawn.code == 0 and drawn.out.startswith("multiply ") and drawn.out != done.out
    for given in ('{"c": 3}', "[]", "{"):
        bad = aha(*words, "--given", given)
        assert bad.code == 2 and bad.err.count("\n") == 1, bad.err
    both = aha(*words, 3, 4, "--target", 12)
    assert both.code == 2 and "--given" in both.err


def test_train_with_another_task_forgets_the_recipes_settings_of_its_own(aha):
    shown = json.loads(aha("train", "laptop-3to4", "--task", "multiply", "--dry-run").out)
    assert shown["task"]["name"] == "multiply" and shown["task"]["numbers"] == [3]
    kept = json.loads(aha("train", "laptop-3to4", "--task", "countdown", "--dry-run").out)
    assert kept["task"]["numbers"] == [3, 4]
    for words in (("multiply", "--task.options.speed", 3), ("speed",)):
        for more in ((), ("--dry-run",)):
            bad = aha("train", "demo", "--task", *words, *more)
            assert bad.code == 2 and "speed" in bad.err and bad.err.count("\n") == 1


def test_a_run_outlives_a_grader_that_raises_and_counts_it(aha, moody, tmp_path):
    base = answering_folder(tmp_path / "base")
    words = ("--steps", 2, "--rollout.prompts", 4, "--rollout.group_size", 4)
    words += ("--rollout.max_new_tokens", 16, "--eval.every", 0, "--eval.final", 4)
    words += ("--task.max_grade_errors", 0.9)
    done = aha("train", "demo", "--task", moody, "--model", base, *words, "--name", "moody")
    assert done.code == 0, done.err
    run = tmp_path / "runs" / "moody"
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    raised = []
    for step in (1, 2):
        text = (run / "completions" / f"step_{step:06d}.jsonl").read_text()
        rows = [json.loads(line) for line in text.splitlines()]
        bad = [row for row in rows if len(row["completion"]) % 3 == 0]
        assert all(row["reward"] == 0 and "a bad day" in row["reason"] for row in bad)
        raised.append(len(bad))
    assert [row["grade_errors"] for row in metrics] == raised and 0 < sum(raised) < 32
    summary = json.loads((run / "summary.json").read_text())
    assert "grade_errors" in summary["before"]


BROKEN = MOODY.replace("len(text) % 3 == 0", "len(text) >= 0")
SMALL = ("--rollout.prompts", 2, "--rollout.group_size", 2, "--rollout.max_new_tokens", 8)


def test_a_broken_grader_is_told_by_every_command(aha, model, tmp_path):
    (tmp_path / "broken.py").write_text(BROKEN)
    words = ("--task", "broken.py", "--model.path", model, "--eval.every", 0, *SMALL)
    done = aha("train", "demo", *words, "--eval.final", 0, "--name", "broken")
    assert done.code == 1 and "4 of 4 grades failed (100%): the grader raised Runt" in done.err
    assert "a bad day" in done.err and "easier problems" not in done.out + done.err
    run = tmp_path / "runs" / "broken"
    (row,) = [json.loads(line) for line in (run / "findings.jsonl").read_text().splitlines()]
    assert (row["step"], row["level"], row["check"]) == (1, "fail", "grade_errors")
    # Before a weight has changed; the texts are kept for looking.
    assert (run / "checkpoints" / "step_000000").is_dir()
    rows = (run / "failed_step" / "step_000001.jsonl").read_text().splitlines()
    assert ["a bad day" in json.loads(row)["reason"] for row in rows] == [True] * 4
    looked = aha("doctor", "runs/broken")
    assert looked.code == 1 and "a bad day" in looked.out and "easier problems" not in looked.out
    tested = aha("train", "demo", *words, "--eval.final", 4, "--name", "tested")
    assert tested.code == 1 and "a bad day" in tested.err
    (row,) = (tmp_path / "runs/tested/findings.jsonl").read_text().splitlines()
    assert json.loads(row)["step"] == 0
    recipe = aha("doctor", "demo", *words)
    assert recipe.code == 1 and "34 texts without a verdict" in recipe.out
    assert "none of them paid" not in recipe.out and "its first step" not in recipe.out


def test_an_evaluation_in_which_every_grade_failed_has_no_solve_rate(aha, model, tmp_path):
    (tmp_path / "broken.py").write_text(BROKEN)
    words = ("eval", model, "--task", "broken.py", "--n", 4, "--max-new-tokens", 4)
    done = aha(*words)
    assert done.code == 1 and "no solve rate" in done.out and "a bad day" in done.err
    done = aha(*words, "--json")
    row = json.loads(done.out)
    assert done.code == 1 and (row["solve_rate"], row["interval"], row["grade_errors"]) == (
        None,
        None,
        4,
    )
    assert row["grade_error_reasons"] == {"the grader raised RuntimeError: a bad day": 4}


def test_a_new_task_can_be_used_at_once(aha):
    done = aha("new-task", "my-puzzle")
    assert done.code == 0 and "my-puzzle/my_puzzle.py" in done.out
    # With the Python that has Aha: a `pytest` of the system would not find it.
    assert done.out.splitlines()[-1].endswith("python -m pytest my-puzzle")
    rows = rows_of(aha("problems", "--task", "my-puzzle/my_puzzle.py", "--n", 2))
    assert all(len(row["numbers"]) == 3 for row in rows)
    again = aha("new-task", "my-puzzle")
    assert again.code == 2 and "exists already" in again.err
