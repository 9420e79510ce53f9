"""A held-out problem is known by its prompt, in every form in which our tasks ask it."""

import pytest

from aha.tasks import countdown, multiply
from aha.tasks.calculate import Calculate
from aha.tasks.held_out import SMALL, held_out_problem, problems_in
from aha.tasks.multiply import Multiply

SPLITS = ("train", "validation", "test")


@pytest.mark.parametrize("template", ["plain", "r1", "instruct"])
@pytest.mark.parametrize("split", countdown.SPLITS)
def test_every_puzzle_is_known_by_its_prompt(template, split):
    task = countdown.Countdown((2, 3, 4, 6), template)
    problems = task.problems(split, 5)
    for _ in range(12):
        problem = next(problems)
        numbers = ", ".join(map(str, problem.given["numbers"]))
        expected = f"countdown {numbers} = {problem.given['target']}"
        prompt = task.ask(problem)
        assert list(problems_in(prompt)) == [(expected, split)]
        held = held_out_problem(prompt)
        assert held == (None if split == "train" else f"{expected}, of the split {split}")


@pytest.mark.parametrize("template", ["plain", "r1", "instruct"])
@pytest.mark.parametrize("split", SPLITS)
def test_so_is_every_product(template, split):
    task = Multiply((2, 5), template)
    for problem, _ in zip(task.problems(split, 5), range(12), strict=False):
        assert [held for _, held in problems_in(task.ask(problem))] == [split]


@pytest.mark.parametrize("template", ["plain", "r1", "instruct"])
@pytest.mark.parametrize("split", SPLITS)
def test_so_is_every_calculation(template, split):
    """The turns that are shown before it are of the training split."""
    for task in (Calculate(("+", "-"), largest=30, template=template), ladder_products(template)):
        for problem, _ in zip(task.problems(split, 5), range(40), strict=False):
            given, prompt = problem.given, task.ask(problem)
            *shown, last = problems_in(prompt)
            assert last == (f"calculate {given['a']} {given['op']} {given['b']}", split)
            assert {held for _, held in shown} <= {"train"}
            assert (held_out_problem(prompt) is None) == (split == "train")


def ladder_products(template: str) -> Calculate:
    return Calculate(("*",), smallest=2, largest=SMALL, template=template)


def test_what_multiply_holds_out_of_small_factors_calculate_does_too():
    pairs = [(a, b) for a in range(1, SMALL + 1) for b in range(1, 100)]
    held = [pair for pair in pairs if multiply.split_of(*pair) != "train"]
    assert len(held) > 50
    assert all(held_out_problem(f"What is {a} times {b}?") for a, b in held)


def test_tinyzeros_wording_is_read_too():
    numbers, target, _ = next(countdown.puzzles("test", 3, (4,)))
    prompt = f"Using the numbers {list(numbers)}, create an equation that equals {target}."
    assert held_out_problem(prompt).endswith("of the split test")


def test_one_held_out_problem_among_several_is_enough():
    right, wrong = (next(countdown.puzzles(split, 3, (3,)))[:2] for split in ("train", "test"))
    lines = "\n".join(countdown.puzzle_line(*puzzle) for puzzle in (right, wrong, right))
    assert "of the split test" in held_out_problem(lines)
    assert held_out_problem(countdown.puzzle_line(*right)) is None


@pytest.mark.parametrize(
    "text", ["", "numbers target", "What is 3 and 4?", "numbers 3 target 17", "9" * 100_000]
)
def test_other_texts_hold_no_problem(text):
    assert held_out_problem(text) is None


def test_the_split_of_a_product_does_not_depend_on_its_order():
    pair = next(multiply.Multiply((2,)).problems("test", 0)).given
    a, b = pair["a"], pair["b"]
    assert held_out_problem(f"What is {a} times {b}?") and held_out_problem(
        f"multiply {b} times {a}\n<think>\n"
    )
