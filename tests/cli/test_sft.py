"""`aha sft` on the command line, and the commands that take what it leaves."""

import json

import pytest

ROWS = [
    {"prompt": "numbers 3 4 5 target 12\n<think>\n", "completion": "3+4=7"},
    {"prompt": "2+2=", "completion": "4"},
    {"prompt": "no answer"},
]
QUICK = ("--epochs", 2, "--examples", 1, "--dtype", "float32")


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "examples.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def test_a_run_from_the_command_line_and_what_takes_it(aha, model, data):
    done = aha("sft", model, "--data", data, *QUICK, "--lora-rank", 2)
    assert done.code == 0, done.err
    assert "1 rows of examples.jsonl dropped, 2 kept: 1 without an answer" in done.out
    assert "2 examples of" in done.out and "the model is in runs/sft/model" in done.out
    config = json.loads((data.parent / "runs/sft/config.json").read_text())
    assert config["steps"] == 4 and config["model"]["lora_rank"] == 2
    # A finished run is gone on with, exported, reported and listed as one of RL.
    again = aha("train", "--resume", "runs/sft")
    assert again.code == 0 and "resumes after step 4" in again.out
    exported = aha("export", "runs/sft", "--out", "exported")
    assert exported.code == 0, exported.err
    card = (data.parent / "exported/README.md").read_text()
    assert "reinforcement" not in card and "4 steps, seed 0" in card
    assert aha("report", "runs/sft", "--out", "report.html").code == 0
    for words in (("eval", "runs/sft", "--n", 2), ("ask", 3, 4, 5, "--target", 12)):
        limit = ("--max-new-tokens", 4) if words[0] == "eval" else ("--model", "runs/sft")
        tested = aha(*words, *limit)
        assert tested.code == 0, tested.err
    short = ("--rollout.max_new_tokens", 16)
    dry = aha("train", "demo", "--model", "runs/sft", *short, "--dry-run")
    assert dry.code == 0, dry.err
    # A second run begins where the first has ended, under its own name.
    second = aha("sft", "runs/sft", "--data", data, *QUICK)
    assert second.code == 0 and "after sft (sft)" in second.out
    assert (data.parent / "runs/sft-2/summary.json").is_file()


def test_a_dry_run_has_settings_and_a_plan_and_leaves_nothing(aha, model, data):
    done = aha("sft", model, "--data", data, "--dry-run", "--optim.lr", 0.5, "--recompute", "true")
    assert done.code == 0, done.err
    settings = json.loads(done.out[: done.out.index("\n}") + 2])
    assert settings["optim"]["recompute"] is True
    assert settings["optim"]["lr"] == 0.5 and settings["steps"] == 1
    assert "dropped, 2 kept" in done.out and "planned: " in done.out and "rtx-4090" in done.out
    assert not (data.parent / "runs").exists()
    plan = ("sft", model, "--data", data, "--epochs", 999, "--dry-run", "--budget")
    assert "it would end after about step 0" in aha(*plan, "0.001s").out
    refused = aha(*plan, "much")
    assert refused.code == 2 and "the budget 'much'" in refused.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "no --data"),
        (("--data", "none.jsonl"), "none.jsonl is no file"),
        (("--data", "examples.jsonl", "--epochs", 0), "--epochs"),
        (("--data", "examples.jsonl", "--bad-rows", "refuse"), "row 3: a row without an answer"),
        (("--data", "examples.jsonl", "--lr", "nan"), "--lr"),
        (("--data", "examples.jsonl", "--lora-rank", -1), "model.lora_rank = -1"),
        (("--data", "examples.jsonl", "--max-tokens", 1), "longer than the context"),
        (("--data", "examples.jsonl", "--budget", "much"), "the budget 'much'"),
        (("--data", "examples.jsonl", "--name", "a/b"), "--name 'a/b'"),
    ],
)
def test_bad_input_is_one_line_and_no_run(aha, model, data, words, message):
    done = aha("sft", model, *words)
    assert done.code == 2 and message in done.err and done.err.count("\n") == 1, done.err
    assert not (data.parent / "runs").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--optim.lr", "0.5"), "optim.lr for a fine-tuning that goes on"),
        (("--ranks", 2), "--ranks with a run of `aha sft`"),
        (("--log", "tensorboard"), "--log with a run of `aha sft`"),
        (("--json",), "--json with a run of `aha sft`"),
    ],
)
def test_resume_takes_no_settings_of_its_own(aha, model, data, words, message):
    stopped = aha("sft", model, "--data", data, *QUICK, "--budget", "0.000001s")
    assert stopped.code == 3, "the budget is spent"
    done = aha("train", "--resume", "runs/sft", *words)
    assert done.code == 2 and message in done.err
    assert aha("train", "--resume", "runs/sft").code == 0
