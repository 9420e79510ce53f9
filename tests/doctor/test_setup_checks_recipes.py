"""The doctor says nothing about a packaged recipe; what it says of broken ones is worth reading."""

import pytest

from aha.algo.recipe import load_recipe
from aha.api.recipe_names import find_recipe, packaged_recipes
from aha.core.config import RunConfig
from aha.core.findings import Finding
from aha.doctor import problem_checks
from aha.doctor.setup_checks import check_recipe

TINY = RunConfig().model.path  # the one base that every installation has


def alarms(cfg: RunConfig) -> list[Finding]:
    return [finding for _, part in check_recipe(cfg) for finding in part if finding.level != "ok"]


PACKAGED = [
    name for name in packaged_recipes() if load_recipe(find_recipe(name)).model.path == TINY
]


@pytest.mark.slow
@pytest.mark.parametrize("name", PACKAGED)
def test_no_packaged_recipe_raises_an_alarm(name):
    """As it is shipped. The methods of the others are in test_update_checks."""
    assert alarms(load_recipe(find_recipe(name))) == []


def test_a_short_demo_raises_no_alarm(monkeypatch):
    monkeypatch.setattr(problem_checks, "SECONDS", 0.2)
    short = {"rollout.max_new_tokens": "64", "rollout.prompts": "16", "rollout.group_size": "8"}
    found = alarms(load_recipe(find_recipe("demo"), short))
    assert {finding.check for finding in found} <= {"truncated"}, found  # at 64 tokens many are
