"""The command line as a user meets it: what is printed, where, and with which exit code."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cyclopts import App, CycloptsError

from aha.api.recipe_names import free_name
from aha.cli.main import usage_error
from aha.cli.recipe_keys import Overrides, overrides_of
from aha.core.errors import ConfigError
from aha.tasks.countdown import Countdown, as_problem, split_of

from ..tiny import answering_folder

RIGHT = {"numbers": [3, 7, 25], "target": 82, "completion": "<answer>3*25+7</answer>"}


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# -- recipes --------------------------------------------------------------------------------


def test_a_dry_run_prints_the_resolved_config_and_writes_nothing(aha, tmp_path):
    for words in (
        ("train", "demo", "--dry-run", "--optim.lr", "1e-5"),
        ("train", "demo", "--optim.lr=1e-5", "--dry-run"),
        ("train", "--dry-run", "demo", "--optim.lr", "1e-5"),
        ("config", "show", "demo", "--optim.lr", "1e-5"),
    ):
        done = aha(*words)
        assert done.code == 0
        planned = done.err.startswith("planned: ") and "completions of 70 tokens" in done.err
        assert planned if "--dry-run" in words else done.err == ""
        shown = json.loads(done.out)
        assert shown["optim"]["lr"] == 1e-5 and shown["rollout"]["group_size"] == 16
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_says_how_far_a_budget_goes_and_when_there_is_no_plan(aha):
    done = aha("train", "demo", "--dry-run", "--budget", "60s")
    assert "it would end after about step" in done.err and json.loads(done.out)
    assert "budget" not in aha("train", "demo", "--dry-run", "--budget", "9h").err
    assert "no plan: no shape" in aha("train", "demo", "--dry-run", "--model", "nobody/has").err


def test_demo_takes_a_seed_and_overrides(aha):
    shown = json.loads(aha("demo", "--dry-run", "--seed", "5", "--steps", "3").out)
    assert (shown["seed"], shown["steps"]) == (5, 3)


def test_config_show_without_a_recipe_prints_the_defaults(aha):
    shown = json.loads(aha("config", "show").out)
    assert shown["steps"] == 60 and shown["model"]["path"] == "aha-tiny"


def parse_overrides(words: tuple[str, ...]) -> dict:
    """What a command gets that takes the keys of a recipe."""
    app = App(result_action="return_value")

    @app.default
    def command(*, overrides: Overrides = None) -> dict:
        return overrides_of(overrides)

    try:
        return app(words, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        raise usage_error(error) from None


def test_overrides_read_values_as_toml():
    words = ("--optim.lr", "3e-4", "--task.numbers", "[3, 4]", "--model.path=a b", "--seed", "-1")
    assert parse_overrides(words) == {
        "optim.lr": 3e-4,
        "task.numbers": [3, 4],
        "model.path": "a b",
        "seed": -1,
    }
    with pytest.raises(ConfigError, match="without an option"):
        parse_overrides(("lr", "3"))


def test_a_free_name_is_the_first_that_no_run_has(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert free_name("demo") == "demo"
    for name in ("demo", "demo-2"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    assert free_name("demo") == "demo-3"


# -- problems -------------------------------------------------------------------------------


def rows_of(done) -> list[dict]:
    assert done.code == 0 and done.err == "", done.err
    return [json.loads(line) for line in done.out.splitlines()]


def test_threads_that_wait_sleep_unless_the_user_says_otherwise(aha, monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert aha("problems", "--n", 1).code == 0
    assert os.environ["OMP_WAIT_POLICY"] == "passive"
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    assert aha("problems", "--n", 1).code == 0
    assert os.environ["OMP_WAIT_POLICY"] == "active"


def test_problems_are_json_lines_of_id_numbers_and_target(aha):
    rows = rows_of(aha("problems", "--n", 20, "--split", "validation", "--numbers", 3, 4))
    assert len(rows) == len({row["id"] for row in rows}) == 20
    assert {len(row["numbers"]) for row in rows} == {3, 4}
    for row in rows:
        assert set(row) == {"id", "numbers", "target"}
        assert split_of(tuple(row["numbers"]), row["target"]) == "validation"
    assert rows == rows_of(aha("problems", "--n", 20, "--split", "validation", "--numbers", 3, 4))
    assert rows != rows_of(aha("problems", "--n", 20, "--split", "validation", "--seed", 1))


def test_problems_of_a_file_are_those_of_the_split(aha, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"nums": [3, 7, 25], "target": 82}\n')
    rows = rows_of(aha("problems", "--data", "rows.jsonl", "--split", "train"))
    assert rows == [{"id": "countdown/3-7-25=82", "numbers": [3, 7, 25], "target": 82}]
    assert rows_of(aha("problems", "--data", "rows.jsonl", "--split", "test")) == []


def test_problems_into_a_closed_pipe_is_no_traceback(tmp_path):
    words = f"{sys.executable} -m aha problems --n 5000 --split train | head -n 1"
    done = subprocess.run(words, shell=True, capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.count("\n") == 1 and done.stderr == ""


# -- grade ----------------------------------------------------------------------------------

WEIRD = [
    ("", 0.0),
    ("x" * 100_000, 0.0),
    ("<answer>" * 12_500, 0.0),
    ("<answer>3*25+7</answer>" + "y" * 100_000, 1.0),
    ("<answer>" + "(" * 100_000 + "</answer>", 0.0),
    ("\0", 0.0),
    ("<answer>3*25+7\0</answer>", 0.0),
    ("<answer>3*25+7</answer>\0", 1.0),
    ("\ud800", 0.0),
    ("<answer>\udfff</answer>", 0.0),
    ("<answer>3*25+7</answer>\ud800", 1.0),
    ("<answer>3×25+7</answer>", 0.0),
    ("<answer>9**9**9**9</answer>", 0.0),
    ("<answer>__import__('os')</answer>", 0.0),
    ("line\nline\r\n\u2028<answer>3*25+7</answer>\n", 1.0),
    (None, 0.0),
    (42, 0.0),
    (["<answer>3*25+7</answer>"], 0.0),
]


def test_grade_answers_each_line_in_order_whatever_it_holds(aha):
    lines = [RIGHT | {"completion": completion} for completion, _ in WEIRD]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    rows = rows_of(aha("grade", stdin=text.encode()))
    assert [row["reward"] for row in rows] == [reward for _, reward in WEIRD]
    for row in rows:
        assert set(row) >= {"reward", "correct", "reason"}
        assert row["correct"] is (row["reward"] == 1.0) and isinstance(row["reason"], str)


def test_grade_without_a_completion_is_an_error_with_the_line(aha):
    """A reward of 0 would blame the model for what a script forgot."""
    line = {"numbers": [3, 7, 25], "target": 82}
    done = aha("grade", stdin=(json.dumps(RIGHT) + "\n" + json.dumps(line)).encode())
    assert done.code == 2 and len(done.out.splitlines()) == 1
    assert "line 2 without a completion" in done.err and "'completion'" in done.err


def test_grade_reads_the_columns_of_tinyzero_and_the_settings_of_the_task(aha):
    line = json.dumps({"nums": [3, 7, 25], "target": 82, "completion": "<answer>82</answer>"})
    (row,) = rows_of(aha("grade", stdin=line.encode()))
    assert row["reward"] == 0.0
    words = ("--options", 'verifier = "tinyzero"')
    (row,) = rows_of(aha("grade", *words, stdin=line.encode()))
    assert row["reward"] == 0.1


def test_grade_takes_raw_bytes_that_are_no_text(aha):
    line = json.dumps(RIGHT).encode().replace(b"<answer>", b"\xff\xfe<answer>", 1)
    (row,) = rows_of(aha("grade", stdin=line))
    assert row["correct"]


def test_grade_of_nothing_is_nothing(aha):
    assert rows_of(aha("grade", stdin=b"")) == rows_of(aha("grade", stdin=b"\n\n")) == []


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"[]",
        b"3",
        b"null",
        b'"numbers"',
        b'{"completion": "x"}',
        b'{"numbers": [3], "completion": "x"}',
        b'{"numbers": "37", "target": 82}',
        b'{"numbers": [3.5, 7], "target": 82}',
        b'{"numbers": [3, true], "target": 82}',
        b'{"numbers": 3, "target": 82}',
        b'{"numbers": [3, 7], "target": "82"}',
        b"[" * 100_000,
    ],
)
def test_grade_refuses_a_line_that_names_no_puzzle(aha, line):
    """After answering the lines before it."""
    done = aha("grade", stdin=json.dumps(RIGHT).encode() + b"\n" + line + b"\n")
    assert done.code == 2 and "line 2" in done.err and done.err.count("\n") == 1
    assert len(done.out.splitlines()) == 1


# -- models ---------------------------------------------------------------------------------


def test_ask_prints_the_puzzle_the_thought_and_a_verdict(aha, model):
    done = aha("ask", 3, 7, 25, "--target", 82, "--model", model, "--max-new-tokens", 30)
    assert done.code == 0 and done.err == ""
    assert done.out.startswith("numbers 3 7 25 target 82\n<think>\n")
    text, verdict = done.out.rstrip("\n").rsplit("\n", 1)
    problem, written = (
        as_problem((3, 7, 25), 82),
        text.removeprefix("numbers 3 7 25 target 82\n<think>\n"),
    )
    graded = Countdown((3,)).grade(problem, written)
    assert verdict == f"{'right' if graded.correct else 'wrong'}: {graded.reason}"
    again = aha("ask", 3, 7, 25, "--target", 82, "--model", model, "--max-new-tokens", 30)
    assert again.out == done.out


def test_ask_takes_what_room_the_model_has(aha, model):
    assert aha("ask", 3, 7, 25, "--target", 82, "--model", model).code == 0


def test_eval_prints_one_json_object_and_writes_every_completion(aha, model, tmp_path):
    words = ("eval", model, "--n", 6, "--max-new-tokens", 20, "--group-size", 2, "--json")
    done = aha(*words, "--out", "out.jsonl")
    (row,) = rows_of(done)
    assert row["model"] == str(model) and row["split"] == "test" and row["numbers"] == [3]
    assert (row["problems"], row["completions"], row["seed"]) == (6, 12, 0)
    assert {"solve_rate", "interval", "mean_tokens", "truncated", "seconds"} <= row.keys()
    assert set(row["pass_at_k"]) == {"1", "2"}
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert len(written) == 12 and len({one["id"] for one in written}) == 6
    again = aha(*words, "--out", "again.jsonl")
    assert again.code == 0
    assert (tmp_path / "again.jsonl").read_text() == (tmp_path / "out.jsonl").read_text()


def test_eval_without_json_is_a_sentence(aha, model):
    done = aha("eval", model, "--n", 2, "--max-new-tokens", 9)
    assert done.code == 0 and "solve rate 0.000 [0.000, " in done.out and "2 problems" in done.out


def test_baseline_prints_a_rate_that_grows_with_its_budget(aha):
    few, many = (rows_of(aha("baseline", "--n", 60, "--tokens", t))[0] for t in (40, 160))
    assert few["solve_rate"] < many["solve_rate"] and few["n"] == many["n"] == 60
    low, high = many["interval"]
    assert low < many["solve_rate"] < high


def test_too_little_memory_is_one_line_and_another_fault_is_not_hidden(aha, monkeypatch):
    """What no setting was there to catch, as while completions are written."""
    from aha.cli import main
    from aha.machine import out_of_memory as memory

    assert memory.is_out_of_memory(MemoryError())

    def failing(error: Exception):
        def app(*unused, **more):
            raise error

        return app

    for error in (MemoryError("no memory for the rows"), RuntimeError("out of memory\nstack")):
        monkeypatch.setattr(main, "app", failing(error))
        done = aha("train", "demo")
        assert done.code == 2 and done.err.count("\n") == 1 and "--rollout.max_rows" in done.err
    monkeypatch.setattr(main, "app", failing(RuntimeError("shapes differ")))
    done = aha("train", "demo")
    assert done.code == 1 and "RuntimeError: shapes differ" in done.err, "with its traceback"
    assert "a fault of the program: please report it" in done.err.splitlines()[-1]


# -- training -------------------------------------------------------------------------------

RECIPE = """\
steps = 2
checkpoint_every = 1
show_every = 1

