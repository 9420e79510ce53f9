"""All checks of one recipe: its setup, its reward, and its first step."""

from collections.abc import Iterator
from dataclasses import replace

from aha.core.config import RunConfig
from aha.core.errors import ModelError
from aha.core.findings import Finding, failure_of, worst_level
from aha.corpus.bases import command_for
from aha.doctor import setup_checks
from aha.doctor.first_step_checks import check_first_step
from aha.doctor.first_step_trial import reduced_recipe, run_trial
from aha.model.folders import resolve_model
from aha.model.weights import load_model
from aha.tasks import audit
from aha.train.experiment import make_trainer, task_of


def check_recipe(cfg: RunConfig) -> Iterator[tuple[str, list[Finding]]]:
    """(heading, findings) of each part, as soon as it is done.

    The first step is left out where the setup has failed, and where the base model is one that has
    not been made on this machine yet. Raises ModelError for another base that cannot be loaded.
    """
    model, task = None, task_of(cfg)
    try:
        model = load_model(resolve_model(cfg.model.path))
        findings = setup_checks.checks.run(setup_checks.SetupFacts.of(cfg, model, task))
    except ModelError as error:
        if command_for(cfg.model.path) is None:
            raise
        findings = [replace(failure_of(error), check="base_model")]
    yield "before the run", findings
    yield "the reward", audit.checks.run(audit.audit(task, cfg.seed))
    # Settings such as a learning rate of 0 do not keep the step from being made.
    if model and worst_level([f for f in findings if f.check != "settings"]) != "fail":
        reduced = reduced_recipe(cfg)
        size = f"{reduced.rollout.prompts} prompts x {reduced.rollout.group_size}"
        trial = run_trial(make_trainer(reduced, model, task))
        yield f"its first step, {size}", check_first_step(trial)
