"""`import aha`: what it costs, what it offers, which calls it refuses before anything runs."""

import json
import subprocess
import sys

import pytest

import aha
from aha.api.evaluator import written_completions
from aha.core.errors import AhaError, ConfigError, DataError, ModelError

from .conftest import ROWS, digits

IMPORT = """
import sys, time
start = time.process_time()
import aha
seconds = time.process_time() - start
heavy = {"torch", "numpy", "pandas", "pydantic", "rich"} & set(sys.modules)
assert not heavy, heavy
assert {"train", "evaluate", "load", "generate", "open_run"} <= set(dir(aha))
assert not hasattr(aha, "nothing") and aha.train.__module__ == "aha.api.calls"
assert "torch" not in sys.modules
print(sum(name.startswith("aha") for name in sys.modules), seconds)
"""


def test_importing_needs_no_torch_and_next_to_no_time():
    done = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    modules, seconds = done.stdout.split()
    assert int(modules) < 10 and float(seconds) < 0.3


def test_a_run_with_rewards_of_one_s_own(train, tmp_path, capsys):
    seen = []
    run = train(
        reward=[digits, lambda completion: -len(completion)],
        reward_weights=[1, 0.1],
        callbacks=seen.append,
        steps=3,
    )
    assert [row["step"] for row in seen] == [1, 2, 3] == [row["step"] for row in run.rows]
    row = run.rows[-1]
    assert row["reward"] == pytest.approx(row["reward_digits"] + 0.1 * row["reward_lambda"])
    assert row["reward_lambda"] < 0 and seen[-1] == row
    completion = run.completions_of(3)[0]
    assert set(completion["parts"]) == {"reward_digits", "reward_lambda"}
    assert run.path.name == "digits" and run.finished
    assert json.loads((run.path / "rewards.json").read_text())["digits"].startswith("def digits")
    said = capsys.readouterr()
    assert "step   3/3" in said.out and said.err == ""


def test_the_recipe_s_task_needs_no_reward(small):
    run = aha.train(**small, show=False)
    assert run.config["task"]["name"] == "countdown" and len(run.rows) == 2
    assert run.path.name == "demo" and "way_none" in run.rows[0]


def test_show_false_prints_nothing(train, capsys):
    train(show=False)
    assert capsys.readouterr() == ("", "")


def test_data_of_two_forms_is_one_data(train, tmp_path):
    lines = tmp_path / "rows.jsonl"
    lines.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    one, other = train(show=False), train(show=False, data=lines, test_data=ROWS[:4])
    assert one.config["task"]["data"].startswith(str(tmp_path / "runs" / ".data"))
    assert other.config["task"]["data"] == str(lines)
    assert other.after["problems"] == 3 and other.config["task"]["test_data"]


def takes_more(completion, answer, colour):
    return 0.0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"reward": takes_more}, "takes 'colour', which is no column of the data"),
        ({"data": None}, "reward without data"),
        ({"data": None, "reward": None, "columns": {"a": "b"}}, "columns without data"),
        ({"data": [{"answer": 1}]}, "without a column for the prompt"),
        ({"data": ROWS[:1]}, "no problems in the split"),
        ({"task": "multiply"}, "one of the two"),
        ({"reward": None, "reward_weights": [1]}, "reward_weights without reward"),
        ({"reward_weights": [1, 2]}, "for 1 reward functions"),
        ({"callbacks": [3]}, "the callback 3"),
        ({"recipe": "demmo"}, "no recipe 'demmo'"),
        ({"recipe": None}, "without a recipe"),
        ({"recipe": None, "model": {"lora_rank": -1}}, "lora_rank"),
        ({"stepps": 3}, "stepps"),
        ({"optim": {"lrr": 3}}, "lrr"),
        ({"optim": 3e-4}, "optim=0.0003"),
        ({"model": 7}, "model=7"),
        ({"name": "../up"}, "'../up'"),
        ({"accept_changes": True}, "accept_changes without resume"),
        ({"resume": "runs/none", "recipe": "demo"}, "resume with recipe"),
        ({"resume": "runs/none"}, "no run in runs/none"),
        ({"task": {"verifier": "tinyzero"}}, "verifier"),
        ({"columns": {"promt": "prompt"}}, "no column 'promt'"),
    ],
)
def test_a_call_that_makes_no_sense_is_refused_and_leaves_no_run(train, tmp_path, changes, words):
    with pytest.raises(AhaError) as caught:
        train(**changes)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert isinstance(caught.value, ConfigError | DataError | ModelError | OSError)
    runs = tmp_path / "runs"
    assert not runs.exists() or [path.name for path in runs.iterdir()] == [".data"]


def test_a_model_is_evaluated_on_rewards_and_on_its_run_s_task(train, model, tmp_path):
    run = train(show=False)
    scored = aha.evaluate(run, reward=digits, n=2, group_size=2)
    assert scored.numbers["problems"] == 2 and len(scored.completions) == 4
    expected = sum(row["reward"] for row in scored.completions) / 4
    assert scored.mean_reward == pytest.approx(expected)
    assert scored.numbers["max_new_tokens"] == 6 and scored.solve_rate is not None
    with pytest.raises(ConfigError, match="pass reward=digits again"):
        aha.evaluate(run, n=2)
    fresh = aha.evaluate(model, reward=digits, data=ROWS, n=2, max_new_tokens=4, split="all")
    assert fresh.numbers["rows"] == len(ROWS) and fresh.interval is not None
    puzzles = aha.evaluate(
        str(model), task={"numbers": [3]}, n=2, max_new_tokens=4, out=tmp_path / "all.jsonl"
    )
    assert puzzles.numbers["task"] == "countdown" and (tmp_path / "all.jsonl").is_file()
    page = scored.report(tmp_path / "evaluation.html").read_text()
    assert "solve rate" in page and "<script" not in page


def test_where_every_grade_fails_there_is_no_solve_rate(model, tmp_path):
    def broken(completion):
        raise ValueError("no")

    result = aha.evaluate(model, reward=broken, data=ROWS, n=2, max_new_tokens=4)
    assert result.solve_rate is None and result.interval is None
    assert "not known" in repr(result) and "broken raised ValueError" in repr(result)
    with pytest.raises(ConfigError, match="colours"):
        aha.evaluate(model, task={"colours": 3})


def test_no_completion_of_an_evaluation_is_left_out_in_silence(tmp_path):
    """A file of somebody else has a limit of 200,000 rows; this one the call itself has written."""
    path, findings = tmp_path / "all.jsonl", []
    path.write_text('{"reward": 1}\n' * 200_005)
    assert len(written_completions(path, findings)) == 200_005 and findings == []
    with path.open("a") as lines:
        lines.write("no row\n")
    assert len(written_completions(path, findings)) == 200_005
    assert "1 no JSON" in findings[0].message and findings[0].level == "warn"


def test_options_that_only_a_task_has_reach_it(model):
    settings = {"name": "multiply", "options": {"digits": [0]}}
    few = {"n": 2, "max_new_tokens": 4}
    with pytest.raises(ConfigError, match="digits"):
        aha.evaluate(model, task=settings, **few)
