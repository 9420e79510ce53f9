"""What veRL itself makes of an export: its settings composed and validated, its rows read, its
rewards computed, its formulas beside ours. Nothing here trains.

Opt-in: these tests need verl 0.9.1 without its GPU packages, which `make test` does not install:

    pip install --no-deps -r tests/export/verl_packages.txt
    pytest -n 0 tests/export/test_verl_folder_package.py
"""

import asyncio
import inspect
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from aha.algo.advantages import ADVANTAGES, gae, value_loss, whiten
from aha.algo.aggregation import Totals, token_weights
from aha.algo.algorithms import chosen_of
from aha.algo.correction import CORRECTIONS
from aha.algo.kl import ESTIMATORS
from aha.algo.losses import LOSSES
from aha.algo.recipe import load_recipe
from aha.api.recipe_names import find_recipe
from aha.export import verl_methods as methods
from aha.export.verl_folder import export_to_verl, tinyzero_settings
from aha.export.verl_keys import Export
from aha.export.verl_table import as_hydra, overrides_of
from aha.tasks.catalog import make_task

from .test_verl_folder import SMALL
from .test_verl_rows import base_folder

HOW = "needs verl 0.9.1: pip install --no-deps -r tests/export/verl_packages.txt"
if find_spec("verl") is None or find_spec("hydra") is None:
    pytest.skip(HOW, allow_module_level=True)

from hydra import compose, initialize_config_dir  # noqa: E402
from hydra.errors import ConfigCompositionException  # noqa: E402

YAML = Path(find_spec("verl").submodule_search_locations[0]) / "trainer" / "config"
ACTOR = "actor_rollout_ref.actor"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return base_folder(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="module")
def handed(base, tmp_path_factory):
    cfg = load_recipe(None, SMALL | {"model.path": str(base)})
    return export_to_verl(cfg, "mine", tmp_path_factory.mktemp("out") / "folder")


def composed(lines: list[str]):
    """veRL's own settings with these overrides, as its command composes them."""
    with initialize_config_dir(str(YAML), version_base=None):
        return compose("ppo_trainer", overrides=lines)


def lines_of(folder: Path) -> list[str]:
    text = (folder / "overrides.txt").read_text(encoding="utf-8").replace("$HERE", str(folder))
    return [line for line in text.splitlines() if not line.startswith("#")]


def said(settings: dict, base: Path | str = "/model", **changes):
    """veRL's settings for a recipe, without a folder."""
    recipe = changes.pop("recipe", None)
    cfg = load_recipe(find_recipe(recipe) if recipe else None, {"optim.final_lr": 1} | settings)
    export = Export(cfg, chosen_of(cfg.algo), "x", str(base), 300, **changes)
    return composed([as_hydra(key, value) for key, value in overrides_of(export).items()])


# -- A: the settings compose -------------------------------------------------------------------

GRPO = {
    "algo.advantage": "grpo",
    "algo.loss": "ppo_clip",
    "algo.kl": "loss",
    "rollout.group_size": 8,
}
PPO = {
    "algo.advantage": "gae",
    "algo.loss": "ppo_clip",
    "algo.kl": "reward",
    "rollout.group_size": 1,
}
DAPO = GRPO | {
    "algo.kl": "none",
    "algo.zero_variance": "resample",
    "algo.overlong": "soft_half",
    "algo.overlong_buffer": 64,
    "rollout.max_new_tokens": 320,
    "model.lora_rank": 16,
    "optim.state": "8bit",
}


@pytest.mark.parametrize("settings", [GRPO, PPO, DAPO, {"rollout.engine": "vllm"}])
def test_every_override_is_a_setting_of_verl_and_arrives(settings):
    cfg = load_recipe(None, {"optim.final_lr": 1} | settings)
    overrides = overrides_of(Export(cfg, chosen_of(cfg.algo), "x", "/a b/model", 300))
    config = composed([as_hydra(key, value) for key, value in overrides.items()])
    for key, value in overrides.items():
        node = config
        for part in key.lstrip("+").split("."):
            node = node[part]
        assert node == value, key


