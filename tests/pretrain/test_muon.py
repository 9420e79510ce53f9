"""Muon: torch's own is the oracle, the singular values are the claim."""

import copy

import pytest
import torch
from torch import nn

from aha.pretrain.muon import Muon, orthogonal

SHAPES = [(8, 8), (8, 8), (4, 16), (16, 4), (16, 4), (6, 6)]
SETTINGS = {"lr": 0.02, "weight_decay": 0.1}


def matrices() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def gradients(step: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(step + 1)
    return [torch.randn(shape, generator=generator) for shape in SHAPES]


def follow(optimizer, parameters, steps) -> None:
    for step in steps:
        for parameter, grad in zip(parameters, gradients(step), strict=True):
            parameter.grad = grad
        optimizer.step()


def test_singular_values_come_near_to_one():
    generator = torch.Generator().manual_seed(0)
    u_NRR = torch.linalg.qr(torch.randn(3, 8, 8, generator=generator)).Q
    v_NRC = torch.linalg.qr(torch.randn(3, 20, 8, generator=generator)).Q.mT
    values_R = torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0, 0.5, 0.2, 0.1])
    found_NRC = orthogonal(u_NRR * values_R @ v_NRC)
    stretched_NRR = u_NRR.mT @ found_NRC @ v_NRC.mT
    diagonal_NR = stretched_NRR.diagonal(dim1=1, dim2=2)
    assert ((0.6 < diagonal_NR) & (diagonal_NR < 1.25)).all()
    assert (stretched_NRR - torch.diag_embed(diagonal_NR)).abs().max() < 1e-4  # same U, same V


def test_a_matrix_without_a_gradient_is_zero():
    assert torch.equal(orthogonal(torch.zeros(1, 2, 3)), torch.zeros(1, 2, 3))


@pytest.mark.parametrize(("dtype", "near"), [(torch.bfloat16, 2e-3), (torch.float32, 2e-2)])
def test_updates_are_those_of_torch(dtype, near):
    """To what bf16 rounds: torch's multiplies in it, one matrix after the other."""
    ours, theirs = matrices(), matrices()
    follow(Muon(ours, **SETTINGS, dtype=dtype), ours, range(3))
    oracle = torch.optim.Muon(theirs, **SETTINGS, adjust_lr_fn="match_rms_adamw")
    follow(oracle, theirs, range(3))
    moved = [(a - b).abs().max() for a, b in zip(theirs, matrices(), strict=True)]
    apart = [(a - b).abs().max() for a, b in zip(ours, theirs, strict=True)]
    assert min(moved) > 0.02 and max(apart) < near, (moved, apart)


def test_its_state_is_that_of_torch():
    """A base that torch's began goes on."""
    ours = matrices()
    theirs = torch.optim.Muon(ours, **SETTINGS, adjust_lr_fn="match_rms_adamw")
    follow(theirs, ours, range(2))
    state, kept = copy.deepcopy(theirs.state_dict()), [p.detach().clone() for p in ours]
    follow(theirs, ours, [2])
    resumed = [nn.Parameter(p) for p in kept]
    muon = Muon(resumed, **SETTINGS, dtype=torch.bfloat16)
    muon.load_state_dict(state)
    follow(muon, resumed, [2])
    assert max((a - b).abs().max() for a, b in zip(resumed, ours, strict=True)) < 2e-3


def test_what_has_no_gradient_stays():
    parameters = matrices()
    muon = Muon(parameters, **SETTINGS, dtype=torch.float32)
    parameters[0].grad = torch.ones_like(parameters[0])
    muon.step()
    same = [torch.equal(a, b) for a, b in zip(parameters, matrices(), strict=True)]
    assert same == [False, True, True, True, True, True]
