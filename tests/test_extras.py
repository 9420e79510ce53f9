"""Every extra is used by the code: one without a line of code would be an empty promise."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OF_THE_REPOSITORY = {"dev", "docs", "bench"}  # for its tests, its site and its benchmarks
EXTRAS = {
    name: [re.match(r"[\w-]+", package)[0].replace("-", "_") for package in packages]
    for name, packages in PROJECT["optional-dependencies"].items()
    if name not in OF_THE_REPOSITORY
}


def imported_names() -> set[str]:
    """Every part of every dotted name that src imports, as in `import torch.utils.tensorboard`."""
    names = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {part for alias in node.names for part in alias.name.split(".")}
            elif isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("aha"):
                names |= set((node.module or "").split("."))
    return names


@pytest.fixture(scope="module")
def imported() -> set[str]:
    return imported_names()


@pytest.mark.parametrize("extra", sorted(EXTRAS))
def test_every_extra_is_imported_somewhere(extra, imported):
    assert imported & set(EXTRAS[extra]), f"nothing in src imports what [{extra}] installs"
