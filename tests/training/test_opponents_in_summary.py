"""The comparison with searches belongs to summary.json, and never ends a run."""

from aha.core.config import RunConfig
from aha.core.records import Completion, Graded, Prompt
from aha.eval.opponents import OPPONENTS
from aha.eval.suite import EvalReport
from aha.eval.yardstick import held_out_puzzles
from aha.model.tokenizer import build_tokenizer
from aha.tasks.countdown import as_problem
from aha.training.opponents_in_summary import opponents_in_summary

PUZZLES = held_out_puzzles((3,), "validation", 6, 0)
NUMBERS = {"mean_tokens": 60.0, "solve_rate": 0.5, "interval": [0.2, 0.8]}


class OneForTheStart:
    """A tokenizer that puts a token of its own before every text."""

    class fast:
        @staticmethod
        def encode(text, add_special_tokens):
            return type("Encoding", (), {"ids": [0] * (1 + len(text))})


def report(given) -> EvalReport:
    groups = []
    for numbers, target in given:
        completion = Completion(
            Prompt(as_problem(numbers, target), "", ()), (1,), (0.0,), "", "stop"
        )
        groups.append([Graded(1.0, True, "", {}, completion)])
    return EvalReport(NUMBERS, groups)


def test_a_run_of_countdown_has_every_opponent():
    cfg, said = RunConfig(), []
    row = opponents_in_summary(cfg, report(PUZZLES), build_tokenizer(), said.append)
    opponents = row["opponents"]
    assert [one["search"] for one in opponents["searches"]] == list(OPPONENTS) and not said
    assert opponents["tokens"] == cfg.rollout.max_new_tokens
    assert (opponents["mean_tokens"], opponents["n"]) == (60.0, len(PUZZLES))


def test_another_task_other_tokens_or_no_test_have_none():
    cfg, said = RunConfig(), []
    other = cfg.model_copy(update={"task": cfg.task.model_copy(update={"name": "multiply"})})
    tokenizer = build_tokenizer()
    assert opponents_in_summary(other, report(PUZZLES), tokenizer, said.append) == {}
    assert opponents_in_summary(cfg, None, tokenizer, said.append) == {}
    assert opponents_in_summary(cfg, report(PUZZLES), OneForTheStart(), said.append) == {}
    assert not said


def test_a_fault_is_said_and_does_not_end_the_run():
    broken, said = report([((3, 7, "x"), 82)]), []
    assert opponents_in_summary(RunConfig(), broken, build_tokenizer(), said.append) == {}
    assert len(said) == 1 and "no comparison with searches" in said[0]
