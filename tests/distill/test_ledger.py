"""What a distillation has cost."""

import json

import pytest

from aha.distill.ledger import BASE, TEACHER, Ledger, LedgerEntry, machine_entry
from aha.distill.teachers import endpoint_cost
from aha.model.parents import Parent


def parent(name: str, usd: float | None) -> Parent:
    return Parent(name=name, kind="pretrain", cost_usd=usd, kwh=usd)


def test_sums_go_up_from_the_distillation_to_all_that_it_needed(tmp_path):
    ledger = Ledger()
    ledger.add_chain([parent("base", 0.08)], BASE, "student")
    ledger.add_chain([parent("base", 0.08), parent("rl", 0.02)], TEACHER, "teacher")
    ledger.add(machine_entry("teacher's generation", 1800.0, (0.1, 50.0), 1_000))
    ledger.write(tmp_path / "ledger.json")
    kept = json.loads((tmp_path / "ledger.json").read_text())
    assert kept["own_usd"] == pytest.approx(0.05) and len(kept["entries"]) == 3
    assert kept["with_base_usd"] == pytest.approx(0.13)
    # The base of both is paid for once.
    assert kept["with_teacher_usd"] == pytest.approx(0.15)
    assert ledger.kwh("own") == pytest.approx(0.025)
    assert any("1,000 tokens, 1,800 s" in line for line in ledger.lines())


def test_what_is_not_known_is_never_nothing():
    ledger = Ledger(
        [LedgerEntry("teacher's generation", None), LedgerEntry("fine-tuning", 0.5, 0.1)]
    )
    assert ledger.totals()["own_usd"] is None and ledger.totals()["own_usd_at_least"] == 0.5
    assert ledger.kwh("own") is None
    assert any(line.startswith("=") and ">= 50.00 cents" in line for line in ledger.lines())


def test_prices_of_an_endpoint():
    rows = [{"tokens": 500_000, "prompt_tokens": 1_000_000}] * 2
    assert endpoint_cost("x", rows, (0.15, 0.6), "--p").usd == pytest.approx(0.9)
    unknown = endpoint_cost("x", rows, None, "--teacher-price")
    assert unknown.usd is None and "--teacher-price" in unknown.line()
    assert endpoint_cost("x", [*rows, {"tokens": None}], (1.0, 1.0), "--p").usd is None
