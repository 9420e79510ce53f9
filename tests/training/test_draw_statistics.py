"""Draws that are not from the recorded distribution show in the records alone."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from aha.core.records import Completion, Graded
from aha.rollout.native import NativeEngine
from aha.training.draw_statistics import draw_numbers, least_variance

from ..tiny import TOKENIZER, ask, tiny_transformer
from .test_rl import config, make

PROMPT = ask(3, 7, 25, target=82)


def drawn(*probabilities: float, tokens=None, entropies=()) -> Graded:
    logprobs = tuple(map(math.log, probabilities))
    completion = Completion(PROMPT, tokens or (1,) * len(logprobs), logprobs, "", "stop")
    return Graded(0.0, False, "", completion=replace(completion, entropies=entropies))


def test_the_numbers_by_hand():
    half = math.log(2)
    groups = [[drawn(0.5, entropies=(half,)), drawn(0.25, 0.5, entropies=(half, half))]]
    numbers = draw_numbers(groups)
    assert numbers["entropy"] == pytest.approx((half + 2 * half + half) / 3)
    # Gaps: 0, log 2 and 0; one standard error is log 2.
    assert numbers["draw_gap"] == pytest.approx(half / 3)
    assert numbers["draw_z"] == pytest.approx(1.0)


def test_what_was_not_measured_has_no_value():
    assert set(draw_numbers([[drawn(0.5)]])) == {"entropy"}  # no entropies, no others in the group
    certain = draw_numbers([[drawn(1.0, entropies=(0.0,))]])
    assert certain["draw_gap"] == 0 and "draw_z" not in certain


def test_a_nearly_sure_policy_without_a_rare_draw_is_within_chance():
    """Its squares say nothing then; the entropies say what a rare draw would have been."""
    q = 0.001
    entropy = -q * math.log(q) - (1 - q) * math.log1p(-q)
    numbers = draw_numbers([[drawn(*[1 - q] * 1000, entropies=(entropy,) * 1000)]])
    gap = -math.log1p(-q) - entropy
    expected = 1000 * gap / math.sqrt(1000 * q * (1 - q) * math.log((1 - q) / q) ** 2)
    assert numbers["draw_z"] == pytest.approx(expected, rel=1e-3) and numbers["draw_z"] > -2
    never = draw_numbers([[drawn(*[1 - q] * 50_000, entropies=(entropy,) * 50_000)]])
    assert never["draw_z"] < -6  # fifty rare draws were due, and none came


def test_two_tokens_vary_least_of_all_with_their_entropy():
    for seed in range(300):
        shares = torch.from_numpy(np.random.default_rng(seed).dirichlet([0.1] * 5)).clamp(min=1e-30)
        surprisals = -shares.log()
        entropy = float((shares * surprisals).sum())
        variance = float((shares * surprisals**2).sum()) - entropy**2
        assert variance >= least_variance(np.array([entropy]))[0] - 1e-6


def test_duplicates_are_counted_and_expected():
    group = [drawn(0.5, tokens=(token,)) for token in (1, 1, 1, 2)]
    numbers = draw_numbers([group, [drawn(0.5, tokens=(3,))]])
    assert numbers["duplicates"] == 3
    assert numbers["duplicates_expected"] == pytest.approx(4 * 0.5 * 3 / 2)


def test_draws_of_the_engine_are_within_chance():
    trainer = make(config(rollout={"prompts": 16, "group_size": 16, "max_new_tokens": 32}))
    numbers = trainer.step(trainer.problems()).numbers
    assert abs(numbers["draw_z"]) < 4 and abs(numbers["draw_gap"]) < 0.05 * numbers["entropy"]


class Greedier(NativeEngine):
    """Draws at temperature 0.85 and records what the distribution at 1 says."""

    def generate(self, prompts, sampling):
        groups = super().generate(prompts, replace(sampling, temperature=0.85))
        return [[rescored(one, self.scorer) for one in group] for group in groups]


def rescored(one: Completion, policy) -> Completion:
    """The completion with the log-probs and entropies of the policy at temperature 1."""
    tokens = torch.tensor([one.prompt.tokens + one.tokens])
    first = len(one.prompt.tokens)
    logprobs, entropies = policy.logprobs_and_entropy(tokens, first, torch.float32, 1.0, True)
    columns = (tuple(column[0].tolist()) for column in (logprobs, entropies))
    return replace(one, **dict(zip(("logprobs", "entropies"), columns, strict=True)))


def test_greedier_draws_show_in_the_sign():
    cfg = config(rollout={"prompts": 8, "group_size": 8, "max_new_tokens": 32})
    policy = tiny_transformer()
    trainer = make(cfg, policy=policy)
    trainer.rollout.engine = Greedier(policy, TOKENIZER, "float32")
    trainer.rollout.engine.scorer = policy
    numbers = trainer.step(trainer.problems()).numbers
    assert numbers["draw_z"] < -6 and numbers["mismatch"] < 1e-5


def test_forced_tokens_are_no_draws():
    one = drawn(0.5, 0.001, 0.25, entropies=(0.7, 9.0, 1.4))
    forced = replace(one, completion=replace(one.completion, forced=(1,)))
    without = drawn(0.5, 0.25, entropies=(0.7, 1.4))
    assert draw_numbers([[forced]]) == pytest.approx(draw_numbers([[without]]))
