"""A fix of another room names options that the typed command has, and commands that the shell
finds."""

import shlex
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
        ("ask", "--model.path runs/pretrain/model", "--model runs/pretrain/model"),
        ("pretrain", "--model.device cpu", "--device cpu"),
        ("prefer x", "--task.data FILE", "--task-data FILE"),
        ("study thinking x", "--task.data FILE", "--options 'data = \"FILE\"'"),
        # Words of a recipe that the command has nothing for, or that say what to fill in, stay.
        ("eval x", "--optim.lr 3e-4", "--optim.lr 3e-4"),
        ("eval x", "in training --task.test_data FILE", "in training --task.test_data FILE"),
        ("eval x", "--task.max_grade_errors 1", "--task.max_grade_errors 1"),
        # The last word of a key is an option here, and means another thing.
        ("sft x", "--task.name multiply", "--task.name multiply"),
        ("select x", "--algo.pool 64", "--algo.pool 64"),
        ("behaviors x", "--model.path NAME", "--model.path NAME"),
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
        (("--task.name", "multiply"), "--task multiply"),
        (("--task.options.system", "It's 3"), """--options 'system = "It'"'"'s 3"'"""),
        (("--optim.lr", "3e-4"), "see `aha eval --help`"),
        (("--task.options", "{digits = 2}"), "see `aha eval --help`"),
    ],
)
def test_a_key_of_a_recipe_is_met_with_the_option_for_it(aha, typed, meant):
    done = aha("eval", "aha-tiny", *typed)
    assert done.code == 2 and done.err.count("\n") == 1 and meant in done.err


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("prefer x --task.name multiply", "--task multiply?"),
        ("prefer x --task.data 'my rows.jsonl'", "--task-data 'my rows.jsonl'?"),
        ("prefer x --critic.gamma 1", "see `aha prefer --help`"),
        ("prefer x --critic.lr 1e-5", "see `aha prefer --help`"),
        ("serve x --task.name multiply", "see `aha serve --help`"),
        ("select x --n 1 --algo.pool 8", "see `aha select --help`"),
        ("behaviors --model.path runs/x", "see `aha behaviors --help`"),
    ],
)
def test_a_key_is_not_met_with_an_option_that_means_another_thing(aha, words, meant):
    """Such as --name, which would name the run after the task."""
    done = aha(*shlex.split(words))
    assert done.code == 2
    assert done.err.partition("fix: ")[2].removeprefix("did you mean ").startswith(meant)


def test_a_fix_that_a_command_prints_works_when_it_is_obeyed(aha):
    """aha-tiny takes no conversation. A recipe would set another template under its own key."""
    words = ("ask", "--task", "multiply", "--max-new-tokens", 8, "--options")
    wrong = aha(*words, 'template = "instruct"')
    assert wrong.code == 2 and "--task.template" not in wrong.err
    fix = wrong.err.split("fix: --options '")[1].split("'")[0]
    assert aha(*words, fix).code == 0
