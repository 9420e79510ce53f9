"""`aha demo`, `aha train`, `aha pretrain`, `aha config show`."""

from pathlib import Path
from typing import Literal

from aha.cli.app import Amount, Count, Natural, Overrides, app, config_app
from aha.cli.recipes import find_recipe, free_name, packaged_recipes, parse_overrides
from aha.core.errors import ConfigError


@app.command
def demo(
    *overrides: Overrides,
    seed: int = 0,
    name: str | None = None,
    dash: bool | None = None,
    dry_run: bool = False,
    probe: bool = False,
    calibration: Path | None = None,
) -> None:
    """Watch aha-tiny teach itself Countdown: evaluate, train, evaluate again, report card.

    Takes minutes on two CPU cores and no network. `--key value` overrides the recipe.

    Parameters
    ----------
    dash
        serve the dashboard while it runs; in a terminal it does, unless `--no-dash` says not to.
    probe
        measure this machine before, half a minute at most, for the prediction the run is held to.
    calibration
        such a measurement that was kept: `aha plan demo --probe --calibration FILE`.
    """
    path = Path("runs") / (name or free_name("demo"))
    overrides = ("--seed", str(seed), *overrides)
    speeds = (probe, calibration)
    start_run(find_recipe("demo"), path, overrides, dry_run, dash=dash, speeds=speeds)


@app.command
def train(
    recipe: str | None = None,
    *overrides: Overrides,
    name: str | None = None,
    resume: Path | None = None,
    budget: str | None = None,
    dash: bool | None = None,
    dry_run: bool = False,
    probe: bool = False,
    calibration: Path | None = None,
) -> None:
    """Train with a recipe (a packaged name or a TOML file); `--section.key value` overrides it.

    Parameters
    ----------
    recipe
        packaged recipe (demo, laptop-3to4, ...) or path of a TOML file.
    name
        name of the run folder below runs/; the recipe's name with a number by default.
    resume
        run folder to go on with, from its last checkpoint.
    budget
        "2h", "30min" or "5usd": stop before more is spent, with a checkpoint to go on from.
    dash
        serve the dashboard while it runs, at a lower priority and for this machine alone; in a
        terminal it does, unless `--no-dash` says not to.
    dry_run
        print the resolved config, and the plan on the error stream, and leave.
    probe
        measure this machine before, half a minute at most, for the prediction the run is held to.
    calibration
        such a measurement that was kept: `aha plan RECIPE --probe --calibration FILE`.
    """
    if resume is not None:
        if recipe or overrides or probe or calibration:
            raise ConfigError("--resume with a recipe or overrides", "the run as it was configured")
        from aha.cli.live import resume_run

        resume_run(resume, budget, dash)
        return
    if recipe is None:
        raise ConfigError("no recipe", f"one of {', '.join(packaged_recipes())}, or a TOML file")
    found = find_recipe(recipe)
    path = Path("runs") / (name or free_name(found.stem))
    start_run(found, path, overrides, dry_run, budget, dash, (probe, calibration))


def start_run(
    recipe: Path,
    path: Path,
    overrides: tuple[str, ...],
    dry_run: bool,
    budget: str | None = None,
    dash: bool | None = None,
    speeds: tuple[bool, Path | None] = (False, None),
) -> None:
    from aha.algo.recipe import load_recipe

    cfg = load_recipe(recipe, parse_overrides(overrides))
    if dry_run:
        from aha.cli.planning import tell_plan
        from aha.train.experiment import task_of

        task_of(cfg)
        print(cfg.model_dump_json(indent=2))
        tell_plan(cfg, budget)
        return
    from aha.cli.live import start
    from aha.cli.planning import calibration_for
    from aha.model.folders import resolve_model
    from aha.plan.shapes import shape_of

    found = None
    if any(speeds):
        found = calibration_for(cfg, shape_of(str(resolve_model(cfg.model.path))), *speeds)
    start(cfg, path, budget, dash, found)


@app.command
def pretrain(
    out: Path | None = None,
    *,
    shape: str = "tiny",
    tokens: Count | None = None,
    seed: int = 0,
    layers: int | None = None,
    hidden: int | None = None,
    mlp: int | None = None,
    batch_tokens: Count | None = None,
    shard_documents: Count | None = None,
    mix: str = "",
    lr: Amount | None = None,
    start: Path | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    writers: Natural | None = None,
    usd_per_hour: Amount | None = None,
    watts: Amount | None = None,
    dry_run: bool = False,
) -> None:
    """Pre-train a base from nothing on the project's own traces; resumes where it stopped.

    Parameters
    ----------
    out
        folder of the model and its state; runs/pretrain, or runs/base-SHAPE for the others.
    shape
        "tiny" (aha-tiny's, for two CPU cores), "10m" (for a GPU) or "multiply" (aha-tiny, going
        on with products), with its corpus and rates; a flag changes one of them.
    batch_tokens
        tokens of an update, padding counted.
    shard_documents
        documents that are written, sorted by length and shuffled together.
    mix
        rates of the corpus to change, as in "backtrack=0,search=0.2".
    lr
        Muon's learning rate, of the matrices.
    start
        model whose weights it starts from, in place of random ones.
    device
        auto: a CUDA GPU where there is one.
    writers
        processes that write documents ahead; on a CPU none, beside a GPU one a spare core, up to 8.
    usd_per_hour
        of the machine; by default as two cloud cores, or as the GPU in cards.toml; `watts` too.
    dry_run
        print the settings and what they take on a table of machines, and leave.
    """
    from aha.pretrain.settings import make_order, print_base_plan

    sizes = {"hidden_size": hidden, "intermediate_size": mlp, "num_hidden_layers": layers}
    changes = {"tokens": tokens, "seed": seed, "lr": lr}
    changes |= {"batch_tokens": batch_tokens, "shard_documents": shard_documents}
    order = make_order(shape, out, sizes, changes, mix, start)
    if dry_run:
        print_base_plan(order, writers, usd_per_hour, watts)
        return
    from aha.pretrain.make_base import Machine, pretrain_base

    pretrain_base(order, Machine.of(device, writers, usd_per_hour, watts))


@config_app.command
def show(recipe: str | None = None, *overrides: Overrides) -> None:
    """Print every key with its value: the defaults, or a recipe with its overrides."""
    from aha.algo.recipe import load_recipe

    cfg = load_recipe(find_recipe(recipe) if recipe else None, parse_overrides(overrides))
    print(cfg.model_dump_json(indent=2))
