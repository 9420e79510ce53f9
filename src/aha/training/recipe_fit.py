"""Whether a recipe suits its model: faults of which a run would tell only after its whole time.

A recipe that is right for a base of one million parameters destroys a model of a hundred times that
size, and an instruct model that is asked in the form of our own bases solves nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from aha.core.config import OptimSection, RunConfig
from aha.core.errors import AhaError, ConfigError
from aha.core.findings import Checklist, Finding, fail, ok, warn
from aha.eval.suite import EvalReport
from aha.model.own_words import CHATML
from aha.model.weights import LoadedModel
from aha.tasks.protocol import Task
from aha.tasks.tags import plain_frame

checks = Checklist()

LARGE = 50_000_000  # parameters of models for which a high rate is known to end the model
# Of full weights: published runs of 0.5 to 8 billion parameters use 3e-7 to 1e-5, and 2e-5 teaches
# 135 million sums. Of adapters they use up to 5e-4.
HIGHEST_RATE, HIGHEST_ADAPTER_RATE = 1e-4, 2e-3
SUITED_RATE, SUITED_ADAPTER_RATE = 2e-5, 2e-4
MIN_TRIES = 32  # completions of a base, before it is said that it solves none
EASIER = (
    "easier problems first (`aha train smollm2-ladder --model MODEL` climbs), the form that it was "
    "trained on (--task.template instruct or r1), a lower --rollout.temperature, "
    "a larger --rollout.max_new_tokens, where completions are truncated, or a larger model"
)


@dataclass(frozen=True)
class Fit:
    """A recipe with the model and the task that it has."""

    cfg: RunConfig
    model: LoadedModel
    task: Task

    def first_request(self) -> str | None:
        """What the task writes for its first problem; None where it can write none."""
        try:
            problem = next(iter(self.task.problems("train", self.cfg.seed)), None)
            return None if problem is None else self.task.ask(problem)
        except AhaError:
            return None


def suited_rate(count: int, adapters: bool) -> float:
    """A learning rate to begin with, for a model of `count` parameters."""
    if count < LARGE:
        return OptimSection().lr
    return SUITED_ADAPTER_RATE if adapters else SUITED_RATE


@checks
def learning_rate(fit: Fit) -> Finding:
    """A rate that destroys a large model in its first steps: the curve falls and stays down."""
    cfg, count = fit.cfg, fit.model.policy.num_parameters()
    adapters = bool(cfg.model.lora_rank)
    highest = HIGHEST_ADAPTER_RATE if adapters else HIGHEST_RATE
    what = "adapters on" if adapters else "all weights of"
    message = f"optim.lr {cfg.optim.lr:g} for {what} a model of {count / 1e6:.0f} million"
    if count >= LARGE and cfg.optim.lr > highest:
        suited = suited_rate(count, adapters)
        return fail(f"{message}: it forgets what it can", f"--optim.lr {suited:g}")
    return ok(message)


@checks
def prompt_form(fit: Fit) -> Finding | None:
    """The prompts have the form that the model was trained on."""
    request, tokenizer = fit.first_request(), fit.model.tokenizer
    if request is None:
        return None
    if CHATML.fullmatch(request):
        return ok("a conversation")
    if not request.endswith(plain_frame("")):
        # Of a task that has templates: texts of a file, as they stand there.
        bare = getattr(fit.task, "template", None) == "plain"
        if bare and tokenizer.template is not None:
            message = "texts without a conversation's frame, with an instruct model"
            return warn(message, "--task.template instruct")
        return ok("words for any model")
    if tokenizer.reads_plain:
        return ok("the form of our own bases")
    message = "template 'plain', made for our own bases, with"
    if tokenizer.template is not None:
        return fail(f"{message} an instruct model", "--task.template instruct")
    return warn(f"{message} a base of others", "--task.template r1")


def misfits(cfg: RunConfig, model: LoadedModel, task: Task) -> list[Finding]:
    """What does not suit; empty where nothing is known to be wrong."""
    return [finding for finding in checks.run(Fit(cfg, model, task)) if finding.level != "ok"]


def refuse_misfits(findings: Sequence[Finding]) -> None:
    """Raise `ConfigError` for the first failure among the findings."""
    for finding in findings:
        if finding.level == "fail":
            raise ConfigError(
                finding.message,
                "a recipe that suits the model",
                f"{finding.fix}; or --anyway, if that is what you want to try",
            )


def nothing_solved(rewards: Sequence[float], right: int, truncated: float) -> Finding | None:
    """The finding for a base that solves none of its tries: their rewards, how many were right, and
    the share that the token limit ended. None with too few tries to say so, or with a right one."""
    if right or len(rewards) < MIN_TRIES:
        return None
    tries = f"the base solves none of {len(rewards):,} tries, {truncated:.0%} of them truncated"
    if len(set(rewards)) > 1:
        return warn(f"{tries}; only parts of the reward differ, and it learns those", EASIER)
    return fail(f"{tries}, and all have the same reward: there is nothing to learn from", EASIER)


def unsolved_test(report: EvalReport) -> Finding | None:
    """`nothing_solved` of the test before training: a warning, as the run may find an answer."""
    flat = [graded for group in report.graded for graded in group]
    right = sum(graded.correct for graded in flat)
    truncated = report.numbers["truncated"]
    finding = nothing_solved([graded.reward for graded in flat], right, truncated)
    return finding and replace(finding, level="warn", check="base_solves")
