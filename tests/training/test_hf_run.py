"""RL on a model that `transformers` runs: one step, a whole run, and the folder that comes out."""

import json
import tomllib
from importlib.resources import files

import pytest
import torch
from transformers import AutoModelForCausalLM

from aha.algo.fixes import options_in
from aha.algo.recipe import changed, checked
from aha.cli.main import run
from aha.core.config import RunConfig
from aha.core.errors import ModelError
from aha.model.hf_policy import HfPolicy
from aha.rollout.native import open_engine
from aha.store.run_folder import read_rows
from aha.training.experiment import Experiment
from aha.training.outcome import Listener
from aha.training.rl import RLTrainer

from ..strangers import stranger, stranger_folder
from ..tiny import TOKENIZER, StartsWith
from .test_experiment import config, go, same_weights, timeless
from .test_rl import DIGITS
from .test_rl import config as step_config


def make(**sections) -> RLTrainer:
    policy = HfPolicy(stranger("gpt2"))
    engine = open_engine(policy, TOKENIZER, "float32")
    return RLTrainer(policy, TOKENIZER, StartsWith(DIGITS), engine, step_config(**sections))


def test_steps_make_what_is_paid_for_likelier():
    trainer = make(optim={"lr": 3e-3})
    before = {name: tensor.clone() for name, tensor in trainer.policy.weights().items()}
    report = trainer.step(trainer.problems())
    # At version 0 the engine and the trainer are one policy: dropout, padding or a cast would show.
    assert report.numbers["mismatch"] < 1e-4 and report.numbers["grad_norm"] > 0
    moved = trainer.policy.weights()
    assert all(
        not torch.equal(before[name], moved[name]) for name in before if "attn.bias" not in name
    )
    # The loss of the same completions under the same advantages has gone down.
    rows = [one for group in report.groups for one in group]
    credits = torch.tensor(report.advantages).flatten()
    gains = []
    for one, credit in zip(rows, credits.tolist(), strict=True):
        row = torch.tensor([one.completion.prompt.tokens + one.completion.tokens])
        with torch.no_grad():
            now = trainer.policy.token_logprobs(row, len(one.completion.prompt.tokens))[0]
        gains.append(credit * float((now - torch.tensor(one.completion.logprobs)).sum()))
    assert sum(gains) > 0
    rewards = [
        sum(one.reward for group in trainer.step(trainer.problems()).groups for one in group)
        for _ in range(25)
    ]
    assert sum(rewards[-5:]) > sum(rewards[:5]) + 20


def test_with_no_rate_nothing_moves():
    trainer = make(optim={"lr": 0.0})
    before = {name: tensor.clone() for name, tensor in trainer.policy.weights().items()}
    trainer.step(trainer.problems())
    assert all(torch.equal(before[name], t) for name, t in trainer.policy.weights().items())


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"lora_rank": 2}},
        {"model": {"lora_rank": 2, "lora_alpha": 3.0}},
        {"algo": {"advantage": "gae"}, "model": {"lora_rank": 2, "lora_alpha": 3.0}},
        "ppo",
    ],
)
def test_a_recipe_for_our_decoder_is_refused_before_the_folder_and_its_fix_works(tmp_path, changes):
    base = stranger_folder(tmp_path / "base", "gpt2")
    raw = config(base).model_dump(mode="json")
    if changes == "ppo":  # with one completion a problem, KL in the reward, a critic's own settings
        recipe = tomllib.loads((files("aha") / "recipes" / "ppo.toml").read_text())
        changes = {name: recipe[name] for name in ("algo", "critic")}
        changes["rollout"] = {"prompts": 4, "group_size": recipe["rollout"]["group_size"]}
    for name, section in changes.items():
        raw[name] |= section
    with pytest.raises(ModelError, match="runs in transformers") as refused:
        Experiment.start(RunConfig.model_validate(raw), tmp_path / "run", Listener())
    assert not (tmp_path / "run").exists()
    mended = checked(changed(raw, options_in(refused.value.fix)))
    Experiment.start(mended, tmp_path / "run", Listener()).close()


def test_a_run_resumes_bit_for_bit_and_its_model_can_be_evaluated(tmp_path, monkeypatch, capsys):
    base = stranger_folder(tmp_path / "base", "gpt2")
    changes = {"optim": {"lr": 1e-2, "recompute": True}, "algo": {"kl": "loss"}}
    cfg = config(base, steps=4, task={"format_reward": 0.0}, **changes)
    straight = go(cfg, tmp_path / "straight").run

    def crash(row: dict) -> None:
        if row["step"] == 3:  # the last checkpoint is step 2
            raise MemoryError

    with pytest.raises(MemoryError):
        go(cfg, tmp_path / "run", step=crash)
    Experiment.resume(tmp_path / "run", Listener()).run_all()
    assert same_weights(tmp_path / "run" / "model", straight.model)
    assert timeless(tmp_path / "run" / "metrics.jsonl") == timeless(straight.metrics)
    assert all(row["mismatch"] < 1e-4 for row in read_rows(straight.metrics))
    assert AutoModelForCausalLM.from_pretrained(straight.model).config.model_type == "gpt2"
    words = ["aha", "eval", str(straight.model), "--n", "3", "--max-new-tokens", "9", "--json"]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as left:
        run()
    assert not left.value.code
    assert json.loads(capsys.readouterr().out)["problems"] == 3