def test_a_setting_that_verl_does_not_have_is_its_error():
    with pytest.raises(ConfigCompositionException):
        composed(["actor_rollout_ref.rollout.numbers=3"])


def test_the_folder_composes(handed):
    config = composed(lines_of(handed.folder))
    assert config.data.train_files == str(handed.folder / "train.parquet")
    assert config.actor_rollout_ref.model.custom_chat_template.startswith("{% for m in")


# -- B: the same numbers -----------------------------------------------------------------------


def draws(seed: int = 0):
    """Masks of completions of different lengths, in groups of four, and log-probs over them."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([6, 3, 5, 1, 2, 6, 4, 4, 6, 6, 1, 3])
    mask = (torch.arange(6) < lengths[:, None]).double()

    def normal(scale):
        return torch.randn(12, 6, generator=generator, dtype=torch.float64) * scale

    old = -normal(1.0).abs() - 0.05
    now = (old + normal(0.4)).clamp(max=-1e-3)
    advantages = normal(1.0)[:, :1].expand(-1, 6) * mask
    return mask, old, now, advantages


REWARDS_PG = torch.tensor([[0, 1, 0.1, 0], [1, 1, 0, 1], [0, 0.1, 0.1, 1]], dtype=torch.float64)
GROUPS = np.repeat(np.array(["a", "b", "c"], dtype=object), 4)


@pytest.mark.parametrize("name", [n for n in methods.ADVANTAGES if n != "gae"])
def test_advantages_are_those_of_verl(name):
    from verl.trainer.ppo.core_algos import get_adv_estimator_fn

    mask = draws()[0]
    rewards = torch.zeros_like(mask)
    rewards[torch.arange(12), mask.sum(1).long() - 1] = REWARDS_PG.flatten()
    config = said({"algo.advantage": name})
    function = get_adv_estimator_fn(config.algorithm.adv_estimator)
    offered = {
        "token_level_rewards": rewards,
        "response_mask": mask,
        "index": GROUPS,
        "config": config.algorithm,
        "norm_adv_by_std_in_grpo": config.algorithm.norm_adv_by_std_in_grpo,
    }
    known = inspect.signature(function).parameters
    theirs, _ = function(**{key: value for key, value in offered.items() if key in known})
    lengths_PG = mask.sum(1).view(3, 4)
    ours = ADVANTAGES[name](REWARDS_PG, lengths_PG=lengths_PG).reshape(12, 1) * mask
    torch.testing.assert_close(theirs * mask, ours, rtol=1e-5, atol=1e-6)


def test_advantages_with_a_critic_are_those_of_verl():
    from verl.trainer.ppo.core_algos import compute_gae_advantage_return, compute_value_loss

    mask, old, now, advantages = draws()
    config = said(PPO | {"critic.gamma": 0.9, "critic.lam": 0.8, "critic.clip": 0.3})
    gamma, lam = config.algorithm.gamma, config.algorithm.lam
    theirs, returns = compute_gae_advantage_return(advantages, old, mask, gamma, lam)
    ours, our_returns = gae(advantages, old, mask, gamma=0.9, lam=0.8)
    torch.testing.assert_close(theirs * mask, whiten(ours, mask), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(returns * mask, our_returns, rtol=1e-6, atol=1e-8)
    loss, _ = compute_value_loss(
        now, our_returns, old, mask, config.critic.cliprange_value, config.critic.loss_agg_mode
    )
    per_token = value_loss(now, old, our_returns, clip=0.3)
    torch.testing.assert_close(loss, (per_token * mask).sum() / mask.sum(), rtol=1e-6, atol=1e-8)


LOSS_CASES = [(name, LOSSES[name].facts.aggregation or "token_mean") for name in methods.LOSSES]
LOSS_CASES += [("ppo_clip", name) for name in methods.AGGREGATIONS if name != "token_mean"]


@pytest.mark.parametrize(("name", "aggregation"), LOSS_CASES)
def test_losses_and_their_gradients_are_those_of_verl(name, aggregation):
    from verl.trainer.ppo.core_algos import get_policy_loss_fn
    from verl.utils.config import omega_conf_to_dataclass

    settings = {"algo.loss": name, "algo.aggregation": aggregation, "rollout.max_new_tokens": 9}
    cfg = load_recipe(None, settings)
    actor = omega_conf_to_dataclass(said(settings).actor_rollout_ref.actor)
    mask, old, now, advantages = draws(1)
    actor.global_batch_info.update(
        dp_size=1,
        batch_num_tokens=mask.sum(),
        global_batch_size=12,
        loss_scale_factor=actor.loss_scale_factor,
    )
    inputs = [now.clone().requires_grad_() for _ in range(2)]
    theirs, _ = get_policy_loss_fn(actor.policy_loss.loss_mode)(
        old_log_prob=old,
        log_prob=inputs[0],
        advantages=advantages,
        response_mask=mask,
        loss_agg_mode=actor.loss_agg_mode,
        config=actor,
    )
    loss = LOSSES[name]
    per_token = loss(inputs[1], old, advantages, mask_BT=mask, **loss.settings(cfg.algo))
    weights = token_weights(mask, aggregation, Totals(12, int(mask.sum()), 9))
    ours = (per_token * weights).sum()
    torch.testing.assert_close(theirs, ours, rtol=1e-6, atol=1e-7)
    gradients = [torch.autograd.grad(*pair)[0] for pair in zip((theirs, ours), inputs, strict=True)]
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", methods.KL_IN_LOSS)
def test_the_kl_in_the_loss_and_its_gradient_are_those_of_verl(name):
    from verl.trainer.ppo.core_algos import kl_penalty

    settings = {"algo.kl": "loss", "algo.loss": "ppo_clip", "algo.kl_estimator": name}
    actor = said(settings).actor_rollout_ref.actor
    assert actor.use_kl_loss and actor.kl_loss_coef == 0.001
    _, ref, now, _ = draws(2)
    inputs = [now.clone().requires_grad_() for _ in range(2)]
    theirs = kl_penalty(inputs[0], ref, actor.kl_loss_type)
    ours = ESTIMATORS[name](inputs[1], ref, old_logprobs_BT=now)
    torch.testing.assert_close(theirs, ours, rtol=1e-6, atol=1e-8)
    sums = (theirs.sum(), ours.sum())
    gradients = [torch.autograd.grad(*pair)[0] for pair in zip(sums, inputs, strict=True)]
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-8)


def test_the_kl_in_the_reward_is_that_of_verl():
    from verl.trainer.ppo.core_algos import kl_penalty

    config = said(PPO)
    _, ref, now, _ = draws(3)
    theirs = kl_penalty(now, ref, config.algorithm.kl_penalty)
    torch.testing.assert_close(theirs, ESTIMATORS["k1"](now, ref))
    assert config.algorithm.kl_ctrl.type == "fixed"


@pytest.mark.parametrize("name", methods.CORRECTIONS)
def test_the_weights_of_a_correction_are_those_of_verl(name):
    from verl.trainer.ppo.rollout_corr_helper import compute_rollout_correction_weights

    config = said({"rollout.engine": "vllm", "algo.correction": name})
    correction = config.algorithm.rollout_correction
    mask, old, now, _ = draws(4)
    theirs, _ = compute_rollout_correction_weights(
        now - old, mask, correction.rollout_is, correction.rollout_is_threshold
    )
    ours = CORRECTIONS[name]((now - old) * mask, mask)
    torch.testing.assert_close(theirs * mask, ours, rtol=1e-6, atol=1e-8)


# -- C: the settings are valid -----------------------------------------------------------------

MACHINES = [(2, 1), (8, 2)]


@pytest.mark.parametrize("machines", MACHINES)
@pytest.mark.parametrize("recipe", ["tinyzero-3b", "tinyzero-3b-grpo"])
def test_verl_validates_the_settings_and_needs_what_the_recipe_needs(recipe, machines, base):
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    settings = tinyzero_settings(recipe, load_recipe(find_recipe(recipe)))
    gpus, nodes = machines
    config = said(settings, base, recipe=recipe, gpus=gpus, nodes=nodes)
    ppo = recipe == "tinyzero-3b"
    assert need_critic(config) is ppo and need_reference_policy(config)
    validate_config(config, use_reference_policy=True, use_critic=ppo)
    assert config.trainer.n_gpus_per_node * config.trainer.nnodes == gpus * nodes


# -- D: the rows are read ----------------------------------------------------------------------


@pytest.fixture
def model_config(handed):
    from verl.utils.config import omega_conf_to_dataclass

    return omega_conf_to_dataclass(composed(lines_of(handed.folder)).actor_rollout_ref.model)


@pytest.fixture(scope="module", autouse=True)
def cache_of_rows(tmp_path_factory):
    """The cache of `datasets`, away from the user's."""
    import datasets

    before = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = tmp_path_factory.mktemp("cache")
    yield
    datasets.config.HF_DATASETS_CACHE = before


