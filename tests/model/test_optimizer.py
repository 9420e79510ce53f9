"""Where AdamW keeps its state, and that an update is the same wherever that is."""

import sys

import pytest
import torch
from torch import nn

from aha.core.config import OptimSection
from aha.core.errors import MissingExtra
from aha.model.optimizer import HostOptimizer, Optimizer, make_optimizer

SETTINGS = {"beta1": 0.8, "beta2": 0.9, "weight_decay": 0.1, "grad_clip": 0.5}
STATES = ("device", "cpu", "8bit")


def net() -> nn.Sequential:
    """The first matrix is large enough to be kept in 8 bits, the rest is not."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 128), nn.Tanh(), nn.Linear(128, 1))


def optimizer_of(module: nn.Module, state: str, dtype=torch.float32) -> Optimizer:
    return make_optimizer(module.parameters(), OptimSection(state=state, **SETTINGS), dtype)


def backward(module: nn.Module, seed: int) -> None:
    """Add the gradient of one micro-batch."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(16, 64, generator=generator).to(next(module.parameters()).dtype)
    module(x).float().square().mean().backward()


def train(module: nn.Module, optimizer: Optimizer, steps: range, parts: int = 2) -> list[float]:
    norms = []
    for step in steps:
        for part in range(parts):
            backward(module, parts * step + part)
        norms.append(optimizer.update(0.01 / (step + 1)))
    return norms


def numbers(module: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().float().flatten() for parameter in module.parameters()])


def test_an_update_by_hand():
    """One weight, the first step: Adam moves it by the rate whatever the gradient, and decay
    shrinks it by rate times decay first."""
    weight = nn.Parameter(torch.tensor([2.0]))
    optimizer = make_optimizer([weight], OptimSection(**SETTINGS), torch.float32)
    (3.0 * weight).sum().backward()
    assert optimizer.update(0.1) == 3.0  # before it was clipped to 0.5
    assert weight.item() == pytest.approx(2.0 * (1 - 0.1 * 0.1) - 0.1)
    assert weight.grad is None


@pytest.mark.parametrize("state", STATES)
def test_a_step_without_a_gradient_moves_nothing(state):
    """All groups were flat: momentum and decay wait, as they do where the gradient is None."""
    if state == "8bit":
        pytest.importorskip("bitsandbytes")
    module = net()
    optimizer = optimizer_of(module, state)
    train(module, optimizer, range(2))
    before = numbers(module)
    assert optimizer.update(0.01) == 0.0
    assert torch.equal(numbers(module), before)
    # And the next gradient finds the moments as they were.
    train(module, optimizer, range(2, 3))
    straight = net()
    train(straight, optimizer_of(straight, state), range(3))
    assert torch.equal(numbers(module), numbers(straight))


def test_state_in_the_machines_memory_changes_not_one_bit_in_float32():
    one, other = net(), net()
    told = train(one, optimizer_of(one, "device"), range(4))
    assert train(other, optimizer_of(other, "cpu"), range(4)) == told
    assert torch.equal(numbers(one), numbers(other))


def test_eight_bits_end_near_and_not_where_thirty_two_do():
    one, other = net(), net()
    began = numbers(one)
    train(one, optimizer_of(one, "device"), range(8))
    optimizer = optimizer_of(other, "8bit")
    train(other, optimizer, range(8))
    gap = (numbers(one) - numbers(other)).norm()
    assert 0 < gap < 0.1 * (numbers(one) - began).norm()
    state = optimizer.adam.state[other[0].weight]
    assert state["state1"].dtype == state["state2"].dtype == torch.uint8


def test_with_state_in_the_machines_memory_the_device_holds_rounded_weights_alone():
    module = net()
    began = numbers(module)
    optimizer = optimizer_of(module, "cpu", torch.bfloat16)
    assert all(p.dtype == torch.bfloat16 for p in module.parameters())
    # What was rounded away is kept where it counts.
    assert torch.equal(torch.cat([m.detach().flatten() for m in optimizer.masters]), began)
    backward(module, 0)
    assert all(p.grad is None for p in module.parameters())
    optimizer.update(0.01)
    for parameter, master in zip(module.parameters(), optimizer.masters, strict=True):
        assert torch.equal(parameter.detach(), master.detach().to(torch.bfloat16))


def test_small_steps_add_up_under_bf16_weights():
    """A rate of 1e-6 moves a weight of 0.3 by less than bf16 can tell apart."""
    weight = nn.Parameter(torch.full((8,), 0.3))
    optimizer = make_optimizer([weight], OptimSection(state="cpu"), torch.bfloat16)
    seen = weight.detach().clone()
    for _ in range(4):
        weight.sum().backward()
        optimizer.update(1e-6)
    assert torch.equal(weight.detach(), seen)
    moved = 0.3 - optimizer.masters[0].detach()
    assert moved.tolist() == pytest.approx([4e-6] * 8, rel=0.05)


def test_micro_batches_are_summed_in_float32():
    """256 + 1 is 256 in bf16: a gradient of many small parts must not stop growing."""
    weight = nn.Parameter(torch.zeros(1))
    optimizer = HostOptimizer([weight], OptimSection(grad_clip=1e9), torch.bfloat16)
    for size in (256.0, 1.0, 1.0):
        (size * weight).sum().backward()
    assert optimizer.update(0.0) == 258.0


@pytest.mark.parametrize("state", STATES)
def test_a_gradient_that_was_cleared_does_not_count(state):
    one, other = net(), net()
    first, second = optimizer_of(one, state), optimizer_of(other, state)
    backward(other, 99)
    second.clear()
    assert train(one, first, range(2)) == train(other, second, range(2))
    assert torch.equal(numbers(one), numbers(other))


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_going_on_from_a_saved_state_is_bit_equal(state, dtype, tmp_path):
    straight, again = net(), net()
    train(straight, optimizer_of(straight, state, dtype), range(4))
    stopped = optimizer_of(again, state, dtype)
    train(again, stopped, range(2))
    torch.save(stopped.state_dict(), tmp_path / "state.pt")
    later = net()
    later.load_state_dict(again.state_dict())
    resumed = optimizer_of(later, state, dtype)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    train(later, resumed, range(2, 4))
    assert torch.equal(numbers(straight), numbers(later))


def test_eight_bits_without_the_library_name_the_extra(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "bitsandbytes"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingExtra, match=r"aha\[8bit\]"):
        optimizer_of(net(), "8bit")
