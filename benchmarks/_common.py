"""What the comparisons share: threads, a random model that stops when told to, a task without
sense, medians, JSON rows.

Not a benchmark itself: `make bench` leaves out files that begin with an underscore.
"""

import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from random import Random
from zlib import crc32

import torch
from torch.nn import functional as F

from aha.core.records import Graded, Problem
from aha.model.tokenizer import Tokenizer, build_tokenizer
from aha.model.transformer import ModelConfig, Transformer
from aha.store.run_folder import environment

# Vocabulary 112 always: that of aha-tiny's tokenizer.
SHAPES = {
    "tiny": {},  # aha-tiny
    "wide": {"intermediate_size": 512},  # a third more work in the MLP
    "medium": {"hidden_size": 256, "num_hidden_layers": 6, "intermediate_size": 512},
    "large": {"hidden_size": 512, "num_hidden_layers": 8, "intermediate_size": 1024},
}
TINY = {"hidden_size": 128, "num_hidden_layers": 4, "intermediate_size": 384}
NEVER = 1e-12  # a stop token this rare does not come in any run of ours


def need(*packages: str) -> None:
    """Leave with one line if a package of the comparison is not installed."""
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        install = "python -m pip install --constraint constraints.txt --editable '.[bench]'"
        sys.exit(f"This comparison needs {', '.join(missing)}. Install with: {install}")


def use_threads(count: int) -> None:
    """Compute with `count` threads, here and in child processes.

    OpenMP reads its variable when it is loaded, so the interpreter starts afresh if it differs.
    """
    if os.environ.get("OMP_NUM_THREADS") != str(count):
        os.environ["OMP_NUM_THREADS"] = str(count)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    torch.set_num_threads(count)


def random_model(shape: str, stop_probability: float) -> tuple[Transformer, Tokenizer]:
    """A Qwen2 of random weights whose stop token has nearly the same probability everywhere."""
    tokenizer = build_tokenizer()
    config = ModelConfig(tokenizer.vocab_size, **(TINY | SHAPES[shape]))
    policy = Transformer(config).initialise(torch.Generator().manual_seed(0))
    set_stop_probability(policy, tokenizer.stop_ids[0], stop_probability)
    return policy, tokenizer


@torch.no_grad()
def set_stop_probability(policy: Transformer, stop: int, probability: float) -> None:
    """Make `stop` come with about this probability at every position, by the weights alone.

    Qwen2's head has no bias, so one is made: every token writes the same number into feature 0 of
    the residual stream and no layer adds to it. After the last norm feature 0 is then nearly the
    same at every position. In the tied head it moves all logits alike, which changes nothing,
    except the stop token's, whose row holds a number of its own there and nothing else.
    """
    embedding = policy.model.embed_tokens.weight
    for layer in policy.model.layers:
        layer.self_attn.o_proj.weight[0] = 0.0
        layer.mlp.down_proj.weight[0] = 0.0
    embedding[:, 0] = 0.05
    embedding[stop] = 0.0
    generator = torch.Generator().manual_seed(1)
    tokens_BT = torch.randint(len(embedding) - 1, (16, 64), generator=generator)
    tokens_BT += tokens_BT >= stop
    hidden = policy.hidden_states(tokens_BT)
    logits = F.linear(hidden, policy.folded_lm_head())
    logits[..., stop] = -math.inf
    stop_logit = math.log(probability / (1 - probability)) + logits.logsumexp(-1)
    embedding[stop, 0] = (stop_logit / hidden[..., 0]).mean()


def probability_for(mean: float, cap: int) -> float:
    """The p whose geometric lengths, cut at `cap`, have this mean: (1 - (1 - p)^cap) / p."""
    if not 1 < mean < cap:
        sys.exit(f"--mean {mean:g} with --max-new {cap}: want 1 < mean < max-new")
    low, high = 1e-9, 1.0
    for _ in range(100):
        middle = math.sqrt(low * high)
        longer = (1 - (1 - middle) ** cap) / middle > mean
        low, high = (middle, high) if longer else (low, middle)
    return low


def reward(text: str) -> float:
    """From 0 to 1, as good as random, the same for the same text."""
    return crc32(text.encode()) / 2**32


class Digits:
    """A task without sense: its prompt is `length` random digits, each one token."""

    name = "digits"

    def __init__(self, length: int):
        self.length = length

    def problems(self, split: str, seed: int):
        rng = Random(f"{split} {seed}")
        while True:
            digits = "".join(rng.choices("0123456789", k=self.length))
            yield Problem(digits, self.name, {})

    def ask(self, problem: Problem) -> str:
        return problem.id

    def grade(self, unused_problem: Problem, text: str) -> Graded:
        return Graded(reward(text), False, "a hash of the text")


@dataclass
class Timed:
    """What a call gave back, its wall seconds and the processor seconds of this process."""

    result: object
    seconds: float
    cpu: float


def timed(call: Callable, *args) -> Timed:
    start, cpu = time.perf_counter(), time.process_time()
    result = call(*args)
    return Timed(result, time.perf_counter() - start, time.process_time() - cpu)


def spread(values: list[float]) -> dict[str, float]:
    """Median, least and greatest."""
    numbers = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {key: float(f"{value:.5g}") for key, value in numbers.items()}


def show(numbers: dict[str, float], pattern: str = ",.0f") -> str:
    low, high = format(numbers["min"], pattern), format(numbers["max"], pattern)
    return f"{format(numbers['median'], pattern)} [{low} - {high}]"


def head(name: str, packages: tuple[str, ...], settings: dict) -> dict:
    """Print on what this is measured, and start the row that will be filed."""
    where = environment()
    where["packages"] |= {package: version(package) for package in packages}
    versions = ", ".join(f"{name} {number}" for name, number in where["packages"].items())
    print(f"{name} on {where['machine']}, {where['cores']} cores, Python {where['python']}")
    print(f"{versions}\ncommit {where['commit']}")
    print(", ".join(f"{key} {value}" for key, value in settings.items()), flush=True)
    date = datetime.now(UTC).isoformat(timespec="seconds")
    return {"benchmark": name, "date": date, "environment": where, "settings": settings}


def busy(cpu_shares: list[float]) -> None:
    """Warn when others had the core: `cpu_shares` are processor seconds per wall second."""
    if min(cpu_shares) < 0.9:
        print(
            f"NOTE: the machine was busy: a side had as little as {min(cpu_shares):.0%} of a core. "
            "Measure again when it is quiet."
        )


def file_row(path: Path | None, row: dict, quiet: bool = False) -> None:
    """Append the row to a file of JSON lines."""
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        if not quiet:
            print(f"filed in {path}")
