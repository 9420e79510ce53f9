"""The strict verifier of Countdown: every reason in words, every text, and quickly."""

import math
import time
from collections import Counter
from fractions import Fraction
from itertools import islice
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aha.tasks.countdown import Countdown, as_problem, grade_countdown
from aha.tasks.tags import well_formed

NUMBERS, TARGET = (3, 7, 25), 82
RIGHT = "(25*3)+7"


def tagged(answer: str) -> str:
    return f"<think>\n25*3=75\n75+7=82 yes\n</think>\n<answer>{answer}</answer>"


def grade(text: str, numbers=NUMBERS, target=TARGET):
    return grade_countdown(text, numbers, target)


# completion -> the whole reason; the reward is 1 where it begins with "makes 82 of every".
REASONS = {
    tagged(RIGHT): "makes 82 of every number once",
    tagged(" 7 + 3 * 25 "): "makes 82 of every number once",
    tagged("\n(25*3)+7\n"): "makes 82 of every number once",
    tagged(RIGHT) + "\n": "makes 82 of every number once",
    tagged(RIGHT) + "\nSo the answer is 82.": "makes 82 of every number once",
    tagged(RIGHT) + "</answer>": "makes 82 of every number once",
    tagged(RIGHT) + "<answer>7": "makes 82 of every number once",
    tagged("7") + tagged(RIGHT): "makes 82 of every number once (the last of 2 answers)",
    tagged(RIGHT) + tagged("7"): "does not use 3, 25 (the last of 2 answers)",
    f"<answer><answer>{RIGHT}</answer></answer>": "makes 82 of every number once",
    RIGHT: "no <answer>...</answer> block",
    f"<answer>{RIGHT}": "no <answer>...</answer> block",
    f"{RIGHT}</answer>": "no <answer>...</answer> block",
    f"<Answer>{RIGHT}</Answer>": "no <answer>...</answer> block",
    "": "no <answer>...</answer> block",
    tagged(""): "not an expression: the answer is empty",
    tagged("25*3+7=82"): "not an expression: '=' is not part of an expression",
    tagged("82"): "uses 82, which was not given",
    tagged("25+7+50"): "uses 50, which was not given",
    tagged("253+7"): "uses 253, which was not given",
    tagged("25*3+7+7-7"): "uses 7 more often than it was given (once)",
    tagged("25*3"): "does not use 7",
    tagged("25"): "does not use 3, 7",
    tagged("25+7+3"): "makes 35, not 82",
    tagged("3-7-25"): "makes -29, not 82",
    tagged("25/3+7"): "makes 46/3, not 82",
    tagged("25*3+7/(3-3)"): "not an expression: it divides by zero",
    tagged("25*3--7"): "not an expression: a number or '(' should stand where '-' stands",
    tagged("25*3+7.0"): "not an expression: '.' is not part of an expression",
    tagged("(" * 100_000): "not an expression: the answer is longer than 256 characters",
    tagged("25*3+7\x00"): "not an expression: '\\x00' is not part of an expression",
    tagged("25*3+7\ud800"): "not an expression: '\\ud800' is not part of an expression",
    tagged("٢٥*3+7"): "not an expression: '\\u0662' is not part of an expression",
}


@pytest.mark.parametrize("text", REASONS, ids=range(len(REASONS)))
def test_reasons(text):
    graded = grade(text)
    assert graded.reason == REASONS[text]
    assert graded.correct == REASONS[text].startswith("makes 82 of every")
    assert graded.reward == float(graded.correct)


def test_twins_may_be_used_as_often_as_given():
    assert grade("<answer>5*5-5</answer>", (5, 5, 5), 20).correct
    assert grade("<answer>5*5-5</answer>", (5, 5), 20).reason == (
        "uses 5 more often than it was given (twice)"
    )
    assert grade("<answer>5*5-5-5-5-5</answer>", (5, 5, 5, 3), 5).reason.endswith("(3 times)")
    assert grade("<answer>5*5</answer>", (5, 5, 5), 25).reason == "does not use 5"


def test_values_are_exact():
    assert grade("<answer>1/49*49</answer>", (1, 49, 49), 1).correct
    # As near as floats come, and not it: 10**16 + 1 against 10**16.
    near = "<answer>100000000*100000000+1</answer>"
    assert not grade(near, (100_000_000, 100_000_000, 1), 10**16).correct


def test_answer_blocks_are_reported():
    assert grade("").parts == {"answer_blocks": 0.0}
    assert grade(tagged(RIGHT)).parts == {"answer_blocks": 1.0}
    assert grade(tagged(RIGHT) * 3).parts == {"answer_blocks": 3.0}


@pytest.mark.parametrize("thing", [None, 82, b"<answer>(25*3)+7</answer>", ["<answer>"]])
def test_what_is_not_text_is_a_reward_of_nothing(thing):
    assert grade(thing).reward == 0.0


@st.composite
def near_answers(draw) -> str:
    """Texts near the truth: answers with characters and tags lost or put in."""
    text = tagged(draw(st.sampled_from([RIGHT, "7+25*3", "25+7*3", "25*3"])))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(text)))
        cut = draw(st.integers(0, 9))
        insert = draw(st.sampled_from(["", "<answer>", "</answer>", "\n", "7", "+", "(", ")"]))
        text = text[:place] + insert + text[place + cut :]
    return text


