"""Help: every command and every key of a recipe, from one source, at once and without torch."""

import subprocess
import sys

import pytest

from aha.cli.main import app
from aha.cli.recipe_keys import as_toml, recipe_keys
from aha.cli.terminal_text import console
from aha.core.config import RunConfig, known_keys

NAMES = [name for name in app if not name.startswith("-")]


@pytest.fixture
def help_of(aha, monkeypatch):
    """The help of a command as one line of words."""
    monkeypatch.setattr(console, "width", 300)

    def call(*words: str) -> str:
        done = aha(*words, "--help")
        assert done.code == 0 and done.err == ""
        return " ".join(done.out.replace("│", " ").split())

    return call


def test_every_command_is_listed_with_the_first_line_of_its_docstring(help_of):
    text = help_of()
    for name in NAMES:
        assert f" {name} " in text
    assert "train Train with a recipe" in text and "eval Solve rate of a model" in text


@pytest.mark.parametrize(
    "words", [("train",), ("demo",), ("plan",), ("doctor",), ("config", "show")]
)
def test_every_key_is_listed_with_its_meaning(help_of, words):
    text = help_of(*words)
    for key in recipe_keys():
        assert f"--{key.name}" in text and key.meaning and key.meaning in text, key.name


def test_the_keys_are_those_of_the_config_with_its_defaults():
    keys = {key.name: key for key in recipe_keys()}
    assert sorted(keys) == sorted(known_keys())
    assert all(key.value_in(RunConfig()) == key.default for key in keys.values())
    assert keys["optim.lr"].bounds == "≥ 0, ≤ 1000" and keys["optim.lr"].kind == "FLOAT"
    assert keys["task.template"].choices == ("plain", "r1", "instruct")
    assert "ppo_clip" in keys["algo.loss"].choices and keys["algo.tau"].readers == ("quadratic",)


def test_a_named_recipe_shows_its_own_values(help_of):
    assert "Training steps. [default: 60]" in help_of("train")
    assert "Training steps. [default: 144]" in help_of("train", "demo")
    assert "Training steps. [default: 144]" in help_of("demo")
    # A name that is wrong is no reason to show nothing.
    assert "Training steps. [default: 60]" in help_of("train", "nowhere")


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "none"), (True, "true"), ((3, 4), "[3, 4]"), ("pg", "pg"), (0.5, "0.5")],
)
def test_values_are_shown_as_they_are_typed(value, text):
    assert as_toml(value) == text


def test_a_flag_that_is_another_of_the_lab_is_no_key_there(help_of):
    text = help_of("lab")
    assert "--optim.lr" in text and "--seed INT" not in text and "--seeds" in text


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("train", "demo", "--lr", "1"), "--optim.lr or --critic.lr?"),
        (("train", "demo", "--learning_rate", "1"), "--optim.lr?"),
        (("train", "demo", "--optim.beta", "1"), "--optim.beta2?"),
        (("train", "demo", "--num-generations", "8"), "--rollout.group_size?"),
        (("train", "demo", "--actor_rollout_ref.actor.optim.lr", "1"), "--optim.lr or"),
        (("train", "demo", "--output_dir", "x"), "--name?"),
        (("train", "grop"), "'grpo'? `aha recipes` lists them"),
        (("train", "demo", "--optim.lrr", "1"), "--optim.lr?"),
        (("train", "demo", "--optim.Lr=1"), "--optim.lr?"),
        (("train", "demo", "--dry-rn"), "--dry-run"),
        (("train", "demo", "--dry_runn"), "--dry-run"),
        (("train", "demo", "--task.template", "plane"), "'plain'"),
        (("train", "demo", "--algo.loss", "ppo_clp"), "'ppo_clip'"),
        (("eval", "MODEL", "--tempertur", "1"), "--temperature"),
        (("eval", "MODEL", "--split", "tset"), "--split test"),
        (("lab", "--seed", "1"), "--seeds"),
        (("exprt",), "'export'"),
        (("config", "shwo"), "'show'"),
    ],
)
def test_what_is_nearly_right_gets_a_suggestion(aha, words, hint):
    done = aha(*words)
    assert done.code == 2 and done.out == "" and done.err.count("\n") == 1
    assert f"did you mean {hint}" in done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("eval",), "no MODEL"),
        (("export", "MODEL"), "no --out"),
        (("eval", "MODEL", "--n"), "--n has no value"),
        (("eval", "MODEL", "--n", "two"), "--n 'two'; wanted a whole number"),
        (("eval", "MODEL", "other"), "'other' without an option"),
        (("train", "demo", "--task.options", "5"), "--task.options.largest 20"),
        (("train", "demo", "--optim.lr", "--dry-run"), "--optim.lr has no value"),
    ],
)
def test_what_is_missing_or_wrong_says_what_is_wanted_and_where_help_is(aha, words, said):
    done = aha(*words)
    assert done.code == 2 and done.err.count("\n") == 1 and said in done.err
    assert f"see `aha {words[0]} --help`" in done.err


def test_an_error_names_the_recipe_only_where_the_value_is_from_it(aha, tmp_path):
    (tmp_path / "mine.toml").write_text("steps = -1\n")
    assert aha("train", "mine.toml").err.startswith("aha: mine.toml: steps = -1")
    assert aha("train", "mine.toml", "--steps", "-2").err.startswith("aha: steps = -2")


LIGHT = """
import sys, time
start = time.process_time()
from aha.cli.main import run
for name in sys.argv[1:]:
    sys.argv = ["aha", *name.split(), "--help"]
    try:
        run()
    except SystemExit as exit:
        assert not exit.code, (name, exit.code)
    heavy = {"torch", "transformers", "vllm"} & set(sys.modules)
    assert not heavy, (name, heavy)
print(time.process_time() - start)
"""


def test_the_help_of_every_command_needs_no_torch():
    """All in one new process: after each, what is heavy has not been imported."""
    words = [sys.executable, "-c", LIGHT, *NAMES]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(f"Usage: aha {name}" in done.stdout for name in NAMES)


@pytest.mark.bench
def test_the_help_of_a_recipe_takes_less_than_a_second():
    """Of processor time, and the better of two. Alone on a machine."""
    words = [sys.executable, "-c", LIGHT, "train demo"]
    runs = [subprocess.run(words, capture_output=True, text=True) for _ in range(2)]
    assert min(float(done.stdout.split()[-1]) for done in runs) < 1.0
