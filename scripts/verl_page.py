"""Write the table of docs/verl.md from the code: `python scripts/verl_page.py`.

A row has a key of a recipe, the keys of veRL that it becomes, and what differs.
"""

import re
from pathlib import Path

from aha.export.verl_table import table_rows

PAGE = Path(__file__).resolve().parents[1] / "docs" / "verl.md"
TABLE = re.compile(
    r"(<!-- keys: written by scripts/verl_page.py -->\n).*?(<!-- /keys -->)", re.DOTALL
)


def table() -> str:
    lines = ["| our key | veRL's keys | what to know |", "|---|---|---|"]
    for key, verl, remark in table_rows():
        names = ", ".join(f"`{name}`" for name in verl.split(", ") if name)
        lines.append(f"| `{key}` | {names} | {remark} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(TABLE.sub(lambda match: match[1] + table() + match[2], text), encoding="utf-8")
