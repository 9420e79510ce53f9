"""`--dry-run` is a trial of the run: it refuses what the run refuses, and leaves nothing."""

import json

import pytest

SMALL = ("--rollout.max_new_tokens", 24, "--eval.final", 4)


@pytest.mark.parametrize(
    "words",
    [
        ("--rollout.max_new_tokens", 500),  # the model has 160 positions
        ("--task.data", "none.jsonl"),
        ("--task.data", "bad.jsonl"),
        ("--model.path", "nowhere"),
        ("--name", "taken"),
        ("--rollout.engine", "vllm"),
        ("--budget", "much"),
        ("--model.device", "cuda"),
    ],
    ids=lambda words: " ".join(map(str, words)),
)
def test_a_trial_refuses_what_the_run_refuses(aha, model, tmp_path, monkeypatch, words):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)  # on any machine
    (tmp_path / "bad.jsonl").write_text('{"nums": "3 7"}\n')
    (tmp_path / "runs" / "taken").mkdir(parents=True)
    command = ("train", "demo", "--model.path", model, *SMALL, *words)
    before = sorted(tmp_path.rglob("*"))
    trial = aha(*command, "--dry-run")
    assert (trial.code, trial.out) == (2, "") and trial.err.count("\n") == 1, trial.err
    run = aha(*command)
    assert (run.code, run.err) == (2, trial.err)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_trial_of_what_works_prints_the_settings_and_writes_nothing(aha, model, tmp_path):
    done = aha("train", "demo", "--model.path", model, *SMALL, "--dry-run")
    assert done.code == 0 and json.loads(done.out)["rollout"]["max_new_tokens"] == 24
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_is_not_here_is_not_fetched_for_a_trial(aha, tmp_path):
    done = aha("train", "tinyzero-0.5b", "--dry-run")
    assert done.code == 0 and json.loads(done.out)["model"]["path"] == "Qwen/Qwen2.5-0.5B"
    assert "is not on this disk: its prompts and memory are not checked" in done.err
    assert "planned: " in done.err and list(tmp_path.iterdir()) == []
