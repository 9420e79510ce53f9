"""`aha pretrain`: pre-trains a base model from random weights."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from aha.cli.parameters import (
    Amount,
    Count,
    DryRun,
    Natural,
    UsdPerHour,
    Watts,
    number_of_ranks,
    whole,
)
from aha.cli.terminal_text import say, say_json

if TYPE_CHECKING:
    from aha.pretrain.make_base import PretrainMachine
    from aha.pretrain.settings import PretrainJob

WeightSeed = Annotated[
    int, Parameter(converter=whole, help="Seed of the weights and of the documents.")
]
Layers = Annotated[int | None, Parameter(converter=whole, help="Layers of the model.")]
Hidden = Annotated[int | None, Parameter(converter=whole, help="Width of the model.")]
Device = Annotated[
    Literal["auto", "cpu", "cuda"], Parameter(help="auto: a CUDA GPU where there is one.")
]
Ranks = Annotated[
    str,
    Parameter(
        help="Number of processes that share the rows of each update, or auto: on a CPU one for "
        "each core, with one thread, where model and updates are of a size for it; else 1."
    ),
]
Mlp = Annotated[int | None, Parameter(converter=whole, help="Width inside the MLP.")]


def pretrain(
    out: Path | None = None,
    *,
    shape: str = "tiny",
    tokens: Count | None = None,
    seed: WeightSeed = 0,
    layers: Layers = None,
    hidden: Hidden = None,
    mlp: Mlp = None,
    batch_tokens: Count | None = None,
    shard_documents: Count | None = None,
    mix: str = "",
    lr: Amount | None = None,
    start: Path | None = None,
    device: Device = "auto",
    ranks: Ranks = "auto",
    writers: Natural | None = None,
    usd_per_hour: UsdPerHour = None,
    watts: Watts = None,
    dry_run: DryRun = False,
) -> None:
    """Pre-train a base model on the project's own corpus; the same command resumes it.

    Parameters
    ----------
    out
        Folder of the model and its state; without it, runs/pretrain or runs/base-SHAPE.
    shape
        tiny (aha-tiny, for two CPU cores), 10m (for a GPU), multiply (aha-tiny, trained further on
        products) or guesses (has read no search, for `aha study`). Each has its own corpus and
        settings, which the options below change.
    tokens
        Tokens of documents to read, padding not counted.
    batch_tokens
        Tokens of an update, padding counted.
    shard_documents
        Documents of a shard, which are sorted by length and shuffled together.
    mix
        Rates of the corpus to change, as in "backtrack=0,search=0.2".
    lr
        Learning rate of Muon, which trains the matrices.
    start
        Model whose weights it starts from, instead of random ones.
    writers
        Processes that write documents in advance; without it, 0 on a CPU, else up to 8.
    dry_run
        Print the settings, and their memory, time and cost on a table of machines, and exit.
    """
    from aha.pretrain.settings import make_job

    sizes = {"hidden_size": hidden, "intermediate_size": mlp, "num_hidden_layers": layers}
    changes = {"tokens": tokens, "seed": seed, "lr": lr}
    changes |= {"batch_tokens": batch_tokens, "shard_documents": shard_documents}
    job, number = make_job(shape, out, sizes, changes, mix, start), number_of_ranks(ranks)
    if dry_run:
        print_plan(job, writers, usd_per_hour, watts, number)
        return
    from aha.pretrain.make_base import PretrainMachine

    end(with_bar(job, PretrainMachine.of(device, writers, usd_per_hour, watts, number)))


def with_bar(job: "PretrainJob", machine: "PretrainMachine") -> int | None:
    """Train below a bar; returns as `pretrain_base` does."""
    from aha.cli.share_bar import share_bar
    from aha.pretrain.make_base import pretrain_base

    with share_bar() as bar:
        return pretrain_base(job, machine, say, bar)


def end(stopped_by: int | None) -> None:
    """Exit with 128 plus the number of the signal that has stopped a training; go on where none
    has."""
    if stopped_by is not None:
        sys.exit(128 + stopped_by)


def print_plan(
    job: "PretrainJob",
    writers: int | None,
    usd_per_hour: float | None,
    watts: float | None,
    ranks: int | None,
) -> None:
    """Print the settings as one object, then the memory by part and a line for each machine."""
    from aha.core.sizes import GB
    from aha.plan.machines import money
    from aha.plan.pretrain_estimate import WRITERS
    from aha.pretrain.settings import plans_on_table

    say_json(job.settings | {"parameters": job.shape.parameters}, indent=2)
    as_of, plans = plans_on_table(job, writers, usd_per_hour, watts, ranks)
    machine, (row, shown) = next(iter(plans.items()))
    say(
        f"\n{job.shape.parameters / 1e6:,.1f} M parameters, {job.cfg.tokens / 1e6:,.0f} M "
        f"tokens in {shown.updates:,.0f} updates; memory of {machine}, ranks: "
        f"{job.ranks_on(row, ranks)}"
    )
    for part, size in [*shown.memory.items(), ("peak", shown.peak)]:
        say(f"  {part:<20}{size / GB:>9.3f} GB")
    say(f"\n{'machine':<18}{'GB':>5}{'fits':>6}{'tok/s':>11}{'hours':>9}{'kWh':>9}{'price':>13}")
    for name, (card, plan) in plans.items():
        fits = "yes" if plan.fits(card) else "no"
        say(
            f"{name:<18}{card.memory:>5.0f}{fits:>6}{plan.tokens_per_s:>11,.0f}"
            f"{plan.cost.seconds / 3600:>9.3f}{plan.cost.kwh:>9.3f}{money(plan.cost.usd):>13}"
        )
    prices = "your price" if usd_per_hour is not None else f"prices of {as_of}"
    processes = WRITERS if writers is None else writers
    say(
        f"\nfrom shapes alone, times for one rank, {prices}; on a CPU each rank is a process, and "
        f"there are as many as a run takes on two cores, or --ranks N; with a GPU {processes} "
        "processes write documents (--writers); the GPU rows are not measured yet"
    )
