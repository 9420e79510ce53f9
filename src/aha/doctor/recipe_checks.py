"""Everything about one recipe: before its run, its reward, and its first step."""

from collections.abc import Iterator
from dataclasses import replace

from aha.core.config import RunConfig
from aha.core.errors import ModelError
from aha.core.findings import Finding, failure_of, worst_level
from aha.corpus.bases import command_for
from aha.doctor import first_step_checks as first
from aha.doctor import setup_checks as before
from aha.doctor.first_step_trial import small, try_out
from aha.model.folders import resolve_model
from aha.model.weights import load_model
from aha.tasks import audit
from aha.train.experiment import make_trainer, task_of


def examine(cfg: RunConfig) -> Iterator[tuple[str, list[Finding]]]:
    """(heading, findings), part by part. The first step is left out where the start has failed, or
    where the base is one that has yet to be made here."""
    model, task = None, task_of(cfg)
    try:
        model = load_model(resolve_model(cfg.model.path))
        found = before.checks.run(before.Start.of(cfg, model, task))
    except ModelError as error:
        if command_for(cfg.model.path) is None:
            raise
        found = [replace(failure_of(error), check="base_model")]
    yield "before the run", found
    yield "the reward", audit.checks.run(audit.audit(task, cfg.seed))
    if model and worst_level([one for one in found if one.check != "settings"]) != "fail":
        few = small(cfg)
        heading = f"its first step, {few.rollout.prompts} prompts x {few.rollout.group_size}"
        yield heading, first.judge(try_out(make_trainer(few, model, task)))
