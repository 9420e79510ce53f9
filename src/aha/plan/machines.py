"""The table of machines, cards.toml: which row is this machine, and what an hour of it costs."""

import re
import tomllib
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
