"""From measured times to shares: a machine that is simulated by the formulas is found again."""

import json
from dataclasses import asdict, replace

import pytest

from aha.core.errors import ConfigError
from aha.plan.calibration import Calibration, read_calibration
from aha.plan.shapes import shape_of
from aha.plan.speed import Card, Generation, Training

SHAPE = shape_of("Qwen2.5-0.5B")
SHORT, LONG = Generation(4000, 120, 64, 320), Generation(20_000, 300, 256, 320)
TRAINING = Training(20_000, 400, 5)


def measured_on(card: Card, device: str = "cpu") -> Calibration:
    """What a faultless probe of this machine would write down."""
    return Calibration(
        machine="a simulated machine",
        device=device,
        memory_gb=card.memory,
        threads=1,
        dtype="bfloat16",
        model="Qwen2.5-0.5B",
        shape=SHAPE,
        whole=True,
        matmul_rate=card.tflops * 1e12,
        attention_rate=card.train_rate / card.attention,
        bandwidth=card.bandwidth * 1e9,
        layer_us=card.layer_us,
        writings=tuple((work, work.seconds(SHAPE, card)) for work in (SHORT, LONG)),
        training=TRAINING,
        training_s=TRAINING.seconds(SHAPE, card),
        seconds=12.0,
        measured="2026-11-24T20:00:00+00:00",
    )


CPU = Card(16, 0.5, 30, 30, 0.08, 0.3, 0.5, 0, generate=0.5, attention=3.0, cpu=True)
GPU = Card(24, 400, 900, 400, 0.4, 0.3, 0.5, 40, generate=0.3, attention=5.0)


@pytest.mark.parametrize(("card", "device"), [(CPU, "cpu"), (GPU, "cuda")])
def test_the_shares_of_a_simulated_machine_are_found_again(card, device):
    # Bound by the weights on the GPU, by arithmetic on the CPU, as the fit takes it to be.
    found = measured_on(card, device).card(card.usd_per_hour, card.watts)
    assert asdict(found) == pytest.approx(asdict(card), rel=1e-6)


def test_a_machine_of_half_the_speed_takes_twice_as_long_at_any_length():
    slow = measured_on(CPU)
    slow = replace(
        slow,
        writings=tuple((work, 2 * seconds) for work, seconds in slow.writings),
        training_s=2 * slow.training_s,
        attention_rate=slow.attention_rate / 2,
    )
    card = slow.card(0.08, 30)
    for work in (SHORT, LONG, Generation(9000, 900, 1024, 0), TRAINING, Training(1000, 90, 1)):
        twice = 2 * work.seconds(SHAPE, CPU)
        assert work.seconds(SHAPE, card) == pytest.approx(twice, rel=1e-6)


@pytest.mark.parametrize("times", [(1.0, 1.0), (1.0, 50.0), (1e-9, 2.0), (3.0, 0.1)])
def test_noise_gives_rates_above_zero_that_keep_the_long_time(times):
    noisy = measured_on(CPU)
    noisy = replace(noisy, writings=((SHORT, times[0]), (LONG, times[1])), training_s=1e-6)
    card = noisy.card(0.08, 30)
    assert min(card.train, card.generate, card.decode) > 0
    assert LONG.seconds(SHAPE, card) == pytest.approx(times[1], rel=0.1)


def test_a_file_keeps_a_calibration(tmp_path):
    found = measured_on(CPU)
    found.write(tmp_path / "here.json")
    assert read_calibration(tmp_path / "here.json") == found
    with pytest.raises(ConfigError, match="cannot write"):
        found.write(tmp_path / "none" / "here.json")


WRONG = [{"writings": 3}, {"shape": {"V": 1}}, {"odd": 1}, {"threads": "2"}, {"seconds": "12 s"}]


@pytest.mark.parametrize("change", [None, {}, *WRONG])
def test_what_is_no_calibration_is_one_line(tmp_path, change):
    path = tmp_path / "here.json"
    raw = json.loads(json.dumps(asdict(measured_on(CPU))))
    path.write_text("[" if change is None else json.dumps(change and raw | change))
    with pytest.raises(ConfigError, match=r"here\.json.*--probe") as caught:
        read_calibration(path)
    assert "\n" not in str(caught.value)


def test_the_lines_say_that_less_than_the_model_was_measured():
    found = measured_on(CPU)
    assert "layers" not in found.lines()[0]
    less = replace(found, whole=False, shape=replace(SHAPE, L=2, V=8192))
    assert "2 layers and 8,192 words of it" in less.lines()[0]
