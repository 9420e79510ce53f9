"""The table of `aha plan`."""

import json
from pathlib import Path

from aha.cli.recipes import find_recipe, parse_overrides
from aha.core.config import load_config
from aha.core.errors import ConfigError
from aha.plan.cost import money
from aha.plan.estimate import GB, advice, estimate, load_cards
from aha.plan.shapes import shape_of


def print_plan(
    recipe: str,
    overrides: tuple[str, ...],
    cards_file: Path | None,
    mean_tokens: float | None,
    as_json: bool,
) -> None:
    if mean_tokens is not None and not mean_tokens > 0:
        raise ConfigError(f"--mean-tokens {mean_tokens}", "more than 0")
    cfg = load_config(find_recipe(recipe), parse_overrides(overrides))
    shape = shape_of(cfg.model.path)
    as_of, cards = load_cards(cards_file)
    plans = {name: estimate(cfg, shape, card, mean_tokens) for name, card in cards.items()}
    memory = next(iter(plans.values())).memory if plans else {}
    rows = [
        {
            "card": name,
            "memory_gb": cards[name].memory,
            "fits": plan.fits(cards[name]),
            "tokens_per_s": plan.tokens_per_s,
            "hours": plan.cost.seconds / 3600,
            "kwh": plan.cost.kwh,
            "usd": plan.cost.usd,
            "advice": "" if plan.fits(cards[name]) else advice(cfg, shape, cards[name]),
        }
        for name, plan in plans.items()
    ]
    if as_json:
        gigabytes = {part: size / GB for part, size in memory.items()}
        peak = next(iter(plans.values())).peak / GB if plans else None
        facts = {"model": cfg.model.path, "parameters": shape.parameters, "prices_as_of": as_of}
        print(json.dumps(facts | {"memory_gb": gigabytes, "peak_gb": peak, "cards": rows}))
        return
    print(f"{cfg.model.path}: {shape.parameters / 1e6:,.1f} M parameters, {cfg.steps} steps")
    for part, size in memory.items():
        print(f"  {part:<20}{size / GB:>9.3f} GB")
    if plans:
        print(f"  {'peak':<20}{next(iter(plans.values())).peak / GB:>9.3f} GB")
    print(f"\n{'machine':<18}{'GB':>5}{'fits':>6}{'tok/s':>10}{'hours':>9}{'kWh':>9}{'price':>13}")
    for row in rows:
        fits = "yes" if row["fits"] else "no"
        print(
            f"{row['card']:<18}{row['memory_gb']:>5.0f}{fits:>6}{row['tokens_per_s']:>10,.0f}"
            f"{row['hours']:>9.3f}{row['kwh']:>9.3f}{money(row['usd']):>13}"
            + (f"  fits with {row['advice']}" if row["advice"] else "")
        )
    print(
        f"\nfrom shapes alone, prices of {as_of}; completions of "
        f"{mean_tokens or cfg.rollout.max_new_tokens / 2:.0f} tokens are assumed "
        "(--mean-tokens), and the GPU rows are not measured yet"
    )
