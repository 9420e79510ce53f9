"""What the items share: the device and its clocks, random models made on it, cases that may fail.

Everything is timed with the device idle before and after. Weights are random, since neither speed
nor memory depends on them, and are drawn on the device: nothing is downloaded, and nothing large
passes through the host.
"""

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from typing import TypeVar

import torch

from aha.algo.recipe import load_recipe
from aha.api.recipe_names import find_recipe
from aha.core.config import RunConfig
from aha.core.records import Prompt
from aha.machine.device import compute_dtype, empty_cache, gpu_name, synchronize
from aha.measure.probe import MachineProbe, StubTokenizer
from aha.model.transformer import Transformer
from aha.plan.machines import card_for, load_cards
from aha.plan.shapes import Shape, shape_of
from aha.plan.speed import PROMPT_TOKENS, Card

from .._common import Digits
from .rows import Scale

Value = TypeVar("Value")
CPU_ROW = "cpu-2-cores"  # of cards.toml, where --tiny runs
PROMPT = PROMPT_TOKENS["r1"]  # tokens, of every prompt that is not aha-tiny's


class Endless(StubTokenizer):
    """A tokenizer for random weights. Digits are spelled, and no completion ever ends: its stop
    token is one that the vocabulary lacks."""

    def __init__(self, vocabulary: int):
        super().__init__(0)
        self.stop_ids = [vocabulary]

    def say(self, text: str) -> str:
        return text

    def encode(self, text: str) -> list[int]:
        return [int(digit) for digit in text]

    def decode(self, tokens: list[int]) -> str:
        return " ".join(map(str, tokens))


@dataclass
class Bench:
    """One item's measuring. `failures` has a line for each case that did not come to an end.

    `cases` are those so far, and `keep` is called with them after each: an item that is stopped has
    them already.
    """

    scale: Scale
    device: torch.device
    failures: list[str] = field(default_factory=list)
    cases: list[dict] = field(default_factory=list)
    keep: Callable[[list[dict]], object] = bool

    def pick(self, full: Value, quick: Value, tiny: Value) -> Value:
        return {"full": full, "quick": quick, "tiny": tiny}[self.scale]

    # -- the device ------------------------------------------------------------------------

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    @cached_property
    def card(self) -> tuple[str | None, Card | None]:
        """The row of cards.toml that means this device, if there is one."""
        _, cards = load_cards()
        gpu = gpu_name(self.device)
        name = card_for(gpu, cards) if gpu else CPU_ROW
        return name, cards.get(name)

    def wait(self) -> None:
        synchronize(self.device)

    def timed(self, work: Callable[[], Value]) -> tuple[float, Value]:
        """Wall seconds, and what came of it."""
        self.wait()
        start = time.perf_counter()
        result = work()
        self.wait()
        return time.perf_counter() - start, result

    def device_seconds(self, work: Callable[[], object]) -> float:
        """Of one `work` by the device's own clock, several queued without a gap; the median of
        five such runs, after one that does not count."""
        repeats = self.pick(10, 10, 1)

        def once() -> float:
            if not self.on_gpu:
                return self.timed(lambda: [work() for _ in range(repeats)])[0] / repeats
            ends = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
            ends[0].record()
            for _ in range(repeats):
                work()
            ends[1].record()
            self.wait()
            return ends[0].elapsed_time(ends[1]) / 1000 / repeats

        return statistics.median([once() for _ in range(6)][1:])

    @cached_property
    def copy_bandwidth(self) -> float:
        """Bytes/s, read and written, of copying far more than any cache holds."""
        size = self.pick(2**30, 2**30, 2**20)
        source = torch.zeros(size, dtype=torch.uint8, device=self.device)
        target = torch.empty_like(source)
        return 2 * size / self.device_seconds(lambda: target.copy_(source))

    @cached_property
    def matmul_peak(self) -> float:
        """FLOP/s of one large product in bf16."""
        n = self.pick(8192, 8192, 64)
        generator = torch.Generator(self.device).manual_seed(0)
        make = {"device": self.device, "dtype": torch.bfloat16, "generator": generator}
        x, y = torch.randn(n, n, **make), torch.randn(n, n, **make)
        out = torch.empty_like(x)
        return 2 * n**3 / self.device_seconds(lambda: torch.mm(x, y, out=out))

    def forget(self) -> None:
        """Give back what a case has left, so that the next one begins with an empty card."""
        gc.collect()
        empty_cache(self.device)

    @contextmanager
    def at_most(self, gigabytes: float | None) -> Iterator[None]:
        """A card of that size: torch may take no more than that from this one."""
        if gigabytes is None or not self.on_gpu:
            yield
            return
        whole = torch.cuda.get_device_properties(self.device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, gigabytes * 1e9 / whole))
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)

    # -- recipes and models ----------------------------------------------------------------

    def recipe(self, name: str, changes: dict, tiny: dict) -> RunConfig:
        """A packaged recipe for this device, with `changes`; and with `tiny` ones in tiny mode."""
        changes = {"model.device": self.device.type, "eval.every": 0, "eval.final": 0} | changes
        changes |= {"usd_per_hour": 0.0, "watts": 0.0}  # money is not measured
        return load_recipe(find_recipe(name), changes | self.pick({}, {}, tiny))

    def shape(self, name: str) -> Shape:
        """The model's; in tiny mode a small one of its kind."""
        shape = shape_of(name)
        if self.scale != "tiny" or shape.C <= 128:
            return shape
        return replace(shape, V=320, C=64, I=96, L=2, H=4, K=2, D=16)

    def policy(self, cfg: RunConfig, shape: Shape) -> Transformer:
        """Random weights on the device, adapters as the recipe has them."""
        policy = MachineProbe(cfg, shape).policy(shape)
        if cfg.optim.state == "cpu":  # as `open_policy` does it
            policy.to(compute_dtype(cfg.optim.dtype, self.device))
        self.forget()
        return policy

    def prompts(self, count: int, shape: Shape) -> list[Prompt]:
        task, tokenizer = Digits(PROMPT), Endless(shape.V)
        problems = islice(task.problems("train", 0), count)
        return [Prompt.of(problem, task, tokenizer) for problem in problems]

    # -- cases -----------------------------------------------------------------------------

    def attempt(self, name: str, work: Callable[[], dict]) -> dict:
        """What `work` found, or why it found nothing: one case's end is not the item's."""
        reason = None
        try:
            case = {"case": name, **work()}
        except Exception as error:  # whatever it is, the other cases are still worth measuring
            lines = str(error).splitlines() or [""]
            reason = f"{type(error).__name__}: {lines[0]}"
        # Out here the error is gone, and with it the frames that held its tensors.
        if reason:
            case = {"case": name, "error": reason}
            self.failures.append(f"{name}: {reason}")
        print(f"  {name}: " + (reason or shown(case)), flush=True)
        self.cases.append(case)
        self.keep(self.cases)
        self.forget()
        return case


def shown(case: dict) -> str:
    """The plain numbers of a case in a line."""
    plain = {k: v for k, v in case.items() if k != "case" and isinstance(v, int | float | str)}
    return ", ".join(
        f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in plain.items()
    )


def extreme(pick: Callable, cases: list[dict], key: str) -> float | None:
    """The least or the greatest of all cases; None if there is none, or one that lacks it."""
    values = [case.get(key) for case in cases]
    return pick(values) if values and None not in values else None
