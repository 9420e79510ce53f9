"""Where a model is computed, by what there is and how large it is."""

import pytest
import torch

from aha.core.errors import ConfigError
from aha.machine.device import PeakMemory, choose_device, synchronize
from aha.machine.host import SMALL_MODEL, process_bytes
from aha.plan.shapes import known_shapes


def machine(monkeypatch, *kinds: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in kinds)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in kinds)


@pytest.mark.parametrize(
    ("kinds", "name", "parameters", "wanted"),
    [
        ((), "auto", 10**9, "cpu"),
        ((), "cpu", 10**9, "cpu"),
        (("cuda",), "auto", SMALL_MODEL, "cuda"),
        (("cuda",), "auto", SMALL_MODEL - 1, "cpu"),
        (("cuda",), "cuda", 1, "cuda"),
        (("cuda",), "cpu", 10**9, "cpu"),
        (("mps",), "auto", SMALL_MODEL, "mps"),
        (("mps",), "auto", SMALL_MODEL - 1, "cpu"),
        (("mps",), "mps", 1, "mps"),
        (("cuda", "mps"), "auto", SMALL_MODEL, "cuda"),
    ],
)
def test_the_device_by_what_there_is(monkeypatch, kinds, name, parameters, wanted):
    machine(monkeypatch, *kinds)
    assert choose_device(name, parameters) == torch.device(wanted)


@pytest.mark.parametrize(("kinds", "name"), [((), "cuda"), (("mps",), "cuda"), (("cuda",), "mps")])
def test_a_gpu_that_is_not_there_is_an_error(monkeypatch, kinds, name):
    machine(monkeypatch, *kinds)
    with pytest.raises(ConfigError, match=f"'{name}'.*--model.device cpu") as error:
        choose_device(name, 10**9)
    assert "wanted" in str(error.value)


def test_aha_tiny_is_small_and_every_model_of_others_is_not():
    shapes = known_shapes()
    for ours in ("aha-tiny", "base-multiply"):
        assert shapes.pop(ours).parameters < SMALL_MODEL
    assert min(shape.parameters for shape in shapes.values()) > SMALL_MODEL


def test_the_peak_is_of_what_was_held_since(monkeypatch):
    """100 MB that come and go again are in the peak, and no longer in what is held."""
    peak, before = PeakMemory(torch.device("cpu")), process_bytes()
    block = torch.ones(25_000_000)
    during = peak.bytes()
    del block
    assert during > before + 0.8e8
    assert peak.bytes() > before + 0.8e8 and process_bytes() < before + 0.5e8


def test_a_peak_that_nobody_says_is_no_number():
    peak = PeakMemory(torch.device("mps"))
    assert peak.bytes() == 0 and peak.numbers() == {}
    here = PeakMemory(torch.device("cpu"))
    assert here.numbers() == {"memory_gb": pytest.approx(here.bytes() / 1e9, abs=0.01)}


def test_each_kind_of_gpu_is_waited_for(monkeypatch):
    """Both compute asynchronously: without the wait a probe would measure launches alone."""
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: waited.append(device.type))
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waited.append("mps"))
    for kind in ("cpu", "cuda", "mps"):
        synchronize(torch.device(kind))
    assert waited == ["cuda", "mps"]
