"""The terms a recipe may add to the step: KL, entropy, correction, overlong, flat groups."""

import math
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
import torch

from aha.algo.recipe import load_recipe
from aha.batching.batch import pack_graded
from aha.core.config import RunConfig
from aha.model.transformer import Transformer
from aha.rollout.native import NativeEngine
from aha.training.rl import RLTrainer
from aha.training.rollouts import PhaseClock

from ..tiny import TOKENIZER, StartsWith, tiny_transformer

DIGITS = "0123456789"


def make(task=None, prompts=4, lr=1e-3, **algo) -> RLTrainer:
    raw = {
        "steps": 30,
        "rollout": {
            **{"prompts": prompts, "group_size": 8, "max_new_tokens": 6},
            "dtype": "float32",
        },
        "optim": {"lr": lr, "warmup": 0, "final_lr": 1.0, "dtype": "float32"},
        "algo": algo,
    }
    cfg, policy = RunConfig.model_validate(raw), tiny_transformer()
    engine = NativeEngine(policy, TOKENIZER, "float32", cfg.rollout.max_rows)
    return RLTrainer(policy, TOKENIZER, task or StartsWith(DIGITS), engine, cfg)


def weights(policy: Transformer) -> torch.Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in policy.parameters()])


def step(trainer: RLTrainer):
    return trainer.step(trainer.problems())


# -- the reference --------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["reward", "loss"])
def test_at_version_0_the_reference_is_the_policy(where):
    """Ratio 1 and KL 0, so that the first step is the one without KL (in the reward), and the
    reference stays where it is while the policy goes."""
    trainer, plain = make(kl=where, kl_coef=0.1), make()
    before = weights(trainer.reference.policy)
    report = step(trainer)
    step(plain)
    if where == "loss":
        assert report.numbers["kl"] == pytest.approx(0.0, abs=1e-6)
    gaps = (weights(trainer.policy) - weights(plain.policy)).abs()
    assert (gaps > 1e-5).float().mean() < 1e-2
    assert torch.equal(weights(trainer.reference.policy), before)
    assert not torch.equal(weights(trainer.policy), before)
    if where == "loss":
        assert step(trainer).numbers["kl"] > 1e-6


def test_the_way_from_the_reference_is_each_completions_own_however_it_is_read():
    trainer = make(kl="reward", kl_coef=0.1)
    groups = [list(group) for group in step(trainer).groups]
    with torch.no_grad():
        for parameter in trainer.reference.policy.parameters():
            parameter.mul_(0.9)
    pad = TOKENIZER.pad_id
    whole_PG = trainer.reference.distances(groups, pad, 10_000)
    assert whole_PG.shape == (4, 8) and len(whole_PG.flatten().unique()) > 8
    for tokens in (1, 64):
        torch.testing.assert_close(trainer.reference.distances(groups, pad, tokens), whole_PG)
    alone = trainer.reference.distances([[groups[2][5]]], pad, 10_000)
    torch.testing.assert_close(alone[0, 0], whole_PG[2, 5])


def test_the_reference_is_reset_and_resumed():
    trainer = make(kl="loss", reference_reset=2)
    step(trainer)
    moved = trainer.state_dict()
    assert not torch.equal(weights(trainer.policy), weights(trainer.reference.policy))
    again = make(kl="loss", reference_reset=2)
    again.reference.policy.model.norm.weight.data.fill_(7.0)
    again.load_state_dict(moved)
    assert torch.equal(weights(again.reference.policy), weights(trainer.reference.policy))
    step(trainer)
    assert torch.equal(weights(trainer.policy), weights(trainer.reference.policy))


def test_kl_pulls_back_where_rewards_say_nothing():
    """All rewards equal: only the KL moves a policy that has gone away from its reference."""
    trainer = make(StartsWith("", right=1), kl="loss", kl_estimator="k2", kl_coef=1.0, lr=1e-4)
    with torch.no_grad():
        for parameter in trainer.policy.parameters():
            parameter.mul_(0.97)
    trainer.engine.load(trainer.policy, 0)
    first, *_, last = [step(trainer).numbers["kl"] for _ in range(4)]
    assert 0 < last < first


# -- entropy and correction ------------------------------------------------------------------


def test_the_bonus_raises_the_entropy_where_rewards_say_nothing():
    trainer = make(StartsWith("", right=1), entropy_coef=0.1)
    found = [step(trainer).numbers["entropy"] for _ in range(5)]
    assert found[-1] > found[0]


