"""A completion as a list of events: calculations, verdicts, goals, the answer.

The first grammar is that of aha-tiny, one operation a line:

    25+7=32 3      32*3=96 no        82-7=75 need        aim 75        <answer>(25*3)+7</answer>

The 3 behind a result is what is left, and may be missing. Other ways that larger models write are
read too: `25 + 7 = 32`, `x`, `×`, `÷`, `\\times`, equations with brackets, chains such as `3 * 7 =
21, 21 + 25 = 46 (too low)` and `(9 - 4) * 2 = 5 * 2 = 10`. An expression without a value is a plan,
not a calculation, and gives no event. The words of a verdict are searched in the clause of the
calculation and in the next one.

The relations between events (going back, which goal a verdict is about) are the detector's. Source
for the kinds of events: the four behaviours of Gandhi et al., arXiv 2503.01307. The words of
verdicts and goals are our choice; in free text they miss some.
"""

import re
from collections.abc import Iterator
from fractions import Fraction
from itertools import zip_longest
from typing import NamedTuple

from aha.behaviors.arithmetic import (
    NUMBER,
    OPERATOR,
    Evaluation,
    Number,
    Step,
    agrees,
    evaluate_expression,
    number,
    operate,
    operator,
)


class Calc(NamedTuple):
    """One claimed equation. `a op b` is its last operation, on the values of its two sides.

    `numbers` are all the numbers it consumes, sorted, and `inner` its operations before the last:
    for a plain line `a` and `b`, and none. `claimed` is None for "25 + 7 != 82", which claims no
    value; `true` is None for a division by zero. `right` allows a decimal its rounding. `need`: the
    line has the word "need" or the like. `left` are the numbers that a plain line names behind its
    value, sorted: what else is on the table then.
    """

    a: Number
    op: str
    b: Number
    claimed: Number | None
    true: Number | None
    right: bool
    numbers: tuple[Number, ...]
    inner: tuple[Step, ...]
    need: bool
    start: int
    end: int
    left: tuple[int, ...] = ()

    @property
    def value(self) -> Number:
        """The value that the following text uses: the claimed one, right or wrong."""
        if self.claimed is not None:
            return self.claimed
        assert self.true is not None, "only a plain line divides by zero, and it claims a value"
        return self.true


class Check(NamedTuple):
    """A verdict on the value of the calculation before it; at most one for each.

    `verdict` is yes, no, high or low; `named` is the number that the text compares with, or None.
    `explicit`: the target is named, as a number or as "the target"; else there is only the verdict.
    """

    value: Number
    verdict: str
    named: int | None
    explicit: bool
    start: int
    end: int

    def true_for(self, goal: Number) -> bool:
        """Whether the verdict is right when the value is compared with `goal`."""
        if self.verdict == "yes":
            return self.value == goal
        if self.verdict == "no":
            return self.value != goal
        return self.value > goal if self.verdict == "high" else self.value < goal


class Goal(NamedTuple):
    """A value that the text announces before it is made."""

    value: int
    start: int
    end: int


class FinalAnswer(NamedTuple):
    """The content of the last complete `<answer>` block, which is the one that is graded."""

    text: str
    start: int
    end: int


Event = Calc | Check | Goal | FinalAnswer

# -- patterns: possessive or bounded throughout, so that reading is linear in the text ------

_SPACE = r"[ \t]*+"
_ATOM = rf"(?:\([ \t]*+){{0,9}}+-?+{NUMBER}(?:[ \t]*+\)){{0,9}}+"
_NAMED = r"(?:(?:the |our )?(?:target|goal)\b|-?[0-9]{1,9}\b)"
_ENDS = r"(?=[ \t]*+(?:[.,;:!)\]]|$))"

# A plain line (unnamed groups: four, the fifth a verdict of one word at its end, the sixth the
# numbers that are left) is by far the most common. "general" matches any expression whole, with a
# claim after it or without, so that a long sum is scanned only once.
_SCAN = re.compile(
    rf"(?<![\w.])(?:"
    rf"([0-9]{{1,9}}+){_SPACE}({OPERATOR}){_SPACE}([0-9]{{1,9}}+){_SPACE}=(?!=)"
    rf"{_SPACE}(?=([0-9]{{1,9}}+)(?![0-9]|\.[0-9]|{_SPACE}{OPERATOR})"
    r"(?: (yes|no|need)$|((?: [0-9]{1,9}+){1,11}+)$)?)"
    rf"|(?P<general>{_ATOM}(?:{_SPACE}{OPERATOR}{_SPACE}{_ATOM})++)"
    rf"(?:{_SPACE}(?P<relation>==?|!=|≠|\\neq?){_SPACE}"
    rf"(?=(?:\([ \t]*+){{0,9}}+(?P<claimed>-?+{NUMBER})))?+"
    r"|(?:aim(?:ing)?(?: for| at)?|subgoal(?: is| of|:)?|close to|get to"
    r"|(?:try|trying|want|hope|hoping|let's|first)(?: to)?(?: first)? (?:make|reach|get|form))"
    r" (?:a |about |around |exactly )?"
    rf"(?P<goal>[0-9]{{1,9}}+)(?!{_SPACE}(?:{OPERATOR}{_SPACE}[0-9(]|=)|\.[0-9]))",
    re.IGNORECASE | re.MULTILINE,
)

