"""Entropy control in training: chosen once for an update, whatever parts it is cut into."""

from dataclasses import replace

import pytest
import torch

from aha.batching.batch import TrainingRow, pack, totals_of
from aha.core.config import RunConfig
from aha.core.errors import ConfigError
from aha.core.records import Graded
from aha.rollout.native import NativeEngine
from aha.training.rl import RLTrainer
from aha.training.rollouts import PhaseClock

from ..tiny import TOKENIZER, StartsWith, tiny_transformer

DIGITS = "0123456789"
# Shares that are large enough to choose some of a few hundred tokens.
CONTROLS = {
    "kl_cov": {"entropy_limit": 0.1, "loss": "ratio", "updates": 2},
    "clip_cov": {"entropy_limit": 0.1, "loss": "ppo_clip", "updates": 2},
    "top_entropy": {"entropy_limit": 0.2, "loss": "ppo_clip", "updates": 2},
}


def make(task=None, size=4096, lr=1e-3, rollout=None, **algo) -> RLTrainer:
    raw = {
        "steps": 30,
        "rollout": {
            **{"prompts": 4, "group_size": 8, "max_new_tokens": 12, "dtype": "float32"},
            **(rollout or {}),
        },
        "optim": {
            **{"lr": lr, "warmup": 0, "final_lr": 1.0, "dtype": "float32", "grad_clip": 1e9},
            "micro_batch_tokens": size,
        },
        "algo": algo,
    }
    cfg, policy = RunConfig.model_validate(raw), tiny_transformer()
    engine = NativeEngine(policy, TOKENIZER, "float32")
    return RLTrainer(policy, TOKENIZER, task or StartsWith(DIGITS), engine, cfg)


def control(name: str, **more) -> RLTrainer:
    return make(**{"entropy_control": name, **CONTROLS[name], **more})


def collect(trainer: RLTrainer) -> list[list[Graded]]:
    return trainer.rollout.collect(trainer.problems(), trainer.seeds, PhaseClock()).groups


def advantages_of(trainer: RLTrainer, graded) -> torch.Tensor:
    return trainer.advantages.estimate(graded, trainer.rollout.scores(graded)).advantages_PG


def update(trainer: RLTrainer, graded, advantages_PG: torch.Tensor, index: int = 0) -> dict:
    scores = trainer.rollout.scores(graded)
    return trainer.update(trainer.advantages.estimate_from(graded, scores, advantages_PG), index)


def rollout(trainer: RLTrainer):
    """Graded groups and advantages, by a policy that has moved on since: its ratios are not 1."""
    graded = collect(trainer)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in trainer.policy.parameters():
            parameter += 0.01 * torch.randn(parameter.shape, generator=generator)
    return graded, advantages_of(trainer, graded)


def logprobs(trainer: RLTrainer, part) -> torch.Tensor:
    return trainer.objective.forward(part).logprobs_BT


def flat_rows(graded: list[list[Graded]], advantages_PG: torch.Tensor) -> list[TrainingRow]:
    flat = [one for group in graded for one in group]
    return list(map(TrainingRow.of, flat, advantages_PG.flatten().tolist()))


def gradient(trainer: RLTrainer, parts: list[list[TrainingRow]], totals) -> torch.Tensor:
    trainer.optimizer.clear()
    for part in parts:
        trainer.objective.backward(pack(part, TOKENIZER.pad_id), totals)
    return torch.cat([p.grad.flatten() for p in trainer.policy.parameters()])


def ended(one: Graded, finish: str) -> Graded:
    return replace(one, completion=replace(one.completion, finish=finish))


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    scale = one.abs().max()
    return torch.allclose(one / scale, other / scale, rtol=1e-4, atol=1e-5)


# -- what must not matter -------------------------------------------------------------------


@pytest.mark.parametrize("name", CONTROLS)
def test_parts_of_1_3_and_all_rows_have_one_gradient(name):
    """And choosing within each part, as a micro-batch alone could, would have another."""
    trainer = control(name)
    graded, advantages_PG = rollout(trainer)
    rows = flat_rows(graded, advantages_PG)
    totals = totals_of(rows, 12)
    chosen = trainer.objective.begin_update(rows, 1)

    def cut(some: list[TrainingRow], size: int) -> list[list[TrainingRow]]:
        return [some[first : first + size] for first in range(0, len(some), size)]

    whole, *others = (gradient(trainer, cut(chosen, size), totals) for size in (len(rows), 3, 1))
    assert all(close(whole, other) for other in others)
    alone = [trainer.objective.begin_update(part, 1) for part in cut(rows, 3)]
    assert not close(whole, gradient(trainer, alone, totals))
    assert not close(whole, gradient(trainer, [rows], totals)), "the choice changes nothing"


