"""The corpus writer: every line true, every verdict true, every dial turns its behaviour off."""

import re
from itertools import islice
from random import Random

import pytest

from aha.corpus.bases import TraceMix
from aha.corpus.shards import documents, played_puzzle
from aha.corpus.terms import TableNumber, join
from aha.corpus.traces import TraceWriter
from aha.tasks.countdown import grade_countdown, puzzle_line, split_of
from aha.tasks.expression import read_expression
from aha.tasks.tags import plain_frame

LEFT = re.compile(r"(?:back )?(\d+)([-+*/])(\d+)")  # left: it leads nowhere
LINE = re.compile(r"(?:back )?(\d+)([-+*/])(\d+)=(\d+)( yes| no| need|(?: \d+)*)")
THREE = (3,)
SEARCHES = (3, 4)  # puzzles in which there is something to search


def any_puzzle(numbers, target) -> bool:
    return True


def written(count: int, seed: int = 0, keep=any_puzzle, **mix) -> list[tuple[str, str]]:
    drawn = islice(documents(TraceMix(**mix), seed, keep), count)
    return [(document.prompt, document.completion) for document in drawn]


def worked(count: int, **mix) -> list[tuple[tuple[int, ...], int, str]]:
    """Documents with a puzzle: (numbers, target, completion)."""
    found = []
    for prompt, completion in written(count, **{"drill": 0.0, "numbers": SEARCHES, **mix}):
        words = prompt.split("\n")[0].split()
        found.append((tuple(map(int, words[1:-2])), int(words[-1]), completion))
    return found


def lines_of(completion: str) -> list[str]:
    return completion.split("</think>")[0].splitlines()


def test_a_seed_decides_every_document():
    assert written(400) == written(400)
    assert written(50) != written(50, seed=1)
    assert len({document for document in written(400)}) > 390


def test_the_shape_of_a_document():
    sizes = TraceMix().numbers
    for numbers, target, completion in worked(500, numbers=sizes):
        assert len(numbers) in sizes
        assert 10 <= target <= 100 and all(1 <= number <= 99 for number in numbers)
        working, tag, answer = completion.partition("</think>\n<answer>")
        assert tag and answer.endswith("</answer>") and "\n" not in answer
        assert working == "" or working.endswith("\n")
        assert all(
            LINE.fullmatch(text) or LEFT.fullmatch(text) or re.fullmatch(r"aim \d+|check", text)
            for text in lines_of(working)
        )


def test_prompts_are_those_of_the_task():
    for prompt, completion in written(300):
        if prompt:
            words = prompt.split()
            numbers, target = tuple(map(int, words[1:-3])), int(words[-2])
            assert prompt == plain_frame(puzzle_line(numbers, target))
        else:
            assert "numbers" not in completion and "<" not in completion


def test_every_line_is_true():
    """Calculations come out as they say, and what is left has no result."""
    lines = [text for _, completion in written(2000) for text in lines_of(completion)]
    left = [LEFT.fullmatch(text) for text in lines]
    divisions = [found for found in left if found and found[2] == "/"]
    differences = [found for found in left if found and found[2] == "-"]
    assert len(divisions) > 200
    assert all(int(f[1]) % int(f[3]) or int(f[3]) == 1 for f in divisions)
    assert len(differences) > 100 and all(int(f[1]) <= int(f[3]) for f in differences)
    calculations = [LINE.fullmatch(text) for text in lines if "=" in text]
    assert len(calculations) > 5000
    for found in calculations:
        a, op, b, result = int(found[1]), found[2], int(found[3]), int(found[4])
        want = {"+": a + b, "-": a - b, "*": a * b}.get(op)
        assert (a == result * b and b) if op == "/" else result == want, found[0]
        assert not found[3].startswith("0") or found[3] == "0"


def test_every_operation_and_verdict_comes_up():
    text = "".join(completion for *_, completion in worked(800, search=1.0))
    for word in ("+", "-", "*", "/", " yes\n", " no\n", " need\n", "aim "):
        assert text.count(word) > 20, word


@pytest.mark.parametrize("numbers", [(2,), THREE, SEARCHES])
def test_every_verdict_is_true(numbers):
    """`no` and `yes` compare with the target, or with what the last line before them needs."""
    verdicts = 0
    for _, target, completion in worked(1500, numbers=numbers, search=1.0):
        goal = target
        for text in lines_of(completion):
            found = LINE.fullmatch(text)
            if text == "check":
                goal = target
            elif found and found[5] == " need":
                goal = int(found[4])
            elif found and found[5] in (" yes", " no"):
                assert (int(found[4]) == goal) == (found[5] == " yes"), (goal, completion)
                goal, verdicts = target, verdicts + 1
    assert verdicts > 1500


SIZES = [(2,), (3,), (4,)]


@pytest.mark.parametrize("numbers", SIZES)
def test_yes_comes_before_a_right_answer(numbers):
    accepted = 0
    mix = {"backward": 0.3, "subgoal": 0.3, "insight": 0.8}
    for given, target, completion in worked(3000, numbers=numbers, search=1.0, **mix):
        if " yes\n" in completion:
            graded = grade_countdown(completion, given, target)
            assert graded.correct, (graded.reason, completion)
            assert completion.count(" yes") == 1
            accepted += 1
    assert accepted > 500


