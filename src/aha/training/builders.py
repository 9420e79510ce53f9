"""Builds from a recipe what a run needs: model, task, engine, trainer, and the predicted cost."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from aha.algo.algorithms import method_of
from aha.algo.combinations import clashes_of
from aha.algo.fixes import Changes, Clash, fix_of
from aha.algo.recipe import changed, resolved
from aha.core.config import RunConfig
from aha.core.errors import ModelError
from aha.core.seeds import seed_for
from aha.dist.world import World
from aha.machine.device import choose_device, compute_dtype
from aha.model.architecture import ModelConfig
from aha.model.folders import resolve_model
from aha.model.hf_policy import refuse_hf_policy
from aha.model.lora import ADAPTERS, add_lora
from aha.model.policy import Policy
from aha.model.weights import LoadedModel, load_model
from aha.plan.calibration import Calibration
from aha.plan.speed import TaskSizes
from aha.rollout.engine import Engine
from aha.rollout.generation_copy import GenerationCopy
from aha.rollout.native import open_engine
from aha.rollout.vllm import VllmEngine
from aha.tasks.catalog import make_task
from aha.tasks.protocol import Task
from aha.training.critic import CRITIC
from aha.training.preflight import cluster_of, predict_run, shape_of_config
from aha.training.rl import RLTrainer
from aha.training.task_sizes import sizes_of

SHARDED = "a model in shards (--shard on)"


def open_policy(
    cfg: RunConfig, folder: Path | None = None, for_shards: bool = False
) -> LoadedModel:
    """The model that a run begins with, on its device, with adapters where the recipe has them.

    `folder` is read in place of the base, where that has gone. `for_shards`: it stays in the host's
    memory, from where its shards go to the device.
    """
    model = load_model(folder or resolve_model(cfg.model.path))
    check_policy(cfg, model.policy)
    if for_shards:
        refuse_hf_policy(model.policy, SHARDED, "--shard off")
    device = choose_device(cfg.model.device, model.policy.num_parameters())
    rank, alpha = cfg.model.lora_rank, cfg.model.lora_alpha
    if rank or cfg.optim.state == "cpu":
        # Frozen weights need no more precision than the arithmetic has. The same holds for all
        # weights where the optimiser keeps float32 copies elsewhere. This comes before the move to
        # the device: a GPU may not have the memory for the float32 weights.
        model.policy.to(compute_dtype(cfg.optim.dtype, device))
    model.for_shards = for_shards
    if not for_shards:
        model.policy.to(device)
    if rank:
        add_lora(model.policy, rank, alpha or 2.0 * rank, seed_for(cfg.seed, "lora"))
    return model


def check_policy(cfg: RunConfig, policy: Policy) -> None:
    """Raise `ModelError` where `transformers` runs the model and the recipe needs our own decoder.

    The fix is enough for the whole recipe: without a critic, other settings have to go as well.
    """
    settings = cfg.model_dump()

    def clashes(other: RunConfig) -> Iterator[Clash]:
        yield from needs_decoder(other, policy)
        yield from clashes_of(other)

    for clash in needs_decoder(cfg, policy):
        fix = fix_of(clash, clashes, lambda changes: resolved(changed(settings, changes)))
        raise ModelError(clash.got, clash.expected, fix)


def needs_decoder(cfg: RunConfig, policy: Policy) -> Iterator[Clash]:
    features: list[tuple[object, str, Changes]] = [
        (cfg.model.lora_rank, ADAPTERS, {"model.lora_rank": 0, "model.lora_alpha": None}),
        (method_of(cfg).critic, CRITIC, {"algo.advantage": "dr_grpo"}),
    ]
    for used, feature, way in features:
        try:
            if used:
                refuse_hf_policy(policy, feature, "")
        except ModelError as error:
            yield Clash(error.got, error.wanted, (way,))


def price_of_run(cfg: RunConfig) -> tuple[float, float]:
    """(USD an hour, W) of a run, which `with_machine_price` has filled in."""
    assert cfg.usd_per_hour is not None and cfg.watts is not None, "a run without its price"
    return cfg.usd_per_hour, cfg.watts


def task_of(cfg: RunConfig) -> Task:
    limits = (cfg.task.grade_seconds, cfg.task.grade_memory_gb)
    return make_task(cfg.task.name, cfg.task.settings(), *limits)


def make_trainer(
    cfg: RunConfig, model: LoadedModel, task: Task, world: World | None = None
) -> RLTrainer:
    """The trainer of a model that is `for_shards` computes from `enter_shards` on."""
    shared = (task, make_engine(cfg, model), cfg, world, device_of(cfg, model))
    return RLTrainer(model.policy, model.tokenizer, *shared)


def device_of(cfg: RunConfig, model: LoadedModel) -> torch.device:
    """Where the policy computes: where it is, or where its shards will be."""
    if not model.for_shards:
        return model.policy.device
    return choose_device(cfg.model.device, model.policy.num_parameters())


def make_engine(cfg: RunConfig, model: LoadedModel) -> Engine:
    rollout = cfg.rollout
    if rollout.engine == "vllm":
        return VllmEngine(model.policy, model.tokenizer, model.path, rollout)

    def open_with(policy: Policy) -> Engine:
        settings = (rollout.dtype, rollout.max_rows, rollout.loop)
        return open_engine(policy, model.tokenizer, *settings)

    return GenerationCopy(open_with) if model.for_shards else open_with(model.policy)


def prediction_of(
    cfg: RunConfig,
    model: LoadedModel,
    calibration: Calibration | None,
    resident: int,
    ranks: int = 1,
    task: Task | None = None,
) -> dict[str, Any] | None:
    """The prediction of a run; None for a model that only `transformers` can run, whose shape the
    plan cannot describe. Its memory and its times are those of all ranks. Prompts are as long as
    those of `task`, where it is given, and tests as large as it has problems."""
    if not isinstance(model.policy.config, ModelConfig):
        return None
    shape, device = shape_of_config(model.policy.config), device_of(cfg, model)
    sizes = sizes_of(cfg, task, model.tokenizer) if task else TaskSizes()
    cluster = cluster_of(ranks, model.for_shards)
    return predict_run(cfg, shape, device, calibration, resident, sizes, cluster)
