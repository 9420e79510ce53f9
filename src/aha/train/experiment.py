"""A whole run: evaluate, train, evaluate again on the same problems, and say what it cost."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from aha.algo.recipe import check_recipe, checked
from aha.core.config import RunConfig
from aha.core.errors import ConfigError, ModelError, RunError
from aha.core.records import Graded, Prompt
from aha.core.seeds import seed_for
from aha.eval.suite import EvalReport, evaluate, held_out, write_completions
from aha.machine.device import PeakMemory, choose_device
from aha.machine.dtype import compute_dtype
from aha.machine.host import held_now
from aha.model.architecture import ModelConfig
from aha.model.folders import base_cost, resolve_model
from aha.model.lora import add_lora
from aha.model.weights import LoadedModel, load_model, load_policy, save_policy
from aha.plan.calibration import Calibration
from aha.plan.cost import Budget, Cost, budget_seconds
from aha.plan.prediction import compare
from aha.plan.speed import Workload
from aha.rollout.engine import Engine, Sampling
from aha.rollout.factory import open_engine
from aha.rollout.vllm import VllmEngine
from aha.store.checkpoint import latest_checkpoint, load_state
from aha.store.jsonl import read_rows, truncate_after
from aha.store.run_folder import Run
from aha.tasks.catalog import make_task
from aha.tasks.protocol import Task
from aha.train.loop import Interrupt, drive
from aha.train.preflight import at_its_price, check_memory, foresee, shape_in, shape_of
from aha.train.rl import RLTrainer
from aha.train.watchers import Checkpoint, Evaluate, Record, Show, Stopwatch, summary_of


def _quiet(*unused) -> None:
    pass


@dataclass
class Listener:
    """What the front end wants to hear; every part may be left out."""

    stage: Callable[[str], None] = _quiet
    progress: Callable[[int, int], None] = _quiet
    step: Callable[[dict], None] = _quiet
    validation: Callable[[dict], None] = _quiet
    completion: Callable[[int, Graded], None] = _quiet
    say: Callable[[str], None] = _quiet


@dataclass
class Outcome:
    """What is left of a run. `after` is None when it was stopped early."""

    run: Run
    summary: dict | None
    before: EvalReport | None
    after: EvalReport | None
    rows: list[dict] = field(default_factory=list)


def open_policy(cfg: RunConfig) -> LoadedModel:
    """The model that a run begins with, on its device, its adapters on if the recipe wants some."""
    model = load_model(resolve_model(cfg.model.path))
    device = choose_device(cfg.model.device, model.policy.num_parameters())
    rank, alpha = cfg.model.lora_rank, cfg.model.lora_alpha
    if rank or cfg.optim.state == "cpu":
        # Frozen weights need no more digits than the arithmetic has; nor do others, where those
        # that learn are kept apart. Before they are moved: a GPU may have no room for more.
        model.policy.to(compute_dtype(cfg.optim.dtype, device))
    model.policy.to(device)
    if rank:
        add_lora(model.policy, rank, alpha or 2.0 * rank, seed_for(cfg.seed, "lora"))
    return model


def task_of(cfg: RunConfig) -> Task:
    return make_task(cfg.task.name, cfg.task.settings(), cfg.task.grade_seconds)


def make_trainer(cfg: RunConfig, model: LoadedModel, task: Task) -> RLTrainer:
    return RLTrainer(model.policy, model.tokenizer, task, make_engine(cfg, model), cfg)


def make_engine(cfg: RunConfig, model: LoadedModel) -> Engine:
    rollout = cfg.rollout
    if rollout.engine == "vllm":
        return VllmEngine(model.policy, model.tokenizer, model.path, rollout)
    return open_engine(model.policy, model.tokenizer, rollout.dtype, rollout.max_rows, rollout.loop)


class Experiment:
    """Holds the parts of one run together. `start` a new one or `resume` one that was stopped."""

    def __init__(self, cfg: RunConfig, run: Run, model: LoadedModel, listener: Listener):
        self.cfg, self.run, self.listener = cfg, run, listener
        self.base = resolve_model(cfg.model.path)
        self.task = task_of(cfg)
        self.trainer = make_trainer(cfg, model, self.task)
        self.elapsed_before = 0.0
        self.tested_s, self.why = 0.0, ""
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
        """`calibration`: this machine as measured, for the prediction that the run will be held
        to; the table of machines without. `budget`: see `budget_seconds`."""
        check_recipe(cfg)
        held, told = held_now(), None
        shape = shape_in(resolve_model(cfg.model.path))
        if shape:
            device = choose_device(cfg.model.device, shape.parameters)
            cfg = at_its_price(cfg, device)
            check_memory(cfg, shape, device, listener.say)
        model = open_policy(cfg)
        cfg = at_its_price(cfg, model.policy.device)
        budget_s = budget_seconds(budget, cfg.usd_per_hour) if budget else math.inf
        check_room(cfg, model, task_of(cfg))
        # A model that only `transformers` knows has a shape that the plan has no words for.
        if isinstance(model.policy.config, ModelConfig):
            shape, device = shape_of(model.policy.config), model.policy.device
            told = foresee(cfg, shape, device, calibration, held)
        run = Run.create(path, cfg.model_dump(mode="json"))
        if told:
            run.write("prediction.json", told)
        if calibration:
            calibration.write(path / "calibration.json")
        experiment = cls(cfg, run, model, listener)
        experiment.budget_s = budget_s
        return experiment

    @classmethod
    def resume(cls, path: Path, listener: Listener) -> "Experiment":
        """Go on from the last checkpoint; on a CPU bit-equal to a run that was never stopped."""
        run = Run.open(path)
        try:
            cfg = checked(run.read("config.json"), f"{path}/config.json: ")
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
        for name in ("metrics.jsonl", "evals.jsonl"):
            truncate_after(run.path / name, "step", experiment.trainer.version)
        return experiment

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
        report = evaluate(engine, self.task, prompts, sampling, self.listener.progress)
        write_completions(self.run.completions / f"{name}.jsonl", report)
        self.run.write(f"{name}.json", report.numbers)
        return report

    def run_all(self) -> Outcome:
        before = self.test_before()
        self.tested_s = before.numbers["seconds"] if before else 0.0
        rows, finished = self.train()
        if not finished:
            self.listener.say(f"{self.why}; go on with: aha train --resume {self.run.path}")
            return Outcome(self.run, None, before, None, rows)
        save_policy(self.run.model, self.trainer.policy, self.trainer.tokenizer, self.base)
        after = self.test("after", self.trainer.engine)
        cost = self.cost(rows, before, after)
        summary = summary_of(before, after, self.run, rows, cost, self.trainer)
        summary["plan"] = self.compared(summary, rows)
        self.run.write("summary.json", summary)
        return Outcome(self.run, summary, before, after, rows)

    def test_before(self) -> EvalReport | None:
        """The base model's test; on a resumed run it is made again from the base's weights."""
        trainer = self.trainer
        if trainer.version == 0:
            return self.test("before", trainer.engine)
        # By the same engine: beside vLLM there is no room for a second one.
        trainer.engine.release()
        trainer.engine.load(open_policy(self.cfg).policy, 0)
        report = self.test("before", trainer.engine)
        trainer.engine.release()
        trainer.engine.load(trainer.policy, trainer.version)
        return report

    def train(self) -> tuple[list[dict], bool]:
        """Drive the steps; (metric rows, whether all steps were done)."""
        cfg, trainer, listener = self.cfg, self.trainer, self.listener
        listener.stage("training")
        validation = []
        if cfg.eval.every:
            validation = held_out(
                self.task, trainer.tokenizer, "validation", cfg.eval.problems, cfg.eval.seed
            )
        elapsed = Stopwatch(self.elapsed_before)
        checkpoint = Checkpoint(trainer, self.run, elapsed, self.base, self.memory)
        watchers = [
            Record(self.run, elapsed, listener.step, trainer.tokenizer, cfg.token_groups),
            Show(cfg.show_every, listener.completion),
            Evaluate(trainer, validation, self.run, elapsed, listener.validation),
            checkpoint,
        ]
        budget = Budget(self.budget_s - self.tested_s, elapsed())
        with Interrupt() as asked:
            drive(
                steps_of(trainer),
                watchers,
                lambda: asked() or (budget.spent_by(elapsed()) and not trainer.finished),
            )
            checkpoint.save()
            self.why = "stopped" if asked() else "the budget is spent"
        return list(read_rows(self.run.metrics)), trainer.finished

    def cost(self, rows: list, before: EvalReport | None, after: EvalReport | None) -> dict:
        """Training and testing of this run, and on lines of its own what the base has cost."""
        seconds = rows[-1]["elapsed_s"] if rows else 0.0
        seconds += sum(report.numbers["seconds"] for report in (before, after) if report)
        own = Cost.of(seconds, self.cfg.usd_per_hour, self.cfg.watts)
        base = base_cost(self.base)
        return {
            "cost_usd": own.usd,
            "kwh": own.kwh,
            "wall_s": seconds,
            "base_cost_usd": base.get("cost_usd"),
            "base_kwh": base.get("kwh"),
        }

    def compared(self, summary: dict, rows: list[dict]) -> dict | None:
        """What was foreseen beside what came; None for a run without a prediction."""
        if not (self.run.path / "prediction.json").is_file():
            return None
        mean = sum(row["mean_tokens"] for row in rows) / len(rows) if rows else None
        measured = {"peak_bytes": self.memory.bytes(), "seconds": summary["wall_s"]}
        measured |= {"cost_usd": summary["cost_usd"]}
        told, shape = self.run.read("prediction.json"), shape_of(self.trainer.policy.config)
        load = Workload(self.cfg, self.trainer.method, shape)
        return compare(told, load, mean, measured)


def steps_of(trainer: RLTrainer):
    """The steps that are left, one report each."""
    while not trainer.finished:
        yield trainer.step(trainer.problems())


def check_room(cfg: RunConfig, model: LoadedModel, task: Task) -> None:
    """More new tokens than the model has positions, or a split without a problem, is an error
    before the run exists. The longest of a few prompts stands for all."""
    splits = {"train": cfg.rollout.prompts, "validation": cfg.eval.every, "test": cfg.eval.final}
    prompts = [
        prompt
        for split, wanted in splits.items()
        if wanted
        for prompt in held_out(task, model.tokenizer, split, 16, cfg.seed)
    ]
    longest = max(len(prompt.tokens) for prompt in prompts)
    room = model.policy.config.max_position_embeddings - longest
    if cfg.rollout.max_new_tokens > room:
        raise ModelError(
            f"rollout.max_new_tokens {cfg.rollout.max_new_tokens} after prompts of {longest}",
            f"at most the {room + longest} positions of {model.path.name} together",
            f"--rollout.max_new_tokens {max(1, room)}",
        )
