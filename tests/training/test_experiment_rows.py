"""Problems that the model cannot read, in a whole run: told, counted, and never its end."""

import json
from pathlib import Path

import pytest

from aha.core.config import RunConfig
from aha.core.errors import DataError
from aha.core.records import Problem
from aha.store.run_folder import read_rows
from aha.training import experiment
from aha.training.experiment import Experiment
from aha.training.outcome import Listener

from ..tiny import StartsWith, answering_folder
from .test_experiment import same_weights, stop_after, timeless


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return answering_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("AHA_CACHE", str(tmp_path / "cache"))


def config(model: Path, **changes) -> RunConfig:
    raw = {
        "steps": 5,
        "checkpoint_every": 2,
        "model": {"path": str(model)},
        "rollout": {"prompts": 4, "group_size": 4, "max_new_tokens": 8, "dtype": "float32"},
        "optim": {"lr": 1e-3, "dtype": "float32"},
        "eval": {"every": 0, "final": 12},
    }
    for name, value in changes.items():
        raw[name] = raw.get(name, {}) | value
    return RunConfig.model_validate(raw)


class SometimesUnreadable(StartsWith):
    """One prompt in three is longer than the model's positions, or has what no token makes."""

    def __init__(self) -> None:
        super().__init__(tuple("0123456789 <"))

    def ask(self, problem: Problem) -> str:
        kind = sum(problem.given["numbers"]) % 6
        return "caf\u00e9" if kind == 1 else "9" * 200 if kind == 2 else super().ask(problem)


@pytest.mark.parametrize("curriculum", ["off", "no_positive"])
def test_skipped_problems_leave_a_resumed_run_bit_equal(model, tmp_path, monkeypatch, curriculum):
    monkeypatch.setattr(experiment, "task_of", lambda cfg: SometimesUnreadable())
    pool = {} if curriculum == "off" else {"pool": 8}
    cfg = config(model, algo={"curriculum": curriculum} | pool)
    findings = []
    straight = Experiment.start(cfg, tmp_path / "straight", Listener(finding=findings.append))
    straight.run_all()
    rows = timeless(straight.run.metrics)
    assert sum(row.get("skipped", 0) for row in rows) > 0 and len(rows) == 5
    messages = [finding.message for finding in findings]
    assert any("problems 1" in message or "will be skipped" in message for message in messages)
    assert any("of the split 'train' is skipped" in message for message in messages)
    assert any("of the split 'test' is skipped" in message for message in messages)
    kept = list(read_rows(straight.run.findings))
    assert {row["check"] for row in kept} >= {"skipped_problems"} and kept[0]["step"] == 0

    stopped = Experiment.start(cfg, tmp_path / "stopped", Listener(step=stop_after(3)))
    assert stopped.run_all().summary is None
    Experiment.resume(tmp_path / "stopped", Listener()).run_all()
    assert timeless(stopped.run.metrics) == rows
    assert same_weights(straight.run.model, stopped.run.model)


def test_a_row_that_is_too_long_is_refused_before_the_run_or_dropped_and_told(model, tmp_path):
    rows = [{"nums": [n, 7, 25], "target": n + 32} for n in range(1, 60)]
    questions = [{"question": f"{row['nums']}?", "answer": "3"} for row in rows]
    questions.insert(20, {"question": "very " * 100 + "long?", "answer": "3"})
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in questions))
    task = {"name": "math", "data": str(path)}
    room = {"max_new_tokens": 2}
    with pytest.raises(DataError, match="1 of 60 rows .*math/.*drop"):
        Experiment.start(config(model, task=task, rollout=room), tmp_path / "run", Listener())
    assert not (tmp_path / "run").exists()

    task["bad_rows"] = "drop"
    findings = []
    run = Experiment.start(
        config(model, task=task, rollout=room | {"prompts": 20}, eval={"final": 2}),
        tmp_path / "run",
        Listener(finding=findings.append),
    )
    assert run.run_all().summary["steps"] == 5
    assert "1 of 60 rows" in findings[0].message and findings[0].check == "dropped_rows"
    resumed = []
    Experiment.resume(tmp_path / "run", Listener(finding=resumed.append))
    assert len(list(read_rows(run.run.findings))) == len([f for f in findings]) and not resumed
