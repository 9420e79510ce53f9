r"""Exact numbers from the forms in which people and models write them.

    42   -1,234   +3.50   .5   3/4   1 1/2   \frac{3}{4}   2\tfrac12   $1{,}000   7 apples   50\%

Fractions, never floats. A text that is not clearly one number gives None: "5x", "3 or 4", "1,5",
"2 million", "\sqrt{2}". Units are words after the number; a word that changes the value, such as
"million" or "pi", is no unit. A percent sign is a unit: 50\% reads as 50.
"""

import re
from fractions import Fraction

MAX_CHARS = 200
NO_UNITS = frozenset(
    "hundred thousand thousands million millions billion billions trillion dozen half third "
    "quarter and or to of pi e i x y z n k a b c plus minus times over squared cubed sqrt log "
    "sin cos inf infinity nan none".split()
)
COMPACT_UNITS = frozenset(
    "cm mm km m in ft kg g mg lb lbs oz s h hr hrs min ml l mph am pm".split()
)

_DECORATION = (
    # LaTeX spacing, sizes and money signs say nothing about the value.
    *(("\\left", ""), ("\\right", ""), ("\\!", ""), ("\\,", " "), ("\\;", " "), ("\\ ", " ")),
    *(("~", " "), ("\\$", ""), ("$", ""), ("\\(", ""), ("\\)", ""), ("\\[", ""), ("\\]", "")),
    *(("{,}", ","), ("\\dfrac", "\\frac"), ("\\tfrac", "\\frac"), ("\\cfrac", "\\frac")),
    *(("^{\\circ}", " "), ("^\\circ", " "), ("\\circ", " "), ("°", " "), ("\\%", " "), ("%", " ")),
    *(("€", ""), ("£", ""), ("\u2212", "-"), ("\u2013", "-"), ("\u00a0", " "), ("\u202f", " ")),
)
_TEXT = re.compile(r"\\(?:text|mathrm|textbf|mbox|operatorname) ?\{([^{}]*)\}")
_FRAC = re.compile(r"\\frac ?(?:\{(-?\d+)\}|(\d)) ?(?:\{(-?\d+)\}|(\d))")
_NAMED = re.compile(r"^[A-Za-z] *= *(?=[-+.\d\\])")
# Each repetition is anchored by digits: no two ways to match, so the time is linear.
_WHOLE = r"(?:\d{1,3}(?:,\d{3})+|\d+)"
_NUMBER = re.compile(
    rf"(?P<sign>[-+] ?)?(?:(?P<mixed>\d+) +(?P<top2>\d+) ?/ ?(?P<low2>\d+)"
    rf"|(?P<top>{_WHOLE}) ?/ ?(?P<low>{_WHOLE})"
    rf"|(?P<whole>{_WHOLE})?(?P<part>\.\d*)?)"
)


def read_number(text: str) -> Fraction | None:
    """The one number that `text` stands for, or None. Linear in the text, which may be anything."""
    if len(text) > MAX_CHARS:
        return None
    for old, new in _DECORATION:
        text = text.replace(old, new)
    text = _TEXT.sub(r" \1", text)
    text = _FRAC.sub(lambda match: " " + "/".join(filter(None, match.groups())), text)
    text = _NAMED.sub("", text.strip(), count=1).strip().rstrip(".").strip()
    # "-\frac12" has become "- 1/2"; "(5)" and "{5}" are the same as 5.
    text = re.sub(r"^([-+]) +", r"\1", text)
    while len(text) > 1 and text[0] + text[-1] in ("()", "{}"):
        text = text[1:-1].strip()
    match = _NUMBER.match(text)
    if match is None or not any(char.isdigit() for char in match[0]):
        return None
    return value_of(match) if is_unit(text[match.end() :]) else None


def value_of(match: re.Match[str]) -> Fraction | None:
    """The value of a match of `_NUMBER`; None for a division by zero or digits of other scripts."""
    part = {key: (value or "").replace(",", "") for key, value in match.groupdict().items()}
    if not all(piece.strip("+-. ").isascii() for piece in part.values()):
        return None  # \d matches the digits of every script
    try:
        if part["mixed"]:
            value = int(part["mixed"]) + Fraction(int(part["top2"]), int(part["low2"]))
        elif part["low"]:
            value = Fraction(int(part["top"]), int(part["low"]))
        else:
            value = Fraction((part["whole"] or "0") + (part["part"].rstrip(".") or ""))
    except ZeroDivisionError:
        return None
    return -value if "-" in part["sign"] else value


def is_unit(rest: str) -> bool:
    """Whether what follows a number can only be its unit: words that do not change its value."""
    if not rest.strip():
        return True
    words = rest.replace(".", " ").split()
    if not all(
        re.fullmatch(r"[A-Za-z]+(?:[-/][A-Za-z]+)*(?:\^\{?[23]\}?)?", word) for word in words
    ):
        return False
    stems = [re.sub(r"\^.*", "", word).lower() for word in words]
    if any(stem in NO_UNITS for stem in stems):
        return False
    spaced = rest[0] == " "
    return all(len(stem) > 1 or stem in COMPACT_UNITS for stem in stems) and (
        spaced or stems[0] in COMPACT_UNITS
    )


# -- the place of the answer ----------------------------------------------------------------


def last_boxed(text: str) -> str | None:
    r"""The content of the last \boxed{...} with balanced braces, or None."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    begin, depth = start + len("\\boxed{"), 1
    for end in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        if depth == 0:
            return text[begin:end]
    return None


def after_hashes(text: str) -> str | None:
    """The rest of the line after the last ####, as GSM8K ends its solutions; or None."""
    start = text.rfind("####")
    return None if start < 0 else text[start + 4 :].split("\n", 1)[0].strip()


def plain(text: str) -> str:
    """The text without case, spaces and LaTeX's decoration: how two answers that are no numbers are
    compared."""
    for old, new in _DECORATION:
        text = text.replace(old, new)
    text = _TEXT.sub(r"\1", text)
    return re.sub(r"\s+", "", text).rstrip(".").lower()
