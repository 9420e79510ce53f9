"""Money and energy of machine time, and budgets of either.

`usd_per_hour` is what renting such a machine costs; on hardware that you own, set it to 0: the
energy is still counted. Watts are for the whole machine under load.
"""

import math
import re
from dataclasses import dataclass

from aha.core.errors import ConfigError


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
