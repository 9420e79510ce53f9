"""The clock of a probe, and what the machine does without a model: products, attention, memory.

Nothing can be stopped in the middle, so every piece begins small and says how long a larger one
may take. A piece for which no time is left is not begun, and one that ended past the limit, because
the machine stood still in it, tells nothing: what either would have told is assumed, and named.
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
from aha.machine.device import choose_device, synchronize
from aha.machine.dtype import compute_dtype
from aha.model.attention import causal_attention
from aha.plan.shapes import Shape
from aha.plan.speed import Card, Lengths, Training

LIMIT_S = 30.0  # of a whole probe
RATES_BY = 0.25  # of the limit: later no rate is measured
SHARE = 0.15  # of the arithmetic, guessed, to see what can be measured in time
SLOW = Card(0, 1, 10, 0, 0, SHARE, 0.4, 0)  # the shares, and GB/s, of what was not measured
Result = TypeVar("Result")


class Rates:
    """A machine at work on pieces of one recipe, and the time that is left for them."""

    limit_s = LIMIT_S

    def __init__(self, cfg: RunConfig, shape: Shape):
        # Whatever the method adds (reference, critic) is counted by the plan, not measured.
        algo = type(cfg.algo)()
        self.cfg = cfg.model_copy(update={"algo": algo})
        self.wanted, self.lengths = shape, Lengths.of(cfg)
        self.device = choose_device(cfg.model.device, shape.parameters)
        self.dtype = compute_dtype(cfg.optim.dtype, self.device)
        self.began = time.perf_counter()
        self.assumed: list[str] = []  # pieces that there was no time for

    def wait(self) -> None:
        synchronize(self.device)

    def seconds(self, work: Callable[[], object]) -> float:
        self.wait()
        start = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - start

    def typical(self, work: Callable[[], object], limit: float = 1.0) -> float:
        """The median over as many rounds as fit the limit, after one that does not count."""
        first = self.seconds(work)
        found: list[float] = []
        while len(found) < min(20, int(limit / first)) and not self.late(RATES_BY):
            found.append(self.seconds(work))
        return median(found or [first])

    def piece(self, name: str, share: float, work: Callable[[], Result]) -> Result | None:
        """What `work` tells; None, and its name is kept, where there was no time for it."""
        if not self.late(share):
            found = work()
            if not self.late(1.0):
                return found
        self.assumed.append(name)
        return None

    def late(self, share: float) -> bool:
        return self.left(share) <= 0

    def left(self, share: float) -> float:
        """Seconds of this share of the limit that are not spent."""
        return share * self.limit_s - (time.perf_counter() - self.began)

    def random(self, *sizes: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(*sizes, generator=generator).to(self.device, self.dtype)

    def matmul_rate(self) -> float:
        """FLOP/s of the mlp's first product, of as many rows as a second has room for."""
        rows, C, wide = 16, self.wanted.C, 2 * self.wanted.I
        x, weight = self.random(1024, C), self.random(wide, C)

        def multiply() -> None:
            F.linear(x[:rows], weight)

        multiply()  # libraries set themselves up at first use
        took = self.seconds(multiply)
        while rows < 1024 and 8 * took < 1.0 and not self.late(RATES_BY):
            rows *= 8
            took = self.seconds(multiply)
        if rows == 1024:
            took = self.typical(multiply)
        return 2 * rows * C * wide / took

    def attention_rate(self, rate: float) -> float:
        """FLOP/s, forward and backward, of one layer at the plan's length, or at what of it a
        second has room for; `rate` is that of products."""
        shape, T = self.wanted, int(self.lengths.prompt + self.lengths.weighted)
        one = replace(shape, L=1)
        while T > 64 and Training(T, T, 1).attention(one) * SLOW.attention > rate:
            T //= 2
        rows = max(1, min(self.cfg.optim.micro_batch_tokens, 8192) // T)
        q = self.random(rows * shape.K, shape.H // shape.K, T, shape.D).requires_grad_()
        k, v = (self.random(rows * shape.K, T, shape.D).requires_grad_() for _ in range(2))

        def work() -> None:
            causal_attention(q, k, v).sum().backward()

        return Training(rows * T, T, 1).attention(one) / self.typical(work)

    def bandwidth(self) -> float:
        """Bytes/s of copying what no cache holds."""
        size = 2**26 if self.device.type == "cpu" else 2**28  # on a GPU far more than a start takes
        source = torch.zeros(size, dtype=torch.uint8, device=self.device)
        target = torch.empty_like(source)
        return 2 * source.numel() / self.typical(lambda: target.copy_(source), 0.3)

    def rates(self) -> tuple[float, float, float]:
        """Of products, attention and memory. Raises `ConfigError` where not even one product could
        be measured."""
        matmul = self.matmul_rate()
        if self.late(1.0):
            raise ConfigError(
                f"a machine that needs {self.limit_s - self.left(1.0):.0f} s for one product",
                "one that is not busy, to measure it",
                "try again later, or leave out --probe",
            )
        slower = f"attention {SLOW.attention:.0f} times as slow as products"
        rate = matmul / SLOW.attention
        attention = self.piece(slower, RATES_BY, lambda: self.attention_rate(matmul)) or rate
        bandwidth = self.piece(f"memory {SLOW.bandwidth} GB/s", RATES_BY, self.bandwidth)
        return matmul, attention, bandwidth or SLOW.bandwidth * 1e9