@pytest.mark.parametrize("name", ["token_tis", "sequence_tis", "icepop", "sequence_mis"])
def test_a_correction_is_idle_where_engine_and_trainer_agree(name):
    corrected, plain = make(correction=name), make()
    step(corrected), step(plain)
    gaps = (weights(corrected.policy) - weights(plain.policy)).abs()
    assert (gaps > 1e-5).float().mean() < 1e-2


# -- what counts ----------------------------------------------------------------------------


def test_completions_that_were_cut_off():
    kept = step(make()).groups
    plain = make().rollout.scores(kept)
    cut_PG, plain_PG = plain.truncated_PG, plain.rewards_PG
    assert 0 < cut_PG.sum() < cut_PG.numel()
    zero_PG = make(overlong="zero").rollout.scores(kept).rewards_PG
    assert torch.equal(zero_PG, plain_PG * (1 - cut_PG))
    soft_PG = make(overlong="soft", overlong_buffer=2).rollout.scores(kept).rewards_PG
    assert torch.equal(soft_PG, plain_PG - (plain.lengths_PG - 4).clamp(min=0) / 2)


@pytest.mark.parametrize("settings", [{"overlong": "mask"}, {"zero_variance": "drop"}])
def test_masked_and_flat_rows_leave_the_denominator(settings):
    """The loss is that of the rows that count, over their own tokens."""
    plain, filtered = make(), make(**settings)
    collected = plain.rollout.collect(plain.problems(), plain.seeds, PhaseClock())
    graded, scores = collected.groups, collected.scores
    advantages_PG = plain.advantages.estimate(graded, scores).advantages_PG
    advantages_PG[2:] = 0.0
    flat_PG = ~(advantages_PG != 0).any(1, keepdim=True).expand(4, 8)
    out_PG = scores.truncated_PG.bool() if "overlong" in settings else flat_PG
    assert out_PG.any() and not out_PG.all()
    tokens_PG = scores.lengths_PG
    within = plain.advantages.estimate_from(graded, scores, advantages_PG * ~out_PG)
    over_all = plain.update(within)["loss"]
    found = filtered.update(filtered.advantages.estimate_from(graded, scores, advantages_PG))[
        "loss"
    ]
    share = tokens_PG[~out_PG].sum() / tokens_PG.sum()
    assert over_all == pytest.approx(found * share.item(), rel=1e-4)


def test_a_step_in_which_nothing_counts_moves_nothing():
    trainer = make(StartsWith("", right=1), zero_variance="drop")
    before = weights(trainer.policy)
    report = step(trainer)
    assert report.version == 1 and report.numbers["loss"] == 0.0
    assert torch.equal(weights(trainer.policy), before)


def test_resampling_asks_other_problems_until_enough_groups_teach():
    flat = make(StartsWith("", right=1), zero_variance="resample")
    assert step(flat).numbers["asked"] == 3.0  # never enough: the rounds are over
    rare = make(StartsWith("0"), zero_variance="resample", resample_rounds=8)
    report = step(rare)
    assert len(report.groups) == 4 and report.numbers["asked"] > 1
    assert report.numbers["informative"] >= step(make(StartsWith("0"))).numbers["informative"]
    ids = [group[0].completion.prompt.problem.id for group in report.groups]
    assert len(set(ids)) == 4


class ByLength:
    """Wrong throughout, or right where the text begins with a digit; each with a penalty that
    differs within a group, as one for length does."""

    def __init__(self, characters: str):
        self.task = StartsWith(characters)
        self.name, self.problems, self.ask = self.task.name, self.task.problems, self.task.ask

    def grade(self, problem, text):
        graded = self.task.grade(problem, text)
        return replace(graded, reward=graded.reward - len(text) / 100)


def test_dynamic_sampling_draws_anew_what_is_wrong_throughout():
    """Rewards differ in every group, and no answer is right: DAPO has nothing to learn there."""
    trainer = make(ByLength(""), zero_variance="resample")
    before = weights(trainer.policy)
    report = step(trainer)
    assert report.numbers["asked"] == 3.0 and torch.equal(weights(trainer.policy), before)
    by_reward = make(ByLength(""), zero_variance="resample_by_reward")
    report = step(by_reward)
    assert report.numbers["asked"] == 1.0 and not torch.equal(weights(by_reward.policy), before)


