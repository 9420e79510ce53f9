"""Reading `<think>` and `<answer>` out of a completion. Plain searches, no regular expressions:
linear in the text, whatever it holds."""

from collections.abc import Callable
from dataclasses import dataclass

from aha.core.records import Graded

OPEN, CLOSE = "<answer>", "</answer>"


@dataclass(frozen=True, slots=True)
class Answer:
    """The last complete answer block, and how many there were. `text` is None where none is."""

    text: str | None
    blocks: int


def read_answer(completion: str) -> Answer:
    """The content of the last `<answer>...</answer>`; whatever follows it does not matter.

    Deviation from TinyZero, on purpose: the whole completion is searched, not its last line, so a
    trailing newline does not turn a right answer into a wrong one.
    """
    last_close = completion.rfind(CLOSE)
    start = completion.rfind(OPEN, 0, last_close) if last_close >= 0 else -1
    if start < 0:
        return Answer(None, 0)
    # A stray closing tag after the block is text that follows it, and does not matter either.
    end = completion.find(CLOSE, start)
    blocks = sum(CLOSE in part for part in completion.split(OPEN)[1:])
    return Answer(completion[start + len(OPEN) : end], blocks)


def judge_answer(text: str, check: Callable[[str], tuple[bool, str]]) -> Graded:
    """A reward of 1 if `check` accepts the last answer block, else 0, with the reason in words.

    Any text gets a verdict, and so does what is no text. `check(answer)` returns (right, reason).
    """
    if not isinstance(text, str):
        return Graded(0.0, False, "the completion is not text")
    answer = read_answer(text)
    if answer.text is None:
        return Graded(0.0, False, "no <answer>...</answer> block", {"answer_blocks": 0.0})
    correct, reason = check(answer.text)
    if answer.blocks > 1:
        reason += f" (the last of {answer.blocks} answers)"
    return Graded(float(correct), correct, reason, {"answer_blocks": float(answer.blocks)})
