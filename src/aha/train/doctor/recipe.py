"""Everything about one recipe: before its run, its reward, and its first step."""

from collections.abc import Iterator

from aha.core.config import RunConfig
from aha.core.findings import Finding, worst
from aha.model.weights import load_model
from aha.tasks import audit
from aha.train.doctor import before, first
from aha.train.doctor.trial import small, try_out
from aha.train.experiment import check_names, make_trainer, resolve_model, task_of


def examine(cfg: RunConfig) -> Iterator[tuple[str, list[Finding]]]:
    """(heading, findings), part by part. The first step is left out where the start has failed."""
    check_names(cfg)
    model, task = load_model(resolve_model(cfg.model.path)), task_of(cfg)
    found = before.checks.run(before.Start.of(cfg, model, task))
    yield "before the run", found
    yield "the reward", audit.checks.run(audit.audit(task, cfg.seed))
    if worst([one for one in found if one.check != "settings"]) != "fail":
        few = small(cfg)
        heading = f"its first step, {few.rollout.prompts} prompts x {few.rollout.group_size}"
        yield heading, first.judge(try_out(make_trainer(few, model, task)))
