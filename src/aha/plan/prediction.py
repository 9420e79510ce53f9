"""What a run is expected to take, predicted before it begins, and the comparison with the result.

A run changes the length of completions. So a prediction is compared twice: as it was made, and as
it would have been with the length that was measured. The error that remains is one about speed.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from aha.core.config import RunConfig
from aha.core.sizes import GB
from aha.plan.cluster import Cluster, plan_on
from aha.plan.estimate import Plan, advice, estimate
from aha.plan.machines import Cost, money
from aha.plan.shard_memory import plan_in_shards
from aha.plan.speed import Card, Lengths, TaskSizes, Workload, expected_tokens

# Of a process that computes on a CPU, besides tensors: bytes that libraries take once they are
# used; bytes of a token that is kept as a record; and gaps in the heap, which micro-batches of
# different sizes leave, as a multiple of the activations (fitted to the demo, glibc). Tensors
# larger than `MAPPED` leave no gaps: glibc maps each of them separately. Nor do models from
# `NO_GAPS` parameters on: 135 million took 3.7 GB in all, where such gaps alone would be 22.
LIBRARIES = 100e6
RECORD = 100.0
GAPS = 6.3
GAPS_FLOAT32 = 0.4  # most float32 tensors are mapped; fitted to demo-avx2 and multiply
MAPPED = 32 * 2**20
NO_GAPS = 50e6
ONE_RANK = Cluster()
NO_CARD = Card(0, 1, 1, 0, 0, 1, 1, 0)  # for a plan of the memory alone
# Parts that a smaller micro-batch or fewer rows make smaller.
SHRINKS = ("activations", "logits", "kv cache", "drawing")
FAR_OFF = 1 / 3  # of the shorter length: from here on the report suggests a new value


def predict(
    load: Workload,
    card: Card | None,
    machine: str,
    measured: bool,
    held: float,
    base_tokens: float = 0.0,
    cluster: Cluster = ONE_RANK,
) -> dict[str, Any]:
    """The content of prediction.json: memory by part, time and money of a run by all ranks of a
    cluster.

    `machine` names the machine, `measured` is whether its speeds are measured. `held` are the bytes
    that the process holds before it opens the model, `base_tokens` the mean length of the base's
    completions, where that was measured. Without a card (a GPU that the
    table lacks) only the memory is predicted.
    """
    mean, source = expected_tokens(load.cfg, base_tokens)
    plan = plan_in_shards(load, planned_on(load, card, mean, cluster), cluster.shards)
    memory, peak = plan.memory, plan.peak
    if card and card.cpu:
        process = process_bytes(load, plan, held, load.lengths(mean), card.float32)
        memory, peak = process | memory, peak + sum(process.values())
    if others := (cluster.ranks - 1) * peak:
        memory, peak = memory | {"other ranks": others}, peak + others
    return {
        "machine": machine,
        "measured": measured,
        "card": card and asdict(card),
        "mean_tokens": mean,
        "mean_tokens_from": source,
        "prompt_tokens": load.prompt,
        "prompt_tokens_from": load.sizes.prompts_from,
        "ranks": cluster.gpus,
        "nodes": cluster.nodes,
        "held_out": list(load.test_sizes),
        "memory": memory,
        "peak_bytes": peak,
        **(times(load.cfg, plan) if card else {}),
    }


def planned_on(load: Workload, card: Card | None, mean: float, cluster: Cluster) -> Plan:
    """The plan of a rank, with the times of all ranks together where they share the work. How much
    faster they are is simulated (`aha.plan.cluster`)."""
    plan = estimate(load, card or NO_CARD, mean)
    if card is None or cluster.ranks == 1:
        return plan
    return plan_on(load, card, plan, mean, cluster).times


def process_bytes(
    load: Workload, plan: Plan, held: float, lengths: Lengths, float32: bool
) -> dict[str, float]:
    """What a CPU process holds besides the tensors of a plan, in bytes."""
    cfg = load.cfg
    kept = 2 * (plan.tokens + load.test_sizes[1] * lengths.mean)
    width = 4 if float32 else 2
    small = width * cfg.optim.micro_batch_tokens * load.shape.C < MAPPED
    small = small and load.shape.parameters < NO_GAPS
    gaps = (GAPS_FLOAT32 if float32 else GAPS) * plan.memory["activations"]
    return {
        "process": held + LIBRARIES,
        "records": RECORD * kept,
        "gaps in the heap": gaps if small else 0.0,
    }


def times(cfg: RunConfig, plan: Plan) -> dict[str, float]:
    """Seconds, and the cost at the run's own price and power."""
    assert cfg.usd_per_hour is not None and cfg.watts is not None, "a run without a price"
    cost = Cost.of(plan.cost.seconds, cfg.usd_per_hour, cfg.watts)
    return {
        "steps": plan.steps,
        "rollout_s": plan.rollout_s,
        "train_s": plan.train_s,
        "training_s": plan.training_s,
        "seconds": cost.seconds,
        "cost_usd": cost.usd,
    }


