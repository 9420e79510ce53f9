"""A run from the command line: start or resume it, show it while it lasts, and end with its code.

Needs torch: a command imports this module inside its function.
"""

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from rich.markup import escape

from aha.algo.recipe import check_recipe
from aha.api.logged_run import attach_loggers
from aha.cli.exit_codes import BUDGET_SPENT
from aha.cli.json_events import JsonEvents, end_at_a_fault
from aha.cli.own_command import as_typed_here, own_command
from aha.cli.plan import calibration_of
from aha.cli.report_card import print_outcome
from aha.cli.run_view import RunView
from aha.cli.terminal_text import console, say, say_json, say_line
from aha.core.config import RunConfig
from aha.core.errors import AhaError, ModelError
from aha.machine.device import num_gpus
from aha.model.folders import PlannedModel, local_model_folder, looks_like_hub_name, resolve_model
from aha.plan.calibration import Calibration
from aha.plan.prediction import lines_before
from aha.plan.shapes import shape_of
from aha.store.run_folder import check_new, resume_command
from aha.training.builders import task_of
from aha.training.experiment import Experiment
from aha.training.joint_work import check_setting, refuse_shards_of_one
from aha.training.outcome import Listener, Outcome
from aha.training.preparation import predicted_lines
from aha.training.rank_choice import ranks_for
from aha.training.recipe_fit import refuse_misfits

LOG = "run.log"  # in the run folder: what the terminal showed


@dataclass(frozen=True)
class RunOptions:
    """Options of a command that starts a run; none of them changes what is learnt.

    `dash` None: serve the dashboard only if the output is a terminal. `probe`, `calibration`: see
    `aha plan --probe`. `ranks` None: as many as suit the recipe and this machine (`ranks_for`), or
    at a resume as many as the run had.
    `loggers`: names of loggers that get a copy of the run. `as_json`: events as JSON lines in
    place of text. `anyway`: a recipe that does not suit its model is no reason to stop. `shard`
    None: "auto", or at a resume what the run had.
    """

    budget: str | None = None
    dash: bool | None = None
    dry_run: bool = False
    probe: bool = False
    calibration: Path | None = None
    ranks: int | None = None
    loggers: Sequence[str] = ()
    as_json: bool = False
    anyway: bool = False
    shard: str | None = None


def start_run(cfg: RunConfig, path: Path, options: RunOptions) -> None:
    """A new run in the folder `path`; with `dry_run` only its config and plan are printed."""
    options = replace(options, ranks=options.ranks or ranks_for(cfg))
    refuse_shards_of_one(options.shard, options.ranks or 1)
    check_setting(options.ranks or 1, cfg, options.shard or "auto")
    if options.dry_run:
        refuse_as_a_run(cfg, path, options)
        print_dry_run(cfg, options.budget, options.ranks or 1)
        return
    with end_at_a_fault(path) if options.as_json else nullcontext():
        check_new(path)  # before the machine is measured
        calibration = None
        if options.probe or options.calibration:
            shape = shape_of(PlannedModel.of(resolve_model(cfg.model.path)).shaped)
            calibration = calibration_of(cfg, shape, options.probe, options.calibration)
        run_to_report_card(cfg, path, options, calibration)


def refuse_as_a_run(cfg: RunConfig, path: Path, options: RunOptions) -> None:
    """Raise whatever a run of this recipe would be refused with. A model on the hub that is not on
    this disk is not downloaded for that, and it is said what could not be looked at."""
    if looks_like_hub_name(cfg.model.path) and local_model_folder(cfg.model.path) is None:
        check_new(path)
        check_recipe(cfg)
        task_of(cfg)
        text = f"aha: {cfg.model.path} is not on this disk: its prompts and memory are not checked"
        say_line(text, sys.stderr)
        return
    note = Listener(say=partial(say_line, file=sys.stderr))
    kind = (options.budget, options.ranks or 1, options.shard or "auto")
    _, made = Experiment.prepare(cfg, path, note, None, *kind)
    if not options.anyway:
        refuse_misfits(made.misfits)


def print_dry_run(cfg: RunConfig, budget: str | None, ranks: int) -> None:
    """The config on the output stream, the plan on the error stream, so that each can be piped."""
    say_json(cfg.model_dump(mode="json"), indent=2)
    try:
        say("\n".join(predicted_lines(cfg, budget, ranks)), file=sys.stderr)
    except ModelError as error:
        say_line(f"no plan: {error}", sys.stderr)


