"""What the examples of a file have cost: a small file beside it, written by whoever paid.

`examples.jsonl` has `examples.cost.json`: {"name": ..., "cost_usd": ..., "kwh": ...}. A model that
learns from the file carries that cost in its chain of parents, like that of its base.
"""

import json
from pathlib import Path

from aha.core.errors import DataError
from aha.model.parents import Parent
from aha.store.durable import to_json, write_text
from aha.store.guarded_files import number


def cost_file(data: Path) -> Path:
    """The file beside the examples."""
    return data.with_suffix(".cost.json")


def cost_of_data(data: Path) -> list[Parent]:
    """The cost of the examples as a parent, in a list; empty where nobody has written any."""
    path = cost_file(data)
    if not path.is_file():
        return []
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
        usd, kwh = number(row["cost_usd"]), number(row["kwh"])
        return [Parent(name=str(row["name"]), kind="data", cost_usd=usd, kwh=kwh)]
    except (ValueError, LookupError, TypeError) as error:
        raise DataError(
            f"{path}: {type(error).__name__} {error}",
            "name, cost_usd and kwh of the examples beside it",
            f"mend it, or remove it where {data.name} cost nothing",
        ) from None


def write_data_cost(data: Path, name: str, usd: float | None, kwh: float | None) -> None:
    """Write what the examples of a file have cost; None: not known."""
    content = {"name": name, "cost_usd": usd, "kwh": kwh}
    write_text(cost_file(data), to_json(content, indent=2) + "\n")