@pytest.mark.parametrize("name", [*CONTROLS, "none"])
def test_the_size_of_the_parts_does_not_change_an_update(name):
    """The whole way, with a row of each group out of the loss: one row a part, some, all."""
    found = []
    for size in (1, 90, 100_000):
        settings = {"overlong": "mask", "size": size}
        trainer = control(name, **settings) if name != "none" else make(**settings)
        graded, advantages_PG = rollout(trainer)
        graded = [
            [ended(one, "length" if place == 2 else "stop") for place, one in enumerate(group)]
            for group in graded
        ]
        parts, backward = [], trainer.objective.backward
        trainer.objective.backward = lambda part, totals, parts=parts, backward=backward: (
            parts.append(len(part.tokens_BT)) or backward(part, totals)
        )
        grads = []
        trainer.optimizer.adam.register_step_pre_hook(
            lambda *unused, trainer=trainer, grads=grads: grads.extend(
                p.grad.flatten().clone() for p in trainer.policy.parameters()
            )
        )
        update(trainer, graded, advantages_PG, 1)
        found.append((torch.cat(grads), parts))
    (one, ones), (some, few), (whole, everything) = found
    assert set(ones) == {1} and 1 < len(few) < len(ones) and len(everything) == 1
    assert 0 < sum(ones) == sum(few) == sum(everything) <= 28
    assert close(whole, one) and close(whole, some)


# -- what is chosen -------------------------------------------------------------------------


def test_only_forks_are_trained_and_all_tokens_divide():
    """The loss by hand: -A logp of the fifth of tokens with most entropy, over all tokens."""
    trainer = make(entropy_control="top_entropy")
    graded = collect(trainer)
    advantages_PG = advantages_of(trainer, graded)
    tokens = [
        (entropy, -row.advantages_T[0].item() * logprob)
        for row in flat_rows(graded, advantages_PG)
        for entropy, logprob in zip(
            row.graded.completion.entropies, row.graded.completion.logprobs, strict=True
        )
    ]
    tokens.sort(reverse=True)
    # the place that torch.quantile(0.8) interpolates towards
    first = round(0.2 * (len(tokens) - 1) - 0.5)
    by_hand = sum(loss for _, loss in tokens[: first + 1]) / len(tokens)
    found = update(trainer, graded, advantages_PG)["loss"]
    assert found == pytest.approx(by_hand, rel=1e-3)
    everything = sum(loss for _, loss in tokens) / len(tokens)
    assert abs(found - everything) > 0.01 * abs(everything)


