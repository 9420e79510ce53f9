"""The second names of numbers: the page lists them, and they belong to numbers that exist."""

import re
from pathlib import Path

from aha.loggers.trl_names import OF_A_STEP, OF_A_VALIDATION, second_names

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_page_lists_every_second_name():
    page = (DOCS / "logging.md").read_text(encoding="utf-8")
    table = page.partition("<!-- names -->")[2].partition("<!-- /names -->")[0]
    listed = dict(re.findall(r"^\| `(.+?)` \| `(.+?)` \|$", table, re.MULTILINE))
    assert listed == OF_A_STEP | {f"validation/{k}": v for k, v in OF_A_VALIDATION.items()}


def test_second_names_belong_to_numbers_of_a_step():
    glossary = (DOCS / "glossary.md").read_text(encoding="utf-8")
    numbers = glossary.partition("## The numbers of metrics.jsonl")[2].partition("\n## ")[0]
    known = set(re.findall(r"`([a-z_]+)`", numbers))
    assert {*OF_A_STEP, *OF_A_VALIDATION} <= known


def test_a_number_that_is_absent_has_no_second_name():
    assert second_names({"kl": 0.5, "other": 1}, OF_A_STEP) == {"train/kl": 0.5}
