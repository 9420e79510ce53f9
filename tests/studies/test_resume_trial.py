"""What the trial of resuming compares, and the short run that it makes of a recipe."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from aha.core.config import RunConfig
from aha.studies.resume_trial import differences_of, same, short_run
from aha.training.experiment import Experiment
from aha.training.outcome import Listener

from ..tiny import answering_folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trial")
    answering_folder(folder / "base")
    raw = {
        "steps": 2,
        "model": {"path": str(folder / "base")},
        "task": {"verifier": "tinyzero"},
        "rollout": {"prompts": 2, "group_size": 6, "max_new_tokens": 16, "dtype": "float32"},
        "eval": {"every": 1, "problems": 2, "final": 2},
    }
    Experiment.start(RunConfig.model_validate(raw), folder / "run", Listener()).run_all()
    return folder / "run"


PLANTED = [
    ("metrics.jsonl", b'"loss": ', b'"loss": 1'),
    ("evals.jsonl", b'"solve_rate": ', b'"solve_rate": 1'),
    ("completions/step_000002.jsonl", b'"finish"', b'"finish "'),
    ("before.json", b'"problems": ', b'"problems": 1'),
    ("model/generation_config.json", b"{", b"{ "),
]


@pytest.mark.parametrize(("name", "old", "new"), PLANTED)
def test_a_difference_of_any_kind_is_noticed(whole, tmp_path, name, old, new):
    other = Path(shutil.copytree(whole, tmp_path / "other"))
    assert list(differences_of(whole, other, {})) == []
    content = (other / name).read_bytes()
    assert old in content
    (other / name).write_bytes(content.replace(old, new, 1))
    (line,) = differences_of(whole, other, {})
    assert line.startswith(name)


def test_another_commit_is_no_difference_and_another_result_is_named(whole, tmp_path):
    other = Path(shutil.copytree(whole, tmp_path / "other"))
    summary = json.loads((other / "summary.json").read_text())
    (other / "summary.json").write_text(json.dumps(summary | {"commit": "other"}))
    assert list(differences_of(whole, other, {})) == []
    summary["after"]["solve_rate"] = 2.0
    (other / "summary.json").write_text(json.dumps(summary))
    assert list(differences_of(whole, other, {})) == ["summary.json differs: after.solve_rate"]


def test_a_difference_in_the_state_of_the_optimiser_is_noticed(whole, tmp_path):
    other = Path(shutil.copytree(whole, tmp_path / "other"))
    path = other / "checkpoints" / "step_000002"
    state = torch.load(path / "trainer.pt")
    moments = next(iter(state["optimizer"]["state"].values()))["exp_avg"]
    moments.view(-1)[0] += 1e-12
    (path / "SHA256SUMS").unlink()
    del state["has_checksums"]
    torch.save(state, path / "trainer.pt")
    (line,) = differences_of(whole, other, {})
    assert "exp_avg differs" in line


def test_a_file_and_a_row_more_are_noticed(whole, tmp_path):
    other = Path(shutil.copytree(whole, tmp_path / "other"))
    (other / "completions" / "step_000003.jsonl").write_text("")
    with (other / "metrics.jsonl").open("a") as out:
        out.write('{"step": 3}\n')
    assert len(list(differences_of(whole, other, {}))) == 2


def test_equal_is_equal_to_the_bit():
    nan = float("nan")
    assert same(nan, nan) and same(torch.tensor([nan]), torch.tensor([nan]))
    assert not same(0.0, -0.0) and not same(1, 1.0) and not same(1, True)
    assert not same(torch.zeros(1), -torch.zeros(1))
    assert not same(torch.zeros(1), torch.zeros(1).double())


def test_the_short_run_has_all_parts_of_the_recipe():
    raw = {"algo": {"advantage": "gae", "loss": "ppo_clip", "kl": "reward", "reference_reset": 50}}
    raw |= {"critic": {"warmup": 30}, "steps": 5, "tokens": 10**6}
    cfg = short_run(RunConfig.model_validate(raw))
    assert (cfg.steps, cfg.tokens, cfg.critic.warmup, cfg.algo.reference_reset) == (5, 0, 1, 2)
    assert cfg.algo.loss == "ppo_clip" and cfg.eval.every == 3 and cfg.rollout.prompts == 8
