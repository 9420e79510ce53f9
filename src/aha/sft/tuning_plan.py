"""The plan of a run of fine-tuning: before it begins, and against what it took."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from aha.algo.preferences import METHODS
from aha.core.errors import ConfigError
from aha.core.sizes import GB
from aha.machine.device import device_memory
from aha.model.architecture import ModelConfig
from aha.model.weights import LoadedModel
from aha.plan.machines import Cost, load_cards, money
from aha.plan.prediction import NO_CARD
from aha.plan.speed import Card
from aha.plan.tuning_estimate import TuningPlan, TuningTokens, estimate_tuning
from aha.sft.examples import ExampleSet
from aha.sft.tuning_config import TuningConfig
from aha.training.builders import price_of_run
from aha.training.preflight import machine_here, shape_of_config

LASTS = ("weights", "gradients", "optimiser")  # parts that no micro-batch makes smaller
PROPOSED_RANK = 16  # of the adapters that are proposed where the whole model does not fit


def tokens_to_read(cfg: TuningConfig, examples: ExampleSet) -> TuningTokens:
    """The examples as the plan counts them. Pairs are scored in each update before their gradient
    is computed, and by DPO once before all of them."""
    rows, pairs = examples.rows, cfg.preference
    return TuningTokens(
        examples.num_tokens,
        max(rows),
        sum(length**2 for length in rows) / sum(rows),
        cfg.epochs,
        cfg.steps,
        scorings=1 if pairs else 0,
        reference=bool(pairs and METHODS[pairs.method].reference),
    )


def tuning_prediction(
    cfg: TuningConfig, model: LoadedModel, examples: ExampleSet
) -> dict[str, Any] | None:
    """The content of prediction.json for this machine; None for a model that only `transformers`
    can run. Without a row of cards.toml it has no times."""
    if not isinstance(model.policy.config, ModelConfig):
        return None
    shape = shape_of_config(model.policy.config)
    name, row = machine_here(model.policy.device, shape.parameters)
    read = tokens_to_read(cfg, examples)
    plan = estimate_tuning(cfg.recipe, shape, read, row or NO_CARD)
    prediction: dict[str, Any] = {
        "machine": name,
        "measured": False,
        "card": row and asdict(row),
        "mean_tokens": read.tokens / len(examples.examples),
        "mean_tokens_from": "the examples",
        "memory": plan.memory,
        "peak_bytes": plan.peak,
    }
    if row:
        cost = Cost.of(plan.cost.seconds, *price_of_run(cfg.recipe))
        prediction |= {"steps": cfg.steps, "training_s": cost.seconds}
        prediction |= {"seconds": cost.seconds, "cost_usd": cost.usd}
    return prediction


def refuse_hopeless(
    cfg: TuningConfig, model: LoadedModel, examples: ExampleSet, say: Callable[[str], None]
) -> None:
    """Raise ConfigError where not even weights, gradients and optimiser fit; say where the rest
    fits in smaller micro-batches alone. A run on a GPU finds these by itself; on a CPU memory does
    not end with an error, but with the process. The weights are in memory already."""
    device = model.policy.device
    prediction, free = tuning_prediction(cfg, model, examples), device_memory(device).free
    if prediction is None or not free:
        return
    free += sum(weight.nbytes for weight in model.policy.parameters())
    needed = prediction["peak_bytes"] - prediction["memory"].get("process", 0.0)  # there already
    if needed <= free:
        return
    got = f"{needed / GB:.2f} GB planned, {free / GB:.2f} GB free"
    if lasting(prediction) > free:
        raise ConfigError(got, "as much as is planned", milder(cfg, model, examples, free))
    on_gpu = device.type == "cuda"
    smaller = "micro-batches will be smaller than" if on_gpu else "it needs less with a smaller"
    say(f"{got}: {smaller} --micro-batch-tokens")


def lasting(prediction: Mapping[str, Any]) -> float:
    """Bytes that no micro-batch makes fewer."""
    return float(sum(prediction["memory"][part] for part in LASTS))


def milder(cfg: TuningConfig, model: LoadedModel, examples: ExampleSet, free: float) -> str:
    """What fits where the whole model does not: adapters, if these do."""
    adapters = cfg.model.model_copy(update={"lora_rank": PROPOSED_RANK})
    tuned = tuning_prediction(cfg.model_copy(update={"model": adapters}), model, examples)
    fits = not cfg.model.lora_rank and tuned is not None and lasting(tuned) <= free
    return f"--lora-rank {PROPOSED_RANK}" if fits else "a smaller model"


def compared_with_plan(
    prediction: Mapping[str, Any] | None, measured: Mapping[str, float]
) -> dict[str, Any] | None:
    """The `plan` of summary.json: a ratio is the measured number over the planned one."""
    if prediction is None:
        return None
    figures = {
        name: {"planned": planned, "measured": value, "ratio": value / planned}
        for name, value in measured.items()
        if (planned := prediction.get(name))
    }
    lengths = {"assumed": prediction.get("mean_tokens"), "from": "the examples", "measured": None}
    return {
        "machine": prediction.get("machine"),
        "speeds_measured": False,
        "mean_tokens": lengths,
        "figures": figures,
    }


def lines_of_plan(prediction: Mapping[str, Any] | None, budget_s: float) -> list[str]:
    """What the run is planned to take."""
    if prediction is None:
        return ["no plan: only transformers can run this model"]
    peak = f"{prediction['peak_bytes'] / GB:.2f} GB at the peak"
    if not prediction.get("seconds"):
        return [f"planned: {peak}; {prediction['machine']}: no time and no price"]
    seconds, usd = prediction["seconds"], prediction["cost_usd"]
    lines = [f"planned: {seconds / 60:,.1f} minutes, {money(usd)}, {peak}; {prediction['machine']}"]
    if seconds > budget_s:
        step = budget_s / seconds * prediction["steps"]
        lines.append(f"the budget is smaller: it would end after about step {step:.0f}")
    return lines


def plans_on_cards(
    cfg: TuningConfig, model: LoadedModel, examples: ExampleSet
) -> dict[str, tuple[Card, TuningPlan]]:
    """The plan on every machine of cards.toml, at its own price; empty for a model that only
    `transformers` can run."""
    if not isinstance(model.policy.config, ModelConfig):
        return {}
    shape, read = shape_of_config(model.policy.config), tokens_to_read(cfg, examples)
    _, cards = load_cards()
    return {
        name: (card, estimate_tuning(cfg.recipe, shape, read, card)) for name, card in cards.items()
    }
