"""Before a run: what it is predicted to take on this machine, and whether memory is enough.

Nothing is read or written yet when this is said.
"""

import gc
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from aha.algo.algorithms import method_of
from aha.core.config import RunConfig
from aha.core.errors import ConfigError, ModelError
from aha.core.findings import Finding
from aha.core.sizes import GB
from aha.dist.joined_ranks import ranks_here
from aha.eval.prompt_check import OnSkip, ReadableTask, ignore_skip, readable
from aha.eval.prompt_limits import PromptLimits
from aha.machine.device import (
    choose_device,
    device_memory,
    empty_cache,
    gpu_name,
    has_native_bf16,
    multiplies_bf16,
    num_threads,
)
from aha.machine.host import memory_bytes, usable_cores
from aha.model.architecture import ModelConfig
from aha.model.folders import PlannedModel
from aha.model.language_part import language_config, language_name
from aha.model.model_json import read_object
from aha.model.tensors import TensorFiles, weight_files
from aha.model.weights import LoadedModel
from aha.plan.calibration import Calibration
from aha.plan.cluster import Cluster
from aha.plan.estimate import CPU_THREADS, HOST_BYTES, MOMENTS, changed, value_of
from aha.plan.machines import CPU, CPU_FLOAT32, card_for, load_cards, price_of
from aha.plan.prediction import ONE_RANK, predict, shortage
from aha.plan.shapes import Shape, read_shape
from aha.plan.speed import Card, TaskSizes, Workload, expected_tokens
from aha.tasks.protocol import Task

# A token of a completion in Python: an id, a log-prob and an entropy, each with its pointer.
TOKEN_BYTES = 80
NOTHING_COUNTED = TaskSizes()


def shape_of_config(config: ModelConfig) -> Shape:
    """The shape of a model of our own, as the plan counts it."""
    sizes = (config.vocab_size, config.hidden_size, config.intermediate_size)
    heads = (config.num_attention_heads, config.num_key_value_heads, config.head_dim)
    family = config.family
    kind = (config.tie_word_embeddings, family.qkv_bias, family.qk_norm)
    return Shape(*sizes, config.num_hidden_layers, *heads, *kind)


def shape_in_folder(folder: Path) -> Shape | None:
    """The shape in a model folder's config.json, before its weights are read; of an adapter that of
    its base. None where there is no such file, or where it describes another architecture."""
    try:
        return read_shape(Path(PlannedModel.of(folder).shaped) / "config.json")
    except ModelError:
        return None


def machine_row(device: torch.device) -> tuple[str | None, Card | None]:
    """The name and the row of this machine in cards.toml. A CPU has one of two rows: with and
    without bf16 in hardware. (None, None) for a GPU that the table does not list."""
    _, cards = load_cards()
    name, gpu = None, gpu_name(device)
    if device.type == "cpu":
        name = CPU if has_native_bf16() else CPU_FLOAT32
    elif gpu:
        name = card_for(gpu, cards)
    return name, cards.get(name) if name else None


def machine_here(device: torch.device, parameters: int, ranks: int = 1) -> tuple[str, Card | None]:
    """This machine in words, and its row of cards.toml as `ranks` ranks on it use it.

    A CPU's row is one of two cores. A process on one core has the part of it that a rank on one
    core has. Of more cores, or of several ranks on one, nothing was measured: the row stands as it
    is, and the words say how many cores there are.
    """
    name, row = machine_row(device)
    if name is None or row is None:
        return "a GPU not in the table", None
    cores = cores_of(ranks)
    if not row.cpu or cores == CPU_THREADS:
        return name, row
    if cores < CPU_THREADS and ranks == 1:
        return f"one core of {name}", Cluster(CPU_THREADS).card_of_rank(row, parameters)
    return f"{name} ({cores} {'core' if cores == 1 else 'cores'} here)", row


def cores_of(ranks: int) -> int:
    """Cores of this machine that as many ranks compute on: each has a thread at least."""
    return min(max(ranks, num_threads()), usable_cores())


