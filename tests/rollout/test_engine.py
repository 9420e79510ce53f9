"""How completions are drawn: the settings, and the stream of random numbers of each row."""

import numpy as np
import pytest

from aha.core.errors import ConfigError
from aha.core.seeds import seed_for
from aha.rollout.engine import Sampling, uniforms


@pytest.mark.parametrize(
    "settings",
    [
        {"max_new_tokens": 0},
        {"group_size": 0},
        {"group_size": -1},
        {"temperature": -0.1},
        {"temperature": 10.1},
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
