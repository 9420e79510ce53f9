"""A whole run of fine-tuning: its folder, stopped anywhere, and what goes on from it."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch

from aha.core.config import RunConfig
from aha.core.errors import ConfigError, DataError, ModelError, RunError
from aha.machine.host import Memory
from aha.model.folders import base_cost, resolve_model
from aha.model.parents import chain_of
from aha.model.weights import load_model
from aha.sft import tuning_plan
from aha.sft.tuning_config import TuningConfig
from aha.sft.tuning_plan import refuse_hopeless
from aha.sft.tuning_run import FineTuning, open_run_parts
from aha.store.checkpoint import checkpoints
from aha.store.run_folder import read_rows
from aha.training.experiment import Experiment
from aha.training.outcome import Listener
from aha.web.chart_list import charts_of

from ..tiny import tiny_folder

STEPS = 6
OF_OTHERS = ("Margin of the pairs", "Pairs ranked rightly", "Clipped tokens", "KL to the reference")
ROWS = [
    {"prompt": "numbers 3 4 5 target 12\n<think>\n", "completion": "3+4=7\n7+5=12 yes"},
    {"prompt": "a", "completion": "bcd"},
    {"prompt": "2+2=", "completion": "4"},
    {"prompt": "2+3=", "completion": "five"},
    {"prompt": "no answer"},
]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("models") / "tiny", std=0.1)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "examples.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def config(base: Path, data: Path, **changes) -> TuningConfig:
    raw = {
        "data": str(data),
        "examples": 2,
        "checkpoint_every": 2,
        "model": {"path": str(base)},
        "optim": {"lr": 1e-2, "dtype": "float32"},
    }
    for name, value in changes.items():
        raw[name] = raw.get(name, {}) | value if isinstance(value, dict) else value
    return TuningConfig.model_validate(raw)


def ignore(*unused: object) -> None:
    pass


def go(cfg: TuningConfig, path: Path, say=ignore, on_row=ignore, budget=None):
    tuning = FineTuning.start(cfg, path, say, budget)
    return tuning, tuning.run_all(say, on_row).summary


def go_on(path: Path, say=ignore, accept=False):
    tuning = FineTuning.resume(path, say, accept, None)
    return tuning, tuning.run_all(say, ignore).summary


def timeless(path: Path) -> list[dict]:
    measured = ("elapsed_s", "train_s", "tokens_per_s", "memory_gb")
    return [{k: v for k, v in row.items() if k not in measured} for row in read_rows(path)]


def same_model(one: Path, other: Path) -> bool:
    ours, theirs = (load_model(resolve_model(str(path))).policy.weights() for path in (one, other))
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


@pytest.fixture(scope="module")
def straight(model, data, tmp_path_factory):
    lines = []
    tuning, summary = go(config(model, data), tmp_path_factory.mktemp("r") / "one", lines.append)
    return tuning, summary, lines


def test_the_folder_is_that_of_a_run(straight, model, data):
    tuning, summary, lines = straight
    run = tuning.run
    assert [row["step"] for row in read_rows(run.metrics)] == list(range(1, STEPS + 1))
    assert [path.name for path in checkpoints(run.checkpoints)] == ["step_000004", "step_000006"]
    assert not same_model(run.path, model) and not (run.path / "owner.json").exists()
    cfg = run.read("config.json")
    assert cfg["kind"] == "sft" and cfg["steps"] == STEPS and cfg["data"] == str(data)
    assert TuningConfig.model_validate(cfg) == tuning.cfg
    (finding,) = read_rows(run.findings)
    assert "1 without an answer (first: row 5" in finding["message"]
    assert any(finding["message"] in line for line in lines)
    last = list(read_rows(run.metrics))[-1]
    assert summary["loss"] == last["loss"] < list(read_rows(run.metrics))[0]["loss"]
    assert last["epoch"] == 3.0 and last["tokens"] == 2 * last["mean_tokens"]
    assert summary["steps"] == STEPS and summary["examples"] == 4
    assert summary["cost_usd"] > 0 and summary["base_cost_usd"] is None
    assert summary["plan"]["figures"]["seconds"]["measured"] == summary["seconds"]


def test_its_rows_have_numbers_for_every_chart_of_its_page(straight):
    (*_, row) = read_rows(straight[0].run.metrics)
    assert row["memory_gb"] > 0.05  # torch alone takes more
    for _, charts in charts_of(0.08, tuning=True):
        for chart in charts:
            measured = [column for _, column, _ in chart["series"] if row.get(column) is not None]
            others = chart.get("optional") and chart["title"] in OF_OTHERS
            assert measured or others, chart["title"]


def test_a_bad_file_leaves_no_folder_behind(model, tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"prompt": "a"}\n')
    with pytest.raises(DataError, match="without an answer"):
        go(config(model, path), tmp_path / "run")
    with pytest.raises(ModelError, match="no model called"):
        go(config(tmp_path / "none", path), tmp_path / "run")
    assert [one.name for one in tmp_path.iterdir()] == ["bad.jsonl"]


def test_what_does_not_fit_is_refused_by_the_memory_that_the_weights_have_already(
    data, tmp_path, monkeypatch
):
    """16 bytes a weight: four of them are there before anybody looks at what is free."""
    path = tiny_folder(tmp_path / "base", hidden_size=512, intermediate_size=512)
    weights = load_model(path).policy.num_parameters()
    said = []

    def refused(each: float, rank: int = 0) -> str:
        free = int(each * weights)
        monkeypatch.setattr(tuning_plan, "device_memory", lambda device: Memory(free, free))
        opened = open_run_parts(config(path, data, model={"lora_rank": rank}), path)
        try:
            refuse_hopeless(opened.cfg, opened.model, opened.examples, said.append)
        except ConfigError as error:
            return error.fix
        return ""

    assert refused(1000) == "" and not said
    assert refused(12.5) == "" and "it needs less with a smaller --micro-batch-tokens" in said[0]
    assert refused(11.5) == "--lora-rank 16"
    assert refused(2.0) == "--lora-rank 16" and refused(2.0, 16) == ""
    assert refused(0.1, 16) == "a smaller model"
    with pytest.raises(ConfigError, match="GB planned"):
        go(config(path, data, model={"lora_rank": 16}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("lora", [0, 2])
@pytest.mark.parametrize("step", [1, 4])
def test_a_stopped_run_goes_on_bit_for_bit(model, data, straight, tmp_path, step, lora):
    cfg = config(model, data, model={"lora_rank": lora})
    whole = straight[0].run.path
    if lora:
        whole = go(cfg, tmp_path / "whole")[0].run.path

    def stop(row: dict) -> None:
        if row["step"] == step:
            os.kill(os.getpid(), signal.SIGTERM)

    lines = []
    _, summary = go(cfg, tmp_path / "run", lines.append, stop)
    assert summary is None and f"aha train --resume {tmp_path / 'run'}" in lines[-1]
    assert len(timeless(tmp_path / "run" / "metrics.jsonl")) == step
    _, summary = go_on(tmp_path / "run")
    assert summary["steps"] == STEPS and same_model(tmp_path / "run", whole)
    rows = [timeless(path / "metrics.jsonl") for path in (tmp_path / "run", whole)]
    assert rows[0] == rows[1] and len(rows[0]) == STEPS
    assert (tmp_path / "run" / "model" / "adapter_config.json").exists() == bool(lora)


def test_a_crash_loses_what_came_after_the_last_whole_step_alone(model, data, straight, tmp_path):
    def crash(row: dict) -> None:
        if row["step"] == 3:
            raise OSError("the disk")

    lines = []
    with pytest.raises(OSError, match="the disk"):
        go(config(model, data), tmp_path / "run", lines.append, crash)
    assert "step 3 is saved" in lines[-1]
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step_000003")  # as if killed: step 2 is left
    tuning, _ = go_on(tmp_path / "run")
    assert same_model(tuning.run.path, straight[0].run.path)
    assert timeless(tuning.run.metrics) == timeless(straight[0].run.metrics)


def test_a_finished_run_is_left_as_it_is(model, data, tmp_path):
    tuning, summary = go(config(model, data), tmp_path / "run")
    run, lines = tuning.run, []
    tested = summary | {"before": {"solve_rate": 0.25}, "after": {"solve_rate": 0.5}, "wall_s": 9.0}
    run.write("summary.json", tested)  # as `aha distill` and `aha prefer` do after their tests
    again, repeated = go_on(run.path, lines.append)
    assert repeated == tested == run.read("summary.json") and again.trainer.version == STEPS
    assert f"{run.path} is done: nothing is left to train" in lines
    assert timeless(run.metrics) == timeless(again.run.metrics)
    shutil.rmtree(run.model)
    go_on(run.path)
    assert same_model(run.model, run.checkpoints / "step_000006")
    assert run.read("summary.json") == tested


def test_other_examples_or_another_base_are_refused_unless_accepted(model, data, tmp_path):
    other = tmp_path / "examples.jsonl"
    shutil.copy(data, other)
    go(config(model, other), tmp_path / "run", budget="0.000001s")
    with other.open("a") as lines:
        lines.write('{"prompt": "c", "completion": "d"}\n')
    with pytest.raises(RunError, match=r"data examples\.jsonl sha256 .* --accept-changes"):
        go_on(tmp_path / "run")
    tuning, summary = go_on(tmp_path / "run", accept=True)
    assert summary["examples"] == 5 and tuning.run.read("config.json")["steps"] == 8
    assert any(row["check"] == "accepted_change" for row in read_rows(tuning.run.findings))
    other.unlink()
    with pytest.raises(RunError, match="has gone"):
        go_on(tmp_path / "run")


def test_a_budget_ends_it_with_a_checkpoint(model, data, tmp_path):
    lines = []
    tuning, summary = go(config(model, data), tmp_path / "run", lines.append, budget="0.000001s")
    assert summary is None and tuning.trainer.version == 1
    assert lines[-1].startswith("the budget is spent; go on with: aha train --resume")
    assert [path.name for path in checkpoints(tuning.run.checkpoints)] == ["step_000001"]


def test_a_chain_of_runs_knows_its_parents_and_adds_their_costs(data, model, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(model, base)
    card = {"cost_usd": 0.5, "kwh": 0.25, "start": "x", "start_cost": {"cost_usd": 1.0, "kwh": 1.0}}
    (base / "pretraining.json").write_text(json.dumps(card))
    costs = {"usd_per_hour": 3600.0, "watts": 1000.0}  # a dollar a second
    first, summary = go(config(base, data, **costs), tmp_path / "first")
    assert summary["base_cost_usd"] == 1.5
    assert summary["cost_usd"] == pytest.approx(summary["seconds"], abs=1e-3)  # rounded

    recipe = {"steps": 1, "model": {"path": str(first.run.path)}, **costs}
    recipe |= {"rollout": {"prompts": 2, "group_size": 2, "max_new_tokens": 8}}
    recipe |= {"eval": {"every": 0, "final": 0}}
    rl = Experiment.start(RunConfig.model_validate(recipe), tmp_path / "rl", Listener()).run_all()
    expected = 1.5 + summary["cost_usd"]
    assert rl.summary["base_cost_usd"] == pytest.approx(expected)

    last, of_last = go(config(tmp_path / "rl", data, **costs), tmp_path / "last")
    expected += rl.summary["cost_usd"]
    assert of_last["base_cost_usd"] == pytest.approx(expected)
    parents = last.run.read("fingerprints.json")["parents"]
    names = [("x", "pretrain"), ("base", "pretrain"), ("first", "sft"), ("rl", "rl")]
    assert [(one["name"], one["kind"]) for one in parents] == names
    chain = chain_of(resolve_model(str(tmp_path / "last")))
    assert chain[:-1] == parents and chain[-1]["name"] == "last"
    total = base_cost(resolve_model(str(tmp_path / "last")))
    assert total["cost_usd"] == pytest.approx(expected + of_last["cost_usd"])


def test_the_usual_rate_depends_on_the_size(model, data, tmp_path):
    cfg = TuningConfig(data=str(data), model={"path": str(model)}, examples=64, epochs=1)
    tuning, summary = go(cfg, tmp_path / "run")
    assert tuning.cfg.optim.lr == 1e-3 and summary["steps"] == 1
    assert tuning.run.read("config.json")["optim"]["lr"] == 1e-3
