"""Start or resume a run in the terminal: shared by `aha train` and `aha demo`."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from aha.cli.plan import calibration_of
from aha.core.config import RunConfig
from aha.core.errors import AhaError, ModelError
from aha.plan.calibration import Calibration
from aha.plan.shapes import shape_of


@dataclass(frozen=True)
class RunOptions:
    """How a run is carried out; nothing of it changes what is learnt. `dash` None: only in a
    terminal; `calibration`: see `aha plan --probe`."""

    budget: str | None = None
    dash: bool | None = None
    dry_run: bool = False
    probe: bool = False
    calibration: Path | None = None


def start_run(cfg: RunConfig, path: Path, options: RunOptions) -> None:
    """A new run in the folder `path`; with `dry_run` only its config and plan are printed."""
    if options.dry_run:
        print_dry_run(cfg, options.budget)
        return
    from aha.model.folders import resolve_model

    calibration = None
    if options.probe or options.calibration:
        shape = shape_of(str(resolve_model(cfg.model.path)))
        calibration = calibration_of(cfg, shape, options.probe, options.calibration)
    run_to_report_card(cfg, path, options, calibration)


def print_dry_run(cfg: RunConfig, budget: str | None) -> None:
    """The config on the output stream, the plan on the error stream, so that each can be piped."""
    from aha.measure.this_machine import predicted_lines
    from aha.train.experiment import task_of

    task_of(cfg)
    print(cfg.model_dump_json(indent=2))
    try:
        print(*predicted_lines(cfg, budget), sep="\n", file=sys.stderr)
    except ModelError as error:
        print(f"no plan: {error}", file=sys.stderr)


def run_to_report_card(
    cfg: RunConfig, path: Path, options: RunOptions, calibration: Calibration | None
) -> None:
    from rich.markup import escape

    from aha.cli.run_view import RunView, console, print_outcome
    from aha.plan.prediction import lines_before
    from aha.train.experiment import Experiment

    view = RunView(cfg)
    experiment = Experiment.start(cfg, path, view.listener(), calibration, options.budget)
    view.cfg = cfg = experiment.cfg
    model = experiment.trainer.policy
    console.print(
        f"[bold]aha[/bold]  {escape(cfg.model.path)} with {model.num_parameters() / 1e6:.2f} M "
        f"parameters, seed {cfg.seed}; everything goes to {escape(str(path))}"
    )
    if (path / "prediction.json").is_file():
        for line in lines_before(experiment.run.read("prediction.json"), experiment.budget_s):
            console.print(escape(line), soft_wrap=True)
    with dashboard(path, options.dash):
        print_outcome(experiment.run_all(), cfg)


def resume_run(path: Path, budget: str | None, dash: bool | None) -> None:
    """Go on with the run in `path` from its last checkpoint."""
    from rich.markup import escape

    from aha.cli.run_view import RunView, console, print_outcome
    from aha.plan.cost import budget_seconds
    from aha.train.experiment import Experiment

    view = RunView(RunConfig())
    experiment = Experiment.resume(path, view.listener())
    view.cfg = experiment.cfg
    if budget:
        experiment.budget_s = budget_seconds(budget, experiment.cfg.usd_per_hour)
    step = experiment.trainer.version
    console.print(f"[bold]aha[/bold]  {escape(str(path))} goes on after step {step}")
    with dashboard(path, dash):
        print_outcome(experiment.run_all(), experiment.cfg)


@contextmanager
def dashboard(path: Path, serve: bool | None) -> Iterator[None]:
    """Print how to watch the run in a browser; serve the dashboard meanwhile if `serve`, or where
    it is None in a terminal. A run whose dashboard fails is still a run."""
    from rich.markup import escape

    from aha.cli.run_view import console

    if serve is False or not (serve or console.is_terminal):
        hint = "watch it in a browser: run `aha dash` in another terminal"
        console.print(hint, soft_wrap=True)
        yield
        return
    from aha.web.background import BackgroundDashboard

    try:
        server = BackgroundDashboard(path)
    except (AhaError, OSError) as error:
        console.print(f"[yellow]no dashboard: {escape(str(error))}[/yellow]", soft_wrap=True)
        yield
        return
    with server:
        hint = f"watch it in a browser: {server.url} while this lasts, with `aha dash` later"
        console.print(escape(hint), soft_wrap=True)
        yield
