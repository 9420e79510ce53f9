"""The frame of a prompt, and the tags of thought and answer in a completion.

The tags are read by plain searches without regular expressions, in time linear in any text.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aha.core.errors import ConfigError
from aha.core.records import Graded

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
ANSWER_OPEN, ANSWER_CLOSE = "<answer>", "</answer>"


@dataclass(frozen=True, slots=True)
class AnswerBlock:
    """The text of the last complete answer block (None without any), and the number of blocks."""

    text: str | None
    blocks: int


def answer_ending(answer: str) -> str:
    """The end of a completion: `</think>` and the answer in its block."""
    return f"{THINK_CLOSE}\n{ANSWER_OPEN}{answer}{ANSWER_CLOSE}"


def read_answer(completion: str) -> AnswerBlock:
    """The content of the last `<answer>...</answer>`; text after it is ignored.

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
    """Whether the text is exactly a thought, `</think>`, one answer block, and nothing else.

    The prompt has opened the thought. White space is allowed between the tags and at the end. A
    second tag of any kind, an empty thought or answer, or other text outside of them is not
    allowed. Source: the format reward of DeepSeek-R1 (arXiv 2501.12948), but strict: if any tag is
    enough for the reward, a small model learns to write the tag and nothing more.
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
SYSTEM = (
    "You are a helpful assistant. You first think about the reasoning in your mind and then give "
    "the user the answer."
)
ASSISTANT = "<|im_start|>assistant\n"


def plain_frame(line: str) -> str:
    """The frame for our own bases: one line and the opened thought, as in their corpus.

    They know no other frame, and a short prompt saves time at every step.
    """
    return f"{line}\n<think>\n"


def r1_frame(request: str) -> str:
    """The frame for base models: a dialogue as for DeepSeek R1-Zero, with `<think>` prefilled.

    The structure is TinyZero's `base` template, its wording is ours.
    """
    return (
        "This is a conversation between User and Assistant. The user asks a question, and the "
        "Assistant solves it: it first thinks about the reasoning in its mind and then gives "
        f"the user the answer.\nUser: {request}\nAssistant: {LEAD_IN}"
    )


def instruct_frame(request: str) -> str:
    """The frame for instruct models: the request in ChatML, with the assistant's turn begun."""
    return f"{system_turn(SYSTEM)}{user_turn(request)}{ASSISTANT}{LEAD_IN}"


def shown_frame(shown: Sequence[tuple[str, str]], request: str) -> str:
    """The frame for instruct models that are shown how to answer: (request, answer) pairs as turns
    before the request itself.

    It has no system's turn and begins no answer: the turns say what is wanted.
    """
    turns = (f"{user_turn(example)}{ASSISTANT}{answer}<|im_end|>\n" for example, answer in shown)
    return f"{''.join(turns)}{user_turn(request)}{ASSISTANT}"


def user_turn(text: str) -> str:
    """The user's turn of a conversation in ChatML."""
    return f"<|im_start|>user\n{text}<|im_end|>\n"


def system_turn(text: str) -> str:
    """The system's turn of a conversation in ChatML; no turn without a text."""
    return f"<|im_start|>system\n{text}<|im_end|>\n" if text else ""


def check_template(template: str) -> str:
    """The template's name. Raises `ConfigError` for one that does not exist."""
    if template not in TEMPLATES:
        raise ConfigError(f"template {template!r}", f"one of {', '.join(TEMPLATES)}")
    return template


def framed(template: str, line: str, request: str) -> str:
    """The prompt of a problem: `line` in the frame "plain", else `request` in the named frame."""
    if template == "plain":
        return plain_frame(line)
    return r1_frame(request) if template == "r1" else instruct_frame(request)
