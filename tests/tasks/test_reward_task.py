"""A task of reward functions: its rows, its splits, its prompts, its grades."""

import json
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from aha.core.errors import ConfigError, DataError
from aha.core.records import Problem
from aha.tasks.catalog import make_task, notes_of, provided
from aha.tasks.reward_function import WeightedRewards
from aha.tasks.reward_task import RewardTask, parted

CHAT = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "2+3?"}]
VERL = {
    "data_source": "sums",
    "prompt": CHAT,
    "ability": "math",
    "reward_model": {"style": "rule", "ground_truth": "5"},
    "extra_info": {"index": 0},
}


def right(completion, answer):
    return completion == answer


def right_of_verl(completion, ground_truth, data_source):
    return completion == ground_truth and data_source == "sums"


def task_of(tmp_path, rows, *functions, weights=None, **settings) -> RewardTask:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    rewards = WeightedRewards.of(list(functions) or right, weights)
    return RewardTask(rewards, path, **settings)


def sums(count: int) -> list[dict]:
    return [{"prompt": f"{n} + {n} =", "answer": str(2 * n)} for n in range(count)]


def test_every_row_is_in_one_split_and_a_prompt_in_one_as_well(tmp_path):
    rows = [*sums(100), *({**row, "hint": 1} for row in sums(100))]
    task = task_of(tmp_path, rows)
    splits = {s: list(task.problems(s, 0)) for s in ("train", "validation", "test")}
    prompts = [{p.given["row"]["prompt"] for p in problems} for problems in splits.values()]
    assert sum(map(len, splits.values())) == 200 == task.num_problems("all")
    assert sum(map(len, prompts)) == 100 == len(set.union(*prompts))
    assert len({p.id for problems in splits.values() for p in problems}) == 200
    assert [p.id for p in task.problems("train", 1)] != [p.id for p in splits["train"]]


