"""The table of machines: rows by a GPU's name, and what an hour costs."""

import pytest

from aha.core.errors import ConfigError
from aha.plan.machines import card_for, load_cards, price_of, row_of

CARDS = load_cards()[1]


@pytest.mark.parametrize(
    ("device", "row"),
    [
        ("NVIDIA H100 80GB HBM3", "h100-80gb"),
        ("NVIDIA H200", "h200-141gb"),
        ("NVIDIA A100-SXM4-80GB", "a100-80gb"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("NVIDIA GeForce RTX 4060 Laptop GPU", "rtx-4060-laptop"),
        ("NVIDIA GeForce RTX 4060 Ti", "rtx-4060-ti-16gb"),
        ("NVIDIA GeForce RTX 5090", None),
        ("NVIDIA RTX A1000", None),  # no A100
        ("NVIDIA GH200 480GB", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
    ],
)
def test_a_gpu_is_found_by_its_name(device, row):
    assert card_for(device, CARDS) == row


def test_a_known_gpu_has_the_price_of_its_row():
    assert row_of("NVIDIA GeForce RTX 4090") == CARDS["rtx-4090"]
    assert price_of("NVIDIA GeForce RTX 4090", None, None) == (0.45, 550)
    assert price_of("NVIDIA GeForce RTX 4090", 0.3, None) == (0.3, 550)
    assert price_of("NVIDIA GeForce RTX 4090", 0.0, 0.0) == (0.0, 0.0)


def test_a_gpu_without_a_row_needs_a_price():
    assert row_of("Quantum 9000") is None
    for given in ((None, None), (1.0, None), (None, 300.0)):
        with pytest.raises(ConfigError, match="Quantum 9000.*--usd-per-hour 0.4 --watts 300"):
            price_of("Quantum 9000", *given)
    assert price_of("Quantum 9000", 1.0, 300.0) == (1.0, 300.0)


def test_a_cpu_is_two_cores_in_a_cloud():
    assert row_of(None) == CARDS["cpu-2-cores"]
    assert price_of(None, None, None) == (0.08, 30)
    assert price_of(None, 0.0, None) == (0.0, 30)
