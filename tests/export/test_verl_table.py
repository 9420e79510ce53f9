"""The table of a recipe's keys in veRL: all of them, each refusal with a fix that works, and the
settings that veRL would have ignored without a word."""

import shlex
from pathlib import Path

import pytest

from aha.algo.algorithms import REGISTRIES, chosen_of
from aha.algo.recipe import load_recipe
from aha.api.recipe_names import find_recipe, packaged_recipes
from aha.cli.recipe_keys import toml_value
from aha.core.config import RunConfig, known_keys
from aha.core.errors import ConfigError
from aha.export import verl_methods as methods
from aha.export.verl_folder import tinyzero_settings
from aha.export.verl_keys import Export
from aha.export.verl_table import TABLE, as_hydra, overrides_of, table_rows

ACTOR = "actor_rollout_ref.actor"
SAID = {"optim.final_lr": 1}  # what every recipe needs before veRL can be told
PAGE = Path(__file__).resolve().parents[2] / "docs" / "verl.md"


def export_of(cfg: RunConfig, **changes) -> Export:
    settings = {"name": "x", "model": "/model", "prompt_tokens": 300} | changes
    return Export(cfg, chosen_of(cfg.algo), **settings)


def overrides(settings=None, recipe=None, **changes) -> dict:
    cfg = load_recipe(find_recipe(recipe) if recipe else None, SAID | (settings or {}))
    return overrides_of(export_of(cfg, **changes))


def fixed(error: ConfigError) -> dict:
    words = shlex.split(error.fix)
    assert words and len(words) % 2 == 0, error.fix
    pairs = zip(words[::2], words[1::2], strict=True)
    return {key.removeprefix("--"): toml_value(value) for key, value in pairs}


def test_the_table_has_every_key_of_a_recipe_once():
    assert sorted(entry.key for entry in TABLE) == sorted(known_keys())


def test_the_page_has_the_table():
    page = PAGE.read_text(encoding="utf-8")
    for key, verl, remark in table_rows():
        cells = (
            f"`{key}`",
            ", ".join(f"`{name}`" for name in filter(None, verl.split(", "))),
            remark,
        )
        assert f"| {' | '.join(cells)} |" in page, f"python scripts/verl_page.py: {key}"


def test_methods_are_names_of_ours():
    for table, kind in (
        (methods.ADVANTAGES, "advantage"),
        (methods.LOSSES, "loss"),
        (methods.AGGREGATIONS, "aggregation"),
        (methods.KL_IN_LOSS, "kl_estimator"),
        (methods.CORRECTIONS, "correction"),
        (methods.OVERLONG, "overlong"),
        (methods.ZERO_VARIANCE, "zero_variance"),
    ):
        assert set(table) <= set(REGISTRIES[kind]), kind


@pytest.mark.parametrize("name", packaged_recipes())
def test_every_packaged_recipe_can_be_said_after_one_fix(name):
    """One message names all that cannot be said, and what it advises is enough."""
    path = find_recipe(name)
    settings = tinyzero_settings(name, load_recipe(path))
    cfg = load_recipe(path, settings)
    try:
        said = overrides_of(export_of(cfg))
        assert name.startswith("tinyzero-") or cfg.optim.final_lr == 1
    except ConfigError as error:
        assert not name.startswith("tinyzero-"), error
        again = load_recipe(path, settings | fixed(error))
        said = overrides_of(export_of(again))
    assert said["data.train_batch_size"] == cfg.rollout.prompts


REFUSED = {
    "tokens": 1000,
    "keep_last": [2, 100],
    "task.name": "gym:chain_sum",
    "task.options": {"think_tags": ["<thought>", "</thought>"]},
    "task.verifier": "math-verify",
    "model.device": "cpu",
    "algo.reference_reset": 5,
    "algo.curriculum": "pools",
    "algo.entropy_control": "top_entropy",
    "algo.overlong": "mask",
    "algo.zero_variance": "drop",
    "algo.aggregation": "prompt_mean",
    "algo.kl_estimator": "k3",
    "algo.correction": "geometric",
    "optim.final_lr": 0.1,
    "optim.dtype": "float32",
    "algo.updates": 5,
}
WITH = {
    "algo.kl_estimator": {"algo.kl": "loss"},
    "algo.reference_reset": {"algo.kl": "loss"},
    "algo.updates": {"algo.loss": "ppo_clip"},
    "task.verifier": {"task.name": "math"},
}


@pytest.mark.parametrize("key", REFUSED)
def test_what_verl_cannot_express_is_refused_by_name(key):
    settings = {"task.name": "countdown"} | WITH.get(key, {}) | {key: REFUSED[key]}
    with pytest.raises(ConfigError, match=r"veRL 0\.9\.1 cannot express this") as raised:
        overrides(settings)
    assert f"{key} " in raised.value.got and f"{key}: " in raised.value.wanted
    again = settings | fixed(raised.value)
    if again["task.name"] != "math":
        overrides(again)


