"""The frame around a request: a plain line, R1's dialogue, ChatML. The request is the task's."""

from aha.core.errors import ConfigError

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
