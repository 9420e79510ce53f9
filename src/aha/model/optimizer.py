"""AdamW for the parameters that train, and where its state lives.

A weight that trains in float32 takes 16 bytes: itself, its gradient, and Adam's two moments.

| state | on the device | in the host's memory |
|---|---|---|
| device | 16 bytes | - |
| 8bit | 10 bytes: moments in blocks of 256 with one scale each (bitsandbytes) | - |
| cpu | 2 bytes: the weight in the type of the arithmetic, here bf16 | 16 bytes |

Source: Loshchilov & Hutter 2019 for AdamW; ZeRO-Offload (arXiv 2101.06840) for "cpu"; Dettmers et
al. 2022 (arXiv 2110.02861) for "8bit".
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from aha.core.config import OptimSection
from aha.core.errors import MissingExtra, RunStopped
from aha.dist.sharded_tensors import in_shards, whole
from aha.dist.world import World


def make_optimizer(
    parameters: Iterable[nn.Parameter], optim: OptimSection, dtype: torch.dtype
) -> "Optimizer":
    """The optimiser of `optim.state` over these parameters; `dtype` is that of the arithmetic.

    Raises `MissingExtra` for "8bit" without bitsandbytes.
    """
    kinds = {"device": Optimizer, "cpu": HostOptimizer, "8bit": EightBitOptimizer}
    return kinds[optim.state](list(parameters), optim, dtype)


def clipped(parameters: list[nn.Parameter], limit: float) -> float:
    """Clip the gradient; returns its norm before that.

    Raises `RunStopped` where the norm is no number: every weight would become none.
    """
    norm = float(whole(nn.utils.clip_grad_norm_(parameters, limit)))
    if not math.isfinite(norm):
        raise RunStopped(
            f"a gradient whose norm is {norm}",
            "a finite one",
            "rewards of a usual size, a lower learning rate, or --optim.dtype float32",
            check="gradient",
        )
    return norm


@torch.no_grad()
def check_weights(parameters: list[nn.Parameter], lr: float) -> None:
    """Raises `RunStopped` where an update has left a weight that is no number."""
    if not torch.isfinite(whole(nn.utils.get_total_norm(parameters))):
        raise RunStopped(
            f"weights that are not finite after an update at the learning rate {lr:g}",
            "finite ones",
            f"a lower learning rate: --optim.lr {lr / 10:.1g}, or of a critic --critic.lr",
            check="weights",
        )


class Optimizer:
    """One update: clip the gradient, step, clear the gradient.

    `num_updates` counts the changes of the weights since this object was made. `update` raises
    `RunStopped` for a gradient that is no number, before any weight changes, and for new weights
    that are none.
    """

    def __init__(self, parameters: list[nn.Parameter], optim: OptimSection, dtype: torch.dtype):
        self.parameters, self.optim, self.dtype = parameters, optim, dtype
        self.num_updates = 0
        self.adam = self.make_adam()

    @property
    def settings(self) -> dict[str, Any]:
        """AdamW's keyword arguments, but the learning rate."""
        optim = self.optim
        return {"betas": (optim.beta1, optim.beta2), "weight_decay": optim.weight_decay}

    def make_adam(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters, fused=True, **self.settings)

    def update(self, lr: float) -> float:
        """Step at this learning rate; returns the gradient's norm before clipping."""
        norm = clipped(self.parameters, self.optim.grad_clip)
        self.adam.param_groups[0]["lr"] = lr
        self.num_updates += 1
        self.adam.step()
        check_weights(self.parameters, lr)
        self.clear()
        return norm

    def add_up(self, world: World, sums: torch.Tensor, place: str) -> torch.Tensor:
        """Make the gradient the sum of those of all ranks; returns the sum of `sums` over them."""
        # Gradients in shards are added up as they are computed, layer by layer.
        own = [parameter for parameter in self.parameters if not in_shards(parameter)]
        return world.sum_gradients(own, sums, place)

    def begin_anew(self, parameters: list[nn.Parameter]) -> None:
        """Take other parameters in place of those there are, and forget the state."""
        self.parameters = parameters
        self.adam = self.make_adam()

    def clear(self) -> None:
        """Drop the gradient, also an incomplete one of a backward pass that failed."""
        self.adam.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        return self.adam.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.adam.load_state_dict(state)


