"""The recipes' headers say what the plan says: scripts/headers.py rewrites them."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def script():
    spec = importlib.util.spec_from_file_location("headers", ROOT / "scripts" / "headers.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_headers_say_what_the_plan_says():
    found = script().stale()
    assert not found, f"run: python scripts/headers.py ({', '.join(p.name for p in found)})"


def test_every_recipe_that_was_not_run_is_planned_in_its_header():
    """All of Qwen2.5; the words of one that the pattern does not know would never be corrected."""
    headers = script()
    models = [p for p in headers.RECIPES.glob("*.toml") if "Qwen/" in p.read_text()]
    assert len(models) >= 9
    assert all(headers.SAID.search(path.read_text()) for path in models)


def test_a_stale_header_is_corrected():
    headers = script()
    text = (headers.RECIPES / "tinyzero-3b.toml").read_text()
    stale = headers.SAID.sub(
        "`aha plan tinyzero-3b`: 1.0 GB; 60 steps take\n# 0.1 hours and $0.01 on the row "
        "h200-141gb, whose speeds are assumed.\n",
        text,
    )
    assert stale != text and headers.corrected(stale) == text