def test_columns_that_json_does_not_have_become_text(tmp_path):
    """A run writes the row beside each of its completions."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    cells = {"day": date(2026, 1, 2), "made": datetime(2026, 1, 2, 3, 4, tzinfo=UTC)}
    cells |= {"price": Decimal("1.50"), "raw": b"ab", "inner": {"days": [date(2026, 1, 2)]}}
    path = tmp_path / "rows.parquet"
    rows = [{**row, **cells} for row in sums(20)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    task = RewardTask(WeightedRewards.of(right), path)
    problem = next(task.problems("train", 0))
    row = json.loads(json.dumps(problem.given["row"]))
    assert (row["day"], row["price"], row["raw"]) == ("2026-01-02", "1.50", "ab")
    assert row["made"].startswith("2026-01-02 03:04") and row["inner"] == {"days": ["2026-01-02"]}
    assert task.grade(problem, row["answer"]).reward == 1.0


@pytest.mark.parametrize("count", [3, 5, 20])
def test_a_few_prompts_still_have_every_split(tmp_path, count):
    task = task_of(tmp_path, sums(count))
    sizes = [task.num_problems(s) for s in ("train", "validation", "test")]
    assert min(sizes) >= 1 and sum(sizes) == count


def test_a_prompt_stays_in_its_split_when_the_file_grows():
    small, large = (parted(map(str, range(n)), ("validation", "test")) for n in (500, 1000))
    assert small.items() <= large.items()


def test_prompts_are_taken_as_they_stand_or_framed(tmp_path):
    for template, beginning in (("plain", "0 + 0 ="), ("r1", "This is"), ("instruct", "<|im_st")):
        task = task_of(tmp_path, sums(5), template=template)
        asked = sorted(map(task.ask, task.problems("all", 0)))[0]
        assert asked.startswith(beginning) and "0 + 0 =" in asked
        assert (asked == "0 + 0 =") == (template == "plain")


@pytest.mark.parametrize("template", ["plain", "instruct"])
def test_messages_become_a_conversation(tmp_path, template):
    task = task_of(tmp_path, [VERL], right_of_verl, template=template)
    (problem,) = task.problems("all", 0)
    assert task.ask(problem) == (
        "<|im_start|>system\nBe short.<|im_end|>\n<|im_start|>user\n2+3?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert task.grade(problem, "5").correct and not task.grade(problem, "6").correct


def test_a_row_that_is_a_puzzle_is_known_as_one(tmp_path):
    rows = [
        {"prompt": "a", "nums": [1, 2, 3], "target": 6},
        {"prompt": "b", "nums": "1 2 3", "target": 6},
        {"prompt": "c", "numbers": [1, 2, 3], "target": "6"},
        {"prompt": "d", "numbers": [1], "target": 6},
    ]
    task = task_of(tmp_path, rows, lambda completion: 0.0)
    puzzles = {p.given["row"]["prompt"]: p.given.get("numbers") for p in task.problems("all", 0)}
    assert puzzles == {"a": [1, 2, 3], "b": None, "c": None, "d": None}


def graded(tmp_path, *functions, weights=None, text="4"):
    task = task_of(tmp_path, sums(3), *functions, weights=weights)
    problem = next(p for p in task.problems("all", 0) if p.given["row"]["answer"] == "4")
    return task.grade(problem, text)


def test_several_functions_are_a_weighted_sum_whose_first_says_what_is_right(tmp_path):
    def short(completion):
        return 1 - len(completion) / 10

    both = graded(tmp_path, right, short, weights=[1.0, 0.5])
    assert both.reward == pytest.approx(1 + 0.5 * 0.9) and both.correct  # 1 * 1 + .5 * (1 - .1)
    assert dict(both.parts) == {"reward_right": 1.0, "reward_short": 0.9}
    wrong = graded(tmp_path, right, short, text="5")
    assert wrong.reward == pytest.approx(0.9) and not wrong.correct
    assert wrong.reason == "right 0, short 0.9"


def raises(completion):
    raise KeyError("column")


def leaves(completion):
    raise SystemExit(3)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (raises, "the reward raises raised KeyError: 'column'"),
        (leaves, "the reward leaves raised SystemExit: 3"),
        (lambda c: None, "the reward lambda returned None"),
        (lambda c: 8e5, "a sum of rewards of 1.6e+06"),
    ],
)
def test_a_function_that_fails_is_a_grade_that_failed(tmp_path, function, reason):
    bad = graded(tmp_path, function, function) if "sum" in reason else graded(tmp_path, function)
    assert bad.reward == 0 and bad.reason.startswith(reason) and bad.parts["grade_error"] == 1


def test_an_interrupt_is_none_of_a_functions_faults(tmp_path):
    def interrupted(completion):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        graded(tmp_path, interrupted)


def test_rows_that_cannot_be_used_are_refused_or_dropped(tmp_path):
    rows = [*sums(9), {"prompt": "1 + 1 ="}, {"prompt": "", "answer": "2"}, sums(9)[0]]
    with pytest.raises(DataError, match="row 10: no column 'answer', which the reward 'right'"):
        task_of(tmp_path, rows)
    task = task_of(tmp_path, rows, bad_rows="drop")
    assert task.num_problems("all") == 9
    assert ["2 rows" in notes_of(task)[0].message, "1 rows" in notes_of(task)[1].message]


def test_a_column_that_is_missing_is_named(tmp_path):
    with pytest.raises(ConfigError, match="takes 'answer', which is no column.*call it 'anser'"):
        task_of(tmp_path, [{"prompt": "1", "anser": "1"}])
    with pytest.raises(DataError, match=r"only promt, answer.*columns=\{'promt': 'prompt'\}"):
        task_of(tmp_path, [{"promt": "1", "answer": "1"}])
    with pytest.raises(ConfigError, match="without data"):
        RewardTask(WeightedRewards.of(right))


def test_tests_of_their_own_file_are_not_trained_on(tmp_path):
    path = tmp_path / "tests.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in sums(4)))
    task = task_of(tmp_path, sums(10), test_data=path)
    assert (task.num_problems("test"), task.num_problems("all")) == (4, 10)
    assert task.num_problems("train") + task.num_problems("validation") == 6


def test_a_task_of_functions_exists_for_its_program_alone(tmp_path):
    task = task_of(tmp_path, sums(5))
    with provided(task):
        assert make_task("reward:right", {"data": "x"}) is task
    with pytest.raises(ConfigError, match=r"'reward:right'.*reward=right again"):
        make_task("reward:right")


def test_a_source_that_cannot_be_read_is_noted(tmp_path):
    made = {}
    exec("def made(completion): return 1.0", made)
    task = task_of(tmp_path, sums(3), made["made"])
    assert any("the source of the reward made" in note.message for note in notes_of(task))
    assert task.digests() == {"made": "not readable"}


def test_parquet_as_verl_writes_it_is_read(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="needs the extra [parquet]")
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist([VERL]), tmp_path / "rows.parquet")
    task = RewardTask(WeightedRewards.of(right_of_verl), tmp_path / "rows.parquet")
    (problem,) = task.problems("all", 0)
    assert "2+3?" in task.ask(problem) and task.grade(problem, "5").correct


def test_problems_are_json(tmp_path):
    task = task_of(tmp_path, [VERL], right_of_verl)
    (problem,) = task.problems("all", 0)
    assert isinstance(problem, Problem) and json.loads(json.dumps(dict(problem.given)))
