"""What a run is expected to take, said before it begins, and how that compares with what it took.

The length of completions is what a run changes, so a plan that is wrong about the time is judged
twice: as it was made, and as it would have been with the length that was measured. What is left
then is an error about speed.
"""

import math
from dataclasses import asdict, dataclass, replace

from aha.core.config import RunConfig
from aha.plan.cost import Cost, money
from aha.plan.estimate import GB, Plan, advice, estimate
from aha.plan.shapes import Shape
from aha.plan.speed import Card, Lengths, expected_tokens

# Of a process that computes on a CPU, beside tensors: what libraries take once they are used,
# bytes of a token that is kept as a record, and gaps in the heap while a step's micro-batches, no
# two of one size, follow one another: so many times the activations (fitted to the demo, glibc);
# tensors beyond the size that it maps leave none.
LIBRARIES = 100e6
RECORD = 100.0
GAPS = 6.3
GAPS_FLOAT32 = 0.4  # there most tensors are beyond that size; fitted to demo-avx2 and multiply
MAPPED = 32 * 2**20
NO_CARD = Card(0, 1, 1, 0, 0, 1, 1, 0)  # where memory alone is asked for
# With the micro-batch and the rows side by side.
SHRINKS = ("activations", "logits", "kv cache", "drawing")
FAR_OFF = 1 / 3  # of the shorter length: the recipe is worth mending


def predict(
    cfg: RunConfig,
    shape: Shape,
    card: Card | None,
    machine: str,
    measured: bool,
    held: float,
    base_tokens: float = 0.0,
) -> dict:
    """prediction.json: memory by part, time and money of a run, from a plan that nobody has tuned
    to it. `held` are the bytes that the process holds before it opens the model, `base_tokens`
    the mean length of what the base writes, where that was measured.

    Without a card (a GPU that the table lacks) only the memory is foreseen.
    """
    mean, source = expected_tokens(cfg, base_tokens)
    plan = estimate(cfg, shape, card or NO_CARD, mean)
    memory, peak = plan.memory, plan.peak
    if card and card.cpu:
        beside = process_bytes(cfg, shape, plan, held, Lengths.of(cfg, mean), card.float32)
        memory, peak = beside | memory, peak + sum(beside.values())
    told = {"machine": machine, "measured": measured, "card": card and asdict(card)}
    told |= {"mean_tokens": mean, "mean_tokens_from": source}
    told |= {"memory": memory, "peak_bytes": peak}
    return told | (times(cfg, plan) if card else {})


def process_bytes(
    cfg: RunConfig, shape: Shape, plan: Plan, held: float, lengths: Lengths, float32: bool
) -> dict[str, float]:
    """What a CPU process holds beside the tensors of a plan."""
    kept = 2 * (plan.tokens + cfg.eval.final * lengths.mean)
    width = 4 if float32 else 2
    small = width * cfg.optim.micro_batch_tokens * shape.C < MAPPED
    gaps = (GAPS_FLOAT32 if float32 else GAPS) * plan.memory["activations"]
    return {
        "process": held + LIBRARIES,
        "records": RECORD * kept,
        "gaps in the heap": gaps if small else 0.0,
    }


def times(cfg: RunConfig, plan: Plan) -> dict:
    """At the price and the power of the run itself, as its cost is counted."""
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
    told: dict, cfg: RunConfig, shape: Shape, mean_tokens: float | None, measured: dict[str, float]
) -> dict:
    """The `plan` of summary.json. `measured` holds peak_bytes, seconds and cost_usd, as far as
    they are known; a ratio is what was measured over what was planned."""
    again = {}
    if told.get("card") and mean_tokens:
        again = times(cfg, estimate(cfg, shape, Card(**told["card"]), mean_tokens))
    figures = {}
    for name, value in measured.items():
        if not told.get(name):
            continue
        figures[name] = {"planned": told[name], "measured": value, "ratio": value / told[name]}
        if again.get(name):
            figures[name] |= {
                "planned_at_length": again[name],
                "ratio_at_length": value / again[name],
            }
    return {
        "machine": told["machine"],
        "speeds_measured": told["measured"],
        "mean_tokens": {
            "assumed": told["mean_tokens"],
            "from": told.get("mean_tokens_from", ""),
            "measured": mean_tokens,
        },
        "figures": figures,
    }


