"""The table of `aha plan`, and the plan in a line for a dry run."""

import json
import math
import sys
from pathlib import Path

from aha.algo.algorithms import method_of
from aha.algo.recipe import load_recipe
from aha.cli.recipes import find_recipe, parse_overrides
from aha.core.config import RunConfig
from aha.core.errors import ConfigError, ModelError
from aha.core.sizes import GB
from aha.machine.host import SMALL_MODEL
from aha.plan.calibration import Calibration, read_calibration
from aha.plan.cost import budget_seconds, money
from aha.plan.estimate import Card, Plan, advice, estimate
from aha.plan.machines import load_cards
from aha.plan.prediction import lines_before
from aha.plan.shapes import Shape, shape_of
from aha.plan.speed import Workload, expected_tokens

HERE = "this machine"
NOT_MEASURED = "the GPU rows are not measured yet (--probe measures this machine)"


def calibration_for(
    cfg: RunConfig, shape: Shape, probe: bool, kept: Path | None
) -> Calibration | None:
    """This machine as it is measured now, and kept in a file if one is named; as it was measured,
    from that file; or None."""
    if not probe:
        return read_calibration(kept) if kept else None
    if kept and (kept.is_dir() or not kept.absolute().parent.is_dir()):
        raise ConfigError(f"cannot write {kept}", "a file in a folder that exists")
    from aha.machine.device import choose_device
    from aha.measure.probe import probe as measure
    from aha.train.preflight import with_machine_price

    # A GPU without a price is an error now, not in half a minute.
    with_machine_price(cfg, choose_device(cfg.model.device, shape.parameters))
    print("measuring this machine, half a minute at most", flush=True, file=sys.stderr)
    found = measure(cfg, shape, cfg.model.path)
    if kept:
        found.write(kept)
    return found


def tell_plan(cfg: RunConfig, budget: str | None) -> None:
    """What a run would take on this machine; on the error stream, as its config is on the other."""
    from aha.machine.device import choose_device
    from aha.machine.host import process_bytes
    from aha.measure.base_length import folder_at_hand
    from aha.train.preflight import predict_run, with_machine_price

    try:
        shape = shape_of(str(folder_at_hand(cfg.model.path) or cfg.model.path))
    except ModelError as error:
        print(f"no plan: {error}", file=sys.stderr)
        return
    device = choose_device(cfg.model.device, shape.parameters)
    cfg = with_machine_price(cfg, device)
    seconds = budget_seconds(budget, cfg.usd_per_hour) if budget else math.inf
    print(
        *lines_before(predict_run(cfg, shape, device, resident_bytes=process_bytes()), seconds),
        sep="\n",
        file=sys.stderr,
    )


def print_plan(
    recipe: str,
    overrides: tuple[str, ...],
    cards_file: Path | None,
    mean_tokens: float | None,
    as_json: bool,
    probe: bool = False,
    kept: Path | None = None,
) -> None:
    if mean_tokens is not None and not mean_tokens > 0:
        raise ConfigError(f"--mean-tokens {mean_tokens}", "more than 0")
    cfg = load_recipe(find_recipe(recipe), parse_overrides(overrides))
    shape = shape_of(cfg.model.path)
    as_of, cards = load_cards(cards_file)
    calibration = calibration_for(cfg, shape, probe, kept)
    if calibration:
        cards = {HERE: calibration.card(cfg.usd_per_hour, cfg.watts)} | cards
    base = calibration.base_tokens_of(cfg) if calibration else 0.0
    mean, source = (mean_tokens, "--mean-tokens") if mean_tokens else expected_tokens(cfg, base)
    load = Workload(cfg, method_of(cfg), shape)
    plans = {name: estimate(load, card, mean) for name, card in cards.items()}
    shown = shown_of(plans, cards, shape)
    memory = shown.memory if shown else {}
    rows = [row_of(name, plan, load, cards[name]) for name, plan in plans.items()]
    if as_json:
        gigabytes = {part: size / GB for part, size in memory.items()}
        peak, host = (shown.peak / GB, shown.host / GB) if shown else (None, None)
        facts = {"model": cfg.model.path, "parameters": shape.parameters, "prices_as_of": as_of}
        facts |= {"mean_tokens": mean, "mean_tokens_from": source}
        facts |= {"memory_gb": gigabytes, "peak_gb": peak, "host_gb": host, "cards": rows}
        print(json.dumps(facts))
        return
    print(f"{cfg.model.path}: {shape.parameters / 1e6:,.1f} M parameters, {cfg.steps} steps")
    for part, size in memory.items():
        print(f"  {part:<20}{size / GB:>9.3f} GB")
    if shown:
        print(f"  {'peak':<20}{shown.peak / GB:>9.3f} GB")
    if shown and shown.host:
        print(f"  {'in host memory':<20}{shown.host / GB:>9.3f} GB")
    for line in calibration.lines() if calibration else []:
        print(line)
    print(f"\n{'machine':<18}{'GB':>5}{'fits':>6}{'tok/s':>10}{'hours':>9}{'kWh':>9}{'price':>13}")
    for row in rows:
        fits = "yes" if row["fits"] else "no"
        print(
            f"{row['card']:<18}{row['memory_gb']:>5.0f}{fits:>6}{row['tokens_per_s']:>10,.0f}"
            f"{row['hours']:>9.3f}{row['kwh']:>9.3f}{money(row['usd']):>13}"
            + (f"  fits with {row['advice']}" if row["advice"] else "")
        )
    print(
        f"\nfrom shapes alone, prices of {as_of}; completions of {mean:.0f} tokens are assumed "
        f"({source}), with looks and both tests; "
        + (f"{HERE!r} is measured, the other rows are not" if calibration else NOT_MEASURED)
    )


def shown_of(plans: dict[str, Plan], cards: dict[str, Card], shape: Shape) -> Plan | None:
    """The plan whose memory is listed: this machine's, or that of the kind that would be taken."""
    if HERE in plans:
        return plans[HERE]
    wanted = [name for name in plans if cards[name].cpu == (shape.parameters < SMALL_MODEL)]
    return plans[next(iter(wanted or plans))] if plans else None


def row_of(name: str, plan: Plan, load: Workload, card: Card) -> dict:
    """What the plan says of one machine."""
    return {
        "card": name,
        "measured": name == HERE,
        "peak_gb": plan.peak / GB,
        "memory_gb": card.memory,
        "fits": plan.fits(card),
        "tokens_per_s": plan.tokens_per_s,
        "hours": plan.cost.seconds / 3600,
        "kwh": plan.cost.kwh,
        "usd": plan.cost.usd,
        "advice": "" if plan.fits(card) else advice(load, card),
    }