class Attempts(TraceWriter):
    """The writer, keeping the expression of every attempt beside what it said of it."""

    made: list[tuple[str, bool]]

    def attempt(self, trace, start, earlier, gold):
        done = super().attempt(trace, start, earlier, gold)
        self.made.append((done[1].text, done[0]))
        return done


@pytest.mark.parametrize("numbers", SIZES)
def test_every_attempt_uses_every_number_once(numbers):
    writer = Attempts(TraceMix(), Random(2))
    writer.made = []
    for _ in range(600):
        trace = played_puzzle(writer, numbers[0], range(10, 101))
        writer.made.clear()
        writer.search(trace)
        for text, right in writer.made:
            found = read_expression(text)
            assert sorted(found.numbers) == sorted(trace.numbers), (text, trace.lines)
            assert (found.value == trace.target) == right, (text, trace.lines)


def test_every_answer_of_a_guess_uses_every_number_once():
    for numbers, _, completion in worked(800, search=0.0):
        answer = completion.split("<answer>")[1].removesuffix("</answer>")
        assert sorted(read_expression(answer).numbers) == sorted(numbers)


def test_keep_is_asked_and_obeyed():
    def train(numbers, target):
        return split_of(numbers, target) == "train"

    for prompt, _ in written(1500, keep=train):
        if prompt:
            words = prompt.split()
            assert split_of(tuple(map(int, words[1:-3])), int(words[-2])) == "train"
    assert any(
        split_of(numbers, target) != "train" for numbers, target, _ in worked(300)
    )  # else obeying were no feat


@pytest.mark.parametrize(
    ("dial", "word"),
    [("verify", " no\n"), ("verify", " yes\n"), ("backward", " need\n"), ("subgoal", "aim ")],
)
def test_a_dial_at_zero_removes_its_words(dial, word):
    turned_up = "".join(text for *_, text in worked(300, search=1.0))
    turned_off = "".join(text for *_, text in worked(300, search=1.0, **{dial: 0.0}))
    assert word in turned_up
    assert word not in turned_off


def test_no_drill_no_bare_arithmetic():
    assert any(prompt == "" for prompt, _ in written(100))
    assert all(prompt for prompt, _ in written(300, drill=0.0))


def test_no_backtrack_starts_every_attempt_from_the_numbers_given():
    """With three numbers a whole attempt has two lines, one from an intermediate result has one."""
    forward = {"backward": 0.0, "subgoal": 0.0, "numbers": THREE, "search": 1.0, "verify": 1.0}

    def short_attempts(**mix) -> int:
        short = 0
        for *_, completion in worked(400, **forward, **mix):
            size = 0
            for text in lines_of(completion):
                size += 1
                if text.endswith((" yes", " no")):
                    short, size = short + (size == 1), 0
        return short

    assert short_attempts() > 50
    assert short_attempts(backtrack=0.0) == 0


def test_no_search_is_one_attempt_without_a_verdict():
    for numbers, _, completion in worked(300, search=0.0):
        lines = lines_of(completion)
        assert len(lines) in (0, len(numbers) - 1)
        assert not any(text.endswith((" yes", " no", " need")) for text in lines)


def test_giving_up_at_once_is_one_attempt():
    chance = {"patient": 0.0, "orderly": 0.0, "verify": 1.0}
    for *_, completion in worked(300, search=1.0, give_up=1.0, **chance):
        assert completion.count(" no\n") + completion.count(" yes\n") == 1


def test_more_gold_is_more_right_answers():
    def right(**mix) -> float:
        found = worked(400, numbers=THREE, **mix)
        return sum(grade_countdown(text, n, t).correct for n, t, text in found) / len(found)

    assert right(search=0.0, gold_guess=0.0) < 0.25
    assert right(search=0.0, gold_guess=1.0) == 1.0
    assert right(search=1.0, gold_attempt=1.0, patient=0.0, orderly=0.0) == 1.0


def test_a_made_up_puzzle_comes_with_its_solution():
    writer = TraceWriter(TraceMix(), Random(4))
    for size in (3, 4, 5):
        for _ in range(50):
            trace = played_puzzle(writer, size, range(10, 101))
            assert trace.target in range(10, 101)
            *_, last = trace.gold
            found = read_expression(last[3].text)
            assert found.value == trace.target
            assert sorted(found.numbers) == sorted(trace.numbers)


def test_no_attempt_is_made_twice_in_whatever_order_it_is_written():
    """`25+7` and `7+25` are one attempt: a search has as many keys as verdicts."""
    writer = TraceWriter(TraceMix(verify=1.0, patient=1.0, insight=0.0), Random(6))
    verdicts = keys = 0
    for _ in range(400):
        trace = played_puzzle(writer, 3, range(10, 101))
        writer.search(trace)
        verdicts += sum(text.endswith((" yes", " no")) for text in trace.lines)
        keys += len(trace.tried)
    assert verdicts > 1_000 and keys >= 0.99 * verdicts, (keys, verdicts)


def test_the_key_of_a_term_forgets_the_order_of_sums_and_products_alone():
    a, b, c = map(TableNumber.given, (3, 7, 25))
    assert join(a, "+", b).key == join(b, "+", a).key
    assert join(c, "*", join(a, "+", b)).key == join(join(b, "+", a), "*", c).key
    assert join(c, "-", b).key != TableNumber.made(0, b, "-", c).key