def lines_before(told: dict, budget_s: float = math.inf) -> list[str]:
    """What a run is planned to take, and how far a budget of so many seconds would bring it."""
    times = ""
    if told.get("seconds"):
        minutes = f"{told['seconds'] / 60:,.1f} minutes with both tests"
        times = f"{minutes}, {money(told['cost_usd'])}, "
    lines = [
        f"planned: {times}{told['peak_bytes'] / GB:.2f} GB at the peak; on {told['machine']}, "
        f"completions of {told['mean_tokens']:.0f} tokens ({told['mean_tokens_from']})"
    ]
    if times and told["training_s"] and told["seconds"] > budget_s:
        # The first of two tests is made before.
        tests_s = told["seconds"] - told["training_s"]
        done = max(0.0, (budget_s - tests_s / 2) / told["training_s"])
        last = min(1.0, done) * told["steps"]
        lines.append(f"the budget is less: it would end after about step {last:.0f}")
    return lines


@dataclass(frozen=True)
class Shortage:
    """Less memory than is planned. Hopeless: even with the smallest micro-batch."""

    got: str
    wanted: str
    fix: str
    hopeless: bool


def shortage(
    cfg: RunConfig, shape: Shape, free: float, host: float | None, float32: bool = False
) -> Shortage | None:
    """What is wrong where a run needs more than `free` bytes; with the settings that fit. `host`:
    what is free of the machine's own memory beside a GPU's; None where that is all there is.
    `float32`: see `Card`."""
    card = replace(NO_CARD, cpu=host is None, float32=float32)
    plan = estimate(cfg, shape, card)
    if host and plan.host > host:
        return Shortage(
            f"{plan.host / GB:.2f} GB of the machine's own memory planned for the optimiser's "
            f"state, {host / GB:.2f} GB free",
            "as much as is planned",
            "--optim.state device, or adapters: --optim.state device --model.lora_rank 16",
            True,
        )

    def beside(cfg: RunConfig, plan: Plan) -> float:
        if not card.cpu:
            return 0.0
        return sum(process_bytes(cfg, shape, plan, 0.0, Lengths.of(cfg), float32).values())

    needed = plan.peak + beside(cfg, plan)
    if needed <= free:
        return None
    least = {part: 0.0 if part in SHRINKS else size for part, size in plan.memory.items()}
    libraries = LIBRARIES if card.cpu else 0.0
    fits = advice(cfg, shape, replace(card, memory=free / GB), beside)
    return Shortage(
        f"{needed / GB:.2f} GB planned for {cfg.model.path}, {free / GB:.2f} GB free",
        "as much as is planned (`aha plan` says for what)",
        fits if fits.startswith("--") else f"no setting fits: {fits}",
        replace(plan, memory=least).peak + libraries > free,
    )


SHOWN = {
    "peak_bytes": ("peak memory", lambda size: f"{size / GB:.2f} GB"),
    "seconds": ("time", lambda seconds: f"{seconds:,.0f} s"),
    "cost_usd": ("cost", money),
}


def lines_of(compared: dict) -> list[tuple[str, str]]:
    """One line a figure, and one on the length; also for a summary that somebody else wrote."""
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
    except (LookupError, TypeError, ValueError, AttributeError):
        return []


def line_of_lengths(assumed: float, measured: float, **told) -> str:
    """What was assumed, from where, and what it was; with the key to set where that was far off."""
    source = f" ({told['from']})" if told.get("from") else ""
    text = f"assumed {assumed:.0f}{source}, were {measured:.0f}"
    if max(assumed, measured) > (1 + FAR_OFF) * min(assumed, measured):
        text += f": next time --rollout.expected_tokens {measured:.0f}"
    return text
