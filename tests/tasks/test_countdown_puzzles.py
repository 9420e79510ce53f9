"""Where Countdown's problems come from: splits, draws, files, and how they are asked."""

import json
import re
from collections import Counter
from functools import cache
from itertools import combinations, islice

import pytest

from aha.core.errors import ConfigError
from aha.tasks.countdown import (
    HELD_OUT_TARGETS,
    SPLITS,
    TARGETS,
    Countdown,
    PuzzleDraw,
    as_problem,
    first_puzzles,
    puzzles,
    split_of,
)
from aha.tasks.solver import reachable
from aha.tasks.tags import TEMPLATES

# The test split holds one draw in fifty, so a puzzle of it takes fifty times as long to find.
COUNTS = {"train": 1_200, "validation": 50, "test": 50, "test_targets": 300}


@cache
def drawn(split: str, seed: int = 0, count: int = 0, sizes: tuple[int, ...] = (3,)) -> list:
    return list(islice(puzzles(split, seed, sizes), count or COUNTS[split]))


def key(numbers: tuple[int, ...], target: int) -> tuple:
    return (*sorted(numbers), target)


def makes(numbers: tuple[int, ...], target: int) -> bool:
    """Brute force of our own: combine any two until one is left. Exact on pairs (top, bottom)."""

    def search(terms: tuple[tuple[int, int], ...]) -> bool:
        if len(terms) == 1:
            return terms[0][0] == target * terms[0][1]
        for i, j in combinations(range(len(terms)), 2):
            rest = tuple(term for k, term in enumerate(terms) if k not in (i, j))
            (a, b), (c, d) = terms[i], terms[j]
            results = [(a * d + c * b, b * d), (a * d - c * b, b * d), (c * b - a * d, b * d)]
            results += [(a * c, b * d)] + [(a * d, b * c)] * bool(c) + [(c * b, d * a)] * bool(a)
            if any(search((*rest, result)) for result in results):
                return True
        return False

    return search(tuple((number, 1) for number in numbers))


# -- splits ---------------------------------------------------------------------------------


def assert_apart(found: dict[str, list]) -> None:
    """No problem twice within a split, none in two splits, and each where its key says."""
    keys = {split: {key(n, t) for n, t, _ in rows} for split, rows in found.items()}
    for split, rows in found.items():
        assert len(keys[split]) == len(rows)
        assert {split_of(n, t) for n, t, _ in rows} == {split}
    for one, other in combinations(keys, 2):
        assert not keys[one] & keys[other], (one, other)


def test_splits_share_no_problem():
    assert_apart({split: drawn(split) for split in SPLITS})
    assert_apart({split: drawn(split, 3, 8, (3, 4)) for split in SPLITS})


@pytest.mark.slow
def test_twenty_thousand_problems_share_no_split():
    counts = {"train": 14_000, "validation": 1_000, "test": 1_000, "test_targets": 4_100}
    found = {split: drawn(split, 9, count) for split, count in counts.items()}
    assert sum(map(len, found.values())) >= 20_000
    assert_apart(found)


def test_seeds_do_not_mix_splits():
    test = {key(n, t) for n, t, _ in drawn("test")}
    for seed in range(1, 4):
        assert not test & {key(n, t) for n, t, _ in drawn("train", seed, 300)}


def test_held_out_targets_are_in_their_split_alone():
    assert {t for _, t, _ in drawn("test_targets")} == HELD_OUT_TARGETS
    for split in ("train", "validation", "test"):
        assert not {t for _, t, _ in drawn(split)} & HELD_OUT_TARGETS
    assert {t for _, t, _ in drawn("train")} == set(TARGETS) - HELD_OUT_TARGETS


def test_the_order_of_the_numbers_does_not_move_a_puzzle():
    for numbers, target, _ in drawn("test") + drawn("validation"):
        split = split_of(numbers, target)
        assert split_of(numbers[::-1], target) == split_of(tuple(sorted(numbers)), target) == split


def test_the_splits_are_for_ever():
    """A published result names its split: these must not move."""
    assert split_of((3, 7, 25), 82) == "train"
    assert split_of((3, 7, 25), 75) == "test_targets"
    assert drawn("test")[:2] == [((4, 16, 25), 100, 2), ((74, 43, 32), 63, 3)]
    assert drawn("train")[:2] == [((47, 66, 6), 25, 3), ((87, 54, 69), 72, 3)]


def test_two_in_a_hundred():
    """Of targets that are not held out, 2 % each are test and validation."""
    found = Counter(
        split_of((a, b, 50), t) for a in range(1, 40) for b in range(a, 40) for t in (20, 77)
    )
    total = sum(found.values())
    assert found["test"] / total == pytest.approx(0.02, abs=0.008)
    assert found["validation"] / total == pytest.approx(0.02, abs=0.008)


