"""Write the tree of docs/architecture.md from the docstrings: `python scripts/tree.py`.

A file's line is the first sentence of its module's docstring, so that no second text can drift.
"""

import ast
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
AHA = ROOT / "src" / "aha"
PAGE = ROOT / "docs" / "architecture.md"
TREE = re.compile(r"(<!-- tree -->\s*```\w*\n)(.*?)(```\s*<!-- /tree -->)", re.DOTALL)
DATA = {"recipes/": "TOML files", "models/": "aha-tiny, packaged"}


def rooms() -> list[str]:
    """From the lowest to the highest, as the layers in pyproject.toml stack them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
    names = [re.findall(r"\w+", layer) for layer in reversed(layers)]
    return [name for layer in names for name in layer if (AHA / name).is_dir()]


def summary(path: Path) -> str:
    """The first sentence of a module's docstring, on one line."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    first = " ".join(text.split("\n\n")[0].split())
    return re.split(r"(?<=[a-z)`\]])\.(?:\s|$)", first)[0].rstrip(".")


def tree() -> str:
    lines = ["src/aha/"]
    for room in rooms():
        lines.append(f"  {room + '/':<26}{summary(AHA / room / '__init__.py')}")
        for path in sorted((AHA / room).glob("*.py")):
            if not path.name.startswith("__"):
                lines.append(f"    {path.name:<24}{summary(path)}")
    lines += [f"  {name:<26}{text}" for name, text in DATA.items()]
    return "\n".join(lines) + "\n"


def page() -> str:
    """The page with its tree as it should be."""
    text = PAGE.read_text(encoding="utf-8")
    return TREE.sub(lambda match: match[1] + tree() + match[3], text)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
