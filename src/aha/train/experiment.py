"""A whole run: evaluate, train, evaluate again on the same problems, and say what it cost."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import aha.train.draw_checks  # noqa: F401  adds its checks to `step_checks`
from aha.algo.recipe import begun, check_recipe
from aha.core.config import RunConfig
from aha.core.errors import ConfigError, RunError, RunStopped
from aha.core.findings import Finding, failure_of
from aha.core.records import Graded, Prompt, StepReport
from aha.core.seeds import seed_for
from aha.eval.prompt_check import PromptFault, skipped_problems
from aha.eval.suite import EvalReport, evaluate, held_out, write_completions
from aha.machine.device import PeakMemory, choose_device, compute_dtype
from aha.machine.host import process_bytes, trim_heap
from aha.model.architecture import ModelConfig
from aha.model.folders import base_cost, resolve_model
from aha.model.lora import add_lora
from aha.model.weights import LoadedModel, load_model, load_policy, save_policy
from aha.plan.calibration import Calibration
from aha.plan.machines import Budget, Cost, budget_seconds
from aha.plan.prediction import compare
from aha.plan.speed import Workload
from aha.rollout.engine import Engine, Sampling
from aha.rollout.native import open_engine
from aha.rollout.vllm import VllmEngine
from aha.store.checkpoint import latest_checkpoint, load_state
from aha.store.run_folder import Run, read_rows, truncate_after
from aha.tasks.catalog import make_task, notes_of
from aha.tasks.protocol import Task
from aha.train.failed_step import keep_failed_step
from aha.train.loop import Interrupt, drive
from aha.train.preflight import (
    check_memory,
    predict_run,
    readable_task,
    shape_in_folder,
    shape_of_config,
    with_machine_price,
)
from aha.train.rl import RLTrainer
from aha.train.step_watch import StepWatch
from aha.train.watchers import Checkpoint, Evaluate, Record, Show, Stopwatch, summary_of


def _ignore(*unused: object) -> None:
    pass


@dataclass
class Listener:
    """Callbacks of a front end; every one may be left out.

    `stage` names what begins, `progress` counts problems of a test (done, of), `step` and
    `validation` get the rows of metrics.jsonl and evals.jsonl, `completion` one completion of a
    step, `finding` a fault that the run noticed, `say` a line for the user.
    """

    stage: Callable[[str], None] = _ignore
    progress: Callable[[int, int], None] = _ignore
    step: Callable[[dict[str, Any]], None] = _ignore
    validation: Callable[[dict[str, Any]], None] = _ignore
    completion: Callable[[int, Graded], None] = _ignore
    finding: Callable[[Finding], None] = _ignore
    say: Callable[[str], None] = _ignore


@dataclass
class Outcome:
    """The result of a run. `summary` and `after` are None when it was stopped early."""

    run: Run
    summary: dict[str, Any] | None
    before: EvalReport | None
    after: EvalReport | None
    rows: list[dict[str, Any]] = field(default_factory=list)


def open_policy(cfg: RunConfig) -> LoadedModel:
    """The model that a run begins with, on its device, with adapters where the recipe has them."""
    model = load_model(resolve_model(cfg.model.path))
    device = choose_device(cfg.model.device, model.policy.num_parameters())
    rank, alpha = cfg.model.lora_rank, cfg.model.lora_alpha
    if rank or cfg.optim.state == "cpu":
        # Frozen weights need no more precision than the arithmetic has. The same holds for all
        # weights where the optimiser keeps float32 copies elsewhere. This comes before the move to
        # the device: a GPU may not have the memory for the float32 weights.
        model.policy.to(compute_dtype(cfg.optim.dtype, device))
    model.policy.to(device)
    if rank:
        add_lora(model.policy, rank, alpha or 2.0 * rank, seed_for(cfg.seed, "lora"))
    return model


def price_of_run(cfg: RunConfig) -> tuple[float, float]:
    """(USD an hour, W) of a run, which `with_machine_price` has filled in."""
    assert cfg.usd_per_hour is not None and cfg.watts is not None, "a run without its price"
    return cfg.usd_per_hour, cfg.watts


def task_of(cfg: RunConfig) -> Task:
    limits = (cfg.task.grade_seconds, cfg.task.grade_memory_gb)
    return make_task(cfg.task.name, cfg.task.settings(), *limits)


def make_trainer(cfg: RunConfig, model: LoadedModel, task: Task) -> RLTrainer:
    return RLTrainer(model.policy, model.tokenizer, task, make_engine(cfg, model), cfg)


def make_engine(cfg: RunConfig, model: LoadedModel) -> Engine:
    rollout = cfg.rollout
    if rollout.engine == "vllm":
        return VllmEngine(model.policy, model.tokenizer, model.path, rollout)
    return open_engine(model.policy, model.tokenizer, rollout.dtype, rollout.max_rows, rollout.loop)


class Experiment:
    """One run: its folder, its trainer, its clock. `start` a new one or `resume` a stopped one."""

    def __init__(self, cfg: RunConfig, run: Run, model: LoadedModel, listener: Listener):
        self.cfg, self.run, self.listener = cfg, run, listener
        self.base = resolve_model(cfg.model.path)
        self.task, self.row_findings = readable_task(cfg, task_of(cfg), model)
        self.task.on_first_skip = self.tell_skipped
        self.trainer = make_trainer(cfg, model, self.task)
        self.elapsed_before = 0.0
        self.first_test_s, self.stop_reason = 0.0, ""
        self.budget_s = math.inf  # of training and the test before it
        self.memory = PeakMemory(model.policy.device)

    @classmethod
    def start(
        cls,
        cfg: RunConfig,
        path: Path,
        listener: Listener,
        calibration: Calibration | None = None,
        budget: str | None = None,
    ) -> "Experiment":
        """A new run in the new folder `path`.

        `calibration`: this machine as measured, for the prediction that the run is compared with at
        its end; without one the table of machines is used. `budget`: see `budget_seconds`.
        """
        check_recipe(cfg)
        cfg = cfg.model_copy(update={"task": cfg.task.anywhere()})
        resident, prediction = process_bytes(), None
        shape = shape_in_folder(resolve_model(cfg.model.path))
        if shape:
            device = choose_device(cfg.model.device, shape.parameters)
            cfg = with_machine_price(cfg, device)
            check_memory(cfg, shape, device, listener.say)
        model = open_policy(cfg)
        cfg = with_machine_price(cfg, model.policy.device)
        budget_s = budget_seconds(budget, price_of_run(cfg)[0]) if budget else math.inf
        readable_task(cfg, task_of(cfg), model)
        # A model that only `transformers` can run has a shape that the plan cannot describe.
        if isinstance(model.policy.config, ModelConfig):
            shape, device = shape_of_config(model.policy.config), model.policy.device
            prediction = predict_run(cfg, shape, device, calibration, resident)
        run = Run.create(path, cfg.model_dump(mode="json"))
        if prediction:
            run.write("prediction.json", prediction)
        if calibration:
            calibration.write(path / "calibration.json")
        for finding in model.findings:
            run.tell(0, finding)
        experiment = cls(cfg, run, model, listener)
        experiment.budget_s = budget_s
        for finding in experiment.row_findings:
            experiment.tell(0, finding)
        for note in notes_of(experiment.task):
            if note.level != "ok":
                run.tell(0, note)
                listener.finding(note)
        return experiment

    @classmethod
    def resume(cls, path: Path, listener: Listener) -> "Experiment":
        """Go on from the last checkpoint; on a CPU bit-equal to a run that was never stopped."""
        run = Run.open(path)
        try:
            cfg = begun(run.read("config.json"), f"{path}/config.json: ")
        except ConfigError as error:
            raise RunError(error.got, error.wanted, error.fix) from None
        model = open_policy(cfg)
        experiment = cls(cfg, run, model, listener)
        checkpoint = latest_checkpoint(run.checkpoints)
        state = load_state(checkpoint)
        load_policy(model.policy, checkpoint)
        experiment.elapsed_before = state.pop("elapsed_s")
        # Checkpoints of older versions keep no peak.
        experiment.memory.before = state.pop("peak_bytes", 0)
        experiment.trainer.load_state_dict(state)
        for name in ("metrics.jsonl", "evals.jsonl", "findings.jsonl"):
            truncate_after(run.path / name, "step", experiment.trainer.version)
        return experiment

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

    def test(self, name: str, engine: Engine) -> EvalReport | None:
        """The held-out test: one completion of each problem, the same problems every time."""
        rollout, final = self.cfg.rollout, self.cfg.eval
        if not final.final:
            return None
        prompts = self.test_prompts
        self.listener.stage(f"{name} training: {len(prompts):,} held-out problems")
        sampling = Sampling(rollout.max_new_tokens, 1, 1.0, seed_for(final.seed, "test"))
        limit, step = self.cfg.task.max_grade_errors, self.trainer.version
        try:
            report = evaluate(
                engine, self.task, prompts, sampling, self.listener.progress, max_grade_errors=limit
            )
        except RunStopped as fault:
            self.run.tell(step, failure_of(fault))
            raise
        if finding := report.grade_errors().finding(limit):
            self.run.tell(step, replace(finding, check="grade_errors"))
            self.listener.finding(finding)
        write_completions(self.run.completions / f"{name}.jsonl", report)
        self.run.write(f"{name}.json", report.numbers)
        return report

    def run_all(self) -> Outcome:
        before = self.test_before()
        self.first_test_s = before.numbers["seconds"] if before else 0.0
        rows, finished = self.train()
        if not finished:
            self.listener.say(f"{self.stop_reason}; go on with: aha train --resume {self.run.path}")
            return Outcome(self.run, None, before, None, rows)
        save_policy(self.run.model, self.trainer.policy, self.trainer.tokenizer, self.base)
        after = self.test("after", self.trainer.engine)
        cost = self.cost(rows, before, after)
        summary = summary_of(before, after, self.run, rows, cost, self.trainer)
        summary["plan"] = self.compare_with_prediction(summary, rows)
        self.run.write("summary.json", summary)
        return Outcome(self.run, summary, before, after, rows)

    def test_before(self) -> EvalReport | None:
        """The base model's test; on a resumed run it is made again from the base's weights."""
        trainer = self.trainer
        if trainer.version == 0:
            return self.test("before", trainer.engine)
        # By the same engine: next to vLLM there is no memory for a second one.
        trainer.engine.release()
        trainer.engine.load(open_policy(self.cfg).policy, 0)
        report = self.test("before", trainer.engine)
        trainer.engine.release()
        trainer.engine.load(trainer.policy, trainer.version)
        return report

    def train(self) -> tuple[list[dict[str, Any]], bool]:
        """All steps that are left: (rows of metrics.jsonl, whether all steps were done)."""
        cfg, trainer, listener = self.cfg, self.trainer, self.listener
        listener.stage("training")
        validation = []
        if cfg.eval.every:
            validation = held_out(
                self.task, trainer.tokenizer, "validation", cfg.eval.problems, cfg.eval.seed
            )
        elapsed = Stopwatch(self.elapsed_before)
        checkpoint = Checkpoint(trainer, self.run, elapsed, self.base, self.memory)
        watchers: list[Callable[[StepReport], None]] = [
            Record(self.run, elapsed, listener.step, trainer.tokenizer, cfg.token_groups),
            StepWatch(self.run, listener.finding, cfg.task.max_grade_errors),
            Show(cfg.show_every, listener.completion),
            Evaluate(trainer, validation, self.run, elapsed, listener.validation),
            checkpoint,
        ]
        budget = Budget(self.budget_s - self.first_test_s, elapsed())
        with Interrupt() as interrupted:
            try:
                drive(
                    steps_of(trainer),
                    watchers,
                    lambda: interrupted() or (budget.spent_by(elapsed()) and not trainer.finished),
                )
            except RunStopped as fault:
                if trainer.failed_step:
                    keep_failed_step(self.run, trainer.failed_step, fault, trainer.tokenizer)
                self.run.tell(fault.step, failure_of(fault))
                listener.say(f"stopped by a fault in step {fault.step}: {self.run.findings}")
                raise
            finally:
                # Weights in the middle of a step are of no version: nothing could resume from them.
                if not trainer.mid_step:
                    checkpoint.save()
            self.stop_reason = "stopped" if interrupted() else "the budget is spent"
        return list(read_rows(self.run.metrics)), trainer.finished

    def cost(
        self,
        rows: list[dict[str, Any]],
        before: EvalReport | None,
        after: EvalReport | None,
    ) -> dict[str, float | None]:
        """Of training and testing in this run, and under keys of their own those of its base."""
        seconds = rows[-1]["elapsed_s"] if rows else 0.0
        seconds += sum(report.numbers["seconds"] for report in (before, after) if report)
        own = Cost.of(seconds, *price_of_run(self.cfg))
        base = base_cost(self.base)
        return {
            "cost_usd": own.usd,
            "kwh": own.kwh,
            "wall_s": seconds,
            "base_cost_usd": base.get("cost_usd"),
            "base_kwh": base.get("kwh"),
        }

    def compare_with_prediction(
        self, summary: dict[str, Any], rows: list[dict[str, Any]]
    ) -> dict[str, Any] | None:
        """What was predicted and what was measured; None for a run without a prediction."""
        if not (self.run.path / "prediction.json").is_file():
            return None
        mean = sum(row["mean_tokens"] for row in rows) / len(rows) if rows else None
        measured = {"peak_bytes": self.memory.bytes(), "seconds": summary["wall_s"]}
        measured |= {"cost_usd": summary["cost_usd"]}
        prediction = self.run.read("prediction.json")
        shape = shape_of_config(self.trainer.policy.config)
        load = Workload(self.cfg, self.trainer.method, shape)
        return compare(prediction, load, mean, measured)


def steps_of(trainer: RLTrainer) -> Iterator[StepReport]:
    """The steps that are left, one report each."""
    while not trainer.finished:
        report = trainer.step(trainer.problems())
        trim_heap()
        yield report
