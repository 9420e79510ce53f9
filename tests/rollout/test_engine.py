"""How completions are drawn: the settings, the stream of random numbers of each row, the token."""

import math

import numpy as np
import pytest
import torch

from aha.core.errors import ConfigError
from aha.core.seeds import seed_for
from aha.rollout.engine import CHUNK, LARGE_VOCABULARY, Sampling, draw, invert, uniforms


@pytest.mark.parametrize(
    "settings",
    [
        {"max_new_tokens": 0},
        {"group_size": 0},
        {"group_size": -1},
        {"temperature": -0.1},
        {"temperature": 10.1},
        {"temperature": 1e-40},
        {"temperature": 9e-21},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        Sampling(**settings)


def test_uniforms_is_splitmix64():
    """The published constants: the first outputs of SplitMix64 from seed 0 are
    e220a8397b1dcdaf, 6e789e6aa1b965f4, 06c45d188009454f (Vigna's splitmix64.c)."""
    wanted = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    # The upper 53 bits, and half a step so that 0 cannot come up.
    assert uniforms(0, 3).tolist() == [((z >> 11) + 0.5) / 2**53 for z in wanted]


def test_uniforms_depend_on_the_seed_alone():
    seed = seed_for("a row")
    assert np.array_equal(uniforms(seed, 10), uniforms(seed, 500)[:10])
    assert not np.array_equal(uniforms(seed, 10), uniforms(seed + 1, 10))


def test_uniforms_lie_strictly_between_0_and_1():
    """0 would draw a token of probability 0, and 1 would fall off the end."""
    for seed in (0, 1, 2**62, 2**63 - 1):
        drawn = uniforms(seed, 10_000)
        assert drawn.dtype == np.float64 and 0.0 < drawn.min() and drawn.max() < 1.0


def test_uniforms_are_even_and_unrelated():
    """Over 200 rows of 500: each decile holds a tenth, and neither the next number of a row nor
    the same place of the next row is related. The bounds are five standard errors."""
    rows = np.stack([uniforms(seed_for("even", row), 500) for row in range(200)])
    n = rows.size
    shares = np.histogram(rows, bins=10, range=(0, 1))[0] / n
    assert np.abs(shares - 0.1).max() < 5 * np.sqrt(0.09 / n)
    for one, other in ((rows[:, 1:], rows[:, :-1]), (rows[1:], rows[:-1])):
        related = np.corrcoef(one.ravel(), other.ravel())[0, 1]
        assert abs(related) < 5 / np.sqrt(one.size)


# -- drawing --------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 0.7, 2.0])
def test_draw_follows_the_softmax(temperature):
    """Chi-square over 20,000 draws and 8 tokens: 7 degrees of freedom, 99.9 % below 24.3."""
    logits = torch.tensor([2.0, 1.0, 0.5, 0.0, -0.5, -1.0, -2.0, 1.5])
    n = 20_000
    noise = torch.from_numpy(uniforms(99, n))[:, None]
    tokens, logprobs, entropies = draw(logits.expand(n, 8), noise, temperature)
    wanted = torch.softmax(logits / temperature, 0)
    counts = torch.bincount(tokens, minlength=8)
    chi_square = ((counts - n * wanted) ** 2 / (n * wanted)).sum()
    assert chi_square < 24.3, counts / n
    torch.testing.assert_close(logprobs, wanted.log()[tokens], rtol=1e-5, atol=1e-5)
    entropy = -(wanted * wanted.log()).sum().expand(n)
    torch.testing.assert_close(entropies, entropy, rtol=1e-5, atol=1e-5)


def test_draw_inverts_the_distribution_at_the_noise():
    # p = (1/4, 1/2, 1/4), so its edges are 0.25 and 0.75.
    logits = torch.tensor([[0.25, 0.5, 0.25]]).log().expand(6, 3)
    noise = torch.tensor([[1e-9], [0.24], [0.26], [0.74], [0.76], [1 - 1e-9]], dtype=torch.float64)
    assert draw(logits, noise, 1.0)[0].tolist() == [0, 0, 1, 1, 2, 2]


def test_draw_never_takes_a_token_of_probability_zero():
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf]]).expand(2_000, 5)
    noise = torch.from_numpy(uniforms(1, 2_000))[:, None]
    noise[:2, 0] = torch.tensor([2.0**-54, 1 - 2.0**-54])
    tokens, _, entropies = draw(logits, noise, 1.0)
    assert set(tokens.tolist()) == {1, 3}
    # Two of probability one half: ln 2 nats, and what cannot come adds nothing.
    torch.testing.assert_close(entropies, torch.full((2_000,), math.log(2)))


@pytest.mark.parametrize("vocabulary", [LARGE_VOCABULARY + 1, 40 * CHUNK, 151_936])
def test_a_large_vocabulary_is_inverted_as_a_small_one_is(vocabulary):
    """By chunks, and the same token as from the sums of the whole row; the last one too."""
    generator = torch.Generator().manual_seed(0)
    probs = torch.softmax(3 * torch.randn(64, vocabulary, generator=generator), -1)
    noise = torch.from_numpy(uniforms(7, 64))[:, None]
    noise[:3, 0] = torch.tensor([2.0**-54, 0.5, 1 - 2.0**-54])
    sums = probs.cumsum(-1, dtype=torch.float64)
    wanted = torch.searchsorted(sums, noise * sums[:, -1:])
    assert torch.equal(invert(probs, noise), wanted)
    assert len(set(wanted.flatten().tolist())) > 50


@pytest.mark.parametrize("vocabulary", [5, LARGE_VOCABULARY + 1])
def test_what_is_not_a_number_has_a_token_all_the_same(vocabulary):
    """A run that has gone wrong is seen to elsewhere; an index out of bounds would end the GPU."""
    logits = torch.full((2, vocabulary), float("nan"))
    tokens, logprobs, _ = draw(logits, torch.full((2, 1), 0.5, dtype=torch.float64), 1.0)
    assert ((tokens >= 0) & (tokens < vocabulary)).all() and logprobs.isnan().all()


def test_of_a_large_vocabulary_too_no_token_of_probability_zero_is_taken():
    """Two tokens are left, at the end of one chunk and at the start of the next but one."""
    probs = torch.zeros(2_000, LARGE_VOCABULARY + CHUNK)
    left, right = 5 * CHUNK - 1, 6 * CHUNK
    probs[:, left], probs[:, right] = 0.3, 0.7
    noise = torch.from_numpy(uniforms(1, 2_000))[:, None]
    noise[:4, 0] = torch.tensor([2.0**-54, 1 - 2.0**-54, 0.3 - 1e-9, 0.3 + 1e-7])
    tokens = invert(probs, noise).flatten()
    assert set(tokens.tolist()) == {left, right} and tokens[:4].tolist() == [
        *(left, right, left, right)
    ]
    assert (tokens == left).float().mean().item() == pytest.approx(0.3, abs=0.04)
