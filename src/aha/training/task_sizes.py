"""What a plan counts of a task before anything is trained: tokens of a prompt, held-out problems.

A run counts with its model's tokenizer. `aha plan` may have none: then the tokens of a prompt are
estimated from its text. Imports no torch.
"""

import re
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from aha.core.config import RunConfig
from aha.core.errors import AhaError
from aha.core.records import Problem, Prompt
from aha.plan.speed import TaskSizes
from aha.tasks.catalog import make_task
from aha.tasks.protocol import Task
from aha.tasks.tags import ASSISTANT
from aha.tasks.wording import SYSTEM_BEGIN

if TYPE_CHECKING:
    from aha.model.tokenizer import Tokenizer

MEASURED = 32  # problems whose prompts are measured for a plan
COUNTED = 1_000  # held-out problems up to which a plan counts what there is; more are believed
LISTED = ("calculate", "multiply")  # tasks without a solver: their problems cost nothing to draw
# About what byte-level BPE makes of English and numbers: a special token, a word, a digit, the
# space before a number, a row of signs, a line break. For the packaged recipes within 15 % of the
# tokens that SmolLM2 reads.
PIECE = re.compile(r"<\|\w+\|>|[^\W\d_]+|\d| (?=\d)|[^\w\s]+|_|\n")
# Of the turn that a chat template puts before a conversation without a system's: SmolLM2's.
SYSTEM_TURN = 21
ESTIMATED = "estimated from their words: the model's tokenizer is not here"


def sizes_of(
    cfg: RunConfig, task: Task, tokenizer: "Tokenizer | None", draw: bool = True
) -> TaskSizes:
    """What there is to count of a task; prompts by their words without a tokenizer. `draw`: see
    `held_out_of`."""
    tokens = prompt_tokens_of(cfg, task, tokenizer)
    how = "counted" if tokenizer else ESTIMATED
    return TaskSizes(tokens, held_out_of(cfg, task, draw), how if tokens else "assumed")


def sizes_before(cfg: RunConfig, folder: Path | None) -> TaskSizes:
    """`sizes_of` a recipe whose model has its tokenizer in `folder`, or, None, not on this disk.
    Where the task cannot be made here its sizes are assumed, with the reason."""
    from aha.model.tokenizer import Tokenizer

    try:
        task = make_task(cfg.task.name, cfg.task.settings())
        tokenizer = None if folder is None else Tokenizer.load(folder)
        return sizes_of(cfg, task, tokenizer, draw=task.name in LISTED)
    except AhaError as error:
        return TaskSizes(prompts_from=f"assumed: {error.got}")


def prompt_tokens_of(cfg: RunConfig, task: Task, tokenizer: "Tokenizer | None") -> float:
    """The mean length of the first training prompts, in tokens. 0 where there is none that the
    task can write and the tokenizer can hold."""
    sizes = []
    for problem in islice(task.problems("train", cfg.seed), MEASURED):
        try:
            size = tokens_of(problem, task, tokenizer)
        except AhaError:
            continue  # the run refuses or skips it, and says so
        sizes.append(size)
    return sum(sizes) / len(sizes) if sizes else 0.0


def tokens_of(problem: Problem, task: Task, tokenizer: "Tokenizer | None") -> int:
    """Tokens of a problem's prompt; about as many without a tokenizer."""
    if tokenizer:
        return len(Prompt.of(problem, task, tokenizer).tokens)
    text = task.ask(problem)
    talks = ASSISTANT in text and not text.startswith(SYSTEM_BEGIN)
    return len(PIECE.findall(text)) + (SYSTEM_TURN if talks else 0)


def held_out_of(cfg: RunConfig, task: Task, draw: bool = True) -> tuple[int, int]:
    """How many problems a validation and a test have: fewer than the recipe asks for, where the
    task has no more.

    `draw`: draw them to count them, as far as `COUNTED`; a task that draws with a solver needs
    seconds for that. Else only what the task itself says counts (`num_problems`).
    """
    most = {"validation": cfg.eval.problems if cfg.eval.every else 0, "test": cfg.eval.final}

    def count(split: str) -> int:
        known = getattr(task, "num_problems", None)
        number = known(split) if callable(known) else None
        if type(number) is int:
            return min(number, most[split])
        if not draw:
            return most[split]
        first = islice(task.problems(split, cfg.eval.seed), min(most[split], COUNTED))
        problems = sum(1 for _ in first)
        return problems if problems < COUNTED else most[split]

    return count("validation"), count("test")
