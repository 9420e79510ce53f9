"""What happens between steps: rows, files, pictures of progress."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from aha.behaviors.way_shares import WAY_COLUMNS
from aha.core.config import RunConfig
from aha.core.records import Completion, Graded, Problem, Prompt, StepReport
from aha.machine.device import PeakMemory
from aha.store.checkpoint import checkpoints, prune, step_of
from aha.store.run_folder import Run, append, read_rows
from aha.training.watchers import (
    Checkpoint,
    Record,
    Show,
    Stopwatch,
    best_checkpoint,
    by_interest,
    completion_rows,
    step_row,
    time_to_aha,
)

from ..tiny import TOKENIZER

PROMPT = Prompt(Problem("p", "made up", {"numbers": (1, 2), "target": 3}), "1 2 = 3?", (1, 2))


def graded(correct: bool, length: int, finish: str = "stop") -> Graded:
    tokens, logprobs = tuple(range(length)), (-1.0,) * length
    completion = Completion(PROMPT, tokens, logprobs, "x" * length, finish)
    return Graded(float(correct), correct, "because", completion=completion)


def report(version: int = 3) -> StepReport:
    """Three groups: none right, one of two right, all right."""
    groups = (
        (graded(False, 4), graded(False, 10, "length")),
        (graded(False, 6), graded(True, 8)),
        (graded(True, 2), graded(True, 6)),
    )
    advantages = ((0.0, 0.0), (-0.5, 0.5), (0.0, 0.0))
    numbers = {"loss": 0.5, "grad_norm": 2.0}
    return StepReport(version, groups, advantages, numbers, {"rollout": 1.0, "train": 3.0})


def test_a_row_by_hand():
    row = step_row(report(), 12.3456)
    # 3 right of 6; 4 + 10 + 6 + 8 + 2 + 6 = 36 tokens in 1 + 3 seconds; 1 of 6 cut off
    assert row == {
        "step": 3,
        "elapsed_s": 12.346,
        "reward": 0.5,
        "reward_std": pytest.approx(0.5 / 3),  # 0, .5 and 0 within the three groups
        "groups_flat": pytest.approx(2 / 3),
        "solve_rate": 0.5,
        "groups_none_solved": pytest.approx(1 / 3),
        "groups_all_solved": pytest.approx(1 / 3),
        "groups": 3,
        "mean_tokens": 6.0,
        "truncated": pytest.approx(1 / 6),
        "tokens": 36,
        "tokens_per_s": 9.0,
        "grade_errors": 0,
        # None of them searches; the answer is then the first attempt.
        **dict.fromkeys(WAY_COLUMNS, 0.0) | {"way_none": 1.0},
        "first_attempt_rate": 0.5,
        "attempts_per_solve": 0.0,
        "tokens_per_solve": 12.0,
        "loss": 0.5,
        "grad_norm": 2.0,
        "rollout_s": 1.0,
        "train_s": 3.0,
    }


def test_a_row_has_the_ways_of_its_searches():
    text = "24+1=25\n24-1=23\n24+3=27\n24-3=21\n24*3=72\n72+1=73 yes\n</think>"
    prompt = Prompt(Problem("p", "made up", {"numbers": (24, 1, 3), "target": 73}), "?", (1,))
    told = report()
    completion = Completion(prompt, (1, 2), (-1.0, -1.0), text, "stop")
    groups = ((replace(told.groups[0][0], completion=completion), told.groups[0][1]), *told.groups)
    row = step_row(replace(told, groups=groups, advantages=(*told.advantages, (0.0, 0.0))), 1.0)
    assert (row["way_look"], row["way_none"]) == (pytest.approx(1 / 8), pytest.approx(7 / 8))
    other = Prompt(Problem("p", "made up", {"question": "?"}), "?", (1,))
    completion = replace(completion, prompt=other)
    groups = ((replace(told.groups[0][0], completion=completion),),)
    assert not {"way_look", "tokens_per_solve"} & set(step_row(replace(told, groups=groups), 1.0))


def test_every_completion_is_written_with_its_group_and_its_advantage():
    rows = list(completion_rows(report(), TOKENIZER, 0))
    assert [row["group"] for row in rows] == [0, 0, 1, 1, 2, 2]
    assert [row["advantage"] for row in rows] == [0.0, 0.0, -0.5, 0.5, 0.0, 0.0]
    assert rows[3] | {"tokens": 8} == rows[3]
    assert {"id", "prompt", "completion", "reward", "reason", "finish", "step"} <= rows[0].keys()


def test_the_most_interesting_group_is_written_token_by_token():
    text = "3+7=10"
    ids = (*TOKENIZER.encode(text), *TOKENIZER.stop_ids)
    told = report()
    completion = Completion(PROMPT, ids, (-0.12345,) * 7, text, "stop", entropies=(0.98765,) * 7)
    group = (replace(told.groups[1][0], completion=completion), told.groups[1][1])
    told = replace(told, groups=(told.groups[0], group, told.groups[2]))
    rows = list(completion_rows(told, TOKENIZER, 1))
    assert [i for i, row in enumerate(rows) if "pieces" in row] == [2, 3]
    assert rows[2]["pieces"] == [*text, "<|endoftext|>"]
    assert rows[2]["logprobs"] == [-0.123] * 7 and rows[2]["entropies"] == [0.988] * 7
    # This engine told no entropies, and no critic judged its tokens.
    assert len(rows[3]["logprobs"]) == 8 and not {"entropies", "advantages"} & rows[3].keys()


def test_what_a_critic_said_of_each_token_is_written():
    told = report()
    credits = tuple(
        tuple(tuple(0.1 * t for t in range(len(one.completion.tokens))) for one in group)
        for group in told.groups
    )
    rows = list(completion_rows(replace(told, token_advantages=credits), TOKENIZER, 1))
    assert rows[2]["advantages"] == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    assert "advantages" not in rows[0]


def test_groups_by_interest():
    # None right, one of two, all: the hardest with a right one first, the hopeless last.
    assert by_interest(report()) == [1, 2, 0]


def test_record_writes_both_files_and_hands_the_row_on(tmp_path):
    run, told = Run.create(tmp_path / "run", {}), []
    record = Record(run, Stopwatch(100.0), told.append, TOKENIZER, 1)
    record(report(1))
    record(report(2))
    rows = list(read_rows(run.metrics))
    assert rows == told and [row["step"] for row in rows] == [1, 2]
    assert rows[0]["elapsed_s"] >= 100.0
    # A step that is done again after a crash replaces its completions.
    record(report(2))
    assert len(list(read_rows(run.completions / "step_000002.jsonl"))) == 6


@pytest.mark.parametrize(("every", "shown"), [(0, []), (1, [1, 2, 3, 4]), (2, [2, 4])])
def test_show_shows_every_so_many_steps(every, shown):
    told = []
    show = Show(every, lambda version, group, advantages: told.append(version))
    for version in (1, 2, 3, 4):
        show(report(version))
    assert told == shown


def shown_by(one: StepReport) -> list[tuple]:
    told = []
    Show(1, lambda *words: told.append(words))(one)
    return told


def test_the_hardest_group_with_a_right_completion_is_shown_with_its_advantages():
    made = report()
    assert shown_by(made) == [(made.version, made.groups[1], made.advantages[1])]


def test_where_nothing_is_right_the_first_group_is_shown():
    wrong = (graded(False, 4), graded(False, 5))
    assert shown_by(StepReport(1, (wrong,), ((0.0, 0.0),), {}, {})) == [(1, wrong, (0.0, 0.0))]


def rows(*rates: float) -> list[dict]:
    return [{"solve_rate": rate, "elapsed_s": 10.0 * n} for n, rate in enumerate(rates, 1)]


@pytest.mark.parametrize(
    ("rates", "before", "seconds"),
    [
        # the mean of three: (.4 + .5 + .7) / 3 = .533 is past one half and twice .2
        ((0.2, 0.4, 0.5, 0.7, 0.9), 0.2, 40.0),
        # past one half, but not yet twice .4: (.7 + .9 + .9) / 3 = .833 is
        ((0.5, 0.6, 0.7, 0.9, 0.9), 0.4, 50.0),
        # exactly one half is not past it
        ((0.5, 0.5, 0.5), 0.1, None),
        # one lucky step is not enough
        ((0.2, 1.0, 0.2, 0.2), 0.2, None),
        ((0.9,), 0.1, None),
        ((), 0.1, None),
    ],
)
def test_time_to_aha_by_hand(rates, before, seconds):
    assert time_to_aha(rows(*rates), before) == seconds


def test_the_stopwatch_goes_on_from_before():
    watch = Stopwatch(50.0)
    first, second = watch(), watch()
    assert 50.0 <= first <= second < 60.0


def test_the_checkpoint_of_the_best_validation_is_kept(tmp_path):
    """The first of equals; a step without a checkpoint, or without a validation, is none."""
    run = Run.create(tmp_path / "run", {})
    for step in (2, 4, 6, 8):
        (run.checkpoints / f"step_{step:06d}").mkdir()
        (run.checkpoints / f"step_{step:06d}" / "trainer.pt").write_text("")
    assert best_checkpoint(run) == {}
    rates = {2: 0.5, 3: 0.9, 4: 0.7, 6: 0.7, 8: None}
    append(run.path / "evals.jsonl", [{"step": k, "solve_rate": v} for k, v in rates.items()])
    assert best_checkpoint(run) == {4: 0.7}
    prune(run.checkpoints, 1, best_checkpoint(run))
    assert [path.name for path in checkpoints(run.checkpoints)] == ["step_000004", "step_000008"]


@pytest.mark.parametrize(
    ("keep_last", "kept"), [((1,), [40]), ((1, 20), [20, 40]), ((2, 30), [30, 40])]
)
def test_the_newest_and_every_so_many_checkpoints_are_kept(tmp_path, keep_last, kept):
    run = Run.create(tmp_path / "run", {})
    for step in (10, 20, 30, 40):
        (run.checkpoints / f"step_{step:06d}").mkdir()
        (run.checkpoints / f"step_{step:06d}" / "trainer.pt").write_text("")
    trainer = SimpleNamespace(version=40, cfg=RunConfig(keep_last=keep_last))
    # Saved already, by a process that died before it removed the older ones.
    Checkpoint(trainer, run, Stopwatch(), None, PeakMemory(torch.device("cpu")), 40).save()
    assert [step_of(path) for path in checkpoints(run.checkpoints)] == kept


def test_one_completion_has_no_deviation():
    single = StepReport(1, ((graded(True, 2),), (graded(False, 3),)), ((0.5,), (-0.5,)), {}, {})
    assert not {"reward_std", "groups_flat"} & step_row(single, 1.0).keys()
