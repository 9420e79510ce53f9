"""What was measured of a machine, in place of the shares that cards.toml assumes.

`aha.measure.probe` measures real products, attention, generation and training; here the figures
become a `Card`. A JSON file keeps them.
"""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from aha.core.config import RunConfig
from aha.core.errors import ConfigError
from aha.plan.machines import price_of
from aha.plan.shapes import Shape
from aha.plan.speed import Card, Generation, Training

LEAST = 0.02  # share of a measured time that each of its parts takes at least, against noise


@dataclass(frozen=True)
class BaseLength:
    """How long completions of the base model are, and for which question: see `question`."""

    asked: str  # the name in calibration files
    tokens: float  # of a completion on average
    completions: int

    @staticmethod
    def question(cfg: RunConfig) -> str:
        """All settings that this length depends on, as one line of JSON; `grade_seconds` may
        change."""
        task = cfg.task.model_dump(mode="json", exclude={"grade_seconds"})
        rollout = cfg.rollout.model_dump(include={"max_new_tokens", "temperature"})
        return json.dumps({"model": cfg.model.path, **task, **rollout}, sort_keys=True)


@dataclass(frozen=True)
class Calibration:
    """A machine's figures. Times in seconds, rates in FLOP/s and bytes/s."""

    machine: str
    device: str  # cpu or cuda
    memory_gb: float
    threads: int
    dtype: str
    model: str
    shape: Shape  # that was measured: the model's own, or a smaller one where that does not fit
    whole: bool  # whether it is the model's own
    matmul_rate: float
    attention_rate: float
    bandwidth: float
    layer_us: float
    # A short and a long generation, each with its seconds.
    writings: tuple[tuple[Generation, float], ...]
    training: Training
    training_s: float
    seconds: float  # of the whole measurement
    measured: str  # its date and time, ISO
    assumed: tuple[str, ...] = ()  # parts that there was no time to measure, in words
    base: BaseLength | None = None
    notes: tuple[str, ...] = ()  # what was odd about a measurement, in words

    @property
    def label(self) -> str:
        """The machine, and the parts that were not measured."""
        return self.machine + (f", {self.not_measured}" if self.assumed else "")

    @property
    def not_measured(self) -> str:
        return f"not measured in time, assumed: {', '.join(self.assumed)}"

    def base_tokens_of(self, cfg: RunConfig) -> float:
        """Mean length of the base's completions for this recipe; 0 where it was not measured."""
        base = self.base
        return base.tokens if base and base.asked == BaseLength.question(cfg) else 0.0

    def card(self, usd_per_hour: float | None, watts: float | None) -> Card:
        """The machine with its measured shares: with them the formulas of `aha.plan.speed` give
        the measured times, up to noise. A price or a power that is None is that of its row, see
        `price_of`."""
        gpu = self.machine if self.device == "cuda" else None
        usd_per_hour, watts = price_of(gpu, usd_per_hour, watts)
        train = self.train_rate()
        generate, decode = self.generation_rates(train)
        bandwidth = max(self.bandwidth, decode)
        return Card(
            memory=self.memory_gb,
            tflops=self.matmul_rate / 1e12,
            bandwidth=bandwidth / 1e9,
            watts=watts,
            usd_per_hour=usd_per_hour,
            train=train / self.matmul_rate,
            decode=decode / bandwidth,
            layer_us=self.layer_us,
            generate=generate / self.matmul_rate,
            attention=train / self.attention_rate,
            cpu=self.device == "cpu",
            float32=self.device == "cpu" and self.dtype == "float32",
        )

    def train_rate(self) -> float:
        """FLOP/s of everything in training but attention."""
        floor = 3 * self.training.parts * self.shape.L * self.layer_us * 1e-6
        attending = self.training.attention(self.shape) / self.attention_rate
        left = max(self.training_s - floor - attending, 10 * LEAST * self.training_s)
        return self.training.products(self.shape) / left

    def generation_rates(self, train: float) -> tuple[float, float]:
        """(FLOP/s of products, bytes/s of memory). The two generations differ in their context,
        which separates the two rates; on a GPU products are bound by reading the weights."""
        floors = [work.passes * self.shape.L * self.layer_us * 1e-6 for work, _ in self.writings]
        times = [
            max(seconds - floor, LEAST * seconds)
            for (_, seconds), floor in zip(self.writings, floors, strict=True)
        ]
        products = [work.products(self.shape) for work, _ in self.writings]
        cached = [work.cache_bytes(self.shape) for work, _ in self.writings]
        read = [work.weight_bytes(self.shape) for work, _ in self.writings]
        if self.device != "cpu":
            return train, (sum(cached) + sum(read)) / sum(times)
        (p, q), (c, d), (s, t) = products, cached, times
        # s = p x + c y and t = q x + d y, with x and y the seconds of one.
        odd = p * d - q * c
        x, y = ((s * d - t * c) / odd, (p * t - q * s) / odd) if odd else (0.0, 0.0)
        least = LEAST * t
        if x * q < least or y * d < least:  # noise: all of it to the larger part, but for a rest
            x, y = (t - least, least) if x * q > y * d else (least, t - least)
            x, y = x / q, y / d
        if read[1] * y > q * x:  # the weights are slower than the arithmetic
            y = t / (read[1] + d)
            x = read[1] * y / q
        return 1 / x, 1 / y

    def lines(self) -> list[str]:
        """What was measured, as text."""
        (short, short_s), (long, long_s) = self.writings
        part = "" if self.whole else f", {self.shape.L} layers and {self.shape.V:,} words of it"
        more = [f"  {self.not_measured}"] if self.assumed else []
        more += [f"  {note}" for note in self.notes]
        if self.base:
            text = f"  {self.base.completions} completions of the base: {self.base.tokens:.0f}"
            more.append(f"{text} tokens on average")
        return [
            f"measured on {self.machine}, {self.device}, {self.threads} threads, {self.dtype}, "
            f"in {self.seconds:.0f} s with the shape of {self.model}{part}",
            f"  products {self.matmul_rate / 1e12:.3g} TFLOP/s, attention "
            f"{self.attention_rate / 1e12:.3g} TFLOP/s, memory {self.bandwidth / 1e9:.3g} GB/s",
            f"  generation {short.tokens / short_s:,.0f} tok/s at a context of "
            f"{short.context:.0f}, {long.tokens / long_s:,.0f} at {long.context:.0f}; training "
            f"{self.training.tokens / self.training_s:,.0f} tok/s at {self.training.length:.0f}",
            *more,
        ]

    def write(self, path: Path) -> None:
        try:
            path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise ConfigError(
                f"cannot write {path}: {error.strerror}", "a file in a folder that exists"
            ) from None


