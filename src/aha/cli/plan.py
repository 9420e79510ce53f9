"""`aha plan`: memory, time, energy and cost of a recipe."""

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from aha.algo.algorithms import method_of
from aha.algo.recipe import load_recipe
from aha.api.recipe_names import find_recipe
from aha.cli.cluster_table import ClusterTable
from aha.cli.parameters import AsJson, CalibrationFile, Count, Probe, RecipeName
from aha.cli.recipe_keys import Overrides, overrides_of
from aha.cli.terminal_text import say, say_json, say_line
from aha.core.config import RunConfig
from aha.core.errors import ConfigError
from aha.core.sizes import GB
from aha.machine.host import SMALL_MODEL, usable_cores
from aha.plan.calibration import Calibration, read_calibration
from aha.plan.cluster import NETWORK_GBIT, Cluster, ranks_of_cpu
from aha.plan.estimate import CPU_THREADS, Plan, advice, estimate
from aha.plan.machines import load_cards, money
from aha.plan.prediction import planned_on
from aha.plan.shapes import Shape, shape_of
from aha.plan.speed import Card, Workload, expected_tokens

HERE = "this machine"
ASSUMED = (
    "one speed of the GPU rows is fitted to one H100, where three recipes then took 0.9 to 1.2 "
    "times the planned time; the others are assumed"
)


def plan(
    recipe: RecipeName,
    *,
    cards: Path | None = None,
    mean_tokens: float | None = None,
    as_json: AsJson = False,
    probe: Probe = False,
    calibration: CalibrationFile = None,
    gpus: Count | None = None,
    nodes: Count | None = None,
    network: float = NETWORK_GBIT,
    overrides: Overrides = None,
) -> None:
    """Memory, time, energy and cost of a recipe on a table of machines, calculated from shapes.

    Prompts and held-out problems of its task are counted: by the tokenizer of a model that is on
    this disk, else prompts by their words.

    Parameters
    ----------
    cards
        Your own table of machines, like aha/plan/cards.toml.
    mean_tokens
        Mean tokens of a completion; without it, rollout.expected_tokens, or a guess if that is 0.
    gpus
        GPUs of a machine, each with one rank, or on a CPU ranks that share its cores: adds a
        simulation of their steps, with what it assumes.
    nodes
        Number of such machines; 1 without it.
    network
        Gbit/s between the machines.
    """
    if mean_tokens is not None and not mean_tokens > 0:
        raise ConfigError(f"--mean-tokens {mean_tokens}", "more than 0")
    if not 0 < network < 1e6:
        raise ConfigError(f"--network {network}", "Gbit/s between machines", "--network 10")
    from aha.model.folders import PlannedModel
    from aha.training.task_sizes import sizes_before

    cfg = load_recipe(find_recipe(recipe), overrides_of(overrides))
    model, (as_of, machines) = PlannedModel.named(cfg.model.path), load_cards(cards)
    shape = shape_of(model.shaped)
    measured = calibration_of(cfg, shape, probe, calibration)
    load = Workload(cfg, method_of(cfg), shape, sizes_before(cfg, model.tokenizer))
    table = plan_table(load, measured, mean_tokens, as_of, machines)
    several = gpus is not None or nodes is not None
    cluster = table.on(Cluster(gpus or 1, nodes or 1, network)) if several else None
    if as_json:
        say_json(table.health_report() | (cluster.as_record() if cluster else {}))
    else:
        say("\n".join([*table.lines(), *(cluster.lines() if cluster else [])]))


def calibration_of(
    cfg: RunConfig, shape: Shape, probe: bool, file: Path | None
) -> Calibration | None:
    """The calibration of this machine, measured now or read from a file; None without either."""
    if not probe:
        return read_calibration(file) if file else None
    from aha.measure.probe import measure_this_machine

    return measure_this_machine(cfg, shape, file, partial(say_line, file=sys.stderr))


