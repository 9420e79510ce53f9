"""A whole run: evaluate, train, evaluate again on the same problems, and say what it cost."""

import signal
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import aha.training.draw_checks  # noqa: F401  adds its checks to `step_checks`
from aha.core.config import RunConfig
from aha.core.errors import RunStopped
from aha.core.findings import Finding, failure_of
from aha.core.records import Prompt, StepReport
from aha.core.seeds import seed_for
from aha.dist.local_ranks import LOST_RANK
from aha.eval.prompt_check import skipped_problems
from aha.eval.prompt_limits import PromptFault
from aha.eval.suite import EvalReport, held_out, write_completions
from aha.machine.device import PeakMemory
from aha.machine.host import process_bytes
from aha.model.folders import resolve_model
from aha.model.weights import LoadedModel, load_policy
from aha.plan.calibration import Calibration
from aha.plan.machines import Budget
from aha.rollout.engine import Sampling
from aha.store.checkpoint import SavedState
from aha.store.checksums import write_checksums
from aha.store.durable import disk_errors, replace_folder
from aha.store.run_folder import Run, read_rows, resume_command
from aha.tasks.catalog import notes_of
from aha.training import resume
from aha.training.builders import device_of, make_trainer, open_policy, prediction_of, task_of
from aha.training.fingerprints import NAME as FINGERPRINTS
from aha.training.fingerprints import Fingerprints, fingerprints_of
from aha.training.first_test import stored_test
from aha.training.joint_work import (
    begin_together,
    check_setting,
    end_together,
    evaluate_alone,
    evaluate_together,
    peak_together,
    ranks_of_run,
    reload_together,
    steps_together,
)
from aha.training.loop import Interrupt, drive
from aha.training.opponents_in_summary import opponents_in_summary
from aha.training.outcome import Listener, Outcome
from aha.training.preflight import needs_shards, readable_task, with_machine_price
from aha.training.preparation import PreparedRun, prepare_run, seconds_of_budget
from aha.training.recipe_fit import unsolved_test
from aha.training.run_cost import compare_with_prediction, cost_of
from aha.training.same_run import begin_run, keep_run
from aha.training.save_on_error import save_on_error
from aha.training.sharded_trainer import load_before_shards
from aha.training.step_watch import StepWatch
from aha.training.straggler_watch import StragglerWatch
from aha.training.watchers import (
    Checkpoint,
    Evaluate,
    Record,
    Show,
    Stopwatch,
    save_trained,
    summary_of,
)