[model]
path = {path}

[task]
verifier = "tinyzero"

[rollout]
prompts = 2
group_size = 2
max_new_tokens = 24

[eval]
every = 1
problems = 3
final = 8
"""


@pytest.fixture
def recipe(tmp_path) -> Path:
    folder = answering_folder(tmp_path / "base")
    path = tmp_path / "mine.toml"
    path.write_text(RECIPE.format(path=json.dumps(str(folder))))
    return path


def test_train_from_a_recipe_to_a_report_card(aha, recipe, tmp_path):
    done = aha("train", "mine.toml", "--seed", 3)
    assert done.code == 0, done.err
    path = tmp_path / "runs" / "mine"
    summary = json.loads((path / "summary.json").read_text())
    wanted = {"before", "after", "steps", "seconds", "cost_usd", "seed", "commit"}
    assert wanted <= summary.keys()
    assert (summary["steps"], summary["seed"]) == (2, 3) and summary["cost_usd"] > 0
    for name in ("before", "after"):
        assert {"solve_rate", "interval", "mean_tokens", "truncated"} <= summary[name].keys()
        assert summary[name]["problems"] == 8
    for words in (
        "planned: ",
        "before training: 8 held-out problems",
        "step",
        "held-out: solved",
        "solve rate",
        "at 24 tokens at most: ",
    ):
        assert words in done.out, done.out
    assert "this run:" in done.out and "runs/mine" in done.out
    assert done.out.splitlines()[-3:] == [
        "  aha chat runs/mine",
        "  aha report runs/mine",
        "  aha dash",
    ]
    # The log has all that was printed.
    log = (path / "run.log").read_text()
    assert "held-out: solved" in log and log.splitlines()[-1] == "  aha dash"

    # The run is a model, and so is the folder inside it.
    for name in ("runs/mine", path, path / "model"):
        found = aha("eval", name, "--n", 8, "--max-new-tokens", 24, "--json", "--out", "o.jsonl")
        (row,) = rows_of(found)
        assert row["problems"] == 8
        (tmp_path / "o.jsonl").unlink()

    # The next run of this recipe finds a name of its own.
    again = aha("train", "mine.toml", "--eval.final", 0, "--eval.every", 0, "--show_every", 0)
    assert again.code == 0 and (tmp_path / "runs" / "mine-2" / "summary.json").is_file()


def test_train_takes_a_name_and_does_not_take_it_twice(aha, recipe, tmp_path):
    words = ("train", "mine.toml", "--name", "first", "--eval.final", 0, "--eval.every", 0)
    assert aha(*words).code == 0
    before = files_below(tmp_path / "runs")
    done = aha(*words)
    assert done.code == 2 and "exists already" in done.err and "first-2" in done.err
    assert files_below(tmp_path / "runs") == before


def test_a_spent_budget_leaves_a_checkpoint_and_the_line_to_go_on(aha, recipe, tmp_path):
    words = ("train", "mine.toml", "--eval.final", 0, "--eval.every", 0)
    done = aha(*words, "--budget", "0.001s")
    assert (
        done.code == 3 and "budget is spent; go on with: aha train --resume runs/mine" in done.out
    )
    run = tmp_path / "runs" / "mine"
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 1
    assert not (run / "summary.json").exists()
    again = aha("train", "--resume", "runs/mine", "--budget", "1h")
    assert again.code == 0 and json.loads((run / "summary.json").read_text())["steps"] == 2
    for text in ("much", ""):  # "": a variable of the shell that has no value
        bad = aha(*words, "--name", "other", "--budget", text)
        assert bad.code == 2 and bad.err.count("\n") == 1 and not (run.parent / "other").exists()