_NOT = r"(?:\bnot|n't|n’t)\b"
_BY_WORDS = r"too|more|less|away|off|short|over|under|below|above"
_VERDICT = re.compile(
    r"(?P<need>\bneed(?:ed|s)?\b)"
    rf"|(?P<no>\bno\b{_ENDS}|\b(?:nope|wrong|incorrect|fails?|off by|away from)\b|[✗✘❌]"
    rf"|{_NOT} (?:quite |yet |equal to |equal |match |reach |make |give |hit ){{0,3}}"
    rf"(?:{_NAMED}|right\b|correct\b|work|enough\b|it\b|what\b)"
    rf"|{_NOT} (?:quite|equal|match)\b|(?:!=|≠|\\neq?) ?{_NAMED})"
    rf"|(?P<high>\btoo (?:high|big|large|much|great)\b|(?<![-=])> ?{_NAMED}"
    rf"|\b(?:over|above|exceeds|(?:greater|higher|more|larger|bigger) than) {_NAMED})"
    rf"|(?P<low>\btoo (?:low|small|little)\b|< ?{_NAMED}"
    rf"|\b(?:under|below|(?:less|lower|fewer|smaller) than) {_NAMED})"
    rf"|(?P<yes>\byes\b{_ENDS}|\b(?:correct|works|bingo|success|perfect|found it|got it)\b|[✓✔✅]"
    r"|(?:\bis|\bequals|\bequal to|\bmatches|\bhits|\breaches|=) (?:exactly )?"
    rf"{_NAMED}(?! (?:{_BY_WORDS})\b))",
    re.IGNORECASE | re.MULTILINE,
)
_ROUNDING = Fraction(1, 100)  # 58 + 1.5714 restates 58 + 11/7
_EXACT = Fraction(0)
_GAP = 100  # characters after a calculation in which its verdict is searched
_BREAK = re.compile(r"[.,;!?\n]")
_DIGITS = re.compile(r"-?[0-9]+")
_FIRST_NUMBER = re.compile(NUMBER)
_LAST_DIGITS = re.compile(r"-?[0-9]+$")


# -- reading --------------------------------------------------------------------------------


def parse(text: str, limit: int | None = None) -> tuple[Event, ...]:
    """All events of a completion in order; the answer, where there is one, comes last.

    Working ends at the first `</think>`, or where there is none at the answer that is graded; at
    most `limit` characters of it are read. Linear in the text. Never raises, whatever the text.
    """
    answer = last_answer(text)
    end = working_end(text, answer)
    end = end if limit is None else min(end, limit)
    events: list[Event] = []
    links: list[re.Match[str]] = []  # expressions joined by "=" so far
    joint = -1  # where the next one begins, if it is joined to them
    for match in _SCAN.finditer(text, 0, end):
        start = match.start()
        if links and start != joint:
            _add_chain(text, links, start, events)
            links = []
        kind = match.lastgroup
        if kind is None:  # a plain line may continue a chain, and ends it
            links.append(match)
            joint = -1
        elif kind == "goal":
            events.append(Goal(int(match["goal"]), start, match.end()))
        elif kind == "claimed":
            links.append(match)
            joint = match.end() if match["relation"][0] == "=" else -1
        elif links:  # an expression that claims nothing is a plan, unless it ends a chain
            links.append(match)
            joint = -1
    if links:
        _add_chain(text, links, end, events)
    if answer is not None:
        events.append(answer)
    return tuple(events)


def _add_chain(text: str, links: list[re.Match[str]], after: int, events: list[Event]) -> None:
    """Add the calculations of a complete chain with their verdicts; `after` is where the next match
    begins."""
    match = links[0]
    groups = match.lastindex or 0
    if len(links) == 1 and groups < 7:
        calc = _plain_calc(match)
        if groups == 6:
            events.append(calc._replace(left=tuple(sorted(map(int, match[6].split())))))
        elif groups == 4:
            _add_with_verdict(text, calc, after, events)
        elif calc.need:
            events.append(calc)
        else:
            events += [calc, Check(calc.value, match[5].lower(), None, False, *match.span(5))]
        return
    calcs = list(_chain_calcs(links))
    for calc, following in zip_longest(calcs, calcs[1:]):
        _add_with_verdict(text, calc, after if following is None else following.start, events)


