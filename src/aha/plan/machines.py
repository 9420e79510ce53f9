"""The table of machines, cards.toml: the row of this machine, the price of an hour and of a run.

Money, energy and budgets are here as well.
"""

import math
import re
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from aha.core.errors import ConfigError
from aha.plan.speed import Card

CPU, CPU_FLOAT32 = "cpu-2-cores", "cpu-2-cores-avx2"  # the second multiplies no bf16


def load_cards(path: Path | None = None) -> tuple[str, dict[str, Card]]:
    """(date of the prices, cards by name). Raises `ConfigError` for a file that holds none."""
    source = path or files("aha.plan") / "cards.toml"
    try:
        raw = tomllib.loads(source.read_text(encoding="utf-8"))
        cards = {name: Card(**card) for name, card in raw["cards"].items()}
        for card in cards.values():
            kinds = {key: vars(card)[key] for key in ("cpu", "float32")}
            numbers = {key: value for key, value in vars(card).items() if key not in kinds}
            assert all(type(value) in (int, float) and value >= 0 for value in numbers.values())
            assert card.tflops * card.bandwidth * card.train * card.decode > 0
            assert all(type(kind) is bool for kind in kinds.values())
        return str(raw["as_of"]), cards
    except (OSError, ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
        reason = f"{type(error).__name__} {error}".strip()
        raise ConfigError(f"{source}: {reason}", "a table like aha/plan/cards.toml") from None


def card_for(device_name: str, cards: dict[str, Card]) -> str | None:
    """The row of the table for a GPU of this name: the one with the most words of those whose words
    are all in the name. A laptop's GPU is another one than the desktop's of the same name."""
    device_words = set(re.split(r"[\s-]+", device_name.lower()))
    matches = []
    for name in cards:
        words = {word for word in name.lower().split("-") if not word.endswith("gb")}
        same_kind = ("laptop" in words) == ("laptop" in device_words)
        if not cards[name].cpu and words <= device_words and same_kind:
            matches.append((len(words), name))
    return max(matches)[1] if matches else None


def row_of(gpu: str | None) -> Card | None:
    """The row for a GPU of this name, None where the table has none; without a GPU a CPU's."""
    _, cards = load_cards()
    name = card_for(gpu, cards) if gpu else CPU
    return cards.get(name) if name else None


def price_of(
    gpu: str | None, usd_per_hour: float | None, watts: float | None
) -> tuple[float, float]:
    """(USD an hour, watts) of a machine: those that are given, else those of its row.

    Raises `ConfigError` for a GPU without a row: another machine's price would be no price.
    """
    if usd_per_hour is not None and watts is not None:
        return usd_per_hour, watts
    row = row_of(gpu)
    if row is None:
        raise ConfigError(
            f"{gpu}, which is not in the table of prices",
            "what an hour of the machine costs (0 if it is yours) and its power",
            "--usd-per-hour 0.4 --watts 300",
        )
    usd_per_hour = row.usd_per_hour if usd_per_hour is None else usd_per_hour
    return usd_per_hour, row.watts if watts is None else watts


@dataclass(frozen=True)
class Cost:
    """Machine time with its price."""

    seconds: float
    usd: float
    kwh: float

    @classmethod
    def of(cls, seconds: float, usd_per_hour: float, watts: float) -> "Cost":
        hours = seconds / 3600
        return cls(seconds, hours * usd_per_hour, hours * watts / 1000)


UNITS = {"usd": None, "$": None, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}  # in seconds


def budget_seconds(text: str, usd_per_hour: float) -> float:
    """Seconds that a budget such as "2h", "30min" or "5usd" lasts on a machine of that price.

    Raises `ConfigError` for a text that is no budget, and for money on a machine that is free.
    """
    match = re.fullmatch(r"(\$?)(\d+(?:\.\d+)?)\s*(usd|s|m|min|h|)", text.strip().lower())
    unit = match[1] + match[3] if match else ""
    if match is None or unit not in UNITS or not float(match[2]):
        raise ConfigError(f"the budget {text!r}", "money or time", "--budget 5usd or --budget 2h")
    amount, seconds = float(match[2]), UNITS[unit]
    if seconds is not None:
        return amount * seconds
    if usd_per_hour == 0:
        raise ConfigError(
            f"the budget {text!r} at $0 an hour", "a price or a time", "--usd_per_hour 0.08"
        )
    return amount / usd_per_hour * 3600


@dataclass
class Budget:
    """Decides when to stop: before the step that would exceed it, if it is as long as the last."""

    seconds: float = math.inf
    before: float = 0.0  # spent already

    def spent_by(self, seconds: float) -> bool:
        """Whether one more step, as long as this one, would exceed it; `seconds` spent in all."""
        step, self.before = seconds - self.before, seconds
        return seconds + step > self.seconds


def money(usd: float) -> str:
    """Cents where there are any, fractions of a cent where not."""
    return f"${usd:.2f}" if usd >= 0.995 else f"{100 * usd:.2f} cents"