def test_verl_reads_the_rows_and_drops_none(handed, model_config, base, tmp_path):
    from omegaconf import OmegaConf
    from verl.utils.dataset.rl_dataset import RLHFDataset, collate_fn

    other = load_recipe(None, SMALL | {"model.path": str(base), "task.name": "multiply"})
    second = export_to_verl(other, "other", tmp_path / "other").folder
    config = composed(lines_of(handed.folder)).data
    OmegaConf.update(config, "filter_overlong_prompts", True)  # veRL's filter agrees with our count
    OmegaConf.update(config, "cache_dir", str(tmp_path / "copies"), force_add=True)
    files = [str(folder / "train.parquet") for folder in (handed.folder, second)]
    data = RLHFDataset(files, model_config.tokenizer, config)
    assert len(data) == 16
    batch = collate_fn([data[index] for index in (0, 8)])
    assert list(batch["data_source"]) == ["aha/countdown", "aha/multiply"]
    assert all(isinstance(truth["ground_truth"], str) for truth in batch["reward_model"])
    assert list(batch["index"]) == [0, 0]


# -- E: the rewards ----------------------------------------------------------------------------


def data_of(rows, texts, tokenizer):
    """Prompts and completions as veRL's trainer holds them."""
    from verl import DataProto

    encoded = [tokenizer(text, add_special_tokens=False).input_ids for text in texts]
    width = max(map(len, encoded))
    completions = torch.zeros(len(texts), width, dtype=torch.long)
    mask = torch.zeros(len(texts), 2 + width, dtype=torch.long)
    for place, ids in enumerate(encoded):
        completions[place, : len(ids)] = torch.tensor(ids)
        mask[place, : 2 + len(ids)] = 1
    return DataProto.from_dict(
        tensors={
            "prompts": torch.zeros(len(texts), 2, dtype=torch.long),
            "responses": completions,
            "attention_mask": mask,
        },
        non_tensors={
            key: np.array([row[key] for row in rows], dtype=object)
            for key in ("data_source", "reward_model", "extra_info")
        },
    )