# -- draws ----------------------------------------------------------------------------------


def test_every_problem_is_solvable():
    for split in SPLITS:
        for numbers, target, ways in drawn(split)[:300]:
            assert makes(numbers, target), (numbers, target)
            assert ways >= 1
    for numbers, target, _ in drawn("train", 0, 60, (4,)):
        assert makes(numbers, target), (numbers, target)


def test_numbers_and_targets_keep_their_ranges():
    numbers = {n for numbers, _, _ in drawn("train") for n in numbers}
    assert (min(numbers), max(numbers)) == (1, 99)
    assert all(10 <= target <= 100 for _, target, _ in drawn("train"))


def test_a_seed_decides_the_draw():
    again = PuzzleDraw("train", 0, (3,))
    assert drawn("train", 0)[:200] == [again.next() for _ in range(200)]
    assert drawn("train", 0)[:300] != drawn("train", 1, 300)
    shared = {key(n, t) for n, t, _ in drawn("train", 0)[:300]}
    assert len(shared & {key(n, t) for n, t, _ in drawn("train", 1, 300)}) < 25


@pytest.mark.parametrize("sizes", [(3,), (2, 4)])
def test_what_is_remembered_of_a_stream_is_the_stream(monkeypatch, sizes):
    """Read twice at a time, over the end of what is remembered, and once more from its start."""
    draw = PuzzleDraw("train", 11, sizes)
    wanted = [draw.next() for _ in range(30)]
    monkeypatch.setattr("aha.tasks.countdown.KEPT", 12)
    one, other = puzzles("train", 11, sizes), puzzles("train", 11, sizes)
    ahead = list(islice(one, 5))
    both = [(next(one), next(other)) for _ in range(25)]
    assert ahead + [first for first, _ in both] == wanted
    assert [second for _, second in both] == wanted[:25]
    assert list(islice(puzzles("train", 11, sizes), 30)) == wanted
    assert len(first_puzzles("train", 11, sizes).drawn) == 12


@pytest.mark.parametrize("kept", [100, 118, 119])
def test_a_stream_that_ends_ends_wherever_its_memory_does(monkeypatch, kept):
    monkeypatch.setattr("aha.tasks.countdown.KEPT", kept)
    first_puzzles.cache_clear()
    for _ in range(2):
        assert len(list(puzzles("test", 0, (2,)))) == 118
    first_puzzles.cache_clear()  # others keep more


def test_splits_are_drawn_apart():
    assert [n for n, *_ in drawn("train")[:50]] != [n for n, *_ in drawn("test")[:50]]


def test_sizes_come_up_evenly():
    """Four numbers are solvable far more often than three; that must not tip the mixture."""
    sizes = Counter(len(numbers) for numbers, *_ in drawn("train", 0, 400, (3, 4)))
    assert set(sizes) == {3, 4}
    assert abs(sizes[3] - 200) < 50  # five standard deviations
    weighted = Counter(len(numbers) for numbers, *_ in drawn("train", 0, 300, (3, 3, 4)))
    assert abs(weighted[3] - 200) < 41


def test_two_numbers_make_few_puzzles_and_then_end():
    """118 in the test split: asking for more must not search for ever."""
    found = {split: list(puzzles(split, 0, (2,))) for split in SPLITS}
    assert_apart(found)
    assert len(found["test"]) == 118
    assert sum(map(len, found.values())) == sum(
        t in reachable((a, b)) for a in range(1, 100) for b in range(a, 100) for t in TARGETS
    )
    assert all(makes(n, t) for n, t, _ in found["test"])
    assert found["test"] != list(puzzles("test", 1, (2,)))
    assert any(n[0] > n[1] for n, *_ in found["test"])
    assert any(n[0] < n[1] for n, *_ in found["test"])


def test_other_sizes_go_on_when_two_numbers_have_ended():
    found = list(islice(puzzles("validation", 0, (2, 2, 2, 5)), 200))
    sizes = [len(numbers) for numbers, *_ in found]
    assert sizes.count(2) == 128  # all there are
    assert set(sizes[-5:]) == {5}


# -- records and prompts --------------------------------------------------------------------


def test_problems_are_records_with_stable_ids():
    first = next(Countdown().problems("train", 0))
    numbers, target, ways = drawn("train")[0]
    assert first.given == {"numbers": numbers, "target": target, "ways": ways}
    assert first.task == "countdown"
    assert as_problem((3, 7, 25), 82).id == "countdown/3-7-25=82"
    assert as_problem((25, 7, 3), 82).id == "countdown/25-7-3=82"  # another prompt, another id
    assert as_problem([3, 7], 10).given == {"numbers": (3, 7), "target": 10}
    ids = [problem.id for problem in islice(Countdown().problems("train", 5), 300)]
    first_puzzles.cache_clear()
    assert ids == [problem.id for problem in islice(Countdown().problems("train", 5), 300)]
    assert len(set(ids)) == 300


