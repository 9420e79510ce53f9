"""A whole run of fine-tuning: its folder, its trainer, its clock. The folder is that of a run of
RL, so that whatever reads, exports, tests or goes on with one takes the other."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import aha
from aha.core.errors import ConfigError, RunError
from aha.core.findings import Finding
from aha.machine.device import PeakMemory
from aha.model.folders import resolve_model
from aha.model.parents import Parent, chain_of, cost_of_chain
from aha.model.weights import LoadedModel, load_policy
from aha.plan.machines import Budget, Cost
from aha.sft.data_cost import cost_of_data
from aha.sft.examples import ExampleSet, load_examples
from aha.sft.fine_tuner import FineTuner, num_steps
from aha.sft.pair_rows import EXPECTED as PAIR_COLUMNS
from aha.sft.pair_rows import encoded_pair
from aha.sft.preference_tuner import PreferenceTuner
from aha.sft.tuning_config import TuningConfig, default_lr, tuning_config
from aha.sft.tuning_plan import compared_with_plan, refuse_hopeless, tuning_prediction
from aha.store.checkpoint import SavedState
from aha.store.checksums import write_checksums
from aha.store.durable import disk_errors, replace_folder
from aha.store.run_folder import (
    Run,
    append,
    check_new,
    read_rows,
    resume_command,
    version_of,
)
from aha.training import resume
from aha.training.builders import open_policy, price_of_run
from aha.training.fingerprints import BASE_FILES, Fingerprints, digests_by_name
from aha.training.fingerprints import NAME as FINGERPRINTS
from aha.training.loop import Interrupt, drive
from aha.training.next_tokens import NextTokenReport
from aha.training.outcome import Outcome
from aha.training.preflight import with_machine_price
from aha.training.preparation import seconds_of_budget
from aha.training.save_on_error import save_on_error
from aha.training.watchers import Checkpoint, Stopwatch, save_trained

Say = Callable[[str], None]
OnRow = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class OpenedRun:
    """What a run is made of; the config has all that follows from model, data and machine."""

    cfg: TuningConfig
    model: LoadedModel
    examples: ExampleSet
    base: Path | None  # None: it has gone, and a checkpoint has all weights


def open_run_parts(
    cfg: TuningConfig, base: Path | None, checkpoint: Path | None = None
) -> OpenedRun:
    """The model on its device, the examples in its tokens, and the config with the number of
    steps, the learning rate and the price. Raises ConfigError, DataError and ModelError for what
    cannot be used."""
    model = open_policy(cfg.recipe, base or checkpoint)
    positions = model.policy.config.max_position_embeddings
    limit = min(positions, cfg.max_tokens or positions)
    pairs = (encoded_pair, PAIR_COLUMNS) if cfg.preference else ()
    examples = load_examples(Path(cfg.data), model.tokenizer, limit, cfg.bad_rows, *pairs)
    recipe = with_machine_price(cfg.recipe, model.policy.device)
    optim = cfg.optim
    if "lr" not in optim.model_fields_set:
        size, pairs_alone = model.policy.num_parameters(), cfg.preference is not None
        lr = default_lr(size, cfg.model.lora_rank, pairs_alone)
        optim = optim.model_copy(update={"lr": lr})
    follows = {
        "data": str(Path(cfg.data).absolute()),
        "steps": num_steps(len(examples.examples), cfg),
        "usd_per_hour": recipe.usd_per_hour,
        "watts": recipe.watts,
        "optim": optim,
    }
    return OpenedRun(cfg.model_copy(update=follows), model, examples, base)


def fingerprints_of_tuning(
    cfg: TuningConfig, base: Path | None, before: dict[str, Any]
) -> Fingerprints:
    """What the run depends on, as `aha.training.fingerprints` keeps it for RL."""
    files = [path for form in BASE_FILES for path in base.glob(form)] if base else []
    chain = chain_with_data(base, Path(cfg.data)) if base else before.get("parents", [])
    return {
        "recipe": cfg.model_dump(mode="json"),
        "base": digests_by_name(sorted(files)) if base else before.get("base", {}),
        "base_cost": cost_of_chain(chain) if base else before.get("base_cost", {}),
        "parents": chain,
        "data": digests_by_name([Path(cfg.data)]),
        "task": {},
        "versions": {"aha": aha.__version__, "torch": version_of("torch") or "unknown"},
        "ranks": 1,
    }


def chain_with_data(base: Path, data: Path) -> list[Parent]:
    """The models that the run descends from, after what its examples have cost; examples that the
    base has learnt already are paid for."""
    chain = chain_of(base)
    return [*(one for one in cost_of_data(data) if one not in chain), *chain]


class TuningRecord:
    """Writes a row of metrics.jsonl for every update, and hands it to `on_row`."""

    def __init__(
        self, run: Run, trainer: FineTuner, elapsed: Stopwatch, memory: PeakMemory, on_row: OnRow
    ):
        self.run, self.trainer, self.elapsed, self.on_row = run, trainer, elapsed, on_row
        self.memory, self.last_step = memory, trainer.version

    def __call__(self, report: NextTokenReport) -> None:
        trainer = self.trainer
        examples = trainer.examples_of(report.step - 1)
        tokens = sum(len(example.completion) for example in examples)
        completions = sum(len(example.rows) for example in examples)  # a pair has two
        row = {
            "step": report.step,
            "elapsed_s": round(self.elapsed(), 3),
            "epoch": trainer.epochs_after(report.step),
            "loss": float(report.loss),
            "grad_norm": float(report.grad_norm),
            "lr": report.lr,
            "tokens": tokens,
            "mean_tokens": tokens / completions,
            "tokens_per_s": tokens / max(trainer.seconds, 1e-9),
            "train_s": round(trainer.seconds, 4),
            **trainer.numbers(),
            **trainer.micro_batch.numbers(),
            **self.memory.numbers(),
        }
        append(self.run.metrics, [row])
        self.last_step = report.step
        self.on_row(row)


class FineTuning:
    """One run: `start` a new one or `resume` a stopped one, then `run_all`, which closes it.

    `again`: what goes on with it where it is stopped.
    """

    def __init__(self, run: Run, opened: OpenedRun, fingerprints: Fingerprints, budget: str | None):
        self.run, self.cfg, self.base = run, opened.cfg, opened.base
        self.examples, self.fingerprints = opened.examples, fingerprints
        self.budget_s = seconds_of_budget(budget, self.cfg.recipe)
        model = opened.model
        trainer: type[FineTuner] = PreferenceTuner if self.cfg.preference else FineTuner
        examples: Any = opened.examples.examples
        self.trainer = trainer(model.policy, model.tokenizer, examples, opened.cfg)
        self.memory = PeakMemory(model.policy.device)
        self.elapsed_before, self.saved_step = 0.0, -1
        self.stopped_by: int | None = None  # the number of a signal
        self.again = resume_command(run.path)

    @classmethod
    def start(cls, cfg: TuningConfig, path: Path, say: Say, budget: str | None) -> "FineTuning":
        """A new run in the new folder `path`. What is refused leaves no folder behind."""
        check_new(path)
        base = resolve_model(cfg.model.path)
        opened = open_run_parts(cfg, base)
        refuse_hopeless(opened.cfg, opened.model, opened.examples, say)
        fingerprints = fingerprints_of_tuning(opened.cfg, base, {})
        tuning = cls(Run(path), opened, fingerprints, budget)
        records: dict[str, Any] = {FINGERPRINTS: fingerprints}
        if prediction := tuning_prediction(opened.cfg, opened.model, opened.examples):
            records["prediction.json"] = prediction
        Run.create(path, opened.cfg.model_dump(mode="json"), records)
        with tuning.run.taken(say):
            for finding in [*opened.model.findings, *opened.examples.notes]:
                tuning.tell(finding, say)
        return tuning

    @classmethod
    def resume(cls, path: Path, say: Say, accept: bool, budget: str | None) -> "FineTuning":
        """Go on from the newest whole checkpoint; on a CPU bit-equal to a run never stopped.

        Raises `RunError` while another process has the run, and where base, data or version are
        not what it began with, unless `accept`.
        """
        run = Run.open(path)
        run.refuse_links_out()
        with run.taken(say):
            resume.mend_folder(run, say)
            before = resume.stored_fingerprints(run, say)
            cfg = stored_config(run, before, say)
            base = resume.base_of(cfg.recipe, say)
            saved = resume.saved_state(run, say)
            if base is None and saved is None:
                resolve_model(cfg.model.path)  # says what is missing
            if not Path(cfg.data).is_file():
                raise RunError(
                    f"{cfg.data} has gone", "the examples that the run began with", "put it back"
                )
            opened = open_run_parts(cfg, base, saved.path if saved else None)
            fingerprints = fingerprints_of_tuning(opened.cfg, base, before)
            changed = resume.accepted_changes(run, before, fingerprints, accept, say)
            tuning = cls(run, opened, fingerprints, budget)
            if saved:
                tuning.load(saved)
            resume.cut_back(run, tuning.trainer.version, say)
            run.write("config.json", fingerprints["recipe"])
            run.write(FINGERPRINTS, fingerprints)
            for finding in resume.findings_of(saved, changed):
                tuning.tell(finding, say)
            if not tuning.trainer.done:
                resume.set_result_aside(run, tuning.trainer.version)
            return tuning

    def load(self, saved: SavedState) -> None:
        """The state of a checkpoint."""
        state, trainer = saved.state, self.trainer
        load_policy(trainer.policy, saved.path)
        self.elapsed_before = state.pop("elapsed_s")
        self.memory.before = state.pop("peak_bytes")
        trainer.load_state_dict(state)
        self.saved_step = trainer.version

    def tell(self, finding: Finding, say: Say) -> None:
        """Into findings.jsonl, and to the user."""
        self.run.tell(self.trainer.version, finding)
        say(f"{finding.level}: {finding.message}")

    def run_all(self, say: Say, on_row: OnRow) -> Outcome:
        """All updates that are left. Without a summary the run was stopped before its end; then a
        checkpoint is there to go on from. A finished run keeps its summary, with what the tests of
        `aha distill` and `aha prefer` have written into it."""
        run = self.run
        try:
            # That of a run with updates left has been set aside by `resume`.
            summary = run.read_or_none("summary.json")
            if summary is not None:
                say(f"{run.path} is done: nothing is left to train")
            elif reason := self.train(say, on_row):
                say(f"{reason}; go on with: {self.again}")
                return Outcome(run, None, None, None, stopped_by=self.stopped_by)
            if summary is None or not run.model.exists():
                self.save_model()
            if summary is None:
                summary = self.summary()
                run.write("summary.json", summary)
            return Outcome(run, summary, None, None, list(read_rows(run.metrics)))
        finally:
            self.run.release()

    def train(self, say: Say, on_row: OnRow) -> str:
        """The updates; returns why they ended early, or nothing."""
        trainer, elapsed = self.trainer, Stopwatch(self.elapsed_before)
        # What saves a step is typed for RL; this trainer has all that it reads of one.
        record: Any = TuningRecord(self.run, trainer, elapsed, self.memory, on_row)
        shared = (self.run, elapsed, self.base, self.memory, self.saved_step)
        checkpoint: Any = Checkpoint(cast(Any, trainer), *shared)
        budget, own = Budget(self.budget_s), Stopwatch()
        with Interrupt() as interrupted:
            try:
                drive(
                    trainer.steps(),
                    [record, checkpoint],
                    lambda: interrupted() or (budget.spent_by(own()) and not trainer.done),
                )
            except BaseException as error:
                words = save_on_error(error, self.run, record, checkpoint)
                with suppress(Exception):  # the error may be that nothing can be written
                    say(f"{words}; go on with: {self.again}")
                raise
            checkpoint.save()
            if trainer.done:
                return ""
            self.stopped_by = interrupted.signal
            return "stopped" if interrupted() else "the budget is spent"

    def save_model(self) -> None:
        """Write the trained model; an older one stands until the new one is whole."""

        def write(folder: Path) -> None:
            save_trained(cast(Any, self.trainer), self.base, folder)
            write_checksums(folder)

        with disk_errors(f"write {self.run.model}"):
            replace_folder(self.run.model, write)

    def summary(self) -> dict[str, Any]:
        """The content of summary.json; a test of the model is `aha eval`'s."""
        rows = list(read_rows(self.run.metrics))
        seconds = rows[-1]["elapsed_s"] if rows else 0.0
        own, base = Cost.of(seconds, *price_of_run(self.cfg.recipe)), self.fingerprints["base_cost"]
        environment = self.run.read_or_none("environment.json") or {}  # {}: damaged since
        measured: dict[str, float] = {"seconds": seconds, "cost_usd": own.usd}
        if peak := self.memory.bytes():
            measured["peak_bytes"] = peak
        return {
            "before": None,
            "after": None,
            "steps": self.trainer.version,
            "seconds": seconds,
            "time_to_aha_s": None,
            "loss": rows[-1]["loss"] if rows else None,
            "examples": len(self.examples.examples),
            "tokens_read": self.trainer.tokens_seen,
            "cost_usd": own.usd,
            "kwh": own.kwh,
            "wall_s": seconds,
            "base_cost_usd": base.get("cost_usd"),
            "base_kwh": base.get("kwh"),
            "seed": self.cfg.seed,
            "commit": environment.get("commit"),
            "plan": compared_with_plan(self.run.read_or_none("prediction.json"), measured),
        }


def stored_config(run: Run, before: dict[str, Any], say: Say) -> TuningConfig:
    """The run's config, from its fingerprints where the file is damaged."""
    path = run.path / "config.json"
    raw = run.read_or_none("config.json")
    if raw is None:
        raw = before.get("recipe") or run.read("config.json")
        say(f"{path} was damaged: it is written again from {FINGERPRINTS}")
    try:
        return tuning_config(raw)
    except ConfigError as error:
        raise RunError(f"{path}: {error.got}", error.wanted, error.fix) from None
