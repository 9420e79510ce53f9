"""STaR: a model learns its own right completions, in rounds, each from the base again.

Source: Zelikman et al., arXiv 2203.14465, as Stream of Search uses it (arXiv 2404.03683): draw
completions of training problems, keep those that are right, fine-tune the base on them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aha.core.seeds import seed_for
from aha.eval.behavior_numbers import completion_of
from aha.eval.suite import evaluate, held_out
from aha.model.folders import resolve_model
from aha.model.weights import load_model
from aha.rollout.engine import Sampling
from aha.rollout.native import open_engine
from aha.sft.tuning_config import TuningConfig
from aha.store.durable import to_json, write_text
from aha.studies.training_stages import MAX_ROWS, Say, fine_tune
from aha.tasks.countdown import Countdown


@dataclass(frozen=True)
class SelfTeaching:
    """How a model teaches itself: rounds, training problems of each, completions of each problem,
    epochs."""

    rounds: int
    problems: int
    completions: int
    epochs: int
    limit: int
    numbers: tuple[int, ...] = (3,)


def teach_itself(
    plan: SelfTeaching, base: str, seed: int, path: Path, say: Say
) -> Iterator[tuple[str, int]]:
    """(model, examples that it has learnt) of each round. A round that is done is not repeated; one
    without a right completion has nothing to learn from, and leaves the model as it is."""
    model = base
    for number in range(1, plan.rounds + 1):
        data = path.with_name(f"{path.name}-round{number}.jsonl")
        if not data.is_file():
            rows = right_completions(plan, model, seed_for("star", seed, number))
            data.parent.mkdir(parents=True, exist_ok=True)
            write_text(data, "".join(f"{to_json(row)}\n" for row in rows))
        examples = sum(1 for _ in data.open(encoding="utf-8"))
        if examples:
            raw: dict[str, Any] = {"data": str(data), "epochs": plan.epochs, "seed": seed}
            cfg = TuningConfig.model_validate(raw | {"model": {"path": base}})
            model = str(fine_tune(cfg, path.with_name(f"{path.name}-round{number}"), say))
        yield model, examples


def right_completions(plan: SelfTeaching, model: str, seed: int) -> list[dict[str, Any]]:
    """Examples of the right completions of training problems, no text of a problem twice."""
    task, loaded = Countdown(plan.numbers), load_model(resolve_model(model))
    prompts = held_out(task, loaded.tokenizer, "train", plan.problems, seed)
    engine = open_engine(loaded.policy, loaded.tokenizer, max_rows=MAX_ROWS)
    report = evaluate(engine, task, prompts, Sampling(plan.limit, plan.completions, 1.0, seed))
    rows = []
    for group in report.graded:
        texts = {
            completion_of(row).text: completion_of(row).prompt.text for row in group if row.correct
        }
        rows += [{"prompt": prompt, "completion": text} for text, prompt in texts.items()]
    return rows
