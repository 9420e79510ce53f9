"""A fix of another room names options that the typed command has, and commands that the shell
finds."""

import sys

import pytest

from aha.cli.own_options import fix_here

MODEL = "--task.template instruct, or leave it out"


@pytest.mark.parametrize(
    ("words", "fix", "here"),
    [
        ("eval aha-tiny", MODEL, "--options 'template = \"instruct\"', or leave it out"),
        ("train demo", MODEL, MODEL),
        ("study thinking x", "--task.template r1", "--options 'template = \"r1\"'"),
        ("eval x", "--rollout.max_new_tokens 40", "--max-new-tokens 40"),
        ("problems", "--task.options.ways '[1, 3]'", "--options 'ways = [1, 3]'"),
        ("eval x", "a larger --rollout.max_new_tokens, where", "a larger --max-new-tokens, where"),
        ("eval x", "--task.bad_rows drop (to leave", "--task.bad_rows drop (to leave"),
        ("sft x", "--optim.lr 3e-4", "--optim.lr 3e-4"),
        # Words of a recipe that the command has nothing for, or that say what to fill in, stay.
        ("eval x", "--optim.lr 3e-4", "--optim.lr 3e-4"),
        ("eval x", "in training --task.test_data FILE", "in training --task.test_data FILE"),
        ("no-such-command", MODEL, MODEL),
        ("", MODEL, MODEL),
    ],
)
def test_keys_of_a_recipe_become_options_of_the_command(monkeypatch, words, fix, here):
    monkeypatch.setattr(sys, "argv", ["aha", *words.split()])
    assert fix_here(fix) == here


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (("--task.template", "instruct"), "--options 'template = \"instruct\"'"),
        (("--task.options.system", "Be brief."), "--options 'system = \"Be brief.\"'"),
        (("--task.numbers", "[3, 4]"), "--numbers 3 4"),
        (("--rollout.max_new_tokens", "5"), "--max-new-tokens 5"),
        (("--rollout.max_new_tokens=5",), "--max-new-tokens 5"),
        (("--optim.lr", "3e-4"), "see `aha eval --help`"),
    ],
)
def test_a_key_of_a_recipe_is_met_with_the_option_for_it(aha, typed, meant):
    done = aha("eval", "aha-tiny", *typed)
    assert done.code == 2 and done.err.count("\n") == 1 and meant in done.err


def test_a_fix_that_a_command_prints_works_when_it_is_obeyed(aha):
    """aha-tiny takes no conversation. A recipe would set another template under its own key."""
    words = ("ask", "--task", "multiply", "--max-new-tokens", 8, "--options")
    wrong = aha(*words, 'template = "instruct"')
    assert wrong.code == 2 and "--task.template" not in wrong.err
    fix = wrong.err.split("fix: --options '")[1].split("'")[0]
    assert aha(*words, fix).code == 0