def run_to_report_card(
    cfg: RunConfig, path: Path, options: RunOptions, calibration: Calibration | None
) -> None:
    """Carry out a new run and print it, from the first line to the report card."""
    view = JsonEvents(cfg) if options.as_json else RunView(cfg)
    ranks, shard = options.ranks or 1, options.shard or "auto"
    shared = (calibration, options.budget, ranks, shard)
    experiment, made = Experiment.prepare(cfg, path, view.listener(), *shared)
    if not options.anyway:
        refuse_misfits(made.misfits)
    experiment.begin(made)
    view.cfg = cfg = experiment.cfg
    planned = []
    if (path / "prediction.json").is_file():
        planned = lines_before(experiment.run.read("prediction.json"), experiment.budget_s)
    parameters = experiment.trainer.policy.num_parameters()
    first = (
        f"[bold]aha[/bold]  {escape(cfg.model.path)} with {parameters / 1e6:.2f} M "
        f"parameters, seed {cfg.seed}; all files are in {escape(str(path))}"
    )
    if isinstance(view, JsonEvents):
        view.begin(path, parameters, planned)
    carry_out(experiment, view, options, [first, *map(escape, planned)])


def resume_run(path: Path, options: RunOptions, changes: dict[str, Any], accept: bool) -> None:
    """Go on with the run in `path` from its newest whole checkpoint.

    `changes`: keys of the recipe with new values, for more steps or tokens; with `accept` any.
    """
    with end_at_a_fault(path) if options.as_json else nullcontext():
        view = JsonEvents(RunConfig()) if options.as_json else RunView(RunConfig())
        shared = (changes, accept, options.budget, options.ranks, options.shard)
        experiment = Experiment.resume(path, view.listener(), *shared)
        view.cfg = experiment.cfg
        text = f"{path} resumes after step {experiment.trainer.version}"
        if isinstance(view, JsonEvents):
            view.begin(path, experiment.trainer.policy.num_parameters(), [text])
        else:
            view.go_on(experiment.run)
        carry_out(experiment, view, options, [f"[bold]aha[/bold]  {escape(text)}"])


def carry_out(
    experiment: Experiment, view: RunView | JsonEvents, options: RunOptions, first: Sequence[str]
) -> None:
    """Everything from the first line on. Ends the program with the run's exit code, if that is
    not 0: see `exit_code`."""
    path = experiment.run.path
    with console.kept_in(path / LOG), silent(isinstance(view, JsonEvents)):
        console.print(f"[dim]{datetime.now().isoformat(' ', 'seconds')}[/dim]")
        for line in first:
            console.print(line, soft_wrap=True)
        if experiment.ranks.size > 1:
            console.print(f"{experiment.ranks.size} ranks share the work")
        elif experiment.trainer.device.type == "cuda" and (gpus := num_gpus()) > 1:
            hint = f"1 of {gpus} GPUs computes; --ranks {gpus} is for all of them (docs/scale.md)"
            console.print(hint, soft_wrap=True)
        if experiment.in_shards:
            console.print("the models are in shards: each rank has its part of them")
        try:
            attach_loggers(experiment, options.loggers)
            with dashboard(path, options.dash):
                outcome = experiment.run_all()
        except KeyboardInterrupt:
            view.close()
            say_line(as_typed_here(f"aha: go on with: {resume_command(path)}"), sys.stderr)
            raise
        finally:
            view.close()
        print_outcome(outcome, experiment.cfg)
    code = exit_code(outcome)
    if isinstance(view, JsonEvents):
        view.end(outcome, code)
    if code:
        sys.exit(code)


def exit_code(outcome: Outcome) -> int:
    """0 for a run that is done; after a signal 128 plus its number, as a shell has it (130 after
    Ctrl-C, 143 after SIGTERM); 3 where the budget is spent."""
    if outcome.summary is not None:
        return 0
    if outcome.stopped_by is None:
        return BUDGET_SPENT
    return 128 + signal.Signals(outcome.stopped_by)


@contextmanager
def silent(quiet: bool) -> Iterator[None]:
    """Print no text meanwhile; what is printed is still kept in the log."""
    console.quiet = quiet
    try:
        yield
    finally:
        console.quiet = False


@contextmanager
def dashboard(path: Path, serve: bool | None) -> Iterator[None]:
    """Serve the dashboard during the run, or print the command that does.

    `serve` None: serve it if the output is a terminal. If the dashboard fails, the run goes on.
    """
    if serve is False or not (serve or console.is_terminal):
        hint = f"watch it in a browser: run `{own_command()} dash` in another terminal"
        console.print(escape(hint), soft_wrap=True)
        yield
        return
    from aha.web.server import BackgroundDashboard

    try:
        server = BackgroundDashboard(path)
    except (AhaError, OSError) as error:
        console.print(f"[yellow]no dashboard: {escape(str(error))}[/yellow]", soft_wrap=True)
        yield
        return
    with server:
        after = f"`{own_command()} dash` after it"
        hint = f"watch it in a browser: {server.url} during the run, {after}"
        console.print(escape(hint), soft_wrap=True)
        yield