@given(st.text(max_size=400) | near_answers() | st.binary().map(lambda b: b.decode("latin-1")))
def test_no_text_is_an_error(text):
    graded = grade(text)
    assert graded.reward in (0.0, 1.0)
    assert graded.correct == (graded.reward == 1.0)
    assert graded.reason
    graded.reason.encode()


def random_answer(rng: Random, numbers: list[int]) -> tuple[str, Fraction | None]:
    """A random expression over exactly these numbers, with its value worked out on the way."""
    terms = [(str(number), Fraction(number)) for number in numbers]
    while len(terms) > 1:
        (a, x), (b, y) = (terms.pop(rng.randrange(len(terms))) for _ in range(2))
        op = rng.choice("+-*/")
        if x is None or y is None or (op == "/" and y == 0):
            terms.append((f"({a}{op}{b})", None))
        else:
            value = {"+": x + y, "-": x - y, "*": x * y, "/": x / y if y else None}[op]
            terms.append((f"({a}{op}{b})", value))
    return terms[0]


def test_random_answers_get_the_verdict_of_their_making():
    rng, seen = Random(1), Counter()
    for _ in range(2000):
        numbers = tuple(rng.randint(1, 12) for _ in range(rng.randint(2, 5)))
        used = list(numbers)
        if rng.random() < 0.3:
            used[rng.randrange(len(used))] = rng.randint(1, 12)
        text, value = random_answer(rng, used)
        target = int(value) if value is not None and rng.random() < 0.8 else rng.randint(1, 99)
        want = value == target and Counter(used) == Counter(numbers)
        assert grade(f"<answer>{text}</answer>", numbers, target).correct == want
        seen[want] += 1
    assert min(seen.values()) > 200


HOSTILE = {
    "plain": "25+7=32\n" * 12_500,
    "opens": "<answer>" * 12_500,
    "closes": "</answer>" * 11_000,
    "pairs": "<answer>1</answer>" * 5_500,
    "half tags": "<answer" * 14_000,
    "angles": "<" * 100_000,
    "brackets": tagged("(" * 100_000),
    "digits": tagged("9" * 100_000),
    "longest expression": tagged("1/7+" * 63 + "1"),
    "big fractions": tagged("+".join(["1/999999937", "1/999999929", "1/99999989"] * 7)),
    "products": tagged("*".join(["999999937"] * 25)),
    "surrogates": "\ud800" * 100_000,
    "NUL": "\x00" * 100_000,
}


def best_of(run, repeats: int = 15) -> float:
    """Seconds of the quickest run: the others were waiting for the machine."""
    seconds = []
    for _ in range(repeats):
        start = time.thread_time()
        run()
        seconds.append(time.thread_time() - start)
    return min(seconds)


@pytest.mark.parametrize("name", HOSTILE)
def test_ten_times_the_text_takes_at_most_about_ten_times_as_long(name):
    text = HOSTILE[name]
    # By turns, so that a busy moment meets both; what is quadratic takes a hundred times.
    pairs = [
        (best_of(lambda: grade(text), 1), best_of(lambda: grade(text * 10), 1)) for _ in "12345"
    ]
    short, long = (min(column) for column in zip(*pairs, strict=True))
    assert long < 40 * short
    assert short < 1.0  # of a few milliseconds at most


@pytest.mark.bench
def test_grading_takes_less_than_a_millisecond():
    seconds = {name: best_of(lambda text=text: grade(text)) for name, text in HOSTILE.items()}
    seconds |= {text[:20]: best_of(lambda text=text: grade(text)) for text in REASONS}
    assert sorted(seconds.values())[len(seconds) // 2] < 0.0005
    # The two with thousands of tags come near it.
    assert max(seconds.values()) < 0.004, max(seconds, key=seconds.get)


@pytest.mark.parametrize("name", ["plain", "opens", "closes", "pairs", "brackets"])
def test_ten_megabytes_are_graded_too(name):
    piece = HOSTILE[name]
    text = piece * math.ceil(1e7 / len(piece))
    assert best_of(lambda: grade(text), repeats=3) < 20.0  # quadratic: hours
    assert grade(text).reward == 0.0


def test_the_task_grades_a_problem():
    problem = as_problem(NUMBERS, TARGET)
    graded = Countdown().grade(problem, tagged(RIGHT))
    assert (graded.reward, graded.correct) == (1.0, True)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"numbers": (2, 3, 4, 5), "template": "r1"},
        {"verifier": "tinyzero", "template": "instruct"},
        {"format_reward": 0.1},
    ],
)
def test_its_own_completion_is_right_and_in_the_requested_form(settings):
    task = Countdown(**settings)
    for problem in islice(task.problems("train", 0), 60):
        text = task.solve(problem)
        graded = task.grade(problem, text)
        assert graded.correct and graded.reward >= 1.0 and well_formed(text), (problem, text)


def test_it_knows_no_completion_of_a_puzzle_without_a_solution():
    assert Countdown().solve(as_problem((1, 1), 50)) is None
    # Twins, and a step whose result is one of the numbers.
    for numbers, target in (((2, 2, 2), 6), ((4, 2, 2), 4), ((5,), 5)):
        problem = as_problem(numbers, target)
        assert Countdown().grade(problem, Countdown().solve(problem)).correct
