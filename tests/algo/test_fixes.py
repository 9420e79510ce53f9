"""Every fix works when it is obeyed: typed after the command that was refused, word for word."""

import itertools
import random
from importlib.resources import files
from pathlib import Path

import pytest

from aha.algo.algorithms import REGISTRIES
from aha.algo.fixes import as_options, options_in
from aha.algo.recipe import load_recipe
from aha.cli.recipe_keys import toml_value
from aha.core.errors import ConfigError

from ..fuzz import tries

RECIPES = sorted((Path(str(files("aha"))) / "recipes").glob("*.toml"))
# Those of one method each: TinyZero's six differ in the model alone.
METHODS = [path for path in RECIPES if not path.stem.startswith(("tinyzero", "laptop", "one-gpu"))]

# Values of the keys that decide what is refused, each with some that are out of place somewhere.
VALUES = {f"algo.{setting}": registry.choices for setting, registry in REGISTRIES.items()} | {
    "algo.kl": ["none", "reward", "loss"],
    "algo.updates": [1, 2, 40],
    "algo.entropy_limit": ["none", 0.2, 1.5],
    "algo.clip_low": ["none", 0.1],
    "algo.dual_clip": ["none", 3.0],
    "algo.tau": ["none", 0.2],
    "algo.pass_k": ["none", 1, 4, 9],
    "algo.kl_coef": [0.001, 0.1],
    "algo.reference_reset": [0, 5],
    "algo.correction_low": ["none", 4.0],
    "algo.correction_high": ["none", 3.0],
    "algo.overlong_buffer": [0, 2, 999],
    "algo.resample_rounds": [3, 2],
    "algo.pool": [1024, 2],
    "rollout.engine": ["native", "vllm"],
    "rollout.group_size": [1, 2, 4],
    "rollout.prompts": [1, 32],
    "critic.lr": [1e-5, 1e-3],
    "critic.warmup": [0, 60],
    "task.format_reward": [0, 0.5],
}


def options_of(fix: str) -> dict:
    """The overrides of a fix such as `--algo.loss pg --algo.updates 1`."""
    words = fix.split()
    assert words and all(word.startswith("--") for word in words[::2]), fix
    values = map(toml_value, words[1::2])
    return dict(zip((word.removeprefix("--") for word in words[::2]), values, strict=True))


def refusal(path: Path | None, changes: dict) -> ConfigError | None:
    try:
        load_recipe(path, changes)
    except ConfigError as error:
        return error
    return None


def check_fix(path: Path | None, changes: dict) -> bool:
    """Whether the settings are refused; the recipe with its fix then has to load at once."""
    error = refusal(path, changes)
    if error:
        again = refusal(path, changes | options_of(error.fix))
        assert again is None, f"{changes}: {error}; after it: {again}"
    return error is not None


@pytest.mark.parametrize("path", METHODS, ids=lambda path: path.stem)
def test_a_fix_passes_with_every_packaged_recipe(path):
    """`grpo` with a correction: the loss that the fix once named refused the recipe's updates."""
    draw = random.Random(path.stem)
    changes = [{key: draw.choice(values)} for key, values in VALUES.items()]
    assert sum(check_fix(path, change) for change in changes) > 2


def test_a_fix_passes_whatever_two_settings_clash():
    pairs = [
        {one: first, other: second}
        for (one, firsts), (other, seconds) in itertools.combinations(VALUES.items(), 2)
        for first in firsts
        for second in seconds
    ]
    refused = [check_fix(None, pair) for pair in random.Random(0).sample(pairs, 250)]
    assert 80 < sum(refused) < 220


def test_a_fix_passes_where_many_settings_clash():
    """With more clashes than there is time to search through, settings are taken back."""
    draw = random.Random(1)
    for _ in range(40):
        keys = draw.sample(list(VALUES), 8)
        check_fix(None, {key: draw.choice(VALUES[key]) for key in keys})


@pytest.mark.fuzz
def test_a_fix_passes_for_any_settings():
    draw = random.Random(2)
    for _ in range(tries(4_000)):
        keys = draw.sample(list(VALUES), draw.randint(1, 10))
        check_fix(draw.choice([None, *RECIPES]), {key: draw.choice(VALUES[key]) for key in keys})


def test_a_correction_beside_a_ratio_is_left_out_and_no_loss_is_exchanged():
    grpo = recipe("grpo")
    assert refusal(grpo, {"algo.correction": "token_tis"}).fix == "--algo.correction none"
    assert refusal(grpo, {"algo.correction_high": 3}).fix == "--algo.correction_high none"


