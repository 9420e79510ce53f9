"""A recipe before its run starts: settings, base model, tokenizer, prompts and splits."""

import json
from dataclasses import dataclass, field
from itertools import islice

import torch

from aha.core.config import RunConfig
from aha.core.findings import Checklist, Finding, fail, ok, warn
from aha.core.records import Prompt
from aha.model.weights import LoadedModel
from aha.tasks.protocol import Task
from aha.train.experiment import check_lengths

checks = Checklist()

HELD_OUT = 200  # problems of each split
SPLITS = ("train", "validation", "test")
CHAT_STOP = "<|im_end|>"


@dataclass(frozen=True)
class Start:
    """What there is before a run: the settings and what they lead to."""

    cfg: RunConfig
    model: LoadedModel
    task: Task
    prompts: list[Prompt]  # of the first step
    ids: dict[str, list[str]] = field(default_factory=dict)  # of some problems of each split

    @classmethod
    def of(cls, cfg: RunConfig, model: LoadedModel, task: Task) -> "Start":
        wanted = islice(task.problems("train", cfg.seed), cfg.rollout.prompts)
        prompts = [Prompt.of(problem, task, model.tokenizer) for problem in wanted]
        ids = {
            split: [problem.id for problem in islice(task.problems(split, cfg.eval.seed), HELD_OUT)]
            for split in SPLITS
        }
        return cls(cfg, model, task, prompts, ids)

    def name_of(self, token: int) -> str:
        return repr(self.model.tokenizer.fast.id_to_token(token) or token)


@checks
def settings(start: Start) -> Finding:
    """Settings that are allowed and that nobody wants."""
    cfg = start.cfg
    if cfg.optim.lr == 0:
        return fail("optim.lr is 0: nothing will be learned", "--optim.lr 3e-4")
    if cfg.steps == 0:
        return warn("steps is 0: it evaluates and trains nothing", "--steps 60")
    if not cfg.eval.final and not cfg.eval.every:
        return warn("no look at held-out problems", "--eval.final 1000 or --eval.every 10")
    if not cfg.checkpoint_every and cfg.steps > 100:
        return warn("no checkpoint before the end", "--checkpoint_every 20")
    return ok(f"{cfg.steps} steps, lr up to {cfg.optim.lr:g}, held-out looks")


@checks
def room(start: Start) -> Finding:
    """The model's positions hold a prompt and its completion."""
    check_lengths(start.cfg, start.model, start.task)  # raises what is refused, with the fix
    config, longest = start.model.policy.config, max(len(p.tokens) for p in start.prompts)
    most = longest + start.cfg.rollout.max_new_tokens
    return ok(f"prompt and completion need {most} of {config.max_position_embeddings} positions")


@checks
def base_weights(start: Start) -> Finding:
    """One weight that is no number makes every log-prob none."""
    bad = [
        name
        for name, tensor in start.model.policy.named_parameters()
        if not torch.isfinite(tensor).all()
    ]
    if bad:
        return fail(
            f"weights that are no numbers: {', '.join(bad[:3])}", "another copy of the base"
        )
    millions = start.model.policy.num_parameters() / 1e6
    return ok(f"{millions:.2f} M weights, all finite, stored in float32")


@checks
def vocabulary(start: Start) -> Finding:
    """Ids that the model does not have would read beyond its table."""
    tokenizer, model = start.model.tokenizer, start.model.policy.config.vocab_size
    if tokenizer.vocab_size > model:
        saw = f"the tokenizer has {tokenizer.vocab_size} entries, the model {model}"
        return fail(saw, "the tokenizer and the weights of one and the same model")
    return ok(f"{tokenizer.vocab_size} entries in the tokenizer, {model} in the model")


def declared_stops(start: Start) -> set[int]:
    """The end-of-sequence ids that the model's own files name."""
    found = set()
    for name in ("config.json", "generation_config.json"):
        path = start.model.path / name
        try:
            ids = json.loads(path.read_text()).get("eos_token_id")
        except (OSError, ValueError, AttributeError):
            continue
        found |= {i for i in (ids if isinstance(ids, list) else [ids]) if isinstance(i, int)}
    return found


@checks
def stop_token(start: Start) -> Finding:
    """A model whose real stop token is another one never ends, and is cut off every time."""
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
def pad_token(start: Start) -> Finding:
    """Masks are made from lengths, so the pad token may be the stop token (trap T20)."""
    tokenizer = start.model.tokenizer
    pad, size = tokenizer.pad_id, start.model.policy.config.vocab_size
    if not 0 <= pad < size:
        return fail(f"the pad id {pad} is not among the model's {size}", "set pad_token")
    if pad in tokenizer.stop_ids:
        return ok(f"{start.name_of(pad)} pads and stops; masks are made from lengths, so it may")
    if any(pad in prompt.tokens for prompt in start.prompts):
        return fail(f"prompts hold the pad token {start.name_of(pad)}", "mend the task's `ask`")
    return ok(f"{start.name_of(pad)} pads, and no prompt holds it")


@checks
def prompt_tokens(start: Start) -> Finding:
    """A prompt's tokens are its text, and begin as the model's documents do."""
    fast = start.model.tokenizer.fast
    for prompt in start.prompts:
        if not prompt.tokens:
            return fail(f"an empty prompt for {prompt.problem.id}", "mend the task's `ask`")
        if fast.decode(list(prompt.tokens), skip_special_tokens=False) != prompt.text:
            saw = f"the tokens of {prompt.problem.id} read as another text"
            return fail(saw, "encode a prompt once, without special tokens of your own")
    longest = max(len(prompt.tokens) for prompt in start.prompts)
    return ok(f"prompts of up to {longest} tokens, whole and back again")


@checks
def problems(start: Start) -> Finding:
    """Enough different problems: the same one again and again is learned by heart."""
    wanted, got = start.cfg.rollout.prompts, len({p.problem.id for p in start.prompts})
    if got < wanted:
        fix = f"more rows in task.data, or --rollout.prompts {max(1, got)}"
        return warn(f"a step wants {wanted} problems, the train split gave {got}", fix)
    return ok(f"{got} different problems in the first step")


@checks
def splits(start: Start) -> Finding:
    """A held-out problem that was trained on proves nothing."""
    found = {split: set(ids) for split, ids in start.ids.items()}
    trained = found.get("train", set())
    shared = {split: found[split] & trained for split in found if split != "train"}
    bad = [
        f"{len(both)} of {len(found[split])} in {split}" for split, both in shared.items() if both
    ]
    if bad:
        return fail(f"training problems are held out too: {', '.join(bad)}", "splits by problem")
    empty = [split for split, ids in found.items() if not ids]
    if empty:
        return warn(f"no problem in: {', '.join(empty)}", "more rows in task.data")
    return ok("no problem in two splits")