@pytest.mark.parametrize("name", ["top_entropy", "clip_cov"])
def test_a_choice_of_all_is_no_choice(name):
    """All tokens are forks, or none has a covariance above 1: bit for bit the plain update."""
    limit = {"entropy_limit": 1.0} if name == "top_entropy" else {}
    one, plain = make(entropy_control=name, **limit), make()
    graded = collect(plain)
    advantages_PG = advantages_of(plain, graded) * (1.0 if name == "top_entropy" else 1e-3)
    for trainer in (one, plain):
        update(trainer, graded, advantages_PG)
    for ours, theirs in zip(one.policy.parameters(), plain.policy.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_kl_cov_holds_from_the_second_update_on():
    """At the first, |logp - old| has no slope but that of rounding; then even rows without credit
    are held, because the mean of the advantages is not 0 over tokens."""
    trainer = control("kl_cov")
    graded, advantages_PG = rollout(trainer)
    advantages_PG[1:] = 0.0
    rows = flat_rows(graded, advantages_PG)
    assert trainer.objective.begin_update(rows, 0) == rows
    selected = trainer.objective.begin_update(rows, 1)
    held = sum(float(row.selected_T.sum()) for row in selected)
    tokens = sum(len(row.graded.completion.tokens) for row in rows)
    assert held == int(0.1 * tokens)
    seen = []
    backward = trainer.objective.backward
    trainer.objective.backward = lambda part, totals: (
        seen.append(len(part.tokens_BT)) or backward(part, totals)
    )
    update(trainer, graded, advantages_PG)
    computed, seen[:] = sum(seen), []
    update(trainer, graded, advantages_PG, 1)
    assert computed == 8 and sum(seen) == 32


def test_what_is_held_pulls_back_to_where_it_was_drawn():
    trainer = control("kl_cov", entropy_limit=1.0)
    graded, advantages_PG = rollout(trainer)
    rows = trainer.objective.begin_update(flat_rows(graded, advantages_PG * 0), 1)
    part = pack(rows, TOKENIZER.pad_id)
    assert torch.equal(part.selected_BT, part.mask_BT)
    losses_BT = trainer.objective.token_losses(trainer.objective.forward(part))
    gaps_BT = (logprobs(trainer, part) - part.old_logprobs_BT).abs() * part.mask_BT
    torch.testing.assert_close(losses_BT * part.mask_BT, gaps_BT)
    before = gaps_BT.sum().item()
    for _ in range(5):
        update(trainer, graded, advantages_PG * 0, 1)
    after_BT = (logprobs(trainer, part) - part.old_logprobs_BT).abs() * part.mask_BT
    assert after_BT.sum().item() < 0.8 * before


def test_a_critic_gives_each_token_its_own_covariance():
    trainer = control("clip_cov")
    graded, advantages_PG = rollout(trainer)
    rows = flat_rows(graded, advantages_PG)
    spread_out = [
        row._replace(advantages_T=torch.linspace(-1, 1, len(row.advantages_T)) + row.advantages_T)
        for row in rows
    ]
    alike = [row._replace(advantages_T=row.advantages_T.clone()) for row in rows]

    def kept(some: list[TrainingRow]) -> torch.Tensor:
        return torch.cat([row.selected_T for row in trainer.objective.begin_update(some, 1)])

    assert torch.equal(kept(alike), kept(rows))
    assert not torch.equal(kept(spread_out), kept(rows))


def test_an_engine_without_entropies_is_an_error():
    trainer = make(entropy_control="top_entropy")
    graded = collect(trainer)
    blind = [
        [replace(one, completion=replace(one.completion, entropies=())) for one in group]
        for group in graded
    ]
    with pytest.raises(ConfigError, match="records no entropies"):
        update(trainer, blind, advantages_of(trainer, blind))


# -- the bonus that follows -----------------------------------------------------------------


def test_the_following_bonus_by_hand_and_resumed():
    """Far above the entropy the coefficient grows by .005 a step; far below it falls to 0."""
    low = make(entropy_control="adaptive", entropy_limit=99.0)
    found = [low.step(low.problems()).numbers["entropy_bonus"] for _ in range(3)]
    assert found == pytest.approx([0.0, 0.005, 0.01])
    again = make(entropy_control="adaptive", entropy_limit=99.0)
    again.load_state_dict(low.state_dict())
    assert again.step(again.problems()).numbers["entropy_bonus"] == pytest.approx(0.015)
    high = make(entropy_control="adaptive", entropy_limit=1e-3, entropy_coef=0.01)
    found = [high.step(high.problems()).numbers["entropy_bonus"] for _ in range(2)]
    assert found == [0.0, 0.0] and high.objective.terms[-1].next_coef == pytest.approx(0.0)
    assert "entropy_bonus" not in make().step(make().problems()).numbers


def test_the_following_bonus_raises_the_entropy():
    """Rewards say nothing: what moves the policy is the bonus alone, from the second step on."""
    trainer = make(StartsWith("", right=1), entropy_control="adaptive", entropy_limit=99.0)
    before = [p.clone() for p in trainer.policy.parameters()]
    first = trainer.step(trainer.problems())
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.policy.parameters(), strict=True))
    *_, last = (trainer.step(trainer.problems()) for _ in range(5))

    def entropy(report) -> float:
        drawn = [one.completion.entropies for group in report.groups for one in group]
        return sum(map(sum, drawn)) / sum(map(len, drawn))

    assert entropy(last) > entropy(first)


# -- learning -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*CONTROLS, "adaptive"])
def test_a_trivial_task_is_learnt_under_control(name):
    algo = {"entropy_control": name, **CONTROLS.get(name, {"entropy_limit": 0.01})}
    trainer = make(lr=0.01, rollout={"group_size": 16, "max_new_tokens": 2}, **algo)
    rewards = []
    for _ in range(30):
        report = trainer.step(trainer.problems())
        flat = [one.reward for group in report.groups for one in group]
        rewards.append(sum(flat) / len(flat))
    assert rewards[0] < 0.3 and sum(rewards[-3:]) / 3 > 0.8, rewards