@pytest.mark.parametrize("advantage", ["max_rl", "pass_at_k"])
def test_what_is_paid_for_the_form_is_no_success(advantage):
    """TinyZero's verifier pays 0.1 for a form and 1 for a right answer; others pay by degrees."""
    settings = {"advantage": advantage, **({"pass_k": 2} if advantage == "pass_at_k" else {})}
    assert step(make(ByLength(""), **settings)).numbers["informative"] == 0.0
    assert step(make(ByLength(""))).numbers["informative"] > 0
    paid = [make(StartsWith(DIGITS, 1, wrong), **settings) for wrong in (0.0, 0.1)]
    advantages = [step(trainer).advantages for trainer in paid]
    assert advantages[0] == advantages[1] and any(map(any, advantages[0]))


def test_a_truncated_success_is_none_where_the_rule_says_so():
    kept = step(make()).groups
    scores = make(advantage="max_rl", overlong="zero").rollout.scores(kept)
    expected_PG = scores.correct_PG * (1 - scores.truncated_PG)
    assert torch.equal(scores.rewards_PG, expected_PG) and 0 < expected_PG.sum()


def test_reinforce_pp_charges_each_token_the_kl_from_there_on():
    """Against a loop over the tokens, in plain Python."""
    trainer = make(advantage="reinforce_pp", kl="reward", kl_coef=0.1)
    collected = trainer.rollout.collect(trainer.problems(), trainer.seeds, PhaseClock())
    with torch.no_grad():
        for parameter in trainer.reference.policy.parameters():
            parameter.mul_(0.9)
    estimate = trainer.advantages.estimate(collected.groups, collected.scores)
    rewards = collected.scores.rewards_PG.flatten().tolist()
    expected = []
    for graded, reward in zip(
        (g for group in collected.groups for g in group), rewards, strict=True
    ):
        batch = pack_graded([graded], TOKENIZER.pad_id)
        gaps = (batch.old_logprobs_BT - trainer.reference.logprobs(batch))[0].double()
        own = gaps[batch.mask_BT[0] > 0].tolist()
        expected.append([reward - 0.1 * sum(own[place:]) for place in range(len(own))])
    tokens = torch.tensor([value for own in expected for value in own], dtype=torch.float64)
    mean, deviation = tokens.mean(), (tokens.var() + 1e-8).sqrt()
    advantages = [own for group in estimate.token_advantages() for own in group]
    assert [len(own) for own in advantages] == [len(own) for own in expected]
    for found, own in zip(advantages, expected, strict=True):
        whitened = [(value - mean.item()) / deviation.item() for value in own]
        assert list(found) == pytest.approx(whitened, rel=1e-4, abs=1e-5)
    # The last token pays for itself alone, the first for the whole completion.
    assert any(found[0] != found[-1] for found in advantages)
    first = estimate.rows[0][0]
    assert first.advantages_T.tolist() == list(advantages[0])


def test_other_advantages_compare_the_kl_of_whole_completions():
    trainer = make(advantage="rloo", kl="reward", kl_coef=0.1)
    report = [step(trainer) for _ in range(2)][-1]
    assert report.token_advantages == () and any(map(any, report.advantages))


# -- the packaged recipes -------------------------------------------------------------------

RECIPES = sorted((Path(str(files("aha"))) / "recipes").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_two_steps_of_every_recipe_on_a_tiny_decoder(path):
    raw = load_recipe(path).model_dump()
    small = {"prompts": 16, "group_size": min(4, raw["rollout"]["group_size"])}
    raw["rollout"] |= small | {"max_new_tokens": 6, "dtype": "float32"}
    raw["optim"] |= {"dtype": "float32"}
    raw["algo"]["overlong_buffer"] = min(3, raw["algo"]["overlong_buffer"])
    raw["algo"] |= {"pool": 32} | ({"pass_k": 2} if raw["algo"]["pass_k"] else {})
    raw["critic"]["warmup"] = min(1, raw["critic"]["warmup"])  # else no step of two is the policy's
    cfg, policy = RunConfig.model_validate(raw), tiny_transformer()
    engine = NativeEngine(policy, TOKENIZER, "float32", cfg.rollout.max_rows)
    trainer = RLTrainer(policy, TOKENIZER, StartsWith(DIGITS), engine, cfg)
    before = weights(policy)
    reports = [step(trainer) for _ in range(2)]
    assert reports[-1].version == 2 and not torch.equal(weights(policy), before)
    assert all(math.isfinite(value) for value in reports[-1].numbers.values())
