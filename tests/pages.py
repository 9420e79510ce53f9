"""The project's pages, and what the tests of them read there."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
DOCS = ROOT / "docs"
RESULTS = ROOT / "results"
PAGES = sorted(
    [
        README,
        ROOT / "CONTRIBUTING.md",
        ROOT / "CHANGELOG.md",
        RESULTS / "README.md",
        ROOT / "src/aha/models/aha-tiny/README.md",
        *DOCS.rglob("*.md"),
    ]
)


def shown(path: Path) -> str:
    """The path as the repository names it."""
    return path.relative_to(ROOT).as_posix()


def complain(faults: list[str], rule: str) -> None:
    """Fail with the rule and every breach of it, one a line."""
    if faults:
        pytest.fail("\n  ".join([rule, *faults]), pytrace=False)


@cache
def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
INDENTED = re.compile(r"(?:(?<=\n\n)|\A)(?:(?: {4}.*)?\n)+", re.MULTILINE)
INLINE_CODE = re.compile(r"`[^`\n]+`")
LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^()\s]+)\)|(?:href|src)=\"([^\"]+)\"")


def links(page: str) -> list[str]:
    """The targets of a page's links and pictures; what stands in code is no link."""
    text = INLINE_CODE.sub("", FENCE.sub("", page))
    return [target or other for target, other in LINK.findall(text)]


def anchors(page: str) -> set[str]:
    """The anchors of a page's headings, as code browsers and MkDocs both make them."""
    slugs = set()
    for heading in re.findall(r"^#{1,6} (.+)$", FENCE.sub("", page), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        slugs.add(re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-"))
    return slugs


def code_lines(page: str) -> Iterator[str]:
    """The lines of a page's code blocks, fenced or indented; one that ends in a backslash with
    the next."""
    blocks = FENCE.findall(page) + INDENTED.findall(FENCE.sub("", page))
    for block in blocks:
        for line in block.replace("\\\n", " ").splitlines():
            if line.strip() and not line.startswith("```"):
                yield line.strip()


def commands(page: str) -> list[str]:
    """The commands in a page's code blocks, one by one and without their comments."""
    lines = [re.sub(r"\s+#.*$", "", line) for line in code_lines(page)]
    parts = [part.strip() for line in lines for part in line.split("&&")]
    return [part for part in parts if re.match(r"(aha|make|git|python|pip|\S*/python)\b", part)]


def section(page: str, heading: str) -> str:
    return re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE)[1]
