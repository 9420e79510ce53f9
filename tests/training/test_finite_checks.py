"""A number that is none ends a step before it changes a weight; what the step had is kept."""

import json
import math

import pytest
import torch

from aha.algo.losses import LOSSES
from aha.algo.recipe import load_recipe
from aha.core.errors import ConfigError, RunStopped
from aha.store.run_folder import Run
from aha.training.failed_step import keep_failed_step
from aha.training.rl import RLTrainer

from ..tiny import TOKENIZER, StartsWith
from .test_rl import config, equal, make, weights

GAE = {"advantage": "gae", "loss": "ppo_clip"}
LAST_UPDATE = {"loss": "breaks_in_the_end", "updates": 2}


@pytest.fixture(scope="module", autouse=True)
def broken_losses():
    """Losses as a third party might register them, with a fault."""

    @LOSSES("no_loss")
    def no_loss(logprobs_BT, old_BT, advantages_BT):
        return logprobs_BT * math.nan

    @LOSSES("no_gradient_norm")
    def no_gradient_norm(logprobs_BT, old_BT, advantages_BT):
        return logprobs_BT * 1e25  # the loss is finite, the square of its gradient is not

    @LOSSES("breaks_in_the_end")
    def breaks_in_the_end(logprobs_BT, old_BT, advantages_BT):
        """No number as soon as the policy has moved since the rollout."""
        moved = (logprobs_BT.detach() - old_BT).abs().max() > 1e-5
        return -advantages_BT * logprobs_BT * (math.nan if moved else 1.0)

    yield
    for name in ("no_loss", "no_gradient_norm", "breaks_in_the_end"):
        del LOSSES[name]


def pays(reward: float) -> StartsWith:
    return StartsWith("0123456789", right=reward)


def broken_log_probs(trainer: RLTrainer) -> None:
    """An engine that records what is no number, of one token in the rollout."""
    generate = trainer.engine.generate

    def broken(prompts, sampling):
        groups = generate(prompts, sampling)
        one = groups[1][0]
        object.__setattr__(one, "logprobs", (math.nan, *one.logprobs[1:]))
        return groups

    trainer.engine.generate = broken


# name: (what stops it, the recipe's sections, the task, whether weights had changed)
FAULTS = {
    "a reward beyond float32": ("reward", {}, pays(1e39), False),
    "a reward of NaN": ("reward", {}, pays(math.nan), False),
    "a reward whose deviation overflows": (
        "advantage",
        {"algo": {"advantage": "grpo"}},
        pays(3e38),
        False,
    ),
    "an infinite reward for a critic": ("reward", {"algo": GAE}, pays(math.inf), False),
    "a loss of NaN": ("loss", {"algo": {"loss": "no_loss"}}, None, False),
    "a gradient beyond float32": ("gradient", {"algo": {"loss": "no_gradient_norm"}}, None, False),
    "a gradient beyond float32, in the host": (
        "gradient",
        {"algo": {"loss": "no_gradient_norm"}, "optim": {"state": "cpu"}},
        None,
        False,
    ),
    "a loss of NaN in the second update": ("loss", {"algo": LAST_UPDATE}, None, True),
    "a loss of NaN after the critic has learned": (
        "loss",
        {"algo": {"advantage": "gae", "loss": "no_loss"}},
        None,
        True,
    ),
    "a rate that no weight survives": ("weights", {}, None, True),
    "the same in the host": ("weights", {"optim": {"state": "cpu"}}, None, True),
    "the same of a critic": ("weights", {"algo": GAE}, None, True),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_number_that_is_none_ends_the_step(name):
    check, sections, task, changed = FAULTS[name]
    trainer = make(config(**sections), task)
    before, state = weights(trainer), trainer.tokens
    if check == "weights":  # of the policy's optimiser, or of the critic's, which comes first
        trainer.learning_rate = lambda peak: 1e39
    with pytest.raises(RunStopped) as caught:
        trainer.step(trainer.problems())
    fault = caught.value
    assert (fault.check, fault.step) == (check, 1) and fault.fix
    assert trainer.version == 0 and trainer.mid_step == changed
    if not changed:
        assert equal(before, weights(trainer)) and trainer.tokens == state
        assert not any(parameter.grad is not None for parameter in trainer.policy.parameters())
    assert len(trainer.failed_step.report({}).groups) == 4


def test_a_log_prob_that_is_none_ends_the_step_and_names_the_problem():
    trainer = make(config())
    broken_log_probs(trainer)
    problems = trainer.problems()
    with pytest.raises(RunStopped, match=problems[1].id) as caught:
        trainer.step(problems)
    assert caught.value.check == "logprobs" and not trainer.mid_step


def test_a_rate_that_is_no_number_is_refused():
    for key in ("optim.lr", "critic.lr", "algo.kl_coef"):
        for value in ("inf", "nan"):
            with pytest.raises(ConfigError, match="finite"):
                load_recipe(None, {key: value})


def test_a_step_that_failed_leaves_the_trainer_at_its_last_whole_step():
    """The pool of a curriculum, the adaptive bonus and the count of tokens included."""
    algo = {"curriculum": "pools", "pool": 8, "entropy_control": "adaptive"}
    failing, plain = (make(config(algo=algo)) for _ in range(2))
    failing.task.rewards[True] = 1e39
    with pytest.raises(RunStopped):
        failing.step(failing.problems())
    failing.task.rewards[True] = 1.0
    assert failing.state_dict()["curriculum"]["rates"] == [None] * 8
    for trainer in (failing, plain):
        trainer.step(trainer.problems())
    assert equal(weights(failing), weights(plain))
    assert failing.tokens == plain.tokens and not failing.mid_step


def test_the_rows_of_a_failed_step_are_kept(tmp_path):
    run = Run.create(tmp_path / "run", {})
    trainer = make(config(), pays(math.inf))
    with pytest.raises(RunStopped) as caught:
        trainer.step(trainer.problems())
    keep_failed_step(run, trainer.failed_step, caught.value, TOKENIZER)
    summary = json.loads((run.path / "failed_step/step_000001.json").read_text())
    assert summary["check"] == "reward" and summary["numbers"]["entropy"] > 0
    lines = (run.path / "failed_step/step_000001.jsonl").read_text().splitlines()
    rows = [json.loads(line, parse_constant=pytest.fail) for line in lines]
    assert {row["reward"] for row in rows} == {"inf", 0} and "advantage" not in rows[0]
    assert all(len(row["logprobs"]) == row["tokens"] for row in rows) and len(rows) == 32
    trainer = make(config(algo={"loss": "no_loss"}))
    with pytest.raises(RunStopped) as caught:
        trainer.step(trainer.problems())
    keep_failed_step(run, trainer.failed_step, caught.value, TOKENIZER)
    lines = (run.path / "failed_step/step_000001.jsonl").read_text().splitlines()
    assert all("advantage" in json.loads(line) for line in lines) and len(lines) == 32


def test_the_checks_change_no_bit():
    """The gradient of a usual step is clipped as torch clips it."""
    trainer = make(config())
    norms = []
    clip = torch.nn.utils.clip_grad_norm_

    def watch(parameters, limit):
        norms.append(float(clip(parameters, limit)))
        return torch.tensor(norms[-1])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.utils, "clip_grad_norm_", watch)
        report = trainer.step(trainer.problems())
    assert norms == [report.numbers["grad_norm"]]