def compare(
    prediction: dict[str, Any],
    load: Workload,
    mean_tokens: float | None,
    measured: dict[str, float | None],
) -> dict[str, Any]:
    """The `plan` of summary.json. `measured` holds peak_bytes, seconds and cost_usd, as far as they
    are known; a ratio is the measured number over the planned one."""
    again = {}
    tests = prediction.get("held_out")  # predictions from before 28 November 2026 have none
    counted = None if tests is None else (tests[0], tests[1])
    load = replace(load, sizes=TaskSizes(prediction.get("prompt_tokens") or 0.0, counted))
    if prediction.get("card") and mean_tokens:
        # Before there were ranks a prediction had no number of them; it was made for one.
        cluster = Cluster(prediction.get("ranks", 1), prediction.get("nodes", 1))
        card = Card(**prediction["card"])
        again = times(load.cfg, planned_on(load, card, mean_tokens, cluster))
    figures = {}
    for name, value in measured.items():
        planned = prediction.get(name)
        if not planned or value is None:
            continue
        figures[name] = {"planned": planned, "measured": value, "ratio": value / planned}
        if again.get(name):
            figures[name] |= {
                "planned_at_length": again[name],
                "ratio_at_length": value / again[name],
            }
    return {
        "machine": prediction["machine"],
        "speeds_measured": prediction["measured"],
        "mean_tokens": {
            "assumed": prediction["mean_tokens"],
            "from": prediction.get("mean_tokens_from", ""),
            "measured": mean_tokens,
        },
        "figures": figures,
    }


def lines_before(prediction: dict[str, Any], budget_s: float = math.inf) -> list[str]:
    """What a run is planned to take, and the step at which a budget of `budget_s` would end it."""
    times = ""
    if prediction.get("seconds"):
        minutes = f"{prediction['seconds'] / 60:,.1f} minutes with both tests"
        times = f"{minutes}, {money(prediction['cost_usd'])}, "
    ranks = prediction.get("ranks", 1) * prediction.get("nodes", 1)
    where = prediction["machine"] + (f" by {ranks} ranks" if ranks > 1 else "")
    lines = [
        f"planned: {times}{prediction['peak_bytes'] / GB:.2f} GB at the peak; "
        f"on {where}, completions of {prediction['mean_tokens']:.0f} tokens "
        f"({prediction['mean_tokens_from']}), prompts of {prediction['prompt_tokens']:.0f} "
        f"({prediction['prompt_tokens_from']})"
    ]
    if times and prediction["training_s"] and prediction["seconds"] > budget_s:
        # The first of the two tests comes before training.
        tests_s = prediction["seconds"] - prediction["training_s"]
        done = max(0.0, (budget_s - tests_s / 2) / prediction["training_s"])
        last = min(1.0, done) * prediction["steps"]
        lines.append(f"the budget is smaller: it would end after about step {last:.0f}")
    return lines