@dataclass(frozen=True)
class PlanTable:
    """A recipe's plans on all machines; the memory of `shown` is listed by part."""

    load: Workload
    prices_as_of: str
    cards: dict[str, Card]
    plans: dict[str, Plan]
    ranks: dict[str, int]  # of a run that takes as many as suit it; the times are theirs
    calibration: Calibration | None
    mean_tokens: float
    mean_tokens_from: str

    @property
    def shown(self) -> Plan | None:
        """The plan of this machine, or of the kind of machine that a run would use."""
        if HERE in self.plans:
            return self.plans[HERE]
        small = self.load.shape.parameters < SMALL_MODEL
        names = [name for name in self.plans if self.cards[name].cpu == small]
        return self.plans[next(iter(names or self.plans))] if self.plans else None

    def on(self, cluster: Cluster) -> ClusterTable:
        """The same plans carried out by the ranks of a cluster."""
        alone = {
            name: estimate(self.load, self.cards[name], self.mean_tokens) for name in self.plans
        }
        return ClusterTable.of(self.load, self.cards, alone, self.mean_tokens, cluster)

    def rows(self) -> list[dict[str, Any]]:
        return [self.row(name, plan, self.cards[name]) for name, plan in self.plans.items()]

    def row(self, name: str, plan: Plan, card: Card) -> dict[str, Any]:
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
            "ranks": self.ranks[name],
            "advice": "" if plan.fits(card) else advice(self.load, card),
        }

    def health_report(self) -> dict[str, Any]:
        shown = self.shown
        return {
            "model": self.load.cfg.model.path,
            "parameters": self.load.shape.parameters,
            "prices_as_of": self.prices_as_of,
            "mean_tokens": self.mean_tokens,
            "mean_tokens_from": self.mean_tokens_from,
            "prompt_tokens": self.load.prompt,
            "prompt_tokens_from": self.load.sizes.prompts_from,
            "held_out": list(self.load.test_sizes),
            "memory_gb": {p: size / GB for p, size in shown.memory.items()} if shown else {},
            "peak_gb": shown.peak / GB if shown else None,
            "host_gb": shown.host / GB if shown else None,
            "cards": self.rows(),
        }

    def tests(self) -> str:
        """The problems of validations and tests, in words."""
        validation, test = self.load.test_sizes
        return f"validations of {validation:,} problems and two tests of {test:,}"

    def lines(self) -> list[str]:
        millions, shown = self.load.shape.parameters / 1e6, self.shown
        lines = [
            f"{self.load.cfg.model.path}: {millions:,.1f} M parameters, {self.load.cfg.steps} steps"
        ]
        memory = shown.memory | {"peak": shown.peak} if shown else {}
        if shown and shown.host:
            memory |= {"in host memory": shown.host}
        lines += [f"  {part:<20}{size / GB:>9.3f} GB" for part, size in memory.items()]
        lines += self.calibration.lines() if self.calibration else []
        lines.append(
            f"\n{'machine':<18}{'GB':>5}{'fits':>6}{'tok/s':>10}{'hours':>9}{'kWh':>9}{'price':>13}"
        )
        for row in self.rows():
            fits = "yes" if row["fits"] else "no"
            lines.append(
                f"{row['card']:<18}{row['memory_gb']:>5.0f}{fits:>6}{row['tokens_per_s']:>10,.0f}"
                f"{row['hours']:>9.3f}{row['kwh']:>9.3f}{money(row['usd']):>13}"
                + (f"  fits with {row['advice']}" if row["advice"] else "")
            )
        lines += self.rank_lines()
        measured = f"{HERE!r} is measured" if self.calibration else "--probe measures this machine"
        lines.append(
            f"\nfrom shapes alone, prices of {self.prices_as_of}; completions of "
            f"{self.mean_tokens:.0f} tokens are assumed ({self.mean_tokens_from}), prompts of "
            f"{self.load.prompt:.0f} ({self.load.sizes.prompts_from}), {self.tests()}; "
            f"{ASSUMED}; {measured}"
        )
        return lines

    def rank_lines(self) -> list[str]:
        """How many ranks the rows are planned with, where that is more than one; by row where this
        machine takes another number than the CPUs of the table."""
        cpus = {name: self.ranks[name] for name, card in self.cards.items() if card.cpu}
        if max(cpus.values(), default=1) == 1:
            return []
        numbers = [f"{ranks} on {name}" for name, ranks in cpus.items()]
        same = len({*cpus.values()}) == 1
        who = f"on CPUs {cpus.popitem()[1]} ranks" if same else f"ranks ({', '.join(numbers)})"
        return [f"\n{who} share the work, as `aha train` chooses; GB: that of one"]


def plan_table(
    load: Workload,
    calibration: Calibration | None,
    mean_tokens: float | None,
    as_of: str,
    cards: dict[str, Card],
) -> PlanTable:
    """The plans on all `cards`, and on this machine if there is a calibration."""
    cfg = load.cfg
    if calibration:
        cards = {HERE: calibration.card(cfg.usd_per_hour, cfg.watts)} | cards
    base = calibration.base_tokens_of(cfg) if calibration else 0.0
    mean, source = (mean_tokens, "--mean-tokens") if mean_tokens else expected_tokens(cfg, base)
    cores = dict.fromkeys(cards, CPU_THREADS)
    if calibration:
        cores[HERE] = min(calibration.threads, usable_cores())
    ranks = {name: ranks_of_cpu(load, card, cores[name]) for name, card in cards.items()}
    plans = {
        name: planned_on(load, card, mean, Cluster(ranks[name])) for name, card in cards.items()
    }
    return PlanTable(load, as_of, cards, plans, ranks, calibration, mean, source)
