"""What a distillation has cost, entry by entry: the student's base, the teacher, the training.

An entry whose price nobody knows has none, and a total over it says so: it is never counted as 0.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from aha.model.parents import Parent
from aha.plan.machines import Cost, money
from aha.store.durable import to_json, write_text

# Who pays: this distillation, the making of the student's base, the making of the teacher.
OWN, BASE, TEACHER = "own", "base", "teacher"


@dataclass(frozen=True)
class LedgerEntry:
    """One thing that was paid for. `usd` and `kwh` None: not known; `why` says why."""

    what: str
    usd: float | None
    kwh: float | None = None
    seconds: float | None = None
    tokens: int | None = None
    payer: str = OWN
    why: str = ""

    def line(self) -> str:
        """The entry for people."""
        price = "not known" if self.usd is None else money(self.usd)
        details = [
            *([f"{self.tokens:,} tokens"] if self.tokens is not None else []),
            *([f"{self.seconds:,.0f} s"] if self.seconds is not None else []),
            *([self.why] if self.why else []),
        ]
        return f"  {price:>12}  {self.what}" + (f" ({', '.join(details)})" if details else "")


@dataclass
class Ledger:
    """All entries, in the order in which the money was spent."""

    entries: list[LedgerEntry] = field(default_factory=list)
    models: set[str] = field(default_factory=set)  # whose making is among them

    def add(self, *entries: LedgerEntry) -> None:
        """Note more of them."""
        self.entries += entries

    def add_chain(self, chain: Sequence[Parent], payer: str, whose: str) -> None:
        """What the models of a chain have cost, each once: teacher and student may have the same
        base."""
        for one in chain:
            if one["name"] in self.models:
                continue
            self.models.add(one["name"])
            what = f"{whose}: {Path(one['name']).name} ({one['kind']})"
            why = "" if one["cost_usd"] is not None else "nothing is recorded of it"
            self.add(LedgerEntry(what, one["cost_usd"], one["kwh"], payer=payer, why=why))

    def usd(self, *payers: str) -> tuple[float, bool]:
        """(USD of the entries of these payers, whether all of them are known)."""
        prices = [entry.usd for entry in self.entries if entry.payer in payers]
        return sum(price for price in prices if price is not None), None not in prices

    def kwh(self, *payers: str) -> float | None:
        """Energy of the entries of these payers; None where one of them is not known."""
        values = [entry.kwh for entry in self.entries if entry.payer in payers]
        return None if None in values else sum(value for value in values if value is not None)

    def totals(self) -> dict[str, float | bool | None]:
        """The sums as JSON. A sum without all of its entries is null, and `..._at_least` has what
        is known of it."""
        sums: dict[str, float | bool | None] = {}
        for name, payers in SUMS.items():
            usd, complete = self.usd(*payers)
            sums |= {f"{name}_usd": usd if complete else None, f"{name}_usd_at_least": usd}
        return sums

    def lines(self) -> list[str]:
        """All entries, and the sums, for people."""
        words = {
            "own": "this distillation",
            "with_base": "with the making of the student's base",
            "with_teacher": "and with that of the teacher",
        }
        lines = ["cost", *(entry.line() for entry in self.entries)]
        for name, payers in SUMS.items():
            usd, complete = self.usd(*payers)
            price = money(usd) if complete else f">= {money(usd)}"
            lines.append(f"= {price:>12}  {words[name]}")
        return lines

    def write(self, path: Path) -> None:
        """Write entries and sums as JSON."""
        rows: list[dict[str, Any]] = [asdict(entry) for entry in self.entries]
        write_text(path, to_json({"entries": rows, **self.totals()}, indent=2) + "\n")


SUMS = {"own": (OWN,), "with_base": (OWN, BASE), "with_teacher": (OWN, BASE, TEACHER)}


def machine_entry(
    what: str, seconds: float, price: tuple[float, float], tokens: int | None = None
) -> LedgerEntry:
    """Seconds of a machine of this price (USD an hour, W)."""
    cost = Cost.of(seconds, *price)
    return LedgerEntry(what, cost.usd, cost.kwh, seconds, tokens)
