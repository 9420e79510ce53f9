"""Write the index of docs/decisions from its pages: `python scripts/decisions.py`.

A heading of a page is a decision; the line below it is its date and status.
"""

import re
from pathlib import Path

from tree import rooms

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "decisions"
INDEX = FOLDER / "README.md"
LISTS = re.compile(r"(<!-- decisions -->\n)(.*?)(<!-- /decisions -->)", re.DOTALL)
DECISION = re.compile(r"^## (.+)\n(.*)$", re.MULTILINE)


def anchor(heading: str) -> str:
    """The address of a heading within its page, as GitHub and MkDocs make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def lists() -> str:
    """The house first, then the rooms from the lowest to the highest, then what is beside them."""
    order = ["house", *rooms(), "benchmarks"]
    pages = sorted(set(FOLDER.glob("*.md")) - {INDEX}, key=lambda page: order.index(page.stem))
    parts = []
    for page in pages:
        lines = [
            f"* [{heading}]({page.name}#{anchor(heading)}) ({status.replace(' · ', ', ')})\n"
            for heading, status in DECISION.findall(page.read_text(encoding="utf-8"))
        ]
        title = "The house" if page.stem == "house" else page.stem
        parts.append(f"\n## {title}\n\n{''.join(lines)}")
    return "".join(parts) + "\n"


def index() -> str:
    """The index with its lists as they should be."""
    text = INDEX.read_text(encoding="utf-8")
    return LISTS.sub(lambda match: match[1] + lists() + match[3], text)


if __name__ == "__main__":
    INDEX.write_text(index(), encoding="utf-8")
