"""Recipes as users write them: precedence, near names, combinations that cannot work."""

import json
from importlib.resources import files
from pathlib import Path

import pytest

from aha.algo.advantages import ADVANTAGES
from aha.algo.aggregation import AGGREGATIONS
from aha.algo.losses import LOSSES
from aha.algo.recipe import begun, checked, load_recipe
from aha.core.config import RunConfig, known_keys
from aha.core.errors import ConfigError

RECIPES = sorted((Path(str(files("aha"))) / "recipes").glob("*.toml"))


@pytest.fixture
def recipe(tmp_path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text("steps = 7\n[optim]\nlr = 1e-4\n[task]\nnumbers = [3, 4]\n")
    return path


def refused(match: str, recipe: Path | None = None, **overrides) -> str:
    """One line with what was wrong, and what was wanted."""
    dotted = {key.replace("__", "."): value for key, value in overrides.items()}
    with pytest.raises(ConfigError, match=match) as caught:
        load_recipe(recipe, dotted)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- layers ---------------------------------------------------------------------------------


def test_without_a_recipe_the_defaults_hold():
    assert load_recipe(None) == RunConfig()


def test_overrides_beat_the_recipe_and_the_recipe_beats_the_defaults(recipe):
    cfg = load_recipe(recipe, {"optim.lr": 3e-3, "rollout.prompts": 5})
    assert cfg.optim.lr == 3e-3  # override over recipe
    assert cfg.steps == 7 and cfg.task.numbers == (3, 4)  # recipe over default
    assert cfg.rollout.prompts == 5 and cfg.rollout.group_size == 16  # override, default


def test_a_dash_is_an_underscore():
    assert load_recipe(None, {"rollout.group-size": 4}).rollout.group_size == 4


def test_the_config_is_frozen_and_survives_json():
    cfg = load_recipe(None, {"task.numbers": [3, 4]})
    with pytest.raises(ValueError, match="frozen"):
        cfg.steps = 3
    assert RunConfig.model_validate(json.loads(cfg.model_dump_json())) == cfg


# -- keys -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("rollout.grop_size", "rollout.group_size"),
        ("optim.learning_rate", "'optim.lr'"),  # another trainer's name, in a section of ours
        ("critic.learning_rate", "'critic.lr'"),
        ("algo.num_generations", "'rollout.group_size'"),
        ("stps", "steps"),
        ("group_size", "group_size"),  # the section is missing
        ("optim.Lr", "optim.lr"),
        ("optm.lr", None),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest(key, near):
    text = refused("unknown key", **{key.replace(".", "__"): 1})
    assert repr(key) in text or repr(key.split(".")[0]) in text
    assert "did you mean" in text or "aha config show" in text
    if near:
        assert near in text.split("did you mean")[1]


def test_an_error_in_a_recipe_names_the_file(recipe):
    recipe.write_text("[rollout]\ngrop_size = 3\n")
    assert str(recipe) in refused("'rollout.group_size'", recipe)


def test_there_are_few_keys_and_every_name_is_once():
    keys = known_keys()
    assert len(keys) == len(set(keys)) <= 80


def test_every_key_can_be_set_from_the_command_line():
    """To its own default, read from the JSON that `aha config show` prints."""
    shown = json.loads(RunConfig().model_dump_json())
    for key in known_keys():
        value = shown
        for part in key.split("."):
            value = value[part]
        if value is not None:
            assert load_recipe(None, {key: value}) == RunConfig(), key


# -- values ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("steps", -1),
        ("steps", "many"),
        ("rollout.prompts", 0),
        ("rollout.group_size", 0),
        ("rollout.max_new_tokens", 0),
        ("rollout.max_rows", 0),
        ("rollout.temperature", 0),
        ("rollout.temperature", 11),
        ("rollout.dtype", "float16"),
        ("task.template", "poem"),
        ("task.numbers", 3),
        ("task.numbers", "three"),
        ("task.verifier", "lenient"),
        ("algo.aggregation", "mean"),
        ("algo.updates", 0),
        ("optim.lr", -1e-3),
        ("optim.lr", "fast"),
        ("optim.final_lr", 1.5),
        ("optim.beta1", 1.0),
        ("optim.grad_clip", 0),
        ("eval.final", -5),
        ("eval.problems", 0),
        ("keep_last", 0),
        ("keep_last", []),
        ("keep_last", [1, 20, 300]),
        ("model", 5),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_name(key, value):
    assert f"{key} = {value!r}" in refused("wanted", **{key.replace(".", "__"): value})


def test_a_section_that_is_a_value_is_refused(recipe):
    recipe.write_text("optim = 3\n")
    refused("optim", recipe)
    refused("'optim' is a value", recipe, optim__lr=1)


@pytest.mark.parametrize("text", ["steps = ", "steps: 3", "[optim\nlr = 1", "\x00", "a = 1\na = 2"])
def test_a_file_that_is_no_toml_is_refused_by_name(tmp_path, text):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    assert str(path) in refused("TOML", path)


def test_a_file_that_is_missing_or_no_text_is_refused_by_name(tmp_path):
    assert "none.toml" in refused("cannot read", tmp_path / "none.toml")
    refused("cannot read", tmp_path)
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    refused("bytes.toml", tmp_path / "bytes.toml")


# -- combinations ---------------------------------------------------------------------------


def test_a_group_of_one_is_refused_with_the_reason():
    text = refused("group_size 1", rollout__group_size=1)
    assert "every advantage is 0" in text and "fix: --algo.advantage reinforce" in text


def test_several_updates_need_a_loss_that_knows_the_past():
    assert "ppo_clip" in refused("'pg'", algo__updates=2)
    assert load_recipe(None, {"algo.updates": 2, "algo.loss": "ppo_clip"}).algo.updates == 2


def test_more_updates_than_prompts_are_refused():
    refused("updates 9", algo__updates=9, algo__loss="ppo_clip", rollout__prompts=8)


def test_every_so_many_checkpoints_have_to_be_steps_that_are_saved():
    assert load_recipe(None, {"keep_last": 3}).keep_last == (3,)
    assert load_recipe(None, {"keep_last": [3, 40]}).keep_last == (3, 40)
    assert "--keep_last '[3, 40]'" in refused("keep_last", keep_last=[3, 50])
    assert "--checkpoint_every 50" in refused("keep_last", keep_last=[3, 50], checkpoint_every=0)


GMPO = {"loss": "gmpo", "aggregation": "sequence_mean"}


SENSELESS = [
    ("does not read it", {"dual_clip": 3}),
    ("does not read it", {"tau": 0.1}),
    ("does not read it", {"pass_k": 4}),
    ("does not read it", {"kl_estimator": "k3"}),
    ("does not read it", {"kl_coef": 0.1}),
    ("does not read it", {"reference_reset": 100}),
    ("does not read it", {"resample_rounds": 9}),
    ("does not read it", {"entropy_limit": 0.2}),
    ("does not read it", {"pool": 64}),
    ("does not clip", {"clip_high": 0.28}),
    ("does not clip", {"loss": "ratio", "clip_low": 0.2}),
    ("nothing to hold", {"entropy_control": "kl_cov"}),
    ("whole completion's", {"entropy_control": "top_entropy", **GMPO}),
    ("whole completion's", {"entropy_control": "clip_cov", **GMPO}),
    ("a share of the tokens", {"entropy_control": "clip_cov", "entropy_limit": 5}),
    ("fills a step", {"curriculum": "pools", "pool": 8}),
    ("without a correction", {"correction_high": 3}),
    ("of 16 completions", {"advantage": "pass_at_k", "pass_k": 16}),
    ("right gradient", {"kl": "reward", "kl_estimator": "k3_clamped"}),
    ("above algo.correction_high 5", {"correction": "icepop", "correction_low": 6}),
    ("group baseline", {"advantage": "reinforce_pp", "zero_variance": "drop"}),
    ("counts its length", {"loss": "gspo"}),
    ("counts its length", {"loss": "gmpo", "aggregation": "sequence_sum"}),
    ("group baseline", {"advantage": "gae", "zero_variance": "resample"}),
    ("every completion", {"advantage": "gae", "overlong": "mask"}),
    ("correct twice", {"loss": "ppo_clip", "correction": "icepop"}),
    ("right gradient", {"kl": "reward", "kl_estimator": "k3"}),
    ("right gradient", {"kl": "reward", "kl_estimator": "k3_off_policy"}),
    ("pushes nowhere", {"kl": "loss", "kl_estimator": "k1"}),
    ("makes rewards negative", {"advantage": "max_rl", "kl": "reward"}),
    ("without a buffer", {"overlong": "soft"}),
    ("of 320 tokens", {"overlong": "soft", "overlong_buffer": 320}),
    ("without a buffer", {"overlong": "early"}),
    ("of 320 tokens", {"overlong": "early", "overlong_buffer": 320}),
]


@pytest.mark.parametrize(("match", "settings"), SENSELESS)
def test_what_makes_no_sense_together_is_refused_with_the_fix(match, settings):
    text = refused(match, **{f"algo__{key}": value for key, value in settings.items()})
    assert "wanted" in text


@pytest.mark.parametrize(
    "settings",
    [
        {"kl": "loss", "kl_estimator": "k3_off_policy"},
        {"entropy_control": "adaptive", "entropy_limit": 1.5},  # nats, not a share
        {"entropy_control": "adaptive", **GMPO},
        {"entropy_control": "kl_cov", "updates": 2, "loss": "ratio"},
        {"entropy_control": "top_entropy", "entropy_limit": 1},
        {"curriculum": "no_positive", "pool": 32},
        {"kl": "loss", "kl_estimator": "k3_clamped"},
        {"zero_variance": "resample_by_reward", "resample_rounds": 4},
    ],
)
def test_what_makes_sense_together_loads(settings):
    cfg = load_recipe(None, {f"algo.{key}": value for key, value in settings.items()})
    assert cfg.algo.model_dump(include={*settings}) == settings


@pytest.mark.parametrize("key", ["rollout.top_k", "rollout.top_p", "top_k", "rollout.min_p"])
def test_a_cut_distribution_is_refused_with_the_reason(key):
    """Not as an unknown key: whoever writes it means something, and gets told why it is not."""
    text = refused("log-probs of a cut distribution", **{key.replace(".", "__"): 50})
    assert text.startswith(f"{key} 50") and "--rollout.temperature" in text


@pytest.mark.parametrize("advantage", ["reinforce", "reinforce_pp", "gae"])
def test_without_a_group_baseline_a_group_may_be_one(advantage):
    cfg = load_recipe(None, {"rollout.group_size": 1, "algo.advantage": advantage})
    assert cfg.rollout.group_size == 1


@pytest.mark.parametrize(("key", "value"), [("lr", 1e-3), ("warmup", 5), ("lam", 0.95)])
def test_critic_keys_without_ppo_are_refused(key, value):
    text = refused(f"critic.{key} {value}", **{f"critic__{key}": value})
    assert "'dr_grpo', which has no critic" in text and "--algo.advantage gae" in text
    assert load_recipe(None, {f"critic.{key}": value, "algo.advantage": "gae"})


def test_a_warm_up_that_never_ends_is_refused():
    refused("never learns", algo__advantage="gae", critic__warmup=60)
    assert load_recipe(None, {"algo.advantage": "gae", "critic.warmup": 59})


def test_a_reward_for_the_form_is_paid_once_and_only_where_it_can_be_told():
    refused("pays 0.1 for a form", task__format_reward=0.1, task__verifier="tinyzero")
    for advantage in ("pass_at_k", "max_rl"):
        text = refused("right answers alone", task__format_reward=0.1, algo__advantage=advantage)
        assert "--task.format_reward 0" in text
    refused("task.format_reward", task__format_reward=1.5)


@pytest.mark.parametrize("numbers", [[], [1], [7], [3, 0]])
def test_sizes_of_puzzles_that_nobody_can_draw_are_refused(numbers):
    refused("sizes from 2 to 6", task__numbers=numbers)


def test_vllm_is_corrected_unless_the_recipe_says_otherwise():
    """Its log-probs are not the trainer's, which a loss without a ratio would not notice."""
    vllm = {"rollout.engine": "vllm"}
    assert load_recipe(None, vllm).algo.correction == "token_tis"
    assert load_recipe(None, vllm | {"algo.loss": "ppo_clip"}).algo.correction == "none"
    text = refused("whose log-probs", rollout__engine="vllm", algo__correction="none")
    assert "fix: --algo.loss ppo_clip" in text  # with a ratio, what was typed can stay


@pytest.mark.parametrize(
    "raw", [{"rollout": 1}, {"algo": 1}, {"rollout": {"engine": "vllm"}, "algo": {"loss": [1]}}]
)
def test_raw_settings_of_the_wrong_kind_are_refused_as_such(raw):
    with pytest.raises(ConfigError, match="run/config.json: (rollout|algo)"):
        checked(raw, "run/config.json: ")


@pytest.mark.parametrize("recipe_name", ["top_entropy", "skywork"])
def test_a_method_that_reads_entropies_is_refused_with_an_engine_that_records_none(recipe_name):
    """Before the run, not after its first rollout."""
    path = next(path for path in RECIPES if path.stem == recipe_name)
    text = refused("records no entropies", path, rollout__engine="vllm")
    assert "--rollout.engine native" in text
    shared = {"rollout__engine": "vllm", "rollout__memory_share": 0.5}
    assert "--rollout.memory_share 0.4" in refused("records no entropies", path, **shared)


def test_a_k_that_the_group_cannot_fill_is_refused_by_default_too():
    """Every advantage would be 0: k is 4 where the recipe leaves it out."""
    text = refused("pass_k 4 of 4", algo__advantage="pass_at_k", rollout__group_size=4)
    assert "fix: --algo.pass_k 2" in text


def test_none_takes_back_what_a_recipe_sets(recipe):
    recipe.write_text('[algo]\nloss = "ppo_clip"\nclip_low = 0.1\nkl = "none"\n')
    assert load_recipe(recipe).algo.clip_low == 0.1
    cfg = load_recipe(recipe, {"algo.clip_low": "none", "task.data": "none"})
    assert cfg.algo.clip_low is None and cfg.task.data is None
    assert cfg.algo.kl == "none"  # a choice, where it is one
    refused("steps = 'none'", steps="none")


# -- what is packaged -----------------------------------------------------------------------


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_packaged_recipe_loads(path):
    cfg = load_recipe(path)
    assert cfg.algo.advantage in ADVANTAGES and cfg.algo.loss in LOSSES
    assert cfg.algo.aggregation in AGGREGATIONS


def test_there_is_a_demo():
    assert "demo" in [path.stem for path in RECIPES]


def test_a_length_was_measured_with_the_recipes_own_base_task_and_limit(recipe):
    recipe.write_text("[rollout]\nmax_new_tokens = 100\nexpected_tokens = 60\n")
    assert load_recipe(recipe).rollout.expected_tokens == 60
    assert load_recipe(recipe, {"optim.lr": 1e-4}).rollout.expected_tokens == 60
    for other in (
        {"model.path": "other"},
        {"task.name": "multiply"},
        {"task.numbers": [4]},
        {"rollout.max_new_tokens": 50},
        {"rollout.max-new-tokens": 50},
    ):
        assert load_recipe(recipe, other).rollout.expected_tokens == 0, other
    both = {"rollout.max_new_tokens": 50, "rollout.expected_tokens": 40}
    assert load_recipe(recipe, both).rollout.expected_tokens == 40
    assert "at most 100" in refused("expected_tokens 101", recipe, rollout__expected_tokens=101)


def test_a_run_goes_on_with_settings_that_a_new_one_may_not_have():
    """Its version may have refused less. A name that is gone is an error all the same."""
    began = {"algo": {"loss": "pg", "clip_low": 0.1}}
    with pytest.raises(ConfigError, match="does not clip"):
        checked(began)
    assert begun(began).algo.clip_low == 0.1
    with pytest.raises(ConfigError, match="config.json: algo.loss = 'gone'"):
        begun({"algo": {"loss": "gone"}}, "config.json: ")
