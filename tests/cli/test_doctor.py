"""`aha doctor` as a user meets it: lines, one object, and the exit code."""

import json

import pytest

from aha.algo.recipe import load_recipe
from aha.api.recipe_names import find_recipe, packaged_recipes
from aha.core.findings import worst_level
from aha.doctor.setup_checks import check_recipe

from ..tiny import answering_folder

SMALL = ("--rollout.prompts", 4, "--rollout.group_size", 4, "--rollout.max_new_tokens", 16)
QUICK = (*SMALL, "--eval.every", 0, "--eval.final", 2, "--task.numbers", "[3]")

# The others want a base model that is not packaged.
RUN_HERE = [
    name for name in packaged_recipes() if load_recipe(find_recipe(name)).model.path == "aha-tiny"
]


def levels(text: str) -> dict:
    found = json.loads(text)
    return {one["check"]: one["level"] for one in found["findings"]} | {"": found["healthy"]}


def test_the_machine(aha):
    done = aha("doctor", "--json")
    found = levels(done.out)
    assert found["python"] == found["packages"] == found["base_model"] == "ok"
    assert done.code == (0 if found[""] else 1)
    shown = aha("doctor").out
    assert "this machine" in shown and "pip install 'aha[" in shown


def test_a_sound_recipe(aha, tmp_path):
    done = aha("doctor", "demo", "--json", "--rollout.prompts", 8)
    found = levels(done.out)
    assert done.code == 0 and found[""], done.out
    # Of each part: before, the reward, the first step, and what its row says.
    assert {"splits", "reward_paid", "mismatch", "mask", "lr_zero", "truncated"} <= set(found)
    assert set(found.values()) == {"ok", True}
    assert list(tmp_path.iterdir()) == []  # it looks, and leaves nothing


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RUN_HERE)
def test_no_shipped_recipe_raises_an_alarm(recipe):
    cfg = load_recipe(find_recipe(recipe))
    found = [one for _, part in check_recipe(cfg) for one in part]
    assert worst_level(found) == "ok", [one for one in found if one.level != "ok"]


def test_a_broken_recipe_says_what_to_do_and_ends_with_1(aha):
    done = aha("doctor", "demo", *QUICK, "--task.verifier", "tinyzero", "--optim.lr", 0)
    assert done.code == 1 and done.err == ""
    assert "a power (1)" in done.out and "fix: --optim.lr 0.0003" in done.out
    assert "something is broken" in done.out


def test_the_first_step_is_left_out_where_it_could_not_be_made(aha):
    found = levels(aha("doctor", "demo", "--json", "--rollout.max_new_tokens", 5000).out)
    assert found["context_length"] == "fail" and "reward_paid" in found and "mask" not in found


def test_a_run(aha, tmp_path):
    base = answering_folder(tmp_path / "base")
    train = aha("train", "demo", *QUICK, "--model.path", base, "--steps", 2, "--name", "short")
    assert train.code == 0, train.err
    # The first step tells at once what is off: a random model solves nothing.
    assert "in 100% of the groups nothing was solved" in " ".join(train.out.split())
    done = aha("doctor", "runs/short", "--json")
    found = levels(done.out)
    assert done.code == 1 and found["none_solved"] == "fail" and found["steps"] == "warn"
    assert "a better base" in " ".join(aha("doctor", "runs/short").out.split())


def test_what_cannot_be_looked_at_is_one_line_and_2(aha, tmp_path):
    (tmp_path / "empty").mkdir()
    for words, wanted in (
        (("doctor", "nope"), "no recipe 'nope'"),
        (("doctor", "empty"), "no run in empty"),
        (("doctor", "demo", "--optim.lt", 1), "did you mean"),
        (("doctor", "demo", "--algo.loss", "gold"), "algo.loss"),
        (("doctor", "--optim.lr", 1), "--optim.lr"),
        (("doctor", "empty", "--optim.lr", 1), "as it was recorded"),
    ):
        done = aha(*words)
        assert (done.code, done.out) == (2, "") and done.err.count("\n") == 1, done
        assert wanted in done.err, done.err
