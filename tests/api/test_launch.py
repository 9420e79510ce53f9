"""Runs of Python programs that stop, go on, live in threads and follow one another."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

import pytest

import aha
from aha.core.errors import ConfigError, RunError, RunStopped

from .conftest import ROWS, digits


def other(completion, answer):
    return float(completion.startswith(answer))


def timeless(run):
    clocks = re.compile(r".*_s$|memory_gb$")
    return [{k: v for k, v in row.items() if not clocks.match(k)} for row in run.rows]


def stop_after(step: int, number: int = signal.SIGINT):
    """A callback that presses Ctrl-C in the middle of a run."""

    def stop(row: dict) -> None:
        if row["step"] == step:
            os.kill(os.getpid(), number)

    return stop


def test_an_interrupt_leaves_a_checkpoint_and_the_line_that_goes_on(train, capsys, tmp_path):
    whole = train(steps=4, name="whole", show=False)
    with pytest.raises(KeyboardInterrupt, match=r"aha.train\(resume='runs/cut', reward=digits"):
        train(steps=4, name="cut", callbacks=stop_after(2))
    said = capsys.readouterr().err
    assert said.count("aha.train(resume='runs/cut', reward=digits, data=...)") == 1
    assert "aha train --resume" not in said
    assert [p.name for p in (tmp_path / "runs/cut/checkpoints").iterdir()] == ["step_000002"]
    assert not aha.open_run("runs/cut").finished and len(aha.open_run("runs/cut").rows) == 2
    run = train(resume="runs/cut", data=ROWS, show=False)
    assert run.finished and timeless(run) == timeless(whole)
    assert run.after["solve_rate"] == whole.after["solve_rate"]


def test_a_second_interrupt_stops_at_once_and_says_the_line_too(train, capsys):
    def twice(row):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(name="cut", callbacks=twice, show=False)
    assert capsys.readouterr().err.count("aha.train(resume='runs/cut'") == 1
    assert len(aha.open_run("runs/cut").rows) == 1


def test_a_callback_may_stop_the_run_with_its_step_saved(train, tmp_path):
    def enough(row):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(name="cut", callbacks=enough, show=False)
    assert (tmp_path / "runs/cut/checkpoints/step_000001").is_dir()
    assert train(resume=aha.open_run("runs/cut"), show=False).finished


@pytest.fixture
def cut(train):
    """A run that was stopped after its first step."""
    with pytest.raises(KeyboardInterrupt):
        train(steps=3, name="cut", callbacks=stop_after(1), show=False)
    return "runs/cut"


def changed_digits(completion):
    return 0.5


changed_digits.__name__ = "digits"


def test_what_has_changed_is_noticed_at_a_resume(train, cut):
    with pytest.raises(RunError, match=r"task\.?.*digits sha256"):
        train(resume=cut, reward=changed_digits, show=False)
    with pytest.raises(RunError, match="rows|data"):
        train(resume=cut, data=ROWS[1:], show=False)
    with pytest.raises(ConfigError, match="'reward:digits', and the reward is 'reward:other'"):
        train(resume=cut, reward=other, show=False)
    with pytest.raises(ConfigError, match="pass reward=digits again"):
        aha.train(resume=cut, show=False)
    assert len(aha.open_run(cut).rows) == 1
    run = train(resume=cut, reward=changed_digits, accept_changes=True, show=False)
    assert run.finished and any(f["check"] == "accepted_change" for f in run.findings)


def test_weights_of_a_run_are_part_of_it(train):
    both = {"reward": [digits, other], "reward_weights": [1, 0.5], "show": False}
    with pytest.raises(KeyboardInterrupt):
        train(**both, steps=3, name="cut", callbacks=stop_after(1))
    run = train(**both, resume="runs/cut")
    assert run.finished and run.config["task"]["options"] == {"weights": [1.0, 0.5]}
    with pytest.raises(KeyboardInterrupt):
        train(**both, steps=3, name="again", callbacks=stop_after(1))
    with pytest.raises(RunError, match="weights"):
        train(**both | {"reward_weights": [1, 0.7]}, resume="runs/again")


def test_the_weight_of_one_function_is_part_of_its_run(train):
    with pytest.raises(KeyboardInterrupt):
        train(reward_weights=[0.5], steps=2, name="cut", callbacks=stop_after(1), show=False)
    assert aha.open_run("runs/cut").config["task"]["options"] == {"weights": [0.5]}
    with pytest.raises(RunError, match="weights"):
        train(resume="runs/cut", show=False)


def test_a_spent_budget_gives_back_the_run_so_far(train, capsys):
    run = train(steps=50, name="cut", budget="0.001 s", show=False)
    assert not run.finished and 0 < len(run.rows) < 50
    said = capsys.readouterr().err
    assert "the budget is spent; go on with: aha.train(resume='runs/cut', reward=digits" in said


def test_more_steps_make_a_finished_run_longer(train, capsys):
    run = train(show=False)
    assert [row["step"] for row in train(resume=run, steps=3).rows] == [1, 2, 3]
    assert "step   3/3" in capsys.readouterr().out


def test_a_run_in_a_thread_is_the_same_run_and_handles_no_signal(train):
    results = {}

    def work():
        before = signal.getsignal(signal.SIGINT)
        results["run"] = train(name="thread", show=False)
        results["same"] = signal.getsignal(signal.SIGINT) is before

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert results["same"] and timeless(results["run"]) == timeless(train(show=False))


def test_two_runs_at_once_keep_to_themselves(train):
    """Two functions of one name, each in its own thread."""

    def rewards(value):
        def reward(completion):
            return value

        return reward

    runs = {}

    def work(value):
        runs[value] = train(reward=rewards(value), name=f"run-{value}", show=False)

    threads = [threading.Thread(target=work, args=(value,)) for value in (0.25, 0.75)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {v: {row["reward"] for row in run.rows} for v, run in runs.items()} == {
        0.25: {0.25},
        0.75: {0.75},
    }


def test_a_reward_that_fails_too_often_ends_the_run_with_its_name(train):
    def broken(completion):
        raise ValueError("no such thing")

    with pytest.raises(RunStopped, match="the reward broken raised ValueError: no such thing"):
        train(reward=broken, show=False)


SCRIPT = """
import aha