class Experiment:
    """One run: its folder, its trainer, its clock. `start` a new one or `resume` a stopped one.

    It holds the lock of its folder until `close`; `run_all` closes it.
    """

    def __init__(
        self,
        cfg: RunConfig,
        run: Run,
        model: LoadedModel,
        listener: Listener,
        fingerprints: Fingerprints,
        base: Path | None,
        budget_s: float,
    ):
        self.cfg, self.run, self.listener = cfg, run, listener
        self.in_shards, self.stop_reason = model.for_shards, ""
        device, limit_s = device_of(cfg, model), cfg.task.grade_seconds
        self.ranks = ranks_of_run(fingerprints["ranks"], device, run.path, limit_s)
        self.fingerprints, self.base = fingerprints, base  # base None: it has gone
        self.task, self.row_findings = readable_task(cfg, task_of(cfg), model, self.tell_skipped)
        self.trainer = make_trainer(cfg, model, self.task, self.ranks.world)
        self.elapsed_before = 0.0
        self.checkpoint: Path | None = None  # that this process began from
        self.saved_step = -1  # its step
        self.stopped_by: int | None = None  # the number of a signal
        self.budget_s = budget_s  # of training and the test before it
        self.memory = PeakMemory(device)

    @classmethod
    def start(
        cls,
        cfg: RunConfig,
        path: Path,
        listener: Listener,
        calibration: Calibration | None = None,
        budget: str | None = None,
        ranks: int = 1,
        shard: str = "auto",
    ) -> "Experiment":
        """A new run in the new folder `path`.

        `calibration`: this machine as measured, for the prediction that the run is compared with at
        its end; without one the table of machines is used. `budget`: see `budget_seconds`. `ranks`:
        how many processes share the work; those besides this one run during `run_all`. `shard`:
        whether each of them has only its part of the models: "on", "off", or "auto", as
        `check_memory` says. Raises as `prepare` does; that a recipe does not suit is told.
        """
        experiment, made = cls.prepare(cfg, path, listener, calibration, budget, ranks, shard)
        experiment.begin(made)
        return experiment

    def begin(self, made: PreparedRun) -> None:
        """Make the folder of a run that `prepare` has prepared, with what is known before it."""
        path = self.run.path
        begin_run(self.cfg, path, made.fingerprints, made.base, self.trainer.device)
        Run.create(path, self.cfg.model_dump(mode="json"), made.records)
        keep_run(path)
        with self.run.taken(self.listener.say):
            for finding in made.model.findings:
                self.run.tell(0, finding)
            notes = [note for note in notes_of(self.task) if note.level != "ok"]
            for finding in [*self.row_findings, *made.misfits, *notes]:
                self.tell(0, finding)

    @classmethod
    def prepare(
        cls,
        cfg: RunConfig,
        path: Path,
        listener: Listener,
        calibration: Calibration | None = None,
        budget: str | None = None,
        ranks: int = 1,
        shard: str = "auto",
    ) -> tuple["Experiment", PreparedRun]:
        """A new run up to the moment at which `begin` makes its folder. Writes nothing, and raises
        for all that a run refuses before it begins, so that a trial may end here."""
        made = prepare_run(cfg, path, listener.say, calibration, budget, ranks, shard)
        # Before the folder exists: what is refused here, an engine perhaps, leaves none behind.
        shared = (listener, made.fingerprints, made.base, made.budget_s)
        return cls(made.cfg, Run(path), made.model, *shared), made

    @classmethod
    def resume(
        cls,
        path: Path,
        listener: Listener,
        changes: Mapping[str, Any] | None = None,
        accept: bool = False,
        budget: str | None = None,
        ranks: int | None = None,
        shard: str | None = None,
    ) -> "Experiment":
        """Go on from the newest whole checkpoint; on a CPU bit-equal to a run never stopped.

        `changes` of the recipe by dotted keys: more `steps` or `tokens` make the run longer; others
        are refused, and so is a changed base, data or task, unless `accept`. `budget`: see
        `budget_seconds`; it is that of this process. `ranks`, `shard` None: as the run had
        them. Raises `RunError` for what is refused, and while another process has the run.
        """
        run = Run.open(path)
        run.refuse_links_out()
        with run.taken(listener.say):
            return cls.resume_locked(run, listener, changes or {}, accept, budget, ranks, shard)

    @classmethod
    def resume_locked(
        cls,
        run: Run,
        listener: Listener,
        changes: Mapping[str, Any],
        accept: bool,
        budget: str | None,
        ranks: int | None,
        shard: str | None,
    ) -> "Experiment":
        """`resume` while the lock is held."""
        say, resident = listener.say, process_bytes()
        resume.mend_folder(run, say)
        before = resume.stored_fingerprints(run, say)
        cfg = resume.config_of(run, before, changes, say)
        ranks = ranks or resume.stored_ranks(before)
        shard = resume.chosen_shard(shard, ranks, before)
        check_setting(ranks, cfg, shard)
        base = resume.base_of(cfg, say)
        fingerprints = fingerprints_of(cfg, base, task_of(cfg), before, ranks, shard)
        changed = resume.accepted_changes(run, before, fingerprints, accept, say)
        saved = resume.saved_state(run, say)
        if base is None and saved is None:
            resolve_model(cfg.model.path)  # says what is missing
        folder = saved.path if base is None and saved else None
        model = open_policy(cfg, folder, needs_shards(cfg, folder or base, ranks, shard))
        cfg = with_machine_price(cfg, device_of(cfg, model), ranks)  # old runs may have none
        resume.tell_price(run, cfg, ranks, before, say)
        fingerprints["recipe"] = cfg.model_dump(mode="json")
        budget_s = seconds_of_budget(budget, cfg)
        experiment = cls(cfg, run, model, listener, fingerprints, base, budget_s)
        if saved:
            experiment.load(saved)
        step = experiment.trainer.version
        begin_run(cfg, run.path, fingerprints, base, experiment.trainer.device)
        keep_run(run.path)
        resume.cut_back(run, step, say)
        run.write("config.json", fingerprints["recipe"])
        run.write(FINGERPRINTS, fingerprints)
        for finding in resume.findings_of(saved, changed):
            experiment.tell(step, finding)
        if not experiment.trainer.finished:
            resume.set_result_aside(run, step)
        if resume.is_longer(changed):
            say(resume.schedule_words(run, changed, experiment.trainer.learning_rate(cfg.optim.lr)))
            if prediction := prediction_of(cfg, model, None, resident, ranks, experiment.task):
                run.write("prediction.json", prediction)
        return experiment

    def load(self, saved: SavedState) -> None:
        """The state of a checkpoint."""
        state, trainer = saved.state, self.trainer
        load_policy(trainer.policy, saved.path)
        self.elapsed_before = resume.last_elapsed(self.run, state.pop("elapsed_s"), saved.step)
        # Checkpoints of older versions keep no peak.
        self.memory.before = state.pop("peak_bytes", 0)
        load_before_shards(trainer, state, saved.path, self.in_shards)
        self.checkpoint, self.saved_step = saved.path, trainer.version

    def close(self) -> None:
        """Give the run's folder to other processes."""
        self.run.release()

    def tell(self, step: int, finding: Finding) -> None:
        """Into findings.jsonl, and to the user."""
        self.run.tell(step, finding)
        self.listener.finding(finding)

    def tell_skipped(self, split: str, fault: PromptFault) -> None:
        """The first problem of a split that is skipped; more are counted in `skipped`."""
        step = self.trainer.version + 1 if split == "train" else self.trainer.version
        self.tell(step, skipped_problems(split, fault))

    @cached_property
    def test_prompts(self) -> list[Prompt]:
        """Drawn once for both tests: finding a puzzle of the test split takes milliseconds."""
        final = self.cfg.eval
        return held_out(self.task, self.trainer.tokenizer, "test", final.final, final.seed)

    def test(
        self, name: str, evaluate: Callable[..., EvalReport] = evaluate_together
    ) -> EvalReport | None:
        """The held-out test: one completion of each problem, the same problems every time."""
        rollout, final = self.cfg.rollout, self.cfg.eval
        if not final.final:
            return None
        prompts = self.test_prompts
        self.listener.stage(f"{name} training: {len(prompts):,} held-out problems")
        sampling = Sampling(rollout.max_new_tokens, 1, 1.0, seed_for(final.seed, "test"))
        limit, step = self.cfg.task.max_grade_errors, self.trainer.version
        try:
            report = evaluate(self.trainer, prompts, sampling, self.listener.progress)
        except RunStopped as fault:
            self.run.tell(step, failure_of(fault))
            raise
        if finding := report.grade_errors().finding(limit):
            self.tell(step, finding)
        path = self.run.completions / f"{name}.jsonl"
        with disk_errors(f"write {path}"):
            write_completions(path, report)
        self.run.write(f"{name}.json", report.numbers)
        self.listener.tested(name, report.numbers)
        return report

    def run_all(self) -> Outcome:
        """The test before, all steps that are left, the test after; then the run is closed.

        The other ranks live here. Where one of them is lost, that goes to the findings as well.
        """
        with closing(self):
            try:
                with self.ranks:
                    begin_together(self.trainer, self.base, self.checkpoint, self.in_shards)
                    outcome = self.run_stages()
                    end_together(self.trainer)
                    return outcome
            except RunStopped as fault:
                if fault.check == LOST_RANK:
                    self.run.tell(self.trainer.version + 1, failure_of(fault))
                raise
            finally:
                self.listener.end()

    def run_stages(self) -> Outcome:
        own = Stopwatch()  # of this process: a budget is its own
        before = self.test_before()
        if self.trainer.version == 0 and before and (finding := unsolved_test(before)):
            self.tell(0, finding)
        rows, finished = self.train(own)
        if not finished:
            self.listener.say(f"{self.stop_reason}; go on with: {resume_command(self.run.path)}")
            return Outcome(self.run, None, before, None, rows, self.stopped_by)
        self.save_model()
        after = self.test("after")
        cost = cost_of(self.cfg, rows, [before, after], self.fingerprints["base_cost"])
        summary = summary_of(before, after, self.run, rows, cost, self.trainer)
        measured = {"seconds": summary["wall_s"], "cost_usd": summary["cost_usd"]}
        measured["peak_bytes"] = peak_together(self.trainer, self.memory.bytes()) or None
        compared = (self.run, self.trainer, rows, measured, self.listener.say)
        summary["plan"] = compare_with_prediction(*compared)
        tokenizer = self.trainer.tokenizer
        summary |= opponents_in_summary(self.cfg, after, tokenizer, self.listener.say)
        self.run.write("summary.json", summary)
        return Outcome(self.run, summary, before, after, rows)

    def save_model(self) -> None:
        """Write the trained model; an older one stands until the new one is whole."""

        def write(folder: Path) -> None:
            save_trained(self.trainer, self.base, folder)
            write_checksums(folder)

        with disk_errors(f"write {self.run.model}"):
            replace_folder(self.run.model, write)

    def test_before(self) -> EvalReport | None:
        """The base model's test: made once, and read from the run when it is resumed."""
        trainer = self.trainer
        if self.cfg.eval.final and (stored := stored_test(self.run, "before", self.test_prompts)):
            return stored
        if trainer.version == 0:
            return self.test("before")
        if self.base is None:
            self.listener.say("no test before training: its record and the base have gone")
            return None
        # By the same engine: there may be no memory for a second one.
        trainer.engine.release()
        trainer.engine.load(open_policy(self.cfg).policy, 0)
        report = self.test("before", evaluate_alone)
        reload_together(trainer)
        return report

    def train(self, own: Stopwatch) -> tuple[list[dict[str, Any]], bool]:
        """All steps that are left: (rows of metrics.jsonl, whether all steps were done). `own`: the
        seconds of this process, for the budget."""
        cfg, trainer, listener = self.cfg, self.trainer, self.listener
        listener.stage("training")
        validation = []
        if cfg.eval.every:
            validation = held_out(
                self.task, trainer.tokenizer, "validation", cfg.eval.problems, cfg.eval.seed
            )
        elapsed, memory = Stopwatch(self.elapsed_before), self.memory
        shown_tokens = (trainer.tokenizer, cfg.token_groups)
        record = Record(self.run, elapsed, listener.step, *shown_tokens, trainer.version, memory)
        checkpoint = Checkpoint(trainer, self.run, elapsed, self.base, memory, self.saved_step)
        look = Evaluate(trainer, validation, self.run, elapsed, listener.validation)
        # The checkpoint comes before the evaluation of its step: a fault there costs no step.
        watchers: list[Callable[[StepReport], None]] = [
            record,
            StepWatch(self.run, listener.finding, cfg.task.max_grade_errors),
            StragglerWatch(trainer.world, self.run, listener.finding),
            Show(cfg.show_every, listener.group),
            checkpoint,
            look,
        ]
        budget = Budget(self.budget_s, own())
        with Interrupt() as interrupted:
            world = trainer.world
            world.requests = {"stop": interrupted}  # SIGTERM to another rank comes through here
            try:
                look.make_up()
                drive(
                    steps_together(trainer),
                    watchers,
                    lambda: (
                        interrupted()
                        or world.should("stop")
                        or (budget.spent_by(own()) and not trainer.finished)
                    ),
                )
            except BaseException as error:
                words = save_on_error(error, self.run, record, checkpoint)
                with suppress(Exception):  # the error may be that nothing can be written
                    listener.say(f"{words}; go on with: {resume_command(self.run.path)}")
                raise
            checkpoint.compare_and_save()
            by_signal = interrupted() or world.should("stop")
            if by_signal:  # without a signal of its own, another rank was asked to end
                self.stopped_by = interrupted.signal or signal.SIGTERM
            self.stop_reason = "stopped" if by_signal else "the budget is spent"
        return list(read_rows(self.run.metrics)), trainer.finished
