"""Where the answer stands, and which two answers are the same."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aha.tasks.answers import (
    after_hashes,
    answer_of,
    is_prose,
    last_boxed,
    plain,
    same_answer,
    true_answer,
)
from aha.tasks.units import counted_things


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"so \boxed{1} or \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"so $\boxed 3$.", "3"),
        (r"so $\boxed 12$, as said", "12"),
        (r"so \boxed 3.", "3"),
        (r"so \boxed3", "3"),
        (r"so $\fbox{3}$", "3"),
        (r"\fbox 3", "3"),
        (r"\boxed {3}", "3"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\text{(A)}}", r"\text{(A)}"),
        (r"\boxed{3", None),
        (r"\boxed{3} and \boxed{4", None),
        (r"\boxed{}", None),
        (r"\boxed", None),
        (r"\boxedx{3}", None),
        ("boxed{1}", None),
    ],
)
def test_what_is_boxed(text, content):
    assert last_boxed(text) == content


def test_what_follows_the_hashes_is_on_their_line():
    assert after_hashes("3+4=7\n#### 7\nmore") == "7" and after_hashes("7") is None
    assert after_hashes("#### 1 #### 2") == "2" and after_hashes("##### 5") is None


@pytest.mark.parametrize(
    ("column", "truth"),
    [
        ("a #### 3", "3"),
        ("3+4=7\n#### 7\n\n", "7"),
        (r"\boxed{4}", "4"),
        (" 5 ", "5"),
        ("025", "025"),
        ("1e-05", "1e-05"),
        ("#### x+1", "x+1"),
        ("The answer is 3.", "The answer is 3."),
        ("\\text{no solution}", "\\text{no solution}"),
        ("(-\\infty, 2)", "(-\\infty, 2)"),
        ("10 \\text{ or } 12", "10 \\text{ or } 12"),
        (
            "\\begin{pmatrix} 1 \\\\\n 2 \\end{pmatrix}",
            "\\begin{pmatrix} 1 \\\\\n 2 \\end{pmatrix}",
        ),
        # In Markdown four hashes begin a heading.
        ("#### Step 1\n2+1=3\n#### Conclusion\nSo $\\boxed{3}$.", "3"),
        ("So $\\boxed{3}$.\n#### Conclusion", "3"),
        ("#### 1\nAdd.\n#### 2\nSo $\\boxed{3}$.", "3"),
        ("#### 1\nAdd.\n#### 2\nThe total is 3 pens.", None),
        ("Add.\n#### Conclusion", None),
        ("#### Answer: none", None),
        ("Add the two. The total is 3 pens.", None),
        ("The total is 3 pens", None),
        ("She buys them and then has three left over", None),
        ("\\boxed{3", None),
        ("nan", None),
        ("None", None),
        ("  ", None),
        ("####", None),
    ],
)
def test_the_true_answer_of_a_column(column, truth):
    assert true_answer(column) == truth
    if truth is not None and "\\boxed" not in column:
        assert not is_prose(truth)


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("<answer>5</answer>", "5"),
        ("<answer>4</answer> <answer>5</answer>", "5"),
        ("\\boxed{4} <answer>5</answer>", "5"),
        ("<answer>so \\boxed{5}</answer>", "5"),
        ("\\boxed{35 cm} or \\boxed{5}", "5"),
        ("2+3=5\n#### 5\nI am sure.", "5"),
        ("maybe <answer>4</answer> no</think> so \\boxed{5}", "5"),
        ("<think>x</think> <answer>5</answer></think>\n", "5"),
        ("<think><answer>5</answer></think> I give up", None),
        ("5", None),
        ("", None),
        ("</think>" * 3, None),
    ],
)
def test_the_answer_of_a_completion(completion, answer):
    assert answer_of(completion) == answer


SAME = [
    *(("2\\pi", "2π"), ("(-\\infty, 2)", "(-∞,2)"), ("\\sqrt{2}", "\\sqrt2"), ("\\sqrt{2}", "√2")),
    *(("\\text{(A)}", "A"), ("\\textbf{(B)}", "b"), ("\\text{Yes}.", "yes"), ("(1, 2)", "$(1,2)$")),
    *(("x+1", "x + 1"), ("x \\leq 5", "x≤5"), ("\\frac12\\pi", "\\dfrac{1}{2}\\pi"), ("5!", "5!")),
    *(("2\\sqrt{3}", "2sqrt(3)"), ("2\\pi", "2 pi"), ("\\{1, 2\\}", "\\{1,2\\}"), ("(5)", "= 5")),
    ("\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", "\\begin{pmatrix}1\\\\2\\end{pmatrix}"),
    *(("\\left(0, 1\\right]", "(0,1]"), ("7 dozens", "7 dozens"), ("1/2", "\\frac{2}{4}")),
]
OTHER = [
    *(("(0,1)", "(0,1.5)"), ("(0,1)", "[0,1]"), ("\\{1,2\\}", "(1,2)"), ("x", "X"), ("x+1", "x-1")),
    *(("12", "1 2"), ("(1 2)", "(12)"), ("1 2, 3", "12, 3"), ("1/3", "0.333"), ("7", "7 dozens")),
    *(("7 dozens", "7"), ("x+1", "1+x"), ("2\\pi", "2"), ("2", "2\\pi"), ("(1,234)", "1234")),
    *(("\\Delta", "\\delta"), ("x\\%", "x"), ("30°", "\\sin 30°"), ("1,5", "1.5"), ("A", "B")),
    *(("33.3", "\\frac{100}{3}"), ("\\frac{1}{2^{99}}", "\\frac{1}{2^{98}}"), ("x", ""), ("", "")),
    *(("\\leftarrow", "arrow"), ("٥", "5"), ("5", "٥"), ("7 km", "7 m"), ("1, 234", "1,234")),
]


@pytest.mark.parametrize(("first", "second"), SAME)
def test_two_writings_of_one_answer(first, second):
    assert same_answer(first, second) and same_answer(second, first)


@pytest.mark.parametrize(("first", "second"), OTHER)
def test_two_answers(first, second):
    assert not same_answer(first, second) and not same_answer(second, first)


def test_what_a_question_counts():
    assert counted_things("Ann sells clips. How many more clips did she sell?") == {"clip"}
    assert counted_things("How many red marbles are left?") == {"red", "marble"}
    assert counted_things("How many cups of feed does she need?") == {"cup", "feed"}
    assert counted_things("How many dozens did she buy? How many pairs?") == set()


@given(st.text(alphabet="\\boxed{}# <answer>/think$().,~^5", max_size=3000))
def test_any_text_is_read_at_once(text):
    started = time.thread_time()
    answer_of(text), true_answer(text), plain(text)
    # Of milliseconds. A full collection of garbage is half a second, and not the reader's.
    assert time.thread_time() - started < 5.0
