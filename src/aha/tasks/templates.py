"""How a request is framed for models that have read dialogues; the request itself is the task's."""

LEAD_IN = "Let me work this out step by step.\n<think>"


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
    """For instruct models: the same request in ChatML, the assistant's turn begun."""
    return (
        "<|im_start|>system\nYou are a helpful assistant. You first think about the reasoning "
        "in your mind and then give the user the answer.<|im_end|>\n"
        f"<|im_start|>user\n{request}<|im_end|>\n<|im_start|>assistant\n{LEAD_IN}"
    )
