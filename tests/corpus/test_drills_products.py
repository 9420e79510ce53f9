"""Products in the corpus: right where every line is, as often as the dials say, none held out."""

import re
from dataclasses import replace
from itertools import islice
from random import Random

from aha.corpus.bases import BASES, TraceMix
from aha.corpus.drills import at_once, long_way, product_document, product_page, slipped
from aha.corpus.shards import documents
from aha.tasks.multiply import Multiply, as_problem, split_of

LINE = re.compile(r"(\d+)([*+])(\d+)=(\d+)")


def some(count: int = 3_000, **dials) -> list[tuple[int, int, str, str]]:
    """(a, b, prompt, completion)."""
    rng, found = Random(5), []
    for _ in range(count):
        prompt, completion = product_document(rng, replace(TraceMix(), **dials))
        a, b = map(int, re.findall(r"\d+", prompt))
        found.append((a, b, prompt, completion))
    return found


def rewards(documents) -> list[float]:
    task = Multiply()
    return [task.grade(as_problem(a, b), text).reward for a, b, _, text in documents]


def test_the_prompt_is_the_tasks_own_and_no_pair_is_held_out():
    task = Multiply()
    for a, b, prompt, completion in some(500):
        assert prompt == task.ask(as_problem(a, b)) and split_of(a, b) == "train"
        assert task.grade(as_problem(a, b), completion).completion is None  # it has an answer
        assert completion.count("<answer>") == 1 and completion.endswith("</answer>")


def test_no_line_of_the_long_way_is_a_held_out_product():
    lines = [LINE.findall(completion) for *_, completion in some(long_way=1.0)]
    products = [(int(x), int(y)) for found in lines for x, sign, y, _ in found if sign == "*"]
    tens = [(x, y) for x, y in products if y >= 10]
    assert len(tens) > 2_000 and all(split_of(x, y) == "train" for x, y in tens)


def test_the_long_way_is_right_where_its_lines_are():
    right = wrong = 0
    for a, b, _, completion in some(long_way=1.0):
        lines = LINE.findall(completion)
        true = all(
            int(x) * int(y) == int(z) if sign == "*" else int(x) + int(y) == int(z)
            for x, sign, y, z in lines
        )
        answer = int(completion.split("<answer>")[1].split("<")[0])
        assert answer == int(lines[-1][3])
        assert (answer == a * b) or not true
        right, wrong = right + true, wrong + (not true)
    # Two products and a sum for most: .94 cubed is .83.
    assert 0.80 < right / (right + wrong) < 0.90


def test_the_long_way_by_hand():
    class Steady(Random):
        def random(self):
            return 0.99  # no slip

    assert long_way(Steady(0), 72, 92) == (["72*90=6480", "72*2=144", "6480+144=6624"], 6624)
    assert long_way(Steady(0), 72, 30) == (["72*30=2160"], 2160)
    assert at_once(Random(1), 12, 11)[0][0].startswith("12*11=")


def test_the_rates_are_the_dials():
    assert 0.03 < sum(rewards(some(long_way=0.0))) / 3_000 < 0.08
    assert 0.20 < sum(rewards(some())) / 3_000 < 0.30


def test_a_slip_changes_one_digit_and_makes_no_leading_zero():
    rng = Random(2)
    for value in (5, 10, 907, 6480):
        for _ in range(200):
            other = slipped(rng, value)
            assert len(str(other)) == len(str(value))
            assert sum(x != y for x, y in zip(str(value), str(other), strict=True)) == 1


def test_the_corpus_has_them_where_the_dial_says_so_and_is_untouched_where_not():
    def prompts(mix: TraceMix) -> list[str]:
        return [d.prompt for d in islice(documents(mix, 1, lambda *unused: True), 2_000)]

    none = prompts(TraceMix())
    assert not any(prompt.startswith("multiply") for prompt in none)
    assert none == prompts(replace(TraceMix(), long_way=0.9))
    many = prompts(replace(TraceMix(), multiply=0.8, drill=0.0))
    assert 0.77 < sum(prompt.startswith("multiply") for prompt in many) / 2_000 < 0.83
    paged = prompts(replace(TraceMix(), multiply=0.8))
    products = sum(prompt.startswith("multiply") for prompt in paged)
    pages = sum(prompt == "" for prompt in paged)
    assert 0.27 < pages / products < 0.37  # a quarter of the products, and of the puzzles between


def test_a_page_of_products_has_right_lines_with_sums_of_four_digits_and_no_held_out_product():
    lines = [LINE.fullmatch(line) for n in range(300) for line in product_page(Random(n)).split()]
    assert all(lines) and len(lines) > 2_400
    sums = [
        tuple(map(int, (x, y, z))) for x, sign, y, z in map(re.Match.groups, lines) if sign == "+"
    ]
    products = [
        tuple(map(int, (x, y, z))) for x, sign, y, z in map(re.Match.groups, lines) if sign == "*"
    ]
    assert all(x + y == z for x, y, z in sums) and all(x * y == z for x, y, z in products)
    assert 0.5 < len(sums) / len(lines) < 0.65
    assert sum(z >= 1_000 for *_, z in sums) / len(sums) > 0.5
    assert all(split_of(x, y) == "train" for x, y, _ in products if y >= 10)


def test_no_document_beside_products_has_a_held_out_one():
    """Neither on a page of arithmetic nor in a puzzle: they would be read with their result."""
    mix = replace(BASES["multiply"].cfg.mix, multiply=0.3)
    texts = [
        d.prompt + d.completion for d in islice(documents(mix, 1, lambda *unused: True), 20_000)
    ]
    pairs = {
        (int(a), int(b)) for text in texts for a, b in re.findall(r"(?<!\d)(\d\d)\*(\d\d)=", text)
    }
    assert len(pairs) > 3_000
    assert {split_of(*pair) for pair in pairs} == {"train"}