def with_machine_price(cfg: RunConfig, device: torch.device, ranks: int = 1) -> RunConfig:
    """The recipe with this machine's price and power, where it does not set them; those of all GPUs
    and machines that so many ranks take.

    Apple's GPU counts as the CPU of the same machine. Raises ConfigError for a GPU that the table
    does not list.
    """
    price, power = price_of(gpu_name(device), cfg.usd_per_hour, cfg.watts)
    cards = cluster_of(ranks).cards(device.type != "cuda")
    price *= cards if cfg.usd_per_hour is None else 1
    power *= cards if cfg.watts is None else 1
    return cfg.model_copy(update={"usd_per_hour": price, "watts": power})


def cluster_of(ranks: int, in_shards: bool = False) -> Cluster:
    """The ranks of a run, as the plan counts them: on this machine, or spread by a launcher."""
    here = ranks_here(ranks)
    return Cluster(here, max(1, ranks // here), in_shards=in_shards)


def predict_run(
    cfg: RunConfig,
    shape: Shape,
    device: torch.device,
    calibration: Calibration | None = None,
    resident_bytes: int = 0,
    sizes: TaskSizes = NOTHING_COUNTED,
    cluster: Cluster = ONE_RANK,
) -> dict[str, Any]:
    """The prediction for a run on this machine, whose process held `resident_bytes` before it, by
    all ranks of a cluster. `sizes`: what was counted of its task."""
    load = Workload(cfg, method_of(cfg), shape, sizes)
    if device.type != "cpu" and not multiplies_bf16(device):  # of a CPU its card says so
        auto = [key for key in ("optim.dtype", "rollout.dtype") if value_of(cfg, key) == "auto"]
        load = replace(load, cfg=changed(cfg, dict.fromkeys(auto, "float32")))
    if calibration:
        card = calibration.card(cfg.usd_per_hour, cfg.watts)
        base = calibration.base_tokens_of(cfg)
        measured, label = not calibration.assumed, calibration.label
        threads = calibration.threads
        if calibration.device == "cpu" and threads != cores_of(cluster.gpus):
            label += f", measured with {threads} thread{'s' * (threads > 1)}"
        return predict(load, card, label, measured, resident_bytes, base, cluster)
    label, row = machine_here(device, shape.parameters, cluster.gpus)
    return predict(load, row, label, False, resident_bytes, cluster=cluster)


def check_memory(
    cfg: RunConfig,
    shape: Shape,
    device: torch.device,
    say: Callable[[str], None],
    ranks: int = 1,
    shard: str = "off",
    sizes: TaskSizes = NOTHING_COUNTED,
) -> bool:
    """Refuse a run that cannot fit, and warn of one that fits with smaller micro-batches alone.
    Returns whether its models are to be in shards.

    Each of several ranks has all weights, gradients, moments and completions; in shards its part of
    them, but for the completions. `shard` "auto" takes shards where a rank cannot have everything,
    and its part fits.

    `sizes`: what was counted of its task.

    Raises ConfigError where not even the weights, their gradients and the optimiser's state fit.
    Where a smaller micro-batch would do, which a run finds by itself, the warning goes to `say`.
    Both name settings that fit.
    """
    cut = ranks > 1 and shard == "on"
    on_gpu, host = device.type == "cuda", memory_bytes().free
    if on_gpu:  # memory that torch keeps from an earlier probe or run counts as free
        gc.collect()
        empty_cache(device)
    free = device_memory(device).free if on_gpu else host
    float32 = not multiplies_bf16(device)
    if not free:  # not known on this system
        return cut
    here = ranks_here(ranks)
    check_completions(cfg, host / here)
    load = Workload(cfg, method_of(cfg), shape, sizes)
    # The ranks of a machine share its memory; each of several GPUs has its own.
    own = free if on_gpu else free / here
    need = partial(shortage, load, own, host / here if on_gpu else None, float32)
    missing = need(shards=ranks if cut else 1)
    if missing and missing.hopeless and not cut and ranks > 1 and cfg.optim.state == "device":
        part = need(shards=ranks)
        if part is None or not part.hopeless:
            if shard == "off":
                missing = replace(missing, fix="--shard on")
            else:
                cut, missing = True, part
    if missing is None:
        return cut
    if ranks > 1:
        fits_alone = not on_gpu and not cut and shortage(load, free, None, float32) is None
        got = f"{missing.got} for each of {ranks} ranks{' in shards' if cut else ''}"
        missing = replace(missing, got=got, fix="--ranks 1" if fits_alone else missing.fix)
    if missing.hopeless:
        raise ConfigError(missing.got, missing.wanted, missing.fix)
    say(f"{missing.got}, wanted {missing.wanted}; {missing.fix}")
    return cut


def refuse_weights(cfg: RunConfig, folder: Path) -> None:
    """Raise `ConfigError` for a model that the plan has no shape of, as most of those that
    `transformers` runs, where its weights alone, as they train, are more than the memory that is
    free. Only the headers of its files are read.
    """
    try:
        files = TensorFiles(weight_files(folder))
        if language_config(read_object(folder / "config.json")) is not None:
            files.keep(language_name)  # the other parts are not read
    except ModelError:
        return  # an adapter, or what is told where the model is read
    numbers = files.numbers()
    device = choose_device(cfg.model.device, numbers)
    free = memory_bytes().free if device.type != "cuda" else device_memory(device).free
    # All of them train, as these models have no adapters: weight, gradient and both moments.
    each = 8.0 + MOMENTS[cfg.optim.state]
    if cfg.optim.state == "cpu":
        each = 2.0 + (0.0 if device.type == "cuda" else HOST_BYTES)
    if free and each * numbers > free:
        raise ConfigError(
            f"{each * numbers / GB:.2f} GB needed for the {numbers / 1e6:,.0f} million weights of "
            f"{cfg.model.path} and their training, {free / GB:.2f} GB free",
            "as much as the weights alone need",
            "a smaller model, or a machine with more memory",
        )


def needs_shards(cfg: RunConfig, base: Path | None, ranks: int, shard: str) -> bool:
    """Whether a run that is resumed is to be in shards, by the rule of `check_memory`: it is not
    refused here, because it has fitted before."""
    if ranks == 1 or shard != "auto":
        return ranks > 1 and shard == "on"
    shape = shape_in_folder(base) if base else None
    if shape is None:
        return False
    device = choose_device(cfg.model.device, shape.parameters)
    try:
        return check_memory(cfg, shape, device, lambda text: None, ranks, shard)
    except ConfigError:
        return False


def prompt_limits(cfg: RunConfig, model: LoadedModel) -> PromptLimits:
    """What the prompts of a run have to fit."""
    positions = model.policy.config.max_position_embeddings
    return PromptLimits(model.tokenizer, positions, cfg.rollout.max_new_tokens, model.path.name)


def check_completions(cfg: RunConfig, free: float) -> None:
    """Refuse more completions in a step than the machine's memory holds as Python objects."""
    rollout, (tokens, _) = cfg.rollout, expected_tokens(cfg)
    each = rollout.prompts * tokens * TOKEN_BYTES
    if each * rollout.group_size > free:
        fits = int(free / each)
        raise ConfigError(
            f"rollout.prompts {rollout.prompts:,} times rollout.group_size {rollout.group_size:,} "
            f"completions of {tokens:.0f} tokens, {each * rollout.group_size / GB:.1f} GB",
            f"no more than the {free / GB:.1f} GB of memory that are free",
            f"--rollout.group_size {fits}" if fits > 1 else "fewer --rollout.prompts",
        )


def readable_task(
    cfg: RunConfig, task: Task, model: LoadedModel, on_first_skip: OnSkip = ignore_skip
) -> tuple[ReadableTask, list[Finding]]:
    """The run's task without the problems that its model cannot read, and what to tell about them.

    Raises as `aha.eval.prompt_check.readable` does, for every split that the run reads.
    """
    limits = prompt_limits(cfg, model)
    splits = {"train": cfg.rollout.prompts, "validation": cfg.eval.every, "test": cfg.eval.final}
    is_read = tuple(split for split, count in splits.items() if count)
    return readable(task, limits, cfg.task.settings(), is_read, cfg.task.bad_rows, on_first_skip)
