"""The Muon optimiser, batched: one product for all matrices of a shape, in the machine's type.

Shapes: N matrices of R rows and C columns, R the shorter side.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, overload

import torch

from aha.core.sizes import NEWTON_SCHULZ_ROUNDS

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
EPS = 1e-7


def orthogonal(matrices_NRC: torch.Tensor) -> torch.Tensor:
    """Matrices U S V^T -> about U V^T: all singular values come near 1 (0.7 to 1.2).

    Shapes: (N, R, C) -> (N, R, C), in the type of the input. Five Newton-Schulz iterations. Source:
    Jordan et al. 2024, whose coefficients raise small singular values quickly and do not converge
    to 1 exactly.
    """
    a, b, c = COEFFICIENTS
    norm_N11 = torch.linalg.vector_norm(matrices_NRC, dim=(1, 2), keepdim=True)
    x_NRC: torch.Tensor = matrices_NRC / norm_N11.clamp(min=EPS)
    for _ in range(NEWTON_SCHULZ_ROUNDS):
        gram_NRR = x_NRC @ x_NRC.mT
        poly_NRR = torch.baddbmm(gram_NRR, gram_NRR, gram_NRR, beta=b, alpha=c)
        x_NRC = torch.baddbmm(x_NRC, poly_NRR, x_NRC, beta=a)
    return x_NRC


class Muon(torch.optim.Muon):
    """`torch.optim.Muon` with the same state and updates, its Newton-Schulz iterations in `dtype`.

    torch multiplies one matrix after the other, always in bf16: on a CPU without bf16 in hardware
    this took half the time of pre-training, and on a GPU nearly all of it is kernel launches. The
    learning rate is matched to AdamW's RMS (Liu et al. 2025, arXiv 2502.16982).
    """

    def __init__(
        self,
        matrices: Iterable[torch.Tensor],
        lr: float,
        weight_decay: float,
        dtype: torch.dtype,
    ):
        super().__init__(matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
        self.dtype = dtype

    @overload
    def step(self, closure: None = ...) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One update of every matrix that has a gradient; the closure's loss, if there is one."""
        with torch.enable_grad():
            loss = closure() if closure else None
        for group in self.param_groups:
            by_shape: dict[tuple[int, ...], list[torch.Tensor]] = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    by_shape[tuple(sorted(matrix.shape))].append(matrix)
            for shape, matrices in by_shape.items():
                self.update(matrices, max(shape), group)
        return loss

    def update(self, matrices: list[torch.Tensor], longer: int, group: dict[str, Any]) -> None:
        """Update matrices whose shapes are equal or transposed; `longer` is their longer side."""
        grads = [matrix.grad for matrix in matrices if matrix.grad is not None]
        momentum = group["momentum"]
        averages = [self.average_of(matrix) for matrix in matrices]
        torch._foreach_lerp_(averages, grads, 1 - momentum)
        updates = [  # Nesterov momentum
            grad.lerp(average, momentum) for grad, average in zip(grads, averages, strict=True)
        ]
        wide_NRC = torch.stack([as_wide(update) for update in updates]).to(self.dtype)
        for matrix, wide_RC in zip(matrices, orthogonal(wide_NRC), strict=True):
            matrix.mul_(1 - group["lr"] * group["weight_decay"])
            tall = matrix.shape[0] > matrix.shape[1]
            rate = 0.2 * math.sqrt(longer) * group["lr"]
            matrix.add_(wide_RC.mT if tall else wide_RC, alpha=-rate)

    def average_of(self, matrix: torch.Tensor) -> torch.Tensor:
        """The running mean of a matrix's gradients, under the key that torch's Muon uses."""
        state: dict[str, torch.Tensor] = self.state[matrix]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(matrix)
        return state["momentum_buffer"]


def as_wide(matrix: torch.Tensor) -> torch.Tensor:
    """The matrix, transposed if it has more rows than columns."""
    return matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix
