"""Write the tables of docs/papers.md from the registries and the packaged recipes.

    python scripts/papers.py            # rewrites them
    python scripts/papers.py --check    # exit status 1 if the page says something else

A row has an algorithm's name and function, the source and the claim of its docstring, the facts
that it was registered with (those that are not the default), the recipe keys that it reads, and the
recipes that choose it.
"""

import inspect
import re
import sys
import tomllib
from dataclasses import fields
from importlib.resources import files
from pathlib import Path
from typing import Any

from aha.algo.algorithms import REGISTRIES
from aha.algo.registry import Algorithm, Registry
from aha.core.config import AlgoSection

PAGE = Path(__file__).resolve().parent.parent / "docs" / "papers.md"
RECIPES = Path(str(files("aha") / "recipes"))
START, END = "<!-- algorithms: written by scripts/papers.py -->", "<!-- /algorithms -->"
HEADINGS = {
    "advantage": "Advantages",
    "loss": "Losses",
    "aggregation": "Aggregations",
    "kl_estimator": "KL estimators",
    "correction": "Rollout corrections",
    "entropy_control": "Entropy controls",
    "overlong": "Rules for truncated completions",
    "zero_variance": "Rules for groups of equal rewards",
    "curriculum": "Curricula",
}


def one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def source_of(algorithm: Algorithm[Any]) -> str:
    """The sentence of the docstring that begins with "Source:"; empty where there is none."""
    text = inspect.getdoc(algorithm.function) or ""
    match = re.search(r"Source: (.*?)(?=\n\n|\n?\s*Differs|\Z)", text, re.DOTALL)
    return one_line(match[1]).rstrip(".") if match else ""


def claim_of(algorithm: Algorithm[Any]) -> str:
    """The first sentence of the docstring, without shapes."""
    text = one_line(inspect.getdoc(algorithm.function) or "")
    text = re.sub(
        r":? \[(B|N|P)[^]]*\].*", "", re.split(r"\.(?:\s|$)", text.split("Source:")[0])[0]
    )
    return text.rstrip(":, ")


def facts_of(algorithm: Algorithm[Any]) -> str:
    stated = [
        f"`{field.name} = {getattr(algorithm.facts, field.name)}`"
        for field in fields(algorithm.facts)
        if field.repr and getattr(algorithm.facts, field.name) != field.default
    ]
    return ", ".join(stated)


def recipes_of(setting: str, name: str) -> str:
    """Recipes that name the algorithm; "default" for what a recipe has that says nothing."""
    chosen = ["default"] if AlgoSection.model_fields[setting].default == name else []
    for path in sorted(RECIPES.glob("*.toml")):
        if tomllib.loads(path.read_text("utf-8")).get("algo", {}).get(setting) == name:
            chosen.append(f"`{path.stem}`")
    return ", ".join(chosen)


def key_of(setting: str) -> str:
    return setting if setting in AlgoSection.model_fields else f"critic.{setting}"


def table_of(registry: Registry[Any]) -> list[str]:
    lines = [
        f"### {HEADINGS[registry.setting]}: `algo.{registry.setting}`",
        "",
        "| name | what it is | source | facts | reads | recipes |",
        "|---|---|---|---|---|---|",
    ]
    for name, algorithm in registry.items():
        reads = ", ".join(f"`{key_of(setting)}`" for setting in algorithm.reads)
        module = algorithm.function.__module__.removeprefix("aha.algo.")
        function = f"`{name}`<br>{module}.{algorithm.function.__name__}"
        cells = (function, claim_of(algorithm), source_of(algorithm), facts_of(algorithm), reads)
        lines.append(f"| {' | '.join((*cells, recipes_of(registry.setting, name)))} |")
    return [*lines, ""]


def written(page: str) -> str:
    """The page with today's tables between its two marks."""
    before, rest = page.split(START)
    after = rest.split(END)[1]
    lines = [line for registry in REGISTRIES.values() for line in table_of(registry)]
    return "\n".join([f"{before}{START}", "", *lines, f"{END}{after}"])


if __name__ == "__main__":
    page = PAGE.read_text("utf-8")
    stale = written(page) != page
    if stale and "--check" not in sys.argv:
        PAGE.write_text(written(page), "utf-8")
    sys.exit(stale and "--check" in sys.argv)
