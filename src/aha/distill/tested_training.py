"""A fine-tuning with the same held-out test before and after it, whatever it learns from.

The run keeps both tests as a run of `aha train` does, so that reports, `aha compare` and the
dashboard show them.
"""

import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aha.core.errors import RunError, shown
from aha.core.findings import Finding
from aha.core.section import Section
from aha.distill.before_after import NAMES, Change, change_of, held_out_test, numbers_of
from aha.distill.stages import read_object
from aha.eval.suite import EvalSettings, readable_prompts
from aha.model.folders import resolve_model
from aha.model.weights import load_model
from aha.plan.machines import Cost
from aha.sft.tuning_config import TuningConfig, tuning_config
from aha.sft.tuning_run import FineTuning
from aha.store.durable import disk_errors, to_json, write_text
from aha.store.run_folder import Run, is_tuning, other_name
from aha.tasks.catalog import make_task
from aha.training.builders import price_of_run

# In the folder of the data: what is known of the model that a training has made.
OF_A_TRAINING = ("after.json", "after.jsonl", "change.json")
Row = dict[str, Any]
Say = Callable[[str], None]


def check_goes_on(path: Path, given: TuningConfig) -> bool:
    """Whether there is a run at this path that these settings go on with.

    Raises `RunError` for a run of another kind, for one that learns from another file (where the
    settings name one), and for a setting that was given and is not the run's: it goes on as it
    began.
    """
    config = Run(path).read_or_none("config.json")
    if config is None:
        return False
    if not is_tuning(config):
        raise RunError(f"{path} is a run of another kind", "a new name", other_name(path))
    data = config.get("data")
    if given.data and data != str(Path(given.data).absolute()):
        raise RunError(f"{path} exists, and learns from {data}", "a new name", other_name(path))
    changed = changed_setting(given, tuning_config(config))
    if changed is not None:
        name, before, now = changed
        raise RunError(
            f"{path} learns with {name} {shown(before)}, not {shown(now)}",
            "the same settings, to go on, or a new name",
            other_name(path),
        )
    return True


def changed_setting(given: Section, stored: Section) -> tuple[str, Any, Any] | None:
    """The first setting that was given and is stored with another value: its key, the stored value,
    the given one."""
    for name in sorted(given.model_fields_set - {"data"}):
        now, before = getattr(given, name), getattr(stored, name)
        if isinstance(now, Section) and isinstance(before, Section):
            if inner := changed_setting(now, before):
                return (f"{name}.{inner[0]}", *inner[1:])
        elif now is not None and now != before:
            return name, before, now
    return None


def open_training(cfg: TuningConfig, path: Path, say: Say, budget: str | None) -> FineTuning | None:
    """The run at this path: a new one, or the stopped one that goes on; None where it is done.

    Raises `RunError` where the run there learns from another file, or with other settings.
    """
    if not check_goes_on(path, cfg):
        tuning = FineTuning.start(cfg, path, say, budget)
    elif Run(path).read_or_none("summary.json") is not None:
        return None
    else:
        tuning = FineTuning.resume(path, say, False, budget)
    # `aha train --resume` would end with the training, without the test after it.
    tuning.again = f"the same command with {shlex.join(['--name', path.name])}"
    return tuning


class TrainingTests:
    """The tests of one training, in the folder of its data."""

    def __init__(
        self,
        folder: Path,
        run: Path,
        settings: EvalSettings,
        on_finding: Callable[[Finding], object] = bool,
    ):
        self.folder, self.run, self.settings = folder, Run(run), settings
        self.on_finding = on_finding

    def check(self, model: str) -> None:
        """Raises as the test of this model would, before anything is paid for."""
        if self.settings.n and not (self.folder / f"{NAMES[0]}.json").exists():
            task = make_task(self.settings.task, self.settings.task_settings)
            opened = load_model(resolve_model(model))
            readable_prompts(task, opened, self.settings, self.settings.n, bool)

    def before(self, model: str) -> Row | None:
        """The test of the model that is to learn; None where there is to be no test."""
        if not self.settings.n:
            return None
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.run.path.exists():
            self.set_aside()
        return held_out_test(self.folder, NAMES[0], model, self.settings, self.on_finding)

    def set_aside(self) -> None:
        """Give the test after an earlier training another name: its run is gone, and what trains
        now is another model."""
        with disk_errors(f"rename files in {self.folder}"):
            for name in OF_A_TRAINING:
                if (self.folder / name).exists():
                    (self.folder / name).replace(self.folder / f"earlier_{name}")

    def after(self) -> Change | None:
        """The test of the trained model, and what has changed; both go to the run as well."""
        if not self.settings.n:
            return None
        model = str(self.run.path)
        after = held_out_test(self.folder, NAMES[1], model, self.settings, self.on_finding)
        before = read_object(self.folder / f"{NAMES[0]}.json")
        assert before is not None, "`before` comes first"
        change = change_of(self.folder, before, after)
        write_text(self.folder / "change.json", to_json(change.as_row(), indent=2) + "\n")
        self.keep(change)
        return change

    def keep(self, change: Change) -> None:
        """Write both tests into the run, and their cost into its summary."""
        run = self.run
        with disk_errors(f"write {run.path}"):
            run.completions.mkdir(exist_ok=True)
            for name, row in zip(NAMES, (change.before, change.after), strict=True):
                shutil.copyfile(self.folder / f"{name}.jsonl", run.completions / f"{name}.jsonl")
                run.write(f"{name}.json", numbers_of(row))
        summary = run.read("summary.json")
        cfg = TuningConfig.model_validate(run.read("config.json"))
        cost = Cost.of(summary["seconds"] + change.seconds, *price_of_run(cfg.recipe))
        tests = {"before": numbers_of(change.before), "after": numbers_of(change.after)}
        prices = {"cost_usd": cost.usd, "kwh": cost.kwh, "wall_s": cost.seconds}
        run.write("summary.json", summary | tests | prices)