rows = [{{"prompt": f"{{n}}+1=", "answer": str(n + 1)}} for n in range(40)]

def right(completion, answer):
    return float(answer in completion)

run = aha.train("demo", model={model!r}, reward=right, data=rows, steps=1, show=False,
                rollout={{"prompts": 2, "group_size": 2, "max_new_tokens": 4}},
                eval={{"every": 0, "final": 0}})
print(run.path, len(run.rows))
"""


def test_a_script_without_a_main_guard_runs_once(model, tmp_path):
    """The reward is called where it was defined: no process imports the script again."""
    path = tmp_path / "mine.py"
    path.write_text(SCRIPT.format(model=str(model)))
    done = subprocess.run([sys.executable, path], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.split() == ["runs/right", "1"], done.stderr
    kept = json.loads((tmp_path / "runs/right/rewards.json").read_text())
    assert kept == {
        "right": "def right(completion, answer):\n    return float(answer in completion)\n"
    }
    assert Path(tmp_path / "runs/right/fingerprints.json").is_file()


@pytest.mark.skipif(find_spec("tensorboard") is None, reason="pip install 'aha[tensorboard]'")
def test_a_logger_follows_a_run_over_its_resume(train):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with pytest.raises(KeyboardInterrupt):
        train(steps=3, name="cut", callbacks=stop_after(1), log=["tensorboard"], show=False)
    rows = train(resume="runs/cut", show=False).rows
    events = EventAccumulator("runs/cut/tensorboard")
    events.Reload()
    assert [(event.step, pytest.approx(event.value)) for event in events.Scalars("reward")] == [
        (row["step"], row["reward"]) for row in rows
    ]


def test_an_unknown_logger_is_refused_in_the_words_of_python(train, tmp_path):
    with pytest.raises(ConfigError, match="log='wandb'"):
        train(log="wandbb")
    assert not (tmp_path / "runs").exists()


def test_a_run_of_several_ranks_goes_on_in_one_process(train, cut):
    file = Path(cut, "fingerprints.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"ranks": 2}))
    assert train(resume=cut, show=False).finished
    assert json.loads(file.read_text())["ranks"] == 1
