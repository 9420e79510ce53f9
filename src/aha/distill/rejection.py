"""The stages between a teacher's answers and examples: graded, chosen, mixed, kept from tests."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from aha.core.errors import ConfigError, DataError, RunStopped
from aha.core.records import Graded, Problem
from aha.core.seeds import seed_for
from aha.distill.contamination import HeldOutQuestions, question_of
from aha.distill.problem_rows import Row, example_row, problem_for, read_problem
from aha.distill.stages import Stage
from aha.eval.grade_errors import GradeErrors
from aha.eval.suite import MAX_GRADE_ERRORS
from aha.sft.example_rows import EXPECTED, UnusableRow, example_texts, lengths_of
from aha.tasks.files import plain_row, read_rows
from aha.tasks.protocol import Task

TRUNCATED, EMPTY, WRONG = "truncated", "empty", "wrong"
REPEATED, TOO_MANY = "that repeat an answer", "more than enough for their problem"


def grade_all(
    answers: Sequence[Row], task: Task, right_only: bool, problems: Mapping[str, Problem]
) -> Stage:
    """Every answer with its grade, as an example of the student; wrong ones are dropped where
    `right_only`, truncated and empty ones always: their end is none.

    `problems` are the task's own by their ids, as far as they are there: what JSON has made of one
    may be graded in another way.

    Raises `RunStopped` where the task's own grader fails too often, `DataError` where nothing is
    left.
    """
    stage, grades = Stage("graded"), []
    for answer in answers:
        problem = problems.get(answer["problem"]["id"]) or read_problem(answer["problem"])
        graded = task.grade(problem, answer["text"])
        grades.append(graded)
        if answer["finish"] == "length":
            stage.drop(TRUNCATED)
        elif not answer["text"].strip():
            stage.drop(EMPTY)
        elif right_only and not graded.correct:
            stage.drop(WRONG, graded.reason)
        else:
            stage.keep(example_row(problem, task.ask(problem), answer, graded))
    check_grades(grades)
    if not stage.rows:
        raise DataError(
            f"none of {len(answers):,} answers of the teacher is left: {stage.reasons() or 'none'}",
            "answers that teach something",
            "another --teacher, --rewrite rule where only the form is wrong, or a larger "
            "--max-new-tokens where they are truncated",
        )
    return stage


def check_grades(grades: Sequence[Graded]) -> None:
    """Raises `RunStopped` where a grader fails more often than a run would allow."""
    errors = GradeErrors.of(grades)
    finding = errors.finding(MAX_GRADE_ERRORS)
    if finding and errors.share > MAX_GRADE_ERRORS:
        raise RunStopped(finding.message, fix=finding.fix, check=finding.check)


def choose(examples: Sequence[Row], prefer: str, at_most: int) -> Stage:
    """At most so many examples of each problem, no answer twice: the first ones, or the shortest.

    `at_most` 0: all of them. Of a problem's answers right ones come first, where wrong ones were
    kept.
    """
    stage = Stage("chosen")
    groups: dict[str, list[Row]] = {}
    for row in examples:
        groups.setdefault(row["id"], []).append(row)
    for group in groups.values():
        different = {row["completion"].strip(): row for row in reversed(group)}
        unique = sorted(different.values(), key=lambda row: row["member"])
        if prefer == "shortest":
            sizes = lengths_of(unique)[1]
            unique = [unique[place] for place in sorted(range(len(unique)), key=sizes.__getitem__)]
        unique.sort(key=lambda row: not row["correct"])
        kept = unique[:at_most] if at_most else unique
        for row in kept:
            stage.keep(row)
        for _ in range(len(group) - len(unique)):
            stage.drop(REPEATED)
        for _ in range(len(unique) - len(kept)):
            stage.drop(TOO_MANY)
    return stage


def mix(examples: Sequence[Row], files: Sequence[Path], share: float | None, seed: int) -> Stage:
    """The examples with rows of other files among them, in an order of the seed.

    `share`: how much of the result comes from the files, which then give that many of their rows;
    None: all of them. Rows of any form that `aha sft` reads. Raises `DataError` for a file that
    cannot be read, or with too few rows.
    """
    stage = Stage("mixed")
    others = [row for path in files for row in foreign_rows(path, stage)]
    rng = Random(seed_for(seed, "mix"))
    if share is not None:
        count = round(len(examples) * share / (1.0 - share))
        if count > len(others):
            raise DataError(
                f"{len(others):,} rows to mix in, for a share of {share:g} beside "
                f"{len(examples):,} examples",
                f"{count:,} rows",
                "a smaller --mix-share, or more --mix files",
            )
        others = rng.sample(others, count)
    stage.added = len(others)
    stage.rows = [*examples, *others]
    rng.shuffle(stage.rows)
    return stage


def foreign_rows(path: Path, stage: Stage) -> list[Row]:
    """The rows of somebody's file that are examples; the stage counts the others by their kind.
    Raises `DataError` for a file without any."""
    rows = []
    for number, row in read_rows(path, EXPECTED):
        try:
            example_texts(row)
        except UnusableRow as reason:
            stage.drop(reason.kind, f"{path.name} row {number}: {reason.details}")
            continue
        assert isinstance(row, dict), "`example_texts` takes no other row"
        rows.append(plain_row(row))
    if not rows:
        raise DataError(
            f"no example in {path}: {stage.reasons() or 'it is empty'}", EXPECTED, "another file"
        )
    return rows


def check_share(share: float | None, files: Sequence[Path]) -> None:
    """Raises `ConfigError` for a share without files, and for one that leaves no room."""
    if share is None:
        return
    if not files or not 0.0 < share < 1.0:
        got = f"--mix-share {share:g}" + ("" if files else " without --mix")
        raise ConfigError(got, "a share between 0 and 1 of the files of --mix", "--mix-share 0.2")


def keep_from_tests(rows: Sequence[Row], tests: HeldOutQuestions, task: Task) -> Stage:
    """The examples that give no test away. Raises `DataError` where none is left."""
    stage = Stage("examples")
    for row in rows:
        prompt, question = words_asked(row, task)
        reason = tests.reason(prompt, question)
        if reason is None:
            stage.keep(row)
        else:
            stage.drop(*reason)
    if not stage.rows:
        raise DataError(
            f"none of {len(rows):,} examples is left: {stage.reasons()}",
            "examples that are no tests",
            "other examples, or --data with more problems",
        )
    return stage


def words_asked(row: Row, task: Task) -> tuple[str, str]:
    """(what the student reads, the question without its frame where the row has the problem)."""
    prompts = [text.prompt for text in example_texts(row)]
    prompt = "\n".join(
        text if isinstance(text, str) else "\n".join(message["content"] for message in text)
        for text in prompts
    )
    problem = problem_for(task, row) if row.get("task") == task.name else None
    return prompt, question_of(task, problem) if problem else prompt


def known_rows(path: Path, read: Callable[[Path], Any]) -> dict[str, Row]:
    """The rows of a file of answers by their keys."""
    return {row["key"]: row for row in read(path) if isinstance(row.get("key"), str)}
