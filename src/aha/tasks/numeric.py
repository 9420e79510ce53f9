r"""Exact numbers from the forms in which people and models write them.

    42   -1,234   12 000   +3.50   .5   3/4   1 1/2   \frac{3}{4}   2\tfrac12   $1{,}000   1e-05
    7 apples   50\%   x = 5   3 \times 10^4   The answer is 18 dollars per day.

Fractions, never floats. A text that is not clearly one number gives None: "5x", "3 or 4", "1,5",
"5!", "7^2", "2 million", "7 dozens", "\sqrt{2}". What may stand around the digits is a list of what
is allowed: LaTeX that says nothing about the value, money, and the units of `units`. A percent sign
is a unit: 50\% reads as 50.
"""

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction

from aha.tasks.units import COMPACT, MONEY, Unit, read_unit, same_unit

MAX_CHARS = 200
VULGAR = "¼½¾⅐⅑⅒⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"
MAX_EXPONENT = 99


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number with the unit and the name of a variable that stand with it, each perhaps empty."""

    value: Fraction
    unit: Unit = ()
    name: str = ""

    def equals(self, other: "Quantity") -> bool:
        """The same value, and no unit or name that says otherwise."""
        same_name = not self.name or not other.name or self.name == other.name
        return self.value == other.value and same_name and same_unit(self.unit, other.unit)


_SAYS_NOTHING = [
    (re.compile(pattern), instead)
    for pattern, instead in (
        (r"\\(?:left|right|displaystyle)(?![A-Za-z])", ""),
        (r"(?<!\\)\\!", ""),
        (r"(?<!\\)\\[ ,;:]|[\u00a0\u2009\u202f]", " "),  # "\\ " begins a row of a matrix
        (r"\{,\}", ","),
        (r"[\u2212\u2013]", "-"),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"(?:\{\})?\^ ?(?:\\circ(?![A-Za-z])|\{ ?\\circ ?\})|\\degree(?![A-Za-z])", "°"),
        (r"\\%", "%"),
        *((char, f" {unicodedata.normalize('NFKC', char)}".replace("⁄", "/")) for char in VULGAR),
    )
]
_TEXT = re.compile(r"\\(?:text|mathrm|textbf|textit|mathbf|textrm|mbox|operatorname) ?\{([^{}]*)\}")
# (opening, closing, characters that may not stand between them)
_WRAPS = (
    *(("$$", "$$", "$"), ("$", "$", "$"), ("**", "**", "*"), ("`", "`", "`")),
    *(("\\(", "\\)", "\\("), ("\\[", "\\]", "\\["), ("(", ")", "(){},"), ("{", "}", "(){},")),
)
_ANSWER_IS = re.compile(
    r"^(?:(?:so|thus|hence|therefore),? )?(?:the |my )?(?:final |correct )?answer ?(?:is:?|:|=) ?",
    re.IGNORECASE,
)
_NAMED = re.compile(r"^([A-Za-z]?) ?= ?(?!=)")
_FRAC = re.compile(
    r"\\frac ?(?:\{ ?([-+]?[\d.,]+) ?\}|(\d)) ?(?:\{ ?([-+]?[\d.,]+) ?\}|(\d))", re.ASCII
)
# Each repetition is anchored by digits: no two ways to match, so the time is linear.
_WHOLE = r"(?:[1-9]\d{0,2}(?:,\d{3})+(?!\d)|[1-9]\d{0,2}(?: \d{3})+(?!\d)|\d+)"
_DECIMAL = rf"(?:{_WHOLE}(?:\.\d*)?|\.\d+)"
_MONEY = "|".join(re.escape(sign) for sign in MONEY)
_NUMBER = re.compile(
    rf"(?P<sign>[-+] ?)?(?:(?P<money>{_MONEY}) ?(?P<sign2>[-+] ?)?)?"
    rf"(?:(?P<mixed>\d+) +(?P<top2>\d+) ?/ ?(?P<low2>\d+)"
    rf"|(?P<top>{_DECIMAL}) ?/ ?(?P<low>[-+]?{_DECIMAL})"
    rf"|(?P<number>{_DECIMAL})(?:[eE](?P<e>[-+]?\d+)"
    rf"|(?: ?(?:\\times|\\cdot|[x×*]) ?10 ?\^ ?(?:(?P<ten>[-+]?\d+)|\{{(?P<ten2>[-+]?\d+)\}}))?)?)"
    r"(?![\d.,])",
    re.ASCII,
)


def read_number(text: str) -> Fraction | None:
    """The one number that `text` stands for, or None. Linear in the text, which may be anything."""
    quantity = read_quantity(text)
    return None if quantity is None else quantity.value


def read_quantity(text: str, things: frozenset[str] = frozenset()) -> Quantity | None:
    """The one number that `text` stands for with its unit, or None where it is not clearly one.

    `things`: counted nouns that are known besides those of `units`, as the question has them.
    """
    if len(text) > MAX_CHARS:
        return None
    text, name = without_frame(text)
    text = re.sub(r"^([-+])\s+", r"\1", text)  # "-\frac12" has become "- 1/2"
    match = _NUMBER.match(text)
    if match is None:
        return None
    value = value_of(match)
    unit = unit_after(match, text[match.end() :], things)
    return None if value is None or unit is None else Quantity(value, unit, name)


def without_frame(text: str) -> tuple[str, str]:
    """(the text without what says nothing about its value, the variable that it is set equal to).

    Also: fractions of LaTeX written with a slash."""
    text = without_decoration(text)
    text = unwrapped(text.replace("\\$", "$") if text.count("$") == 1 else text)
    text = _ANSWER_IS.sub("", text, count=1)
    text, name = unwrapped(text), ""
    if match := _NAMED.match(text):
        name, text = match[1], unwrapped(text[match.end() :])
    text = without_text(text, r" \1").replace("\\$", "$").replace("°", " °")
    text = re.sub(r"(?<=\w)~(?= ?\w)", " ", text)  # a space of LaTeX; before a number it is "about"
    text = unwrapped(re.sub(r"^\$([^$]+)\$ ", r"\1 ", text.strip()))
    return _FRAC.sub(_slash, text).strip(), name


def without_decoration(text: str) -> str:
    """The text without LaTeX's spaces and sizes, and with one spelling of minus, degree, percent
    and fraction."""
    for pattern, instead in _SAYS_NOTHING:
        text = pattern.sub(instead, text)
    return text


def without_text(text: str, instead: str) -> str:
    r"""The text with \text{...} and its kin replaced by `instead`, two deep."""
    return _TEXT.sub(instead, _TEXT.sub(instead, text))


def _slash(match: re.Match[str]) -> str:
    top, low = (match[1] or match[2]), (match[3] or match[4])
    return f" {top}/{low}"


def unwrapped(text: str) -> str:
    """The text without spaces, one full stop at its end, and delimiters around the whole of it.

    A list keeps its brackets: (1,234) is a pair, and 1,234 is a number."""
    before = None
    while text != before:
        before, text = text, text.strip()
        if text.endswith(".") and not text.endswith(".."):
            text = text[:-1].rstrip()
        for opening, closing, forbidden in _WRAPS:
            inner = text[len(opening) : len(text) - len(closing)]
            if inner and text.startswith(opening) and text.endswith(closing):
                if forbidden not in inner if "\\" in forbidden else not set(forbidden) & set(inner):
                    text = inner
    return text


def value_of(match: re.Match[str]) -> Fraction | None:
    """The value of a match of `_NUMBER`; None where it has none or where it is ambiguous."""
    part = {key: re.sub("[, ]", "", value or "") for key, value in match.groupdict().items()}
    if part["sign"] and part["sign2"]:
        return None
    try:
        if part["mixed"]:
            top, low = int(part["top2"]), int(part["low2"])
            # "1 234/500" may be a thousand, "3 5/4" a product.
            if top >= low or len(part["top2"]) == 3:
                return None
            value = int(part["mixed"]) + Fraction(top, low)
        elif part["low"]:
            value = Fraction(part["top"]) / Fraction(part["low"])
        else:
            exponent = int(part["e"] or part["ten"] or part["ten2"] or 0)
            if abs(exponent) > MAX_EXPONENT:
                return None
            value = Fraction(part["number"]) * Fraction(10) ** exponent
    except (ZeroDivisionError, ValueError):
        return None
    return -value if "-" in (part["sign"], part["sign2"]) else value


def unit_after(match: re.Match[str], rest: str, things: frozenset[str]) -> Unit | None:
    """The unit of a number from the money before it and the text after it, None where one of them
    is no unit."""
    money = match["money"] or ""
    if rest and rest[0] not in " /" and not money:
        glued = re.match(r"[A-Za-z]+|[%°¢$€£]", rest)
        if glued is None or glued[0] not in COMPACT:
            return None  # "5x", "7th", "7k"
    unit = read_unit(rest, things)
    if not money:
        return unit
    if unit is not None and read_unit(money) == unit[:1]:
        return unit if rest.startswith(" ") else None  # "$18 dollars per day"
    return read_unit(f"{money}{rest}") if not rest or rest[0] in " /" else None
