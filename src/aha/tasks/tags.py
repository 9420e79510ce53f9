"""Reading `<think>` and `<answer>` out of a completion. Plain searches, no regular expressions:
linear in the text, whatever it holds."""

from collections.abc import Callable
from dataclasses import dataclass

from aha.core.records import Graded

OPEN, CLOSE = "<answer>", "</answer>"
THINK, THOUGHT = "<think>", "</think>"


@dataclass(frozen=True, slots=True)
class AnswerBlock:
    """The last complete answer block, and how many there were. `text` is None where none is."""

    text: str | None
    blocks: int


def read_answer(completion: str) -> AnswerBlock:
    """The content of the last `<answer>...</answer>`; whatever follows it does not matter.

    Deviation from TinyZero, on purpose: the whole completion is searched, not its last line, so a
    trailing newline does not turn a right answer into a wrong one.
    """
    last_close = completion.rfind(CLOSE)
    start = completion.rfind(OPEN, 0, last_close) if last_close >= 0 else -1
    if start < 0:
        return AnswerBlock(None, 0)
    # A stray closing tag after the block is text that follows it, and does not matter either.
    end = completion.find(CLOSE, start)
    blocks = sum(CLOSE in part for part in completion.split(OPEN)[1:])
    return AnswerBlock(completion[start + len(OPEN) : end], blocks)


def well_formed(completion: str) -> bool:
    """R1's form to the letter: a thought, `</think>`, one answer block, and nothing else.

    The prompt has opened the thought. White space may stand between the tags and at the end; a
    second tag of any kind, an empty thought or answer, or text outside the two is another form.
    Source: the format reward of DeepSeek-R1 (arXiv 2501.12948), read strictly: a form that any
    tag satisfies is what small models park on (trap T35 of our notes).
    """
    thought, closed, rest = completion.partition(THOUGHT)
    rest = rest.strip()
    if not closed or not rest.startswith(OPEN) or not rest.endswith(CLOSE):
        return False
    answer = rest[len(OPEN) : -len(CLOSE)]
    inside = thought + answer
    tags = (THINK, THOUGHT, OPEN, CLOSE)
    return bool(thought.strip() and answer.strip()) and not any(tag in inside for tag in tags)


def grade_answer(text: str, check: Callable[[str], tuple[bool, str]]) -> Graded:
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
