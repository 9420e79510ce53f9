"""Text of others made harmless for a screen: no character moves a cursor or turns a line around.

A model's completion, a grader's reason and a file's name may hold any character. Some are commands
to a terminal (ESC, BEL, backspace, carriage return, the C1 set), others change the direction in
which a line is read.
"""

REPLACEMENTS = {
    **{code: 0x2400 + code for code in range(32) if code not in (9, 10)},
    0x7F: 0x2421,
    **dict.fromkeys(range(0x80, 0xA0), 0xFFFD),
    # Bidirectional controls can make a line read differently from what it contains.
    **dict.fromkeys((0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F)), 0xFFFD),
    **dict.fromkeys((*range(0x2066, 0x206A), *range(0xD800, 0xE000)), 0xFFFD),
}


def visible(text: str) -> str:
    """The text with each control character replaced by one visible character; same length."""
    return text.translate(REPLACEMENTS)