def read_calibration(path: Path) -> Calibration:
    """A file that `Calibration.write` wrote. Raises `ConfigError` for anything else."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        raw = {"assumed": (), "base": None, "notes": ()} | raw
        assert raw.keys() == {field.name for field in fields(Calibration)}
        raw |= {"shape": Shape(**raw["shape"]), "training": Training(**raw["training"])}
        raw["writings"] = tuple((Generation(**work), float(s)) for work, s in raw["writings"])
        raw["assumed"] = tuple(map(str, raw["assumed"]))
        raw["notes"] = tuple(map(str, raw["notes"]))
        raw["base"] = raw["base"] and BaseLength(**raw["base"])
        calibration = Calibration(**raw)
        card = calibration.card(0.0, 0.0)
        assert len(calibration.writings) == 2 and min(card.train, card.decode, card.generate) > 0
        assert type(calibration.threads) is int and calibration.threads > 0
        calibration.lines()  # which are shown, so that each value has to be of its kind
        return calibration
    except (OSError, ValueError, LookupError, TypeError, ArithmeticError) as error:
        reason = f"{type(error).__name__} {error}".strip()
    except (AssertionError, AttributeError):
        reason = "not a calibration"
    raise ConfigError(
        f"{path}: {reason}", "a file that `aha plan RECIPE --probe --calibration FILE` wrote"
    )
