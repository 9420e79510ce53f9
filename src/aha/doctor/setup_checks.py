"""Checks of a recipe before its run: settings, weights, tokenizer and prompts.

`check_recipe`, at the end, runs these checks, those of the problems and of the first step, and the
audit of the reward.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

import torch

from aha.core.config import RunConfig
from aha.core.errors import ModelError, RunStopped
from aha.core.findings import Checklist, Finding, fail, failure_of, ok, warn, worst_level
from aha.core.records import Prompt
from aha.corpus.bases import command_for
from aha.doctor.first_step_checks import try_first_step
from aha.doctor.first_step_trial import reduced_recipe
from aha.doctor.problem_checks import check_problems
from aha.eval.prompt_check import ReadableTask
from aha.model.folders import resolve_model
from aha.model.gguf import gguf_fault
from aha.model.weights import LoadedModel, load_model
from aha.tasks import audit
from aha.tasks.protocol import Task
from aha.training import recipe_fit
from aha.training.builders import make_trainer, task_of
from aha.training.preflight import prompt_limits, readable_task
from aha.training.preparation import check_base

checks = Checklist()

CHAT_STOP = "<|im_end|>"
# Settings such as a rate of 0 or too high a one do not keep the first step from being made.
NO_FAULT_OF_SETUP = ("settings", "learning_rate", "prompt_form")


@dataclass(frozen=True)
class SetupFacts:
    """A recipe's settings, and the model, task and prompts that they give."""

    cfg: RunConfig
    model: LoadedModel
    task: Task
    prompts: list[Prompt]  # of the first step

    @classmethod
    def of(cls, cfg: RunConfig, model: LoadedModel, task: Task) -> "SetupFacts":
        """Gather the facts. Raises ModelError where the model can read none of the prompts."""
        any_length = replace(prompt_limits(cfg, model), max_new_tokens=0)
        stream = ReadableTask(task, any_length, None).problems("train", cfg.seed)
        try:
            first_step = list(islice(stream, cfg.rollout.prompts))
        except RunStopped as error:
            raise ModelError(error.got, error.wanted, error.fix) from None
        prompts = [Prompt.of(problem, task, model.tokenizer) for problem in first_step]
        return cls(cfg, model, task, prompts)

    def name_of(self, token: int) -> str:
        """A token's text in the vocabulary, or its id where it has none."""
        return repr(self.model.tokenizer.fast.id_to_token(token) or token)


@checks
def settings(start: SetupFacts) -> Finding:
    """Settings that are valid and make a run useless."""
    cfg = start.cfg
    if cfg.optim.lr == 0:
        rate = recipe_fit.suited_rate(
            start.model.policy.num_parameters(), bool(cfg.model.lora_rank)
        )
        return fail("optim.lr is 0: nothing will be learned", f"--optim.lr {rate:g}")
    if cfg.steps == 0:
        return warn("steps is 0: it evaluates and trains nothing", "--steps 60")
    if not cfg.eval.final and not cfg.eval.every:
        return warn("no evaluation on held-out problems", "--eval.final 1000 or --eval.every 10")
    if not cfg.checkpoint_every and cfg.steps > 100:
        return warn("no checkpoint before the end", "--checkpoint_every 20")
    return ok(f"{cfg.steps} steps, lr up to {cfg.optim.lr:g}, held-out evaluations")


@checks
def context_length(start: SetupFacts) -> Finding:
    """Every prompt of a file, and the first of a generator, can be read and leaves positions for
    its completion."""
    _, findings = readable_task(start.cfg, start.task, start.model)  # raises errors with their fix
    if findings:
        return findings[0]
    config, longest = start.model.policy.config, max(len(p.tokens) for p in start.prompts)
    needed = longest + start.cfg.rollout.max_new_tokens
    return ok(f"prompt and completion need {needed} of {config.max_position_embeddings} positions")


@checks
def base_weights(start: SetupFacts) -> Finding:
    """All weights are finite: one NaN makes every log-prob NaN."""
    not_finite = [
        name
        for name, tensor in start.model.policy.named_parameters()
        if not torch.isfinite(tensor).all()
    ]
    if not_finite:
        names = ", ".join(not_finite[:3])
        return fail(f"weights that are not finite: {names}", "another copy of the base")
    millions = start.model.policy.num_parameters() / 1e6
    return ok(f"{millions:.2f} M weights, all finite, stored in float32")


@checks
def vocabulary(start: SetupFacts) -> Finding:
    """The model has a row for every token id; an id beyond its table cannot be embedded."""
    tokenizer, model = start.model.tokenizer, start.model.policy.config.vocab_size
    if tokenizer.vocab_size > model:
        message = f"the tokenizer has {tokenizer.vocab_size} entries, the model {model}"
        return fail(message, "the tokenizer and the weights of the same model")
    return ok(f"{tokenizer.vocab_size} entries in the tokenizer, {model} in the model")


def declared_stops(start: SetupFacts) -> set[int]:
    """The end-of-sequence ids in the model's own config files."""
    stops: set[int] = set()
    for name in ("config.json", "generation_config.json"):
        path = start.model.path / name
        try:
            ids = json.loads(path.read_text()).get("eos_token_id")
        except (OSError, ValueError, AttributeError):
            continue
        stops |= {i for i in (ids if isinstance(ids, list) else [ids]) if isinstance(i, int)}
    return stops


