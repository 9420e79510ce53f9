"""`--json`: every line of the output is one event, and the last one is the end."""

import json
import re
from pathlib import Path

from aha.cli import json_events
from aha.cli.parameters import JsonLines

from ..tiny import answering_folder, write_recipe

BROKEN = """
from aha.core.records import Problem

def problems(split, seed):
    for number in {"train": range(50), "validation": range(50, 60), "test": range(60, 80)}[split]:
        yield Problem(f"broken/{number}", "broken", {"number": number})

def ask(problem):
    return f"numbers {problem.given['number']} target 1\\n<think>\\n"

def grade(problem, text):
    raise RuntimeError("a bad day")
"""


def prepare(folder: Path) -> None:
    """base/ and mine.toml: two steps, each with a group to show and a validation."""
    answering_folder(folder / "base")
    tests = {"every": 1, "problems": 2, "final": 3}
    more = {"steps": 2, "show_every": 1, "rollout": {"group_size": 2}, "eval": tests}
    write_recipe(folder / "mine.toml", **more)


def events_of(done) -> list[dict]:
    return [json.loads(line) for line in done.out.splitlines()]


def test_a_run_as_events(aha, tmp_path):
    prepare(tmp_path)
    done = aha("train", "mine.toml", "--json", "--no-dash")
    events = events_of(done)
    names = [event["event"] for event in events]
    assert done.code == 0 and names[0] == "start" and names[-1] == "end"
    assert [n for n in names if n in ("test", "step", "group", "validation")] == [
        "test",
        *("step", "group", "validation"),
        *("step", "group", "validation"),
        "test",
    ]
    steps = [event for event in events if event["event"] == "step"]
    assert [(event["step"], event["of"]) for event in steps] == [(1, 2), (2, 2)]
    assert steps[0].keys() >= {"reward", "solve_rate", "mean_tokens", "elapsed_s"}
    group = next(event for event in events if event["event"] == "group")
    assert len(group["completions"]) == 2
    assert group["completions"][0].keys() >= {"reward", "advantage", "parts", "completion"}
    assert events[-1]["exit_code"] == 0 and events[-1]["summary"]["steps"] == 2
    # The words are in the log all the same.
    assert "Next:" in (tmp_path / "runs" / "mine" / "run.log").read_text()


def test_a_run_that_an_error_ends_has_an_end_as_well(aha, tmp_path):
    prepare(tmp_path)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    done = aha("train", "mine.toml", "--name", "mine", "--json", "--no-dash")
    (end,) = events_of(done)
    assert done.code == end["exit_code"] == 2 and end["summary"] is None
    assert end["error"]["kind"] == "RunError" and "--name mine-2" in end["error"]["fix"]
    assert done.err.strip() == f"aha: {end['error']['message']}"
    # A grader that never works ends the run itself: exit code 1.
    (tmp_path / "broken.py").write_text(BROKEN)
    words = ("--task.name", "broken.py", "--name", "other", "--json", "--no-dash")
    done = aha("train", "mine.toml", *words)
    end = events_of(done)[-1]
    assert done.code == end["exit_code"] == 1 and end["error"]["kind"] == "RunStopped", done.err


def test_a_stopped_run_ends_with_its_exit_code_and_goes_on(aha, tmp_path):
    prepare(tmp_path)
    done = aha("train", "mine.toml", "--json", "--no-dash", "--budget", "0.001s")
    end = events_of(done)[-1]
    assert done.code == 3 and (end["event"], end["exit_code"], end["summary"]) == ("end", 3, None)
    again = aha("train", "--resume", "runs/mine", "--json", "--no-dash")
    assert again.code == 0 and events_of(again)[-1]["summary"]["steps"] == 2
    assert (tmp_path / "runs/mine/run.log").read_text().count("aha  ") == 2


def test_the_help_names_every_event():
    source = Path(json_events.__file__).read_text(encoding="utf-8")
    events = set(re.findall(r'emit\(\s*"(\w+)"', source))
    (said,) = re.findall(r"event \((.*?)\)", JsonLines.__metadata__[0].help)
    assert len(events) > 8 and set(said.split(", ")) == events