def last_answer(text: str) -> FinalAnswer | None:
    """The last `<answer>` that is closed, up to the first `</answer>` after it."""
    opened, closed = "<answer>", "</answer>"
    last_closed = text.rfind(closed)
    start = text.rfind(opened, 0, last_closed) if last_closed >= 0 else -1
    if start < 0:
        return None
    end = text.find(closed, start)
    return FinalAnswer(text[start + len(opened) : end], start, end + len(closed))


def working_end(text: str, answer: FinalAnswer | None) -> int:
    """The index at which the working ends and the reply begins."""
    end = text.find("</think>")
    if end >= 0:
        return end
    return len(text) if answer is None else answer.start


def _plain_calc(match: re.Match[str]) -> Calc:
    """The calculation of a plain line, such as `25+7=32`; a division by zero has no true value."""
    first, sign, second, last, word = match.group(1, 2, 3, 4, 5)
    a, op, b, claimed = int(first), operator(sign), int(second), int(last)
    true = operate(a, op, b)
    numbers = (a, b) if a <= b else (b, a)
    need = word is not None and word.lower() == "need"
    start, end = match.start(), match.end(4)
    return Calc(a, op, b, claimed, true, true == claimed, numbers, (), need, start, end)


def _chain_calcs(links: list[re.Match[str]]) -> Iterator[Calc]:
    """The calculations in `first = second = ... = value`.

    A part with the same value repeats the one before it. A part that begins with that value, as in
    `7+25=32*3=96`, is a calculation of its own. Any other part is an error.
    """
    head: re.Match[str] | None = None
    current: Evaluation | None = None
    slipped = False
    for link in links:
        words = _balanced(link["general"] or f"{link[1]}{link[2]}{link[3]}")
        evaluated = evaluate_expression(words)
        if evaluated is None:
            return
        if head is None or current is None:
            head, current = link, evaluated
        elif _distance(evaluated.value, current.value) > (_ROUNDING if "." in words else _EXACT):
            slipped = len(current.steps) > 1 and evaluated.numbers[0] != current.value
            if not slipped:
                # The number as written: its decimals say how exact the claim is.
                written = _first_number(words)
                claimed = written if evaluated.numbers[0] >= 0 else f"-{written}"
                yield _calc(head, current, claimed, link.start())
                head, current = link, evaluated
    if head is None or current is None:
        return
    last, end = (link[4], link.end(4)) if link[4] else (link["claimed"], link.end("claimed"))
    if link["relation"] and link["relation"][0] != "=":
        yield _calc(head, current, None, end)
    elif last is not None:
        calc = _calc(head, current, last, end)
        yield calc._replace(right=calc.right and not slipped)


def _distance(a: Number, b: Number) -> Number:
    return a - b if a > b else b - a


def _first_number(words: str) -> str:
    match = _FIRST_NUMBER.search(words)
    assert match is not None, "an expression has a number"
    return match[0]


def _balanced(words: str) -> str:
    """The expression without brackets of the sentence around it, as in "(25*3=75)"."""
    excess = words.count("(") - words.count(")")
    while excess > 0 and words[0] == "(":
        words, excess = words[1:].lstrip(), excess - 1
    while excess < 0 and words[-1] == ")":
        words, excess = words[:-1].rstrip(), excess + 1
    return words


def _calc(head: re.Match[str], evaluation: Evaluation, written: str | None, end: int) -> Calc:
    """The calculation of an expression with the value that is `written` for it, if any."""
    *inner, (a, op, b, true) = evaluation.steps
    numbers = tuple(sorted(evaluation.numbers))
    claimed = None if written is None else number(written)
    right = written is None or agrees(written, true)
    return Calc(a, op, b, claimed, true, right, numbers, tuple(inner), False, head.start(), end)


def _add_with_verdict(text: str, calc: Calc, after: int, events: list[Event]) -> None:
    """Add the calculation, and the verdict that the text gives on it before `after`."""
    if calc.claimed is None:  # 25+7 != 82: the relation is the verdict
        digits = _LAST_DIGITS.search(text, calc.start, calc.end)
        assert digits is not None, "a relation ends with the number that it compares with"
        events += [calc, Check(calc.value, "no", int(digits[0]), True, calc.start, calc.end)]
        return
    cue = _cue(text, calc.end, min(after, calc.end + _GAP)) if after - calc.end > 1 else None
    if cue is None:
        events.append(calc)
        return
    verdict = cue.lastgroup or ""
    if verdict == "need":
        events.append(calc._replace(need=True))
        return
    digits = _DIGITS.search(cue[0])
    named = int(digits[0]) if digits else None
    explicit = digits is not None or cue[0].endswith(("target", "goal"))
    events += [calc, Check(calc.value, verdict, named, explicit, *cue.span(verdict))]


def _cue(text: str, start: int, end: int) -> re.Match[str] | None:
    """The first words of a verdict in this clause or the next one."""
    cue = _VERDICT.search(text, start, end)
    if cue is not None and len(_BREAK.findall(text, start, cue.start())) > 1:
        return None
    return cue
