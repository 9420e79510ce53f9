"""The plan of a fine-tuning, by hand from its tokens."""

from dataclasses import replace

import pytest

from aha.core.config import RunConfig
from aha.plan.machines import load_cards
from aha.plan.shapes import known_shapes
from aha.plan.tuning_estimate import TuningTokens, estimate_tuning

SHAPE = known_shapes()["Qwen2.5-0.5B"]
CARD = load_cards()[1]["rtx-4090"]
READ = TuningTokens(tokens=1_000_000, longest=1_000, weighted=600.0, epochs=2, updates=100)


def plan(read=READ, card=CARD, **sections):
    return estimate_tuning(RunConfig.model_validate(sections), SHAPE, read, card)


def test_the_time_of_an_update_by_hand():
    card = replace(CARD, layer_us=0.0, attention=0.0)
    # 20,000 tokens an update, six operations a weight, and 28 bytes of each weight once
    products = 6 * SHAPE.multiplied * 20_000 / card.train_rate
    moved = 28 * SHAPE.parameters / (card.bandwidth * 1e9)
    assert plan(card=card).update_s == pytest.approx(products + moved)
    assert plan(card=card).cost.seconds == pytest.approx(100 * (products + moved))


def test_weights_gradients_and_moments_take_16_bytes():
    memory = plan().memory
    fixed = memory["weights"] + memory["gradients"] + memory["optimiser"]
    assert fixed == 16 * SHAPE.parameters
    lora = plan(model={"lora_rank": 8}).memory
    assert lora["weights"] < 2.2 * SHAPE.parameters and lora["optimiser"] < 0.2 * SHAPE.parameters


def test_what_saves_memory_takes_time():
    usual, recompute = plan(), plan(optim={"recompute": True})
    assert recompute.peak < usual.peak and recompute.update_s > usual.update_s
    on_host = plan(optim={"state": "cpu"})
    assert on_host.peak < usual.peak and on_host.update_s > usual.update_s
    small = plan(optim={"micro_batch_tokens": 2_000})
    assert small.peak < usual.peak


def test_twice_the_epochs_take_twice_the_time():
    twice = plan(replace(READ, epochs=4, updates=200))
    assert twice.cost.seconds == pytest.approx(2 * plan().cost.seconds)
    assert twice.memory == plan().memory
