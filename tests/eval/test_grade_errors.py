"""Failed grades: counted with their reasons, told, and a failure where there are too many."""

import pytest

from aha.core.errors import RunStopped
from aha.core.records import Graded
from aha.eval.grade_errors import GradeErrors
from aha.eval.suite import evaluate, held_out
from aha.rollout.engine import Sampling
from aha.rollout.native import NativeEngine

from ..tiny import TOKENIZER, StartsWith, tiny_transformer

GOOD = Graded(1.0, True, "right")


def bad(reason: str, *parts: str) -> Graded:
    return Graded(0.0, False, reason, dict.fromkeys(("grade_error", *parts), 1.0))


def test_without_failed_grades_there_is_no_finding():
    errors = GradeErrors.of([GOOD, Graded(0.0, False, "wrong", {"grade_error": 0.0})])
    assert (errors.failed, errors.share, errors.finding(0.0)) == (0, 0.0, None)
    assert GradeErrors.of([]).finding(0.0) is None


def test_the_most_frequent_reasons_come_first_and_numbers_make_no_new_one():
    rows = [bad(f"the grader raised IndexError: {n}") for n in range(6)]
    objects = [bad("<f at 0x7f12ab>"), bad("<f at 0x9c>")]
    errors = GradeErrors.of([*rows, *objects, bad("c"), bad("d"), GOOD, GOOD])
    assert errors.reasons == {"the grader raised IndexError: 0": 6, "<f at 0x7f12ab>": 2, "c": 1}
    finding = errors.finding(0.9)
    assert finding.level == "warn" and finding.fix
    assert (
        "10 of 12 grades failed (83%): the grader raised IndexError: 0 (6); <f at"
        in finding.message
    )


@pytest.mark.parametrize(("limit", "level"), [(0.5, "warn"), (0.49, "fail"), (0.0, "fail")])
def test_a_share_above_the_limit_is_a_failure(limit, level):
    assert GradeErrors.of([GOOD, bad("a")]).finding(limit).level == level


def test_the_fix_is_for_who_wrote_it():
    """A reward function has no `grade`, and no recipe that the doctor could try."""
    own = [bad("the reward right raised KeyError: 'a'")]
    assert GradeErrors.of([GOOD, *own]).finding(0.0).fix.startswith("mend the function")
    assert "mend the task's `grade`" in GradeErrors.of([GOOD, *own, bad("a")]).finding(0.0).fix


def test_a_grader_that_was_given_up_is_a_failure_whatever_the_share():
    finding = GradeErrors.of([GOOD] * 99 + [bad("a", "grade_untried")]).finding(1.0)
    assert finding.level == "fail" and "1 of them were not tried" in finding.message
    late = GradeErrors.of([GOOD, bad("a", "grade_timeout")]).finding(1.0)
    assert late.level == "warn" and "task.grade_seconds" in late.fix


class Failing(StartsWith):
    """Grades nothing that begins with one of its characters."""

    def grade(self, problem, text):
        return bad("the grader raised KeyError") if text.startswith(self.characters) else GOOD


@pytest.fixture(scope="module")
def engine() -> NativeEngine:
    return NativeEngine(tiny_transformer(), TOKENIZER, "float32")


def test_an_evaluation_has_the_reasons_and_stops_above_its_limit(engine):
    task = Failing("0123456789+-*/=<>")
    prompts = held_out(task, TOKENIZER, "test", 20, 0)
    report = evaluate(engine, task, prompts, Sampling(8, 1, 1.0, 3))
    failed = report.numbers["grade_errors"]
    assert 0 < failed < 20
    assert report.numbers["grade_error_reasons"] == {"the grader raised KeyError": failed}
    assert report.grade_errors().failed == failed
    with pytest.raises(RunStopped, match="grades failed") as stopped:
        evaluate(engine, task, prompts, Sampling(8, 1, 1.0, 3), part=5, max_grade_errors=0.0)
    assert stopped.value.check == "grade_errors" and "of 5 grades" in str(stopped.value)


def test_an_evaluation_without_failed_grades_has_the_keys_that_it_had(engine):
    prompts = held_out(StartsWith("0"), TOKENIZER, "test", 4, 0)
    numbers = evaluate(engine, StartsWith("0"), prompts, Sampling(8, 1, 1.0, 3)).numbers
    assert numbers["grade_errors"] == 0 and "grade_error_reasons" not in numbers