def test_the_plain_prompt():
    assert Countdown().ask(as_problem((3, 7, 25), 82)) == "numbers 3 7 25 target 82\n<think>\n"


@pytest.mark.parametrize("template", TEMPLATES)
def test_templates_give_the_problem_and_open_the_thinking(template):
    prompt = Countdown((4,), template).ask(as_problem((3, 77, 25, 9), 82))
    digits = re.findall(r"\d+", prompt)
    place = digits.index("3")
    while digits[place : place + 4] != ["3", "77", "25", "9"]:  # an example may come before
        place = digits.index("3", place + 1)
    assert "82" in digits
    assert prompt.rstrip("\n").endswith("<think>")
    assert "</think>" not in prompt.rpartition("<think>")[2]
    assert not any(brace in prompt for brace in "{}")


def test_templates_for_real_models():
    problem = as_problem((3, 7, 25), 82)
    r1, instruct = (Countdown(template=name).ask(problem) for name in ("r1", "instruct"))
    assert "\nAssistant: " in r1 and "\nUser: " in r1
    assert instruct.count("<|im_start|>") == 3 and instruct.count("<|im_end|>") == 2
    assert instruct.index("<|im_start|>assistant") > instruct.index("82")
    for prompt in (r1, instruct):
        assert "<answer>" in prompt and "exactly once" in prompt


@pytest.mark.parametrize(
    "arguments",
    [
        {"numbers": ()},
        {"numbers": (1,)},
        {"numbers": (3, 7)},
        {"numbers": ("3",)},
        {"template": "chat"},
        {"verifier": "kind"},
    ],
)
def test_settings_that_make_no_sense(arguments):
    with pytest.raises(ConfigError, match="wanted"):
        Countdown(**arguments)


def test_an_unknown_split():
    with pytest.raises(ConfigError, match="one of train, validation, test, test_targets"):
        next(Countdown().problems("dev", 0))


# -- files ----------------------------------------------------------------------------------

ROWS = [
    *({"nums": list(n), "target": t} for n, t, _ in islice(puzzles("train", 7, (3, 4)), 40)),
    *({"nums": list(n), "target": t} for n, t, _ in islice(puzzles("test", 7, (3,)), 5)),
    *({"nums": list(n), "target": t} for n, t, _ in islice(puzzles("test_targets", 7, (3,)), 5)),
]


@pytest.fixture(params=["jsonl", "parquet"])
def file(request, tmp_path):
    path = tmp_path / f"puzzles.{request.param}"
    if request.param == "jsonl":
        path.write_text("".join(f"{json.dumps(row)}\n" for row in ROWS), encoding="utf-8")
    else:
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    return path


def test_a_file_splits_like_the_draw(file):
    task = Countdown(data=file)
    counts = {split: len(list(task.problems(split, 0))) for split in SPLITS}
    assert counts == {"train": 40, "validation": 0, "test": 5, "test_targets": 5}
    for split in SPLITS:
        for problem in task.problems(split, 0):
            assert split_of(problem.given["numbers"], problem.given["target"]) == split


def test_a_file_is_shuffled_by_the_seed_and_gives_each_problem_once(file):
    task = Countdown(data=str(file))
    first, again, other = ([p.id for p in task.problems("train", seed)] for seed in (1, 1, 2))
    assert first == again != other
    assert sorted(first) == sorted(other) and len(set(first)) == 40


def test_a_whole_file_is_one_test_set(file):
    task = Countdown(data=file)
    assert len(list(task.problems("all", 0))) == task.num_problems("all") == len(ROWS)
    assert Countdown().num_problems("test") is None
    with pytest.raises(ConfigError, match="split 'all'"):
        next(Countdown().problems("all", 0))


def test_a_file_of_tests_is_never_trained_on(file, tmp_path):
    tests = tmp_path / "tests.jsonl"
    rows = [{"nums": [1, 2, 3], "target": 6}, {**ROWS[0], "nums": ROWS[0]["nums"][::-1]}]
    tests.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    task = Countdown(data=file, test_data=tests)
    counts = {split: task.num_problems(split) for split in (*SPLITS, "all")}
    assert counts == {"train": 49, "validation": 0, "test": 2, "test_targets": 0, "all": 51}
    assert "1 problems" in task.notes[-1].message
