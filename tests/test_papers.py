"""docs/papers.md says what the registries and the recipes say: scripts/papers.py writes it."""

import importlib.util
import re
from pathlib import Path

import pytest

from aha.algo.algorithms import REGISTRIES

ROOT = Path(__file__).resolve().parents[1]


def script():
    spec = importlib.util.spec_from_file_location("papers", ROOT / "scripts" / "papers.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_script_writes():
    papers = script()
    page = papers.PAGE.read_text("utf-8")
    assert papers.written(page) == page, "run: python scripts/papers.py"


@pytest.mark.parametrize("setting", REGISTRIES)
def test_every_algorithm_has_a_claim_and_a_source(setting):
    papers = script()
    for name, algorithm in REGISTRIES[setting].items():
        assert papers.claim_of(algorithm), name
        assert papers.source_of(algorithm) or name == "keep", name


def test_every_recipe_of_the_page_exists_and_every_recipe_is_there():
    papers = script()
    page, recipes = papers.PAGE.read_text("utf-8"), {p.stem for p in papers.RECIPES.glob("*.toml")}
    table = page[page.index("| paper | recipe |") : page.index("The `demo` recipe")]
    cells = [line.split("|")[2] for line in table.splitlines()[2:] if line]
    named = {word for cell in cells for word in re.findall("`([^`]+)`", cell)}
    # `-1.5b` after `tinyzero-0.5b` stands for the same name with another size.
    assert {name for name in named if name[0] not in "-" and "algo." not in name} <= recipes
    assert not [name for name in recipes if f"`{name}`" not in page and name not in UNNAMED]


# The method of `demo`, on other tasks and models.
UNNAMED = {"laptop-3to4", "multiply"} | {
    f"smollm2-{task}" for task in ("sums", "products", "countdown", "ladder")
}
