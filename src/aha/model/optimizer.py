"""AdamW over what trains, and where its state lives.

A weight that trains in float32 takes 16 bytes: itself, its gradient, and Adam's two moments.

| state | on the device | in the machine's memory |
|---|---|---|
| device | 16 bytes | - |
| 8bit | 10 bytes: moments in blocks of 256 with one scale each (bitsandbytes) | - |
| cpu | 2 bytes: the weight in the type of the arithmetic, here bf16 | 16 bytes |

Source: Loshchilov & Hutter 2019 for AdamW; ZeRO-Offload (arXiv 2101.06840) for "cpu"; Dettmers et
al. 2022 (arXiv 2110.02861) for "8bit".
"""

from collections.abc import Iterable

import torch
from torch import nn

from aha.core.config import OptimSection
from aha.core.errors import MissingExtra


def make_optimizer(
    parameters: Iterable[nn.Parameter], optim: OptimSection, dtype: torch.dtype
) -> "Optimizer":
    """The optimiser of `optim.state` over these parameters; `dtype` is that of the arithmetic.

    Raises `MissingExtra` for "8bit" without bitsandbytes.
    """
    kinds = {"device": Optimizer, "cpu": HostOptimizer, "8bit": EightBitOptimizer}
    return kinds[optim.state](list(parameters), optim, dtype)


class Optimizer:
    """One update: clip the gradient, step, forget the gradient."""

    def __init__(self, parameters: list[nn.Parameter], optim: OptimSection, dtype: torch.dtype):
        self.parameters, self.optim, self.dtype = parameters, optim, dtype
        self.adam = self.make_adam()

    @property
    def settings(self) -> dict:
        optim = self.optim
        return {"betas": (optim.beta1, optim.beta2), "weight_decay": optim.weight_decay}

    def make_adam(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters, fused=True, **self.settings)

    def update(self, lr: float) -> float:
        """Step at this learning rate; returns the gradient's norm before it was clipped."""
        norm = nn.utils.clip_grad_norm_(self.parameters, self.optim.grad_clip)
        self.adam.param_groups[0]["lr"] = lr
        self.adam.step()
        self.clear()
        return float(norm)

    def clear(self) -> None:
        """Forget the gradient, half of one included."""
        self.adam.zero_grad()

    def state_dict(self) -> dict:
        return self.adam.state_dict()

    def load_state_dict(self, state: dict) -> None:
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
    """Weights, gradients and moments in float32 in the machine's memory.

    What computes keeps each weight once, in the type of the arithmetic: a float32 weight that is
    rounded for every product is the same number. A gradient leaves the device as soon as it is
    whole, parameter by parameter, and micro-batches are summed in float32. In float32 arithmetic
    every update is bit-equal to that of "device" on the same machine.
    """

    def make_adam(self) -> torch.optim.Optimizer:
        # Pinned memory is what a GPU reads and writes at full speed. For the bus alone: torch
        # rounds each pinned tensor up to a power of two, which of all weights would be gigabytes.
        pin = self.parameters[0].device.type == "cuda"
        largest = max(parameter.numel() for parameter in self.parameters)
        self.bus = torch.empty(largest, dtype=self.dtype, pin_memory=pin)
        self.taken = False  # a gradient, since the last update
        self.masters = [self.move_out(parameter) for parameter in self.parameters]
        return torch.optim.AdamW(self.masters, fused=True, **self.settings)

    def move_out(self, parameter: nn.Parameter) -> nn.Parameter:
        master = nn.Parameter(torch.empty(parameter.shape, dtype=torch.float32))
        master.grad = torch.zeros(parameter.shape, dtype=torch.float32)
        master.data.copy_(parameter.detach())
        parameter.data = parameter.detach().to(self.dtype, copy=True)

        def take(one: nn.Parameter) -> None:
            master.grad.add_(self.carry(one.grad))
            one.grad = None
            self.taken = True

        parameter.register_post_accumulate_grad_hook(take)
        return master

    def carry(self, tensor: torch.Tensor) -> torch.Tensor:
        """The same numbers in the type of the arithmetic, in memory that both sides reach fast,
        until the next call."""
        return self.bus[: tensor.numel()].view(tensor.shape).copy_(tensor)

    def update(self, lr: float) -> float:
        norm = nn.utils.clip_grad_norm_(self.masters, self.optim.grad_clip)
        self.adam.param_groups[0]["lr"] = lr
        if self.taken:  # a gradient of zeros would move what has momentum
            self.adam.step()
            self.publish()
        self.clear()
        return float(norm)

    def clear(self) -> None:
        # Zeros, not None: the hooks add to them. A failed backward may have left some of its own.
        self.adam.zero_grad(set_to_none=False)
        self.taken = False
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def publish(self) -> None:
        """What computes becomes what was learnt, rounded."""
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            parameter.copy_(self.carry(master))

    def state_dict(self) -> dict:
        """With the weights: those of the checkpoint's model are rounded."""
        weights = [master.detach() for master in self.masters]
        return {"adam": self.adam.state_dict(), "weights": weights}

    @torch.no_grad()
    def load_state_dict(self, state: dict) -> None:
        self.adam.load_state_dict(state["adam"])
        for master, saved in zip(self.masters, state["weights"], strict=True):
            master.copy_(saved)
        self.publish()
