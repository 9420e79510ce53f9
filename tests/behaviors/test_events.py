"""Reading events: our grammar to the letter, the ways of larger models, and hostile text."""

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aha.behaviors.events import Calc, Check, FinalAnswer, Goal, parse

OURS = """25+7=32
32*3=96 no
32+3=36 no
82-7=75 need
aim 75
25*3=75 yes
</think>
<answer>(25*3)+7</answer>"""


def calcs(text: str) -> list[tuple]:
    return [(e.a, e.op, e.b, e.claimed, e.right) for e in parse(text) if isinstance(e, Calc)]


def checks(text: str) -> list[tuple]:
    return [(e.value, e.verdict, e.named, e.explicit) for e in parse(text) if isinstance(e, Check)]


def goals(text: str) -> list[int]:
    return [event.value for event in parse(text) if isinstance(event, Goal)]


def test_our_grammar():
    events = parse(OURS)
    kinds = [type(event) for event in events]
    assert kinds == [Calc, Calc, Check, Calc, Check, Calc, Goal, Calc, Check, FinalAnswer]
    assert calcs(OURS) == [
        (25, "+", 7, 32, True),
        (32, "*", 3, 96, True),
        (32, "+", 3, 36, False),
        (82, "-", 7, 75, True),
        (25, "*", 3, 75, True),
    ]
    assert [event.need for event in events if isinstance(event, Calc)] == [False] * 3 + [
        True,
        False,
    ]
    assert checks(OURS) == [
        (96, "no", None, False),
        (36, "no", None, False),
        (75, "yes", None, False),
    ]
    assert goals(OURS) == [75]
    assert events[-1].text == "(25*3)+7"


def test_places_point_into_the_text():
    words = [OURS[event.start : event.end] for event in parse(OURS)]
    assert words == [
        *("25+7=32", "32*3=96", "no", "32+3=36", "no", "82-7=75", "aim 75", "25*3=75", "yes"),
        "<answer>(25*3)+7</answer>",
    ]


@pytest.mark.parametrize("sign", ["x", "×", "*", "·", r"\times", r"\cdot", "X"])
@pytest.mark.parametrize("space", ["", " ", "  ", "\t"])
def test_spelling_of_a_product(sign, space):
    assert calcs(f"3{space}{sign}{space}7{space}={space}21") == [(3, "*", 7, 21, True)]


@pytest.mark.parametrize("sign", ["/", "÷", r"\div"])
def test_spelling_of_a_quotient(sign):
    assert calcs(f"21 {sign} 7 = 3") == [(21, "/", 7, 3, True)]
    assert calcs(f"20 {sign} 7 = 2") == [(20, "/", 7, 2, False)]
    assert calcs(f"20 {sign} 7 = 2.857") == [(20, "/", 7, Fraction(2857, 1000), True)]


def test_a_chain_in_one_sentence():
    text = "3 * 7 = 21, 21 + 25 = 46 (too low)"
    assert calcs(text) == [(3, "*", 7, 21, True), (21, "+", 25, 46, True)]
    assert checks(text) == [(46, "low", None, False)]


def test_brackets_become_operations():
    (calc, *_) = parse("(78 - 20) - (11 - 7) = 58 - 4 = 54")
    assert calc.numbers == (7, 11, 20, 78)
    assert calc.inner == ((78, "-", 20, 58), (11, "-", 7, 4))
    assert (calc.a, calc.op, calc.b, calc.claimed, calc.right) == (58, "-", 4, 54, True)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("(9 - 4) * 2 = 5 * 2 = 10", [(5, "*", 2, 10, True)]),  # restated, then worked out
        ("(9 - 4) * 2 = 6 * 2 = 12", [(5, "*", 2, 12, False)]),  # a slip in between
        ("(9 - 4) * 2 = 5 * 2 = 11", [(5, "*", 2, 11, False)]),
        ("7+25=32*3=96", [(7, "+", 25, 32, True), (32, "*", 3, 96, True)]),  # running on
        ("7+25=33*3=99", [(7, "+", 25, 33, False), (33, "*", 3, 99, True)]),
        ("58 + (11/7) = 58 + 1.5714 = 59.5714", [(58, "+", Fraction(11, 7), None, True)]),
        ("2+3=5=5", [(2, "+", 3, 5, True)]),
    ],
)
def test_equations_joined_by_equals(text, want):
    found = calcs(text)
    assert [(*f[:3], f[4]) for f in found] == [(*w[:3], w[4]) for w in want]
    assert all(w[3] is None or f[3] == w[3] for f, w in zip(found, want, strict=True))


def test_brackets_of_the_sentence_are_not_the_equations():
    assert calcs("Try products (25*3=75)") == [(25, "*", 3, 75, True)]
    assert calcs("(2+3)*4)=20") == [(5, "*", 4, 20, True)]


@pytest.mark.parametrize(
    ("after", "check"),
    [
        (" no", ("no", None, False)),
        (" yes", ("yes", None, False)),
        (" (too high)", ("high", None, False)),
        (". That's too low!", ("low", None, False)),
        (", which is not 82", ("no", 82, True)),
        (" which isn't 82.", ("no", 82, True)),
        (" != 82", ("no", 82, True)),
        (" ≠ 82", ("no", 82, True)),
        (", not the target", ("no", None, True)),
        (", which is the target!", ("yes", None, True)),
        (". 75 is 7 less than 82", ("low", 82, True)),
        (" > 70", ("high", 70, True)),
        (" ✓", ("yes", None, False)),
        (". This works!", ("yes", None, False)),
        (". That doesn't work", ("no", None, False)),
        (" -> incorrect", ("no", None, False)),
        (" equals 75", ("yes", 75, True)),
    ],
)
def test_verdicts(after, check):
    assert checks(f"25*3=75{after}") == [(75, *check)]


