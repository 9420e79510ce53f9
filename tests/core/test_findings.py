"""Findings and the lists of checks that make them."""

import pytest

from aha.core.errors import ConfigError
from aha.core.findings import Checklist, fail, health_report, ok, warn, worst_level


def checks() -> Checklist:
    checks = Checklist()

    @checks
    def first(subject):
        return fail(f"saw {subject}", "mend it") if subject else ok("nothing")

    @checks
    def silent(subject):
        return None

    @checks
    def stumbles(subject):
        return ok(str(1 // subject))

    @checks
    def refuses(subject):
        raise ConfigError("got", "wanted", "fix")

    return checks


def test_a_list_runs_every_check_and_names_its_findings():
    found = checks().run(0)
    assert [(f.check, f.level) for f in found] == [
        ("first", "ok"),
        ("stumbles", "warn"),
        ("refuses", "fail"),
    ]
    assert "ZeroDivisionError" in found[1].message and found[2].fix == "fix"


def test_the_worst_level_is_that_of_the_whole():
    assert worst_level([]) == worst_level([ok("")]) == "ok"
    assert worst_level([ok(""), warn("", "")]) == "warn"
    found = health_report([warn("", ""), *checks().run(1)])
    assert not found["healthy"] and found["level"] == "fail"
    assert health_report([warn("", "")])["healthy"]


def test_a_name_is_given_once():
    with pytest.raises(AssertionError, match="first"):
        taken = checks()
        taken(next(iter(taken.values())))
