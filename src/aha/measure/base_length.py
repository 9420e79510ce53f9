"""How long the base's completions are: a few dozen by its real weights, before a run is planned."""

from collections.abc import Callable
from pathlib import Path

from aha.core.config import RunConfig
from aha.core.errors import AhaError
from aha.core.seeds import seed_for
from aha.eval.suite import held_out
from aha.machine.device import choose_device
from aha.model.folders import resolve_model
from aha.model.hub import cached_folder, looks_like_hub_name
from aha.model.weights import load_model
from aha.plan.calibration import BaseLength
from aha.rollout.engine import Sampling
from aha.rollout.factory import open_engine
from aha.train.experiment import task_of

MOST, FEWEST = 64, 16  # completions: fewer say nothing about a mean with such a tail


def local_model_folder(name: str) -> Path | None:
    """The folder of a recipe's base if it is on this disk; nothing is fetched."""
    try:
        return cached_folder(name) if looks_like_hub_name(name) else resolve_model(name)
    except AhaError:
        return None


def completions_in(seconds: float, seconds_for: Callable[[int], float]) -> int:
    """How many completions there is time for: a power of two, or 0 where it is too few."""
    count = MOST
    while count >= FEWEST and seconds_for(count) > seconds:
        count //= 2
    return count if count >= FEWEST else 0


def measure_base_length(cfg: RunConfig, folder: Path, count: int) -> BaseLength:
    """One completion of each of `count` training problems, drawn as the recipe draws."""
    model, rollout = load_model(folder), cfg.rollout
    model.policy.to(choose_device(cfg.model.device, model.policy.num_parameters()))
    seed = seed_for(cfg.seed, "base length")
    prompts = held_out(task_of(cfg), model.tokenizer, "train", count, seed)
    how = (rollout.dtype, rollout.max_rows, rollout.loop)
    engine = open_engine(model.policy, model.tokenizer, *how)
    sampling = Sampling(rollout.max_new_tokens, 1, rollout.temperature, seed)
    sizes = [len(one.tokens) for group in engine.generate(prompts, sampling) for one in group]
    return BaseLength(BaseLength.question(cfg), sum(sizes) / len(sizes), len(sizes))
