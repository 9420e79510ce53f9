r"""A teacher's completion in the form that the student is to learn, by rule.

    thought </think> <answer>...</answer>

Read are R1's tags, those of Sky-T1 (<|begin_of_thought|> ...), \boxed{}, ####, and a last line such
as "Answer: 42". The words of the thought stay as they are.
"""

import re

from aha.tasks.answers import answer_of, last_boxed
from aha.tasks.tags import (
    ANSWER_CLOSE,
    ANSWER_OPEN,
    THINK_CLOSE,
    THINK_OPEN,
    answer_ending,
    well_formed,
)

THOUGHTS = (
    (THINK_OPEN, THINK_CLOSE),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<thinking>", "</thinking>"),
)
SOLUTIONS = ("<|begin_of_solution|>", "<|end_of_solution|>")
LAST_LINE = re.compile(
    r"[ \t*#]*(?:the )?(?:final )?(?:answer|solution|result)(?: is\b|[ \t*]*[:=])[ \t*:=]*(.+)",
    re.IGNORECASE,
)
MAX_ANSWER = 400  # characters: a longer one is no answer, but more of the thought


def in_tags(text: str) -> str | None:
    """The completion in R1's tags, after a prompt that has opened the thought; None where no answer
    can be told from the rest. A completion in this form already stays as it is."""
    opened = text.lstrip().removeprefix(THINK_OPEN) if THINK_OPEN in text[:40] else text
    if well_formed(opened):
        return opened
    thought, rest = parts_of(text)
    answer = answer_of(rest) or answer_of(thought) or on_last_line(rest or thought)
    if answer is None or not answer.strip() or len(answer) > MAX_ANSWER:
        return None
    thought = without_tags(thought or before_answer(rest)).strip("\n")
    if not thought.strip():
        return None
    return f"{thought}\n{answer_ending(without_tags(answer).strip())}"


def parts_of(text: str) -> tuple[str, str]:
    """(thought, what follows it); without a closed thought nothing is known to be one."""
    for begin, end in THOUGHTS:
        before, closed, after = text.rpartition(end)
        if closed:
            return before.split(begin, 1)[-1], after
    return "", text


def before_answer(text: str) -> str:
    """The text up to its answer block, or all of it with the answer in it."""
    head, block, _ = text.rpartition(ANSWER_OPEN)
    if block:
        return head
    if last_boxed(text) is None and on_last_line(text) is not None:
        return text.rstrip().rpartition("\n")[0]
    return text


def on_last_line(text: str) -> str | None:
    """The answer of a last line "Answer: ..."; None without one."""
    line = text.rstrip().rpartition("\n")[2].rstrip(" \t.*")
    match = LAST_LINE.fullmatch(line) if len(line) <= 2 * MAX_ANSWER else None
    return match[1].strip().strip("$`").strip() if match else None


def without_tags(text: str) -> str:
    """The text without any tag of a thought or an answer, whose second one would make no form."""
    tags = (ANSWER_OPEN, ANSWER_CLOSE, *SOLUTIONS, *(tag for pair in THOUGHTS for tag in pair))
    for tag in tags:
        text = text.replace(tag, "")
    return text