class EightBitOptimizer(Optimizer):
    """Moments of 8 bits, for all but small tensors (fewer than 4,096 numbers)."""

    def make_adam(self) -> torch.optim.Optimizer:
        try:
            from bitsandbytes.optim import AdamW8bit
        except ImportError as error:
            raise MissingExtra("bitsandbytes", "8bit") from error
        return AdamW8bit(self.parameters, **self.settings)


class HostOptimizer(Optimizer):
    """Float32 master weights, gradients and moments in the host's memory.

    The device keeps each weight once, in the type of the arithmetic. That changes no number: a
    float32 weight is rounded to that type for every product anyway. A gradient leaves the device as
    soon as its backward pass has computed it, parameter by parameter, and micro-batches are summed
    in float32. In float32 arithmetic every update is bit-equal to that of "device" on the same
    machine.
    """

    def make_adam(self) -> torch.optim.Optimizer:
        # Pinned memory is what a GPU reads and writes at full speed. One buffer for all parameters:
        # torch rounds each pinned tensor up to a power of two, which would waste gigabytes over all
        # weights.
        pin = self.parameters[0].device.type == "cuda"
        largest = max(parameter.numel() for parameter in self.parameters)
        self.buffer = torch.empty(largest, dtype=self.dtype, pin_memory=pin)
        self.has_gradient = False  # whether a gradient has come since the last update
        self.masters = [self.move_out(parameter) for parameter in self.parameters]
        return torch.optim.AdamW(self.masters, fused=True, **self.settings)

    def move_out(self, parameter: nn.Parameter) -> nn.Parameter:
        """Make the master copy of a parameter, and round the parameter itself."""
        master = nn.Parameter(torch.empty(parameter.shape, dtype=torch.float32))
        master.grad = torch.zeros(parameter.shape, dtype=torch.float32)
        master.data.copy_(parameter.detach())
        parameter.data = parameter.detach().to(self.dtype, copy=True)

        def move_gradient(computed: nn.Parameter) -> None:
            assert master.grad is not None and computed.grad is not None
            master.grad.add_(self.transfer(computed.grad))
            computed.grad = None
            self.has_gradient = True

        parameter.register_post_accumulate_grad_hook(move_gradient)
        return master

    def transfer(self, tensor: torch.Tensor) -> torch.Tensor:
        """The same numbers in the type of the arithmetic, in the pinned buffer: valid until the
        next call, which overwrites it."""
        return self.buffer[: tensor.numel()].view(tensor.shape).copy_(tensor)

    def update(self, lr: float) -> float:
        norm = clipped(self.masters, self.optim.grad_clip)
        self.adam.param_groups[0]["lr"] = lr
        if self.has_gradient:  # a gradient of zeros would move parameters that have momentum
            self.num_updates += 1
            self.adam.step()
            self.publish()
            check_weights(self.parameters, lr)
        self.clear()
        return norm

    def add_up(self, world: World, sums: torch.Tensor, place: str) -> torch.Tensor:
        if not self.has_gradient:
            self.adam.zero_grad()  # to None: the world counts who has a gradient
        total = world.sum_gradients(self.masters, sums, place)
        self.has_gradient = any(master.grad is not None for master in self.masters)
        for master in self.masters:
            if master.grad is None:  # the hooks add to it
                master.grad = torch.zeros_like(master)
        return total

    def clear(self) -> None:
        # Zeros, not None: the hooks add to them. A backward pass that failed may have left
        # gradients of parameters.
        self.adam.zero_grad(set_to_none=False)
        self.has_gradient = False
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def publish(self) -> None:
        """Copy the master weights to the device, rounded."""
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            parameter.copy_(self.transfer(master))

    def state_dict(self) -> dict[str, Any]:
        """With the master weights: those in the checkpoint's model are rounded."""
        weights = [master.detach() for master in self.masters]
        return {"adam": self.adam.state_dict(), "weights": weights}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.adam.load_state_dict(state["adam"])
        for master, saved in zip(self.masters, state["weights"], strict=True):
            master.copy_(saved)
        self.publish()
