"""The time limit of a probe, and rates of the machine: matrix products, attention, memory.

A measurement cannot be interrupted. So each begins small and predicts the time of a larger one, and
a part for which no time is left is not begun. A part that ended after the limit, because the
machine was busy, is not used. In both cases a value is assumed, and the result names the part.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import TypeVar

import torch
from torch.nn import functional as F

from aha.core.config import RunConfig
from aha.core.errors import ConfigError
from aha.machine.device import choose_device, compute_dtype, synchronize
from aha.model.attention import causal_attention
from aha.plan.shapes import Shape
from aha.plan.speed import Card, Lengths, Training

LIMIT_S = 30.0  # of a whole probe
RATES_BY = 0.25  # share of the limit after which no rate is measured
SHARE = 0.15  # of the arithmetic that training reaches: a guess, to choose what is measured in time
SLOW = Card(0, 1, 10, 0, 0, SHARE, 0.4, 0)  # for shares and GB/s that were not measured
Result = TypeVar("Result")


class Rates:
    """Measures the rates of this machine for one recipe, within `limit_s` seconds."""

    limit_s = LIMIT_S

    def __init__(self, cfg: RunConfig, shape: Shape):
        # What the method adds (reference, critic) is counted by the plan, not measured.
        algo = type(cfg.algo)()
        self.cfg = cfg.model_copy(update={"algo": algo})
        self.whole_shape, self.lengths = shape, Lengths.of(cfg)
        self.device = choose_device(cfg.model.device, shape.parameters)
        self.dtype = compute_dtype(cfg.optim.dtype, self.device)
        self.start_time = time.perf_counter()
        self.assumed: list[str] = []  # names of the parts for which there was no time
        self.notes: list[str] = []  # what was odd about a measurement, in words

    def wait(self) -> None:
        """Wait until the GPU has done its work."""
        synchronize(self.device)

    def seconds(self, work: Callable[[], object]) -> float:
        """The seconds that `work` takes, its work on the GPU included."""
        self.wait()
        start = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - start

    def median_seconds(self, work: Callable[[], object], limit: float = 1.0) -> float:
        """The median over as many rounds as fit into `limit` seconds, the first one not counted."""
        first = self.seconds(work)
        times: list[float] = []
        while len(times) < min(20, int(limit / first)) and not self.is_spent(RATES_BY):
            times.append(self.seconds(work))
        return median(times or [first])

    def run_part(self, name: str, share: float, work: Callable[[], Result]) -> Result | None:
        """The result of `work`; None, and `name` is added to `assumed`, where there was no time.

        `share` is that of the limit after which the work is not begun.
        """
        if not self.is_spent(share):
            result = work()
            if not self.is_spent(1.0):
                return result
        self.assumed.append(name)
        return None

    def is_spent(self, share: float) -> bool:
        """Whether this share of the limit is over."""
        return self.seconds_left(share) <= 0

    def seconds_left(self, share: float) -> float:
        """Seconds of this share of the limit that are left."""
        return share * self.limit_s - (time.perf_counter() - self.start_time)

    def random(self, *sizes: int) -> torch.Tensor:
        """A random tensor from a generator of its own."""
        generator = torch.Generator().manual_seed(0)
        return torch.randn(*sizes, generator=generator).to(self.device, self.dtype)

    def matmul_rate(self) -> float:
        """FLOP/s of the MLP's first product, with at most 1024 rows and a second."""
        rows, C, wide = 16, self.whole_shape.C, 2 * self.whole_shape.I
        x, weight = self.random(1024, C), self.random(wide, C)

        def multiply() -> None:
            F.linear(x[:rows], weight)

        multiply()  # the first call initialises the libraries
        seconds = self.seconds(multiply)
        while rows < 1024 and 8 * seconds < 1.0 and not self.is_spent(RATES_BY):
            rows *= 8
            seconds = self.seconds(multiply)
        if rows == 1024:
            seconds = self.median_seconds(multiply)
        return 2 * rows * C * wide / seconds

    def attention_rate(self, rate: float) -> float:
        """FLOP/s of one layer's attention, forward and backward, at the plan's length.

        At a shorter length where that would take more than a second; `rate` is that of products.
        """
        shape, T = self.whole_shape, int(self.lengths.prompt + self.lengths.weighted)
        layer = replace(shape, L=1)
        while T > 64 and Training(T, T, 1).attention(layer) * SLOW.attention > rate:
            T //= 2
        rows = max(1, min(self.cfg.optim.micro_batch_tokens, 8192) // T)
        q = self.random(rows * shape.K, shape.H // shape.K, T, shape.D).requires_grad_()
        k, v = (self.random(rows * shape.K, T, shape.D).requires_grad_() for _ in range(2))

        def work() -> None:
            causal_attention(q, k, v).sum().backward()

        return Training(rows * T, T, 1).attention(layer) / self.median_seconds(work)

    def bandwidth(self) -> float:
        """Bytes/s of copying a tensor that is larger than any cache."""
        size = (
            2**26 if self.device.type == "cpu" else 2**28
        )  # a GPU copies a small one within its launch time
        source = torch.zeros(size, dtype=torch.uint8, device=self.device)
        target = torch.empty_like(source)
        return 2 * source.numel() / self.median_seconds(lambda: target.copy_(source), 0.3)

    def rates(self) -> tuple[float, float, float]:
        """The rates of products and attention in FLOP/s and of memory in bytes/s.

        Raises ConfigError where not even one product could be measured.
        """
        matmul = self.matmul_rate()
        if self.is_spent(1.0):
            spent_s = self.limit_s - self.seconds_left(1.0)
            raise ConfigError(
                f"a machine that needs {spent_s:.0f} s for one product",
                "one that is not busy, to measure it",
                "try again later, or leave out --probe",
            )
        slower = f"attention {SLOW.attention:.0f} times as slow as products"
        rate = matmul / SLOW.attention
        attention = self.run_part(slower, RATES_BY, lambda: self.attention_rate(matmul)) or rate
        bandwidth = self.run_part(f"memory {SLOW.bandwidth} GB/s", RATES_BY, self.bandwidth)
        return matmul, attention, bandwidth or SLOW.bandwidth * 1e9
