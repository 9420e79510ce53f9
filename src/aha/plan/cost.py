"""Money and energy of machine time, from a dated table that users may overrule.

`usd_per_hour` is what renting such a machine costs; on hardware that you own, set it to 0 and the
energy line is what is left. Watts are for the whole machine under load.
"""

from dataclasses import dataclass

PRICES_AS_OF = "2026-11"

# name: (USD per hour, watts). A shared cloud machine at list price, rounded up; an owned laptop.
MACHINES = {
    "cloud-2vcpu": (0.08, 30.0),
    "laptop": (0.0, 25.0),
}
USD_PER_KWH = 0.30


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


def money(usd: float) -> str:
    """Cents where there are any, fractions of a cent where not."""
    return f"${usd:.2f}" if usd >= 0.995 else f"{100 * usd:.2f} cents"
