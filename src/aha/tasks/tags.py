"""The text around a problem: frames of a prompt, and the tags of thought and answer.

Plain searches, no regular expressions: linear in the text, whatever it holds.
"""

from collections.abc import Callable
from dataclasses import dataclass

from aha.core.errors import ConfigError
from aha.core.records import Graded

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
ANSWER_OPEN, ANSWER_CLOSE = "<answer>", "</answer>"


@dataclass(frozen=True, slots=True)
class AnswerBlock:
    """The last complete answer block, and how many there were. `text` is None where none is."""

    text: str | None
    blocks: int


def answer_ending(answer: str) -> str:
    """How a completion ends: the thought is closed, then the answer stands in its block."""
    return f"{THINK_CLOSE}\n{ANSWER_OPEN}{answer}{ANSWER_CLOSE}"


def read_answer(completion: str) -> AnswerBlock:
    """The content of the last `<answer>...</answer>`; whatever follows it does not matter.

    Deviation from TinyZero, on purpose: the whole completion is searched, not its last line, so a
    trailing newline does not turn a right answer into a wrong one.
    """
    last_close = completion.rfind(ANSWER_CLOSE)
    start = completion.rfind(ANSWER_OPEN, 0, last_close) if last_close >= 0 else -1
    if start < 0:
        return AnswerBlock(None, 0)
    # A stray closing tag after the block is text that follows it, and does not matter either.
    end = completion.find(ANSWER_CLOSE, start)
    blocks = sum(ANSWER_CLOSE in part for part in completion.split(ANSWER_OPEN)[1:])
    return AnswerBlock(completion[start + len(ANSWER_OPEN) : end], blocks)


def well_formed(completion: str) -> bool:
    """R1's form to the letter: a thought, `</think>`, one answer block, and nothing else.

    The prompt has opened the thought. White space may stand between the tags and at the end; a
    second tag of any kind, an empty thought or answer, or text outside the two is another form.
    Source: the format reward of DeepSeek-R1 (arXiv 2501.12948), read strictly: where any tag
    satisfies the form, a small model learns to write the tag and stops there.
    """
    thought, closed, rest = completion.partition(THINK_CLOSE)
    rest = rest.strip()
    if not closed or not rest.startswith(ANSWER_OPEN) or not rest.endswith(ANSWER_CLOSE):
        return False
    answer = rest[len(ANSWER_OPEN) : -len(ANSWER_CLOSE)]
    inside = thought + answer
    tags = (THINK_OPEN, THINK_CLOSE, ANSWER_OPEN, ANSWER_CLOSE)
    return bool(thought.strip() and answer.strip()) and not any(tag in inside for tag in tags)


def grade_answer(text: object, check: Callable[[str], tuple[bool, str]]) -> Graded:
    """A reward of 1 if `check` accepts the last answer block, else 0, with the reason in words.

    Never raises by itself: any text gets a grade, and so does a value that is no text.
    `check(answer)` returns (right, reason).
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


# Its earlier name: tasks that an older `aha new-task` wrote import it.
judge_answer = grade_answer


TEMPLATES = ("plain", "r1", "instruct")
LEAD_IN = "Let me work this out step by step.\n<think>"


def plain_frame(line: str) -> str:
    """For the bases made here: one line and the opened thought, as in their corpus. They have read
    no other frame, and each token of a prompt costs time again at every step."""
    return f"{line}\n<think>\n"


def r1_frame(request: str) -> str:
    """For base models: DeepSeek R1's dialogue frame with the tag prefilled, as TinyZero has it.

    The structure is TinyZero's `base` template, its wording is ours.
    """
    return (
        "This is a conversation between User and Assistant. The user asks a question, and the "
        "Assistant solves it: it first thinks about the reasoning in its mind and then gives "
        f"the user the answer.\nUser: {request}\nAssistant: {LEAD_IN}"
    )


def instruct_frame(request: str) -> str:
    """For instruct models: the same request in ChatML, with the assistant's turn begun."""
    return (
        "<|im_start|>system\nYou are a helpful assistant. You first think about the reasoning "
        "in your mind and then give the user the answer.<|im_end|>\n"
        f"<|im_start|>user\n{request}<|im_end|>\n<|im_start|>assistant\n{LEAD_IN}"
    )


def check_template(template: str) -> str:
    """The template's name. Raises `ConfigError` for one that does not exist."""
    if template not in TEMPLATES:
        raise ConfigError(f"template {template!r}", f"one of {', '.join(TEMPLATES)}")
    return template


def framed(template: str, line: str, request: str) -> str:
    """The prompt of a problem: its short `line` in the plain frame, else `request` in the frame of
    that name."""
    if template == "plain":
        return plain_frame(line)
    return r1_frame(request) if template == "r1" else instruct_frame(request)