@pytest.mark.parametrize(
    "after",
    [
        "",
        "\nNo way around it",  # "no" alone is a verdict, not every "no"
        ". Now the rest. Then we see. Too high",  # two clauses on
        ", let's not use 7 yet",
        "\n3+7=10",
        " </think> no",  # outside the working
        " is 7 away",
    ],
)
def test_no_verdict(after):
    text = f"25*3=75{after}"
    assert [check for check in checks(text) if check[0] == 75] == []


def test_an_inequality_is_a_calculation_without_a_claim_and_a_verdict():
    calc, check = parse("7+25+3 != 82")
    assert (calc.claimed, calc.value, calc.right) == (None, 35, True)
    assert (check.value, check.verdict, check.named) == (35, "no", 82)


def test_verdict_words_hold_or_do_not():
    (_, check) = parse("25*3=75 too low")
    assert check.true_for(82) and not check.true_for(75) and not check.true_for(70)
    (_, check) = parse("25*3=75 too high")
    assert check.true_for(70) and not check.true_for(82)
    (_, check) = parse("25*3=75 yes")
    assert check.true_for(75) and not check.true_for(82)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("aim 75", [75]),
        ("Let me aim for 75 first", [75]),
        ("try to make 60", [60]),
        ("subgoal: 12", [12]),
        ("get to 41", [41]),
        ("multiply by 3 to get 96", []),  # a result, not a goal
        ("make 25 + 7", []),
        ("claim 75", []),
        ("aim 7.5", []),
    ],
)
def test_goals(text, want):
    assert goals(text) == want


@pytest.mark.parametrize(
    "text",
    [
        "25*3",
        "x = 25",
        "3**2=9",
        "7//2=3",
        "a1+2=3",
        "25+7=",
        "=32",
        "1/0 != 3",
        "٣+٧=10",
        "25+7\n=32",
    ],
)
def test_no_calculation(text):
    assert calcs(text) == []


def test_division_by_zero_is_a_wrong_line():
    assert calcs("8/0=4") == [(8, "/", 0, 4, False)]


def test_the_last_closed_answer_counts():
    def answer(text: str) -> str | None:
        last = parse(text)[-1:]
        return last[0].text if last and isinstance(last[0], FinalAnswer) else None

    assert answer("<answer>1</answer> <answer>2</answer> <answer>3") == "2"
    assert answer("<answer>1</answer></answer>") == "1"
    assert answer("<answer>1") is None
    assert answer("1</answer>") is None


def test_working_ends_before_the_reply():
    text = "25+7=32\n</think> so 32*3=96 <answer>25+7</answer>"
    assert calcs(text) == [(25, "+", 7, 32, True)]
    assert calcs("25+7=32 <answer>32*3=96</answer>") == [(25, "+", 7, 32, True)]


def test_limit_cuts_the_working_and_keeps_the_answer():
    events = parse(OURS, limit=8)
    assert [type(event) for event in events] == [Calc, FinalAnswer]


# Pieces that come together to chains, decimals and half of anything far oftener than letters do.
PIECES = (
    "3 7 25 82 .5 + - * / x = == != ( ) . no yes need NO 10+25=35 25*3=75 96.57 <answer>".split()
)
PIECES += [" ", "\n", " need\n", " not 82", "7+25=32*3=96", "</think>", "</answer>", "aim 7"]


@given(
    st.text(max_size=200)
    | st.text(alphabet="0123456789+-*/=() \n<>answeraimnoyed.x", max_size=200)
    | st.lists(st.sampled_from(PIECES), max_size=25).map("".join)
)
def test_no_text_is_an_error(text):
    places = [event.start for event in parse(text)]
    assert all(0 <= place <= len(text) for place in places)


HOSTILE = {
    "sum without end": "1+" * 25_000,
    "brackets": "(" * 50_000,
    "half brackets": "(1" * 25_000,
    "expressions": "1+1 " * 12_500,
    "equalities": "1+1=" * 12_500,
    "digits": "1" * 50_000,
    "spaces": "1" + " " * 50_000 + "+1",
    "goals": "try to first " * 4_000,
    "denials": "1+1=2 " + "not quite " * 5_000,
    "answers": "<answer>" * 6_000,
    "closings": "</answer>" * 6_000,
    "lines": "25+7=32 \n" * 5_500,
    "NUL": "\x00" * 50_000,
    "surrogates": "\ud800" * 50_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_read_in_linear_time(name):
    """A quadratic pattern would need minutes for any of these; they take 1 to 70 ms."""
    start = time.thread_time()
    parse(HOSTILE[name])
    assert time.thread_time() - start < 20.0


def test_a_chain_through_a_decimal():
    calcs = [event for event in parse("2*48.3=96.57*3=289.71") if isinstance(event, Calc)]
    assert [(str(calc.claimed), calc.right) for calc in calcs] == [
        ("9657/100", False),
        ("28971/100", True),
    ]
    calcs = [event for event in parse("2 / 3 = 0.667 - 1 = -0.333") if isinstance(event, Calc)]
    assert [(str(calc.claimed), calc.right) for calc in calcs] == [
        ("667/1000", True),
        ("-333/1000", True),
    ]


def test_a_verdict_of_one_word_is_the_same_in_capitals():
    found = [event for event in parse("25+7=32 NO\n82-7=75 Need\n25*3=75 yes") if event]
    assert [(event.verdict, event.value) for event in found if isinstance(event, Check)] == [
        ("no", 32),
        ("yes", 75),
    ]
    assert [event.need for event in found if isinstance(event, Calc)] == [False, True, False]
