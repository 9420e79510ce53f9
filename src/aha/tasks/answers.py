r"""Where the answer stands in a solution and in a completion, and answers that are no numbers.

\boxed{3}   \boxed 3   \fbox{3}   #### 42 (GSM8K, on the last line)   <answer>3</answer>
"""

import re

from aha.tasks.numeric import read_quantity, unwrapped, without_decoration, without_text
from aha.tasks.tags import THINK_CLOSE, read_answer

_BOX = re.compile(r"\\(?:boxed|fbox)\b|\\(?:boxed|fbox)(?=\d)")
_BARE = re.compile(r"\s*([^\s{}$][^\s$]*)")
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z][A-Za-z']+")
_SENTENCE = re.compile(r"[.!?]\s+\S|\n")
_ENVIRONMENT = re.compile(r"\\(?:begin|end) ?\{\w+\*?\}|\\text")
_HEADING = re.compile(r"(?:step|final|conclusion|answer|solution|result|summary|note)\b", re.I)
_VERB = re.compile(r"\b(?:is|are|was|were|equals|has|have|had|gives|get|makes)\b", re.IGNORECASE)
MAX_ANSWER = 1_000  # of an answer, and ten times the length of the truth: more is only decoration
MAX_WORDS = 5  # of an answer that stands for itself
NOT_A_VALUE = frozenset(("", "nan", "none", "null", "<na>", "n/a", "#n/a", "nat", "undefined"))


def last_boxed(text: str) -> str | None:
    r"""The content of the last \boxed{...} or \fbox{...} with balanced braces, or None.

    Without braces, as in `$\boxed 3$`, it is what follows up to the end of the formula, or else the
    next word.
    """
    boxes = list(_BOX.finditer(text))
    if not boxes:
        return None
    begin = boxes[-1].end()
    while begin < len(text) and text[begin] in " \t\n":
        begin += 1
    if text[begin : begin + 1] == "{":
        return braced(text, begin)
    formula = text[begin:].split("\n", 1)[0].partition("$")
    bare = _BARE.match(text, begin)
    if bare is None:
        return None
    return (formula[0] if formula[1] else bare[1]).strip().rstrip(".,;") or None


def braced(text: str, begin: int) -> str | None:
    """The content of the braces that open at `begin`; None where they do not close, or hold
    nothing."""
    depth = 0
    for end in range(begin, len(text)):
        escaped = text[end - 1] == "\\" if end else False
        depth += 0 if escaped else {"{": 1, "}": -1}.get(text[end], 0)
        if depth == 0:
            return text[begin + 1 : end].strip() or None
    return None


def after_hashes(text: str) -> str | None:
    """The rest of the line after the last ####, as GSM8K ends its solutions; or None. A heading of
    another depth (##### or ###) is none."""
    marks = list(re.finditer(r"(?<!#)####(?!#)", text))
    return text[marks[-1].end() :].split("\n", 1)[0].strip() if marks else None


def true_answer(column: str) -> str | None:
    r"""The answer alone, from a column that may hold a whole solution; None where it has none.

    A #### counts on the last line alone, and before a \boxed{} only if it is followed by a number:
    in a solution in Markdown it begins a heading. A column without any mark is the answer itself
    unless it is prose.
    """
    last_line = column.rstrip().rsplit("\n", 1)[-1]
    marked = after_hashes(last_line)
    if marked and read_quantity(marked) is not None:
        return marked
    boxed = last_boxed(column)
    if boxed is not None:
        return boxed
    if _BOX.search(column):
        return None  # cut in the middle, or empty
    if marked is None:
        marked = column.strip()
    elif _HEADING.match(marked):
        return None
    return None if is_prose(marked) or marked.lower() in NOT_A_VALUE else marked


def is_prose(text: str) -> bool:
    """Whether a text is a sentence about an answer more than the answer itself."""
    if read_quantity(text) is not None:
        return False
    words = _WORD.findall(_ENVIRONMENT.sub(" ", text))
    if len(words) > MAX_WORDS or (_SENTENCE.search(text.strip()) and len(words) > 1):
        return True
    return len(words) > 1 and _VERB.search(text) is not None


def answer_of(completion: str) -> str | None:
    r"""The answer in a completion: the last <answer>, else \boxed{}, else ####, else None.

    What was thought is no answer: where the thought was closed, the answer stands after it.
    """
    parts = completion.split(THINK_CLOSE)  # a stray tag at the end closes nothing
    text = next((part for part in reversed(parts) if part.strip()), "")
    block = read_answer(text).text
    if block is not None:
        boxed = last_boxed(block)
        return block.strip() if boxed is None else boxed
    boxed = last_boxed(text)
    return after_hashes(text) if boxed is None else boxed


# -- which answers are the same -------------------------------------------------------------


def compare(
    truth: str, answer: str, things: frozenset[str] = frozenset()
) -> tuple[bool, str, bool]:
    """(right, reason, sure): sure where both are numbers, so that nothing is left to interpret.

    `things`: what the question counts, see `units.counted_things`.
    """
    if len(answer) > MAX_ANSWER + 10 * len(truth):
        return False, f"{len(answer):,} characters, not {truth[:60]!r}", False
    true, got = read_quantity(truth, things), read_quantity(answer, things)
    if true is not None and got is not None:
        same = true.equals(got)
        if same or true.value != got.value:
            return same, f"is {got.value}" + ("" if same else f", not {true.value}"), True
        return False, f"{answer[:60]!r} is {got.value} of another unit than {truth[:60]!r}", True
    # A number and a text are never the same: in "7 dozens" a word may have changed the number.
    same = true is None and got is None and plain(truth) == plain(answer) != ""
    return same, f"{answer[:60]!r} is {'' if same else 'not '}{truth[:60]!r}", False


def same_answer(first: str, second: str) -> bool:
    """Whether two answers are the same, for all that `compare` can say."""
    return compare(first, second)[0]


# -- answers that are no numbers ------------------------------------------------------------

_SYMBOLS = [
    (re.compile(pattern), instead)
    for pattern, instead in (
        ("π", r"\\pi "),
        ("∞", r"\\infty "),
        ("√", r"\\sqrt "),
        ("×", r"\\times "),
        ("·", r"\\cdot "),
        (r"≤|\\leq(?![A-Za-z])", r"\\le "),
        (r"≥|\\geq(?![A-Za-z])", r"\\ge "),
        (r"≠|\\neq(?![A-Za-z])", r"\\ne "),
        ("∪", r"\\cup "),
        ("∩", r"\\cap "),
        (r"(?<![A-Za-z\\])(sqrt|pi)(?![A-Za-z])", r"\\\1"),
        (r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"\\sqrt\s*([A-Za-z0-9])", r"\\sqrt{\1}"),
        (r"\\frac\s*([0-9])\s*([0-9])", r"\\frac{\1}{\2}"),
        (r"\\\$|\$|\\\(|\\\)", ""),
    )
]
_CHOICE = re.compile(r"\(?([A-Ja-j])\)?\.?")


def plain(text: str) -> str:
    """The text without what says nothing about its value: how two answers that are no numbers are
    compared.

    Words lose their capitals and single letters keep them, because x and X may both be variables.
    A space stays where it parts two numbers. A letter up to J alone is a choice, (A) or A or a.
    """
    text = unwrapped(without_text(without_decoration(text), r" \1 "))
    if choice := _CHOICE.fullmatch(text):
        return choice[1].upper()
    for pattern, instead in _SYMBOLS:
        text = pattern.sub(instead, text)
    text = re.sub(r"(?<![\\A-Za-z])(?:[A-Za-z]{3,}|No|NO)(?![A-Za-z])", _lower, text)
    return re.sub(r"(?<!\d)\s+|\s+(?!\d)", "", " ".join(text.split()))


def _lower(word: re.Match[str]) -> str:
    return word[0].lower()