@checks
def stop_token(start: SetupFacts) -> Finding:
    """The stop token is the model's own: with another one every completion is truncated."""
    stops, tokenizer = set(start.model.tokenizer.stop_ids), start.model.tokenizer
    declared = declared_stops(start)
    names = ", ".join(start.name_of(token) for token in sorted(stops))
    fix = "set eos_token in tokenizer_config.json to the one the model ends with"
    if declared and not declared & stops:
        others = ", ".join(start.name_of(token) for token in sorted(declared))
        return fail(f"completions stop at {names}, but the model's files say {others}", fix)
    chat = tokenizer.fast.token_to_id(CHAT_STOP)
    if start.cfg.task.template == "instruct" and chat is not None and chat not in stops:
        return warn(f"the template ends turns with {CHAT_STOP}, completions stop at {names}", fix)
    if any(prompt.tokens[-1] in stops for prompt in start.prompts):
        return fail(f"prompts end with the stop token {names}", "mend the task's `ask`")
    return ok(f"completions stop at {names}")


@checks
def pad_token(start: SetupFacts) -> Finding:
    """The pad token is in the vocabulary and in no prompt.

    Elsewhere it must not be the stop token, as a mask made from pad ids hides the stop token too.
    Here masks are made from lengths, so it may be.
    """
    tokenizer = start.model.tokenizer
    pad, size = tokenizer.pad_id, start.model.policy.config.vocab_size
    if not 0 <= pad < size:
        return fail(f"the pad id {pad} is not among the model's {size}", "set pad_token")
    if pad in tokenizer.stop_ids:
        return ok(f"{start.name_of(pad)} pads and stops; allowed, as masks are made from lengths")
    if pad in tokenizer.prefix:
        return ok(f"{start.name_of(pad)} pads and begins each text; masks are made from lengths")
    if any(pad in prompt.tokens for prompt in start.prompts):
        return fail(f"prompts have the pad token {start.name_of(pad)}", "mend the task's `ask`")
    return ok(f"{start.name_of(pad)} is the pad token, and no prompt has it")


@checks
def prompt_tokens(start: SetupFacts) -> Finding:
    """A prompt's tokens decode to its text."""
    tokenizer = start.model.tokenizer
    for prompt in start.prompts:
        if not prompt.tokens:
            return fail(f"an empty prompt for {prompt.problem.id}", "mend the task's `ask`")
        if not tokenizer.reads_back(prompt.tokens, prompt.text):
            message = f"the tokens of {prompt.problem.id} decode to another text"
            return fail(message, "encode a prompt once, without special tokens of your own")
    longest = max(len(prompt.tokens) for prompt in start.prompts)
    return ok(f"prompts of up to {longest} tokens, which decode to their text")


def export_forms(cfg: RunConfig, model: LoadedModel) -> Finding:
    """The forms in which the trained model can be exported, said before it is trained."""
    reason = gguf_fault(model.policy, model.tokenizer)
    forms = ["hf", *(["adapter"] if cfg.model.lora_rank else [])]
    forms += [] if reason else ["gguf"]
    message = f"can be exported as {', '.join(forms)}" + (f"; not gguf: {reason}" if reason else "")
    return replace(ok(message), check="export_forms")


# -- all checks of a recipe ---------------------------------------------------------------------


def check_recipe(cfg: RunConfig) -> Iterator[tuple[str, list[Finding]]]:
    """(heading, findings) of each part, as soon as it is done.

    The first step is left out where the setup has failed, where no text could be graded, and where
    the base model is one that has not been made on this machine yet. Raises ModelError for another
    base that cannot be loaded, and ConfigError for one that this machine has not the memory to
    train, before it is read.
    """
    model, task = None, task_of(cfg)
    try:
        base, said = resolve_model(cfg.model.path), list[str]()
        check_base(cfg, base, task, said.append)
        model = load_model(base)
        findings = [replace(warn(text, ""), check="memory") for text in said]
        findings += checks.run(SetupFacts.of(cfg, model, task)) + model.findings
        findings += recipe_fit.checks.run(recipe_fit.Fit(cfg, model, task))
        findings.append(export_forms(cfg, model))
    except ModelError as error:
        if command_for(cfg.model.path) is None:
            raise
        findings = [replace(failure_of(error), check="base_model")]
    yield "before the run", findings
    yield "its problems", check_problems(cfg, task)
    audited = audit.audit(task, cfg.seed)
    yield "the reward", audit.checks.run(audited)
    if (
        model
        and not audited.is_blind
        and worst_level([f for f in findings if f.check not in NO_FAULT_OF_SETUP]) != "fail"
    ):
        reduced = reduced_recipe(cfg)
        size = f"{reduced.rollout.prompts} prompts x {reduced.rollout.group_size}"
        trainer = make_trainer(reduced, model, readable_task(cfg, task, model)[0])
        yield f"its first step, {size}", try_first_step(trainer)
