"""The stages of a cell that trains: a base, a fine-tuning, reinforcement learning, a test.

Each has its folder, does nothing where it is done, and goes on from its checkpoint where it was
stopped. All raise `CellStopped` where a signal has stopped them.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from aha.core.config import RunConfig
from aha.core.errors import RunError
from aha.core.records import Prompt
from aha.eval.suite import MAX_GRADE_ERRORS, EvalReport, evaluate, held_out
from aha.machine.device import choose_device
from aha.model.folders import resolve_model
from aha.model.weights import load_model
from aha.pretrain.make_base import PretrainMachine, pretrain_base
from aha.pretrain.settings import PretrainJob
from aha.rollout.engine import Sampling
from aha.rollout.native import open_engine
from aha.sft.tuning_config import TuningConfig
from aha.sft.tuning_run import FineTuning
from aha.store.durable import to_json, write_text
from aha.store.run_folder import Run, read_rows
from aha.studies.cell_files import CellStopped, Result
from aha.studies.hard_puzzles import hard_puzzles
from aha.tasks.catalog import make_task
from aha.training.experiment import Experiment
from aha.training.outcome import Listener

Say = Callable[[str], None]
MAX_ROWS = 512  # completions that are generated together in a test


@dataclass(frozen=True)
class HeldOutTest:
    """A test of a model: `n` problems of a split, with so many completions of each. `settings` are
    keywords of the task's constructor. `puzzles`: a set of `aha.studies.hard_puzzles` in place of a
    split."""

    name: str
    task: str = "countdown"
    settings: dict[str, Any] = field(default_factory=dict)
    split: str = "test"
    n: int = 1_000
    completions: int = 1
    max_new_tokens: int = 256
    puzzles: str = ""


def make_base(job: PretrainJob, say: Say, ranks: int | None = 1) -> Path:
    """The folder of a base; trained here, on so many ranks, unless it is there; None chooses as
    `choose_ranks` does."""
    model = job.out / "model"
    if not (model / "config.json").is_file():
        stop_at(pretrain_base(job, PretrainMachine.of("auto", 0, None, None, ranks), say))
    return model


def stop_at(signal_number: int | None) -> None:
    """Raise `CellStopped` for the signal that has stopped a training, if one has."""
    if signal_number is not None:
        raise CellStopped(signal_number)


def is_done(path: Path) -> bool:
    """Whether a run is trained and tested."""
    return (path / "summary.json").is_file()


def fine_tune(cfg: TuningConfig, path: Path, say: Say) -> Path:
    """The model of a fine-tuning."""
    if not is_done(path):
        if path.exists():
            tuning = FineTuning.resume(path, say, accept=False, budget=None)
        else:
            tuning = FineTuning.start(cfg, path, say, None)
        outcome = tuning.run_all(say, lambda row: None)
        if outcome.summary is None:
            stop_at(outcome.stopped_by)
    return Run(path).model


def open_experiment(cfg: RunConfig, path: Path, listener: Listener, ranks: int = 1) -> Experiment:
    """The run of a recipe on so many ranks, new or resumed. Raises `RunError` while another process
    has it."""
    if path.exists():
        return Experiment.resume(path, listener, ranks=ranks)
    return Experiment.start(cfg, path, listener, ranks=ranks)


def reinforce(cfg: RunConfig, path: Path, say: Say) -> Run:
    """A run of reinforcement learning with its tests."""
    if not is_done(path):
        outcome = open_experiment(cfg, path, Listener(say=say)).run_all()
        if outcome.summary is None:
            stop_at(outcome.stopped_by)
            raise RunError(f"{path} ended early", "a run without a budget", f"rm -r {path}")
    return Run(path)


def result_of_run(run: Run) -> Result:
    """What is kept of a run: both tests problem by problem, its curve, what it took."""
    tested = [when for when in ("before", "after") if (run.path / f"{when}.json").is_file()]
    kept = {when: test_in_run(run, when) for when in tested}
    rows = list(read_rows(run.metrics))
    looks = [
        {key: row[key] for key in ("step", "solve_rate", "mean_tokens")}
        | {"behaviors": row.get("behaviors", {})}
        for row in read_rows(run.path / "evals.jsonl")
    ]
    generated = {row["step"]: row.get("generated") for row in rows}
    for look in looks:
        look["generated"] = generated.get(look["step"])
    last = rows[-1] if rows else {}
    taken = {"steps": len(rows), "generated": last.get("generated"), "run": run.path.name}
    return kept | taken | {"curve": looks, "seconds": run.read("summary.json")["seconds"]}


def test_in_run(run: Run, when: str) -> Result:
    """The test of a run before or after training."""
    numbers = run.read(f"{when}.json")
    rows = read_rows(run.completions / f"{when}.jsonl")
    right = [int(row["correct"]) for row in rows]
    return test_result(right, 1, numbers)


def test_result(right: Sequence[int], completions: int, numbers: Any) -> Result:
    """A test as results keep it: right completions of every problem, and means."""
    kept = ("mean_tokens", "truncated", "behaviors", "pass_at_k")
    return {
        "right": list(right),
        "completions": completions,
        **{key: numbers[key] for key in kept if key in numbers},
    }


def test_model(model: str, test: HeldOutTest, seed: int, path: Path) -> Result:
    """The result of a test, which is kept in the file `path`. The problems are the same with every
    seed, which draws the completions: cells that share a base test it each by draws of its own."""
    if path.is_file():
        kept: Result = json.loads(path.read_text(encoding="utf-8"))
        return kept
    task = make_task(test.task, test.settings)
    loaded = load_model(resolve_model(model))
    loaded.policy.to(choose_device("auto", loaded.policy.num_parameters()))
    if test.puzzles:
        problems = hard_puzzles(test.puzzles, test.n)
        prompts = [Prompt.of(problem, task, loaded.tokenizer) for problem in problems]
    else:
        prompts = held_out(task, loaded.tokenizer, test.split, test.n, 0)
    engine = open_engine(loaded.policy, loaded.tokenizer, max_rows=MAX_ROWS)
    sampling = Sampling(test.max_new_tokens, test.completions, 1.0, seed)
    report = evaluate(engine, task, prompts, sampling, max_grade_errors=MAX_GRADE_ERRORS)
    result = of_report(report, test.completions) | {"test": asdict(test), "seed": seed}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, to_json(result) + "\n")
    return result


def of_report(report: EvalReport, completions: int) -> Result:
    """The result of an evaluation; with the number of solutions of each problem where that is
    known."""
    right = [sum(row.correct for row in group) for group in report.graded]
    result = test_result(right, completions, report.numbers)
    problems = [row.completion.prompt.problem.given for row, *_ in report.graded]
    if all("ways" in given for given in problems):
        result["ways"] = [given["ways"] for given in problems]
    return result
