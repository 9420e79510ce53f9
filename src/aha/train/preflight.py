"""What a run will take, foreseen on this machine, and whether its memory is enough, said before
anything is read or written."""

import gc
from collections.abc import Callable
from pathlib import Path

import torch

from aha.algo.algorithms import method_of
from aha.core.config import RunConfig
from aha.core.errors import ConfigError, ModelError
from aha.machine.dtype import has_native_bf16
from aha.machine.host import memory_bytes
from aha.model.architecture import ModelConfig
from aha.plan.calibration import Calibration
from aha.plan.machines import CPU, CPU_FLOAT32, card_for, load_cards, price_of
from aha.plan.prediction import predict, shortage
from aha.plan.shapes import Shape, read_shape
from aha.plan.speed import Card, Workload


def shape_of(config: ModelConfig) -> Shape:
    """A decoder's shape in the words of the plan."""
    sizes = (config.vocab_size, config.hidden_size, config.intermediate_size)
    heads = (config.num_attention_heads, config.num_key_value_heads, config.head_dim)
    family = config.family
    kind = (config.tie_word_embeddings, family.qkv_bias, family.qk_norm)
    return Shape(*sizes, config.num_hidden_layers, *heads, *kind)


def shape_in(folder: Path) -> Shape | None:
    """What the config.json of a model folder says, before its weights are read; None where there
    is none, as beside an adapter, or where it has no words for a shape."""
    try:
        return read_shape(folder / "config.json")
    except ModelError:
        return None


def row_here(device: torch.device) -> tuple[str | None, Card | None]:
    """This machine's row of cards.toml, with its name; of a CPU, the one with its arithmetic."""
    _, cards = load_cards()
    name = None
    if device.type == "cpu":
        name = CPU if has_native_bf16() else CPU_FLOAT32
    elif device.type == "cuda":
        name = card_for(torch.cuda.get_device_name(device), cards)
    return name, cards.get(name)


def at_its_price(cfg: RunConfig, device: torch.device) -> RunConfig:
    """The recipe with the price and the power of the machine, where it leaves them open. Apple's
    GPU counts as the CPU beside it. Raises `ConfigError` for a GPU that the table does not know."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    price, power = price_of(gpu, cfg.usd_per_hour, cfg.watts)
    return cfg.model_copy(update={"usd_per_hour": price, "watts": power})


def foresee(
    cfg: RunConfig,
    shape: Shape,
    device: torch.device,
    calibration: Calibration | None = None,
    held: int = 0,
) -> dict:
    """The prediction for a run on this machine, whose process held so many bytes before."""
    load = Workload(cfg, method_of(cfg), shape)
    if calibration:
        card = calibration.card(cfg.usd_per_hour, cfg.watts)
        base = calibration.base_tokens_of(cfg)
        measured = not calibration.assumed
        return predict(load, card, calibration.called, measured, held, base)
    name, card = row_here(device)
    return predict(load, card, name or "a GPU not in the table", False, held)


def check_memory(
    cfg: RunConfig, shape: Shape, device: torch.device, say: Callable[[str], None]
) -> None:
    """Raise a ConfigError where not even the weights and what trains them have room; where only a
    smaller micro-batch would help, to which a GPU comes by itself, `say` it. Both name the
    settings that fit."""
    on_gpu, host = device.type == "cuda", memory_bytes()[0]
    if on_gpu:  # what a probe or the run before has left in torch's own store counts as free
        gc.collect()
        torch.cuda.empty_cache()
    free = torch.cuda.mem_get_info(device)[0] if on_gpu else host
    _, card = row_here(device)
    float32 = bool(card and card.float32)
    found = (
        shortage(Workload(cfg, method_of(cfg), shape), free, host if on_gpu else None, float32)
        if free
        else None
    )
    if found is None:
        return
    if found.hopeless:
        raise ConfigError(found.got, found.wanted, found.fix)
    say(f"{found.got}, wanted {found.wanted}; {found.fix}")
