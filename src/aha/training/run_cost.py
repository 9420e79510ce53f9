"""What a run has cost, and how that compares with what was predicted before it."""

from collections.abc import Callable, Mapping
from typing import Any

from aha.core.config import RunConfig
from aha.eval.suite import EvalReport
from aha.plan.machines import Cost
from aha.plan.prediction import compare
from aha.plan.speed import Workload
from aha.store.run_folder import Run
from aha.training.builders import price_of_run
from aha.training.preflight import shape_of_config
from aha.training.rl import RLTrainer


def cost_of(
    cfg: RunConfig,
    rows: list[dict[str, Any]],
    tests: list[EvalReport | None],
    base: Mapping[str, float],
) -> dict[str, float | None]:
    """Of training and testing in this run, and under keys of their own those of its `base`."""
    seconds = rows[-1]["elapsed_s"] if rows else 0.0
    seconds += sum(report.numbers["seconds"] for report in tests if report)
    own = Cost.of(seconds, *price_of_run(cfg))
    return {
        "cost_usd": own.usd,
        "kwh": own.kwh,
        "wall_s": seconds,
        "base_cost_usd": base.get("cost_usd"),
        "base_kwh": base.get("kwh"),
    }


def compare_with_prediction(
    run: Run,
    trainer: RLTrainer,
    rows: list[dict[str, Any]],
    measured: dict[str, float | None],
    say: Callable[[str], None],
) -> dict[str, Any] | None:
    """What was predicted and what was measured; None for a run without a prediction, and for one
    whose prediction is damaged, which is said."""
    path = run.path / "prediction.json"
    prediction = run.read_or_none(path.name)
    if prediction is None:
        if path.exists():
            say(f"{path} is damaged: no comparison")
        return None
    mean = sum(row["mean_tokens"] for row in rows) / len(rows) if rows else None
    try:
        shape = shape_of_config(trainer.policy.config)
        return compare(prediction, Workload(trainer.cfg, trainer.method, shape), mean, measured)
    except (LookupError, TypeError, ValueError) as error:
        say(f"{path} is damaged: no comparison ({error!r})")
        return None