def rows_and_texts(handed):
    from pyarrow import parquet

    rows = parquet.read_table(handed.folder / "test.parquet").to_pylist()
    task = make_task("countdown", {})
    problems = {problem.id: problem for problem in islice(task.problems("test", 0), 5)}
    problems = [problems[row["extra_info"]["id"]] for row in rows]
    right = [task.solve(problem) for problem in problems]
    # A special token at the end, as the engine may leave it, and one right after the answer.
    texts = [right[0], right[1] + "<|im_end|>", "nothing", right[3][:-9], right[0]]
    return rows, texts, [1.0, 1.0, 0.0, 0.0, 0.0]


def test_both_reward_managers_of_verl_pay_what_we_pay(handed, model_config):
    from verl.experimental.reward_loop.reward_manager.naive import NaiveRewardManager as Loop
    from verl.trainer.ppo.reward import get_custom_reward_fn
    from verl.workers.reward_manager.naive import NaiveRewardManager

    config = composed(lines_of(handed.folder))
    reward = get_custom_reward_fn(config)
    rows, texts, wanted = rows_and_texts(handed)
    tokenizer = model_config.tokenizer
    data = data_of(rows, texts, tokenizer)
    result = NaiveRewardManager(tokenizer, 0, reward)(data, return_dict=True)
    assert result["reward_tensor"].sum(1).tolist() == wanted
    assert result["reward_extra_info"]["acc"] == wanted

    async def scores():
        manager = Loop(config, tokenizer, reward)
        return [await manager.run_single(data[i : i + 1]) for i in range(len(rows))]

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        singles = loop.run_until_complete(scores())
    finally:
        loop.close()
    assert [single["reward_score"] for single in singles] == wanted
    assert {tuple(single["reward_extra_info"]) for single in singles} == {
        ("score", "acc", "reason")
    }