def recipe(name: str) -> Path:
    return next(path for path in RECIPES if path.stem == name)


@pytest.mark.parametrize(
    "name, typed, left_out",
    [
        ("demo", {"algo.kl": "none"}, ["algo.kl_coef"]),
        ("grpo-r1", {"algo.kl": "none"}, ["algo.kl_estimator", "algo.reference_reset"]),
        ("dapo", {"algo.overlong": "keep"}, ["algo.overlong_buffer"]),
        ("dapo", {"algo.zero_variance": "keep"}, ["algo.resample_rounds"]),
        ("clip_cov", {"algo.entropy_control": "none"}, ["algo.entropy_limit"]),
        ("smollm2-ladder", {"algo.curriculum": "off"}, ["algo.pool"]),
        ("pass_at_k", {"algo.advantage": "grpo"}, ["algo.pass_k"]),
        ("opmd", {"algo.loss": "ppo_clip"}, ["algo.tau"]),
    ],
)
def test_what_an_option_takes_off_takes_along_what_the_file_set_for_it(name, typed, left_out):
    cfg, plain = load_recipe(recipe(name), typed), load_recipe(recipe(name))
    for key in left_out:
        section, setting = key.split(".")
        default = type(getattr(cfg, section)).model_fields[setting].default
        assert getattr(getattr(plain, section), setting) != default
        assert getattr(getattr(cfg, section), setting) == default


def test_what_follows_is_left_out_too_and_the_rest_stays(tmp_path):
    ppo = load_recipe(recipe("ppo"), {"algo.advantage": "reinforce", "algo.kl": "none"})
    assert ppo.critic == type(ppo.critic)() and ppo.algo.kl_coef == 0.001
    assert ppo.algo.updates == 4 and ppo.algo.entropy_coef == 0.001
    kept = tmp_path / "kept.toml"
    kept.write_text("keep_last = [2, 100]\n[model]\nlora_rank = 8\nlora_alpha = 4\n")
    cfg = load_recipe(kept, {"checkpoint_every": 0, "model.lora_rank": 0})
    assert cfg.keep_last == type(cfg).model_fields["keep_last"].default
    assert cfg.model.lora_alpha is None


def test_what_was_typed_and_what_the_file_itself_does_not_read_is_refused(tmp_path):
    both = {"algo.kl": "none", "algo.kl-coef": 0.1}
    assert refusal(recipe("demo"), both).got.startswith("algo.kl_coef 0.1 with algo.kl 'none'")
    assert refusal(recipe("demo"), {"algo.kl": "nowhere"}).got == "algo.kl = 'nowhere'"
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("[algo]\nkl_coef = 0.1\npool = 64\n")
    assert "algo.pool 64" in refusal(wrong, {"algo.loss": "pg"}).got


def test_a_fix_leaves_what_was_typed_where_another_change_is_enough():
    """With the last word to the option: typed `--algo.loss pg`, one does not want ppo_clip."""
    assert refusal(recipe("ppo"), {"algo.loss": "pg"}).fix == "--algo.updates 1"
    assert refusal(recipe("ppo"), {"algo.updates": 8, "algo.loss": "pg"}).fix == (
        "--algo.loss ppo_clip"
    )
    assert refusal(recipe("ppo"), {"steps": 5}).fix == "--critic.warmup 2"
    assert refusal(recipe("ppo"), {"critic.warmup": 500}).fix == "--steps 560"


def test_a_fix_of_one_fault_comes_with_those_of_the_others():
    """The faults that do not depend on the algorithms are looked for first."""
    shared = {"rollout.memory_share": 0.5}
    both = {"algo.entropy_control": "top_entropy", **shared}
    text = "--rollout.engine native --rollout.memory_share 0.4"
    assert refusal(None, both).fix == text and refusal(None, shared).fix != text
    assert check_fix(None, {"model.lora_alpha": 4.0, "algo.tau": 0.2, **shared})


def test_a_fix_in_words_stays_as_it_is():
    assert refusal(None, {"algo.loss": "ppo_clp"}).fix == "did you mean 'ppo_clip'?"
    assert options_in("--optim.lr") == options_in("leave it out now") == {}


def test_options_are_written_as_they_are_typed():
    changes = {"algo.tau": None, "algo.loss": "pg", "algo.pool": 64}
    assert as_options(changes) == "--algo.tau none --algo.loss pg --algo.pool 64"
    assert options_of(as_options(changes)) == {
        "algo.tau": "none",
        "algo.loss": "pg",
        "algo.pool": 64,
    }