@dataclass(frozen=True)
class Shortage:
    """Less memory than is planned. Hopeless: too little even for the smallest micro-batch."""

    got: str
    wanted: str
    fix: str
    hopeless: bool


def shortage(
    load: Workload, free: float, host: float | None, float32: bool = False, shards: int = 1
) -> Shortage | None:
    """The error where a run needs more than `free` bytes, with the settings that fit; else None.

    `host`: free bytes of the host's memory, for a GPU; None on a CPU, whose memory that is.
    `float32`: see `Card`. `shards`: of how many ranks this is one, where models are in shards.
    """
    card = replace(NO_CARD, cpu=host is None, float32=float32)
    plan = plan_in_shards(load, estimate(load, card), shards)
    if host and plan.host > host:
        return Shortage(
            f"{plan.host / GB:.2f} GB of the machine's own memory planned for the optimiser's "
            f"state, {host / GB:.2f} GB free",
            "as much as is planned",
            "--optim.state device, or adapters: --optim.state device --model.lora_rank 16",
            True,
        )

    def process(load: Workload, plan: Plan) -> float:
        if not card.cpu:
            return 0.0
        return sum(process_bytes(load, plan, 0.0, load.lengths(), float32).values())

    def more(load: Workload, plan: Plan) -> float:
        """Bytes besides the plan of a rank with whole models: fewer where they are in shards, which
        no optimiser state elsewhere can be."""
        if shards > 1 and load.cfg.optim.state != "device":
            return math.inf
        return process(load, plan) + plan_in_shards(load, plan, shards).peak - plan.peak

    needed = plan.peak + process(load, plan)
    if needed <= free:
        return None
    least = {part: 0.0 if part in SHRINKS else size for part, size in plan.memory.items()}
    libraries = LIBRARIES if card.cpu else 0.0
    fits = advice(load, replace(card, memory=free / GB), more)
    return Shortage(
        f"{needed / GB:.2f} GB planned for {load.cfg.model.path}, {free / GB:.2f} GB free",
        "as much as is planned (`aha plan` says for what)",
        fits if fits.startswith("--") else f"no setting fits: {fits}",
        replace(plan, memory=least).peak + libraries > free,
    )


SHOWN: dict[str, tuple[str, Callable[[float], str]]] = {
    "peak_bytes": ("peak memory", lambda size: f"{size / GB:.2f} GB"),
    "seconds": ("time", lambda seconds: f"{seconds:,.0f} s"),
    "cost_usd": ("cost", money),
}


def lines_of(compared: dict[str, Any]) -> list[tuple[str, str]]:
    """(title, text) for each figure, for the length and for the speeds; empty for a summary without
    them, as another program may have written it."""
    try:
        lengths = compared["mean_tokens"]
        lines = []
        for name, figure in compared["figures"].items():
            title, show = SHOWN[name]
            text = f"planned {show(figure['planned'])}, was {show(figure['measured'])}"
            text += f": {figure['ratio']:.2f} of it"
            if "ratio_at_length" in figure:
                text += (
                    f"; with the length that was, {show(figure['planned_at_length'])}: "
                    f"{figure['ratio_at_length']:.2f} of that"
                )
            lines.append((title, text))
        if lengths["measured"] is not None:
            lines.append(("tokens of a completion", line_of_lengths(**lengths)))
        speeds = "measured" if compared["speeds_measured"] else "assumed, not measured here"
        return [*lines, ("speeds", f"{compared['machine']}, {speeds}")]
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError):
        return []


def line_of_lengths(assumed: float, measured: float, **more: str) -> str:
    """The assumed length and its source, and the measured one; with the key to set where they are
    far apart."""
    source = f" ({more['from']})" if more.get("from") else ""
    text = f"assumed {assumed:.0f}{source}, were {measured:.0f}"
    if max(assumed, measured) > (1 + FAR_OFF) * min(assumed, measured):
        text += f": next time --rollout.expected_tokens {measured:.0f}"
    return text