def test_all_refusals_come_at_once():
    settings = {"tokens": 9, "optim.dtype": "float32", "algo.curriculum": "pools"}
    with pytest.raises(ConfigError) as raised:
        overrides(settings)
    assert all(key in raised.value.got for key in settings)
    overrides(settings | fixed(raised.value))


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        ({"algo.loss": "gmpo", "algo.aggregation": "sequence_mean"}, {"algo.loss": "ppo_clip"}),
        ({"rollout.engine": "vllm", "algo.loss": "ppo_clip"}, {"rollout.engine": "native"}),
        ({"model.lora_rank": 3, "model.lora_alpha": 4.5}, {"model.lora_alpha": 4.0}),
        ({"rollout.prompts": 5, "rollout.group_size": 3}, {"rollout.prompts": 6}),
    ],
)
def test_combinations_that_verl_cannot_express(settings, changes):
    with pytest.raises(ConfigError) as raised:
        overrides(settings)
    assert fixed(raised.value).items() >= changes.items()
    overrides(settings | fixed(raised.value))


# -- traps: settings that veRL accepts and ignores, or reads otherwise ----------------------------


def test_the_reward_is_named_where_this_version_reads_it():
    """An older key still composes, and the reward is then veRL's own or an error."""
    said = overrides()
    assert said["reward.custom_reward_function.path"].endswith("reward.py")
    assert said["reward.custom_reward_function.name"] == "compute_score"
    assert not any(key.startswith("custom_reward_function") for key in said)


def test_a_kl_in_the_reward_is_turned_on_and_not_only_weighted():
    said = overrides(recipe="ppo")
    assert said["algorithm.use_kl_in_reward"] is True and said["algorithm.kl_penalty"] == "kl"
    assert said["algorithm.kl_ctrl.kl_coef"] == 0.001 and said[f"{ACTOR}.use_kl_loss"] is False
    none = overrides()
    assert none["algorithm.use_kl_in_reward"] is False and none[f"{ACTOR}.use_kl_loss"] is False


def test_the_second_clip_of_verl_is_off_unless_the_recipe_has_it():
    settings = {"algo.loss": "ppo_clip"}
    assert overrides(settings)[f"{ACTOR}.clip_ratio_c"] == 1e9
    assert overrides(settings | {"algo.dual_clip": 3.0})[f"{ACTOR}.clip_ratio_c"] == 3.0


def test_prompts_pass_through_and_none_is_dropped():
    said = overrides()
    template = said["actor_rollout_ref.model.custom_chat_template"]
    assert template == "{% for m in messages %}{{ m.content }}{% endfor %}"
    assert said["data.filter_overlong_prompts"] is False and said["data.max_prompt_length"] == 300


def test_what_has_no_default_there_is_set():
    assert overrides()["actor_rollout_ref.rollout.name"] == "vllm"


def test_a_micro_batch_holds_a_row_of_full_length():
    said = overrides({"optim.micro_batch_tokens": 64, "rollout.max_new_tokens": 500})
    assert said[f"{ACTOR}.ppo_max_token_len_per_gpu"] == 800


@pytest.mark.parametrize(("ours", "theirs"), [(0, 0), (5, 6)])
def test_the_first_steps_of_the_critic_alone_are_counted_from_one(ours, theirs):
    """veRL's first step is step 1, and its policy learns from step `critic_warmup` on."""
    said = overrides({"critic.warmup": ours}, recipe="ppo")
    assert said["trainer.critic_warmup"] == theirs


def test_ppo_of_tinyzero_has_its_own_settings():
    recipe = find_recipe("tinyzero-3b")
    cfg = load_recipe(recipe, tinyzero_settings("tinyzero-3b", load_recipe(recipe)))
    said = overrides_of(export_of(cfg))
    wanted = {
        "algorithm.adv_estimator": "gae",
        "actor_rollout_ref.rollout.n": 1,
        "algorithm.use_kl_in_reward": True,
        f"{ACTOR}.entropy_coeff": 0.001,
        f"{ACTOR}.ppo_mini_batch_size": 64,
        f"{ACTOR}.optim.lr": 1e-6,
        f"{ACTOR}.optim.betas": [0.9, 0.999],
        f"{ACTOR}.optim.weight_decay": 0.01,
        "critic.optim.lr": 1e-5,
        "critic.cliprange_value": 0.5,
        "data.train_batch_size": 256,
        "data.max_response_length": 1024,
        "actor_rollout_ref.rollout.gpu_memory_utilization": 0.4,
        "trainer.n_gpus_per_node": 2,
        "trainer.total_training_steps": 1280,
    }
    assert said.items() >= wanted.items()


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("vllm", "key=vllm"),
        ("seq-mean-token-mean", "key=seq-mean-token-mean"),
        ("/a b/c", "key='/a b/c'"),
        ("it's", r"key='it\'s'"),
        ("k3+", "key='k3+'"),
        ([0.9, 0.95], "key=[0.9,0.95]"),
        (True, "key=True"),
        (1e-6, "key=1e-06"),
    ],
)
def test_values_as_hydra_reads_them(value, line):
    assert as_hydra("key", value) == line