def test_the_penalty_for_length_is_that_of_verl(handed, model_config):
    from verl.experimental.reward_loop.reward_manager import get_reward_manager_cls

    from aha.algo.filters import soft_overlong

    config = said(DAPO | {"algo.overlong": "soft"})
    rows, texts, _ = rows_and_texts(handed)
    texts = ["x" * length for length in (10, 256, 260, 300, 320)]  # a token each
    data = data_of(rows, texts, model_config.tokenizer)

    async def scores():
        cls = get_reward_manager_cls(config.reward.reward_manager.name)
        manager = cls(config, model_config.tokenizer, lambda **_: {"score": 0.0})
        return [await manager.run_single(data[i : i + 1]) for i in range(len(rows))]

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        theirs = [float(single["reward_score"]) for single in loop.run_until_complete(scores())]
    finally:
        loop.close()
    ours = soft_overlong(torch.tensor([10.0, 256, 260, 300, 320]), 320, 64)
    assert theirs == pytest.approx(ours.tolist())


# -- F: our file is the one that is called, and prompts pass through ------------------------------


def test_the_reward_is_ours_and_an_older_key_is_ignored(handed):
    from verl.trainer.ppo.reward import get_custom_reward_fn
    from verl.utils.reward_score import default_compute_score

    lines = lines_of(handed.folder)
    reward = get_custom_reward_fn(composed(lines))
    truth = '{"numbers": [2, 3, 4], "target": 24}'
    row = {"data_source": "aha/countdown", "ground_truth": truth, "extra_info": {}}
    assert reward(solution_str="<answer>2*3*4</answer>", **row)["score"] == 1.0
    # The trap: the key of older versions composes, and nothing is loaded.
    older = [line for line in lines if not line.startswith("reward.")]
    older.append("custom_reward_function.path=/nowhere/reward.py")
    assert get_custom_reward_fn(composed(older)) is None
    with pytest.raises(NotImplementedError):
        default_compute_score(solution_str="<answer>2*3*4</answer>", **row)


def test_a_prompt_is_read_as_it_is_and_without_the_override_it_is_wrapped(handed, model_config):
    from pyarrow import parquet
    from transformers import AutoTokenizer

    row = parquet.read_table(handed.folder / "train.parquet").to_pylist()[0]
    text = row["prompt"][0]["content"]
    tokenizer = model_config.tokenizer
    passed = tokenizer.apply_chat_template(
        row["prompt"], add_generation_prompt=True, tokenize=False
    )
    assert passed == text and text.endswith("<think>")
    ids = tokenizer(passed, add_special_tokens=False).input_ids
    assert tokenizer.decode(ids) == text
    plain = AutoTokenizer.from_pretrained(model_config.path)
    wrapped = plain.apply_chat_template(row["prompt"], add_generation_prompt=True, tokenize=False)
    assert wrapped.startswith("<|im_start|>user")


def test_verl_strips_special_tokens_before_it_grades(model_config):
    ids = model_config.tokenizer("a<|im_end|>b", add_special_tokens=False).input_ids
    assert model_config.tokenizer.decode(ids, skip_special_tokens=True) == "ab"
