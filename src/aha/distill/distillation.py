"""A whole distillation: examples from a teacher, stage by stage, with what they have cost.

data/NAME/ has a file for each stage, and can be read at any point:

  job.json          the settings
  answers.jsonl     what the teacher said, each answer kept as it came
  lost.jsonl        requests that an endpoint which answers others has not answered: not sent again
  rewritten.jsonl   the same in the student's tags, where that was wanted
  graded.jsonl      examples with their grades
  chosen.jsonl      those of each problem that are used
  mixed.jsonl       with examples of other files
  examples.jsonl    without any that gives a test away: what is learnt
  stages.json       how many each stage has dropped, and why
  ledger.json       what everything has cost
  before.json       the test of the student before training; after.json the one after it;
                    earlier_after.json that of a run that was removed and trained anew

Source: Sky-T1 (NovaSky 2025), with the rejection by a verifier of STaR (arXiv 2203.14465).
"""

import os
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from aha.core.errors import ConfigError, DataError, ModelError
from aha.core.findings import Finding, warn
from aha.core.records import Problem, Prompt
from aha.distill.contamination import HeldOutQuestions
from aha.distill.distill_job import TEST_SEED, DistillJob, open_folder
from aha.distill.ledger import BASE, TEACHER, Ledger, machine_entry
from aha.distill.problem_rows import Row
from aha.distill.rejection import (
    check_share,
    choose,
    foreign_rows,
    grade_all,
    keep_from_tests,
    known_rows,
    mix,
)
from aha.distill.rewriting import Rewriter, rewrite_by_model, rewrite_by_rule, rewriting_cost
from aha.distill.stages import Stage, StageFolder
from aha.distill.teachers import (
    UNANSWERED,
    EndpointTeacher,
    KeptAnswers,
    OwnTeacher,
    Questions,
    Request,
    Teacher,
    TeacherEndpoint,
)
from aha.endpoints.chat_requests import CHAT, TEXT
from aha.model.folders import resolve_model
from aha.model.parents import chain_of
from aha.model.tokenizer import Tokenizer
from aha.rollout.engine import Sampling
from aha.sft.data_cost import write_data_cost
from aha.store.run_folder import append, drop_half_line, read_rows
from aha.tasks.catalog import constructor, make_task, notes_of, setting_names
from aha.tasks.protocol import Task
from aha.tasks.tags import ANSWER_CLOSE, ANSWER_OPEN, THINK_CLOSE
from aha.tasks.wording import in_frame

FEWEST_TESTS = 1_000  # to compare with, where no test is to be made
ANSWERS, REWRITTEN, LOST = "answers.jsonl", "rewriter.jsonl", "lost.jsonl"
Progress = Callable[[str, int, int], None]  # what, done, of how many


def ignore_progress(what: str, done: int, total: int) -> None:
    """For whoever shows none."""


def takes_template(task: str) -> bool:
    """Whether a task can put its problems into several frames."""
    names, takes_all = setting_names(constructor(task))
    return "template" in names or takes_all


def check_student(name: str, tokenizer: Tokenizer) -> list[Finding]:
    """What is to be said of a student's tags. Raises `ModelError` for one that cannot write
    them."""
    spelled = []
    for tag in (THINK_CLOSE, ANSWER_OPEN, ANSWER_CLOSE):
        try:
            count = len(tokenizer.encode(tag)) - len(tokenizer.prefix)
        except ModelError as error:
            raise ModelError(
                f"the student {name} cannot write {tag}: {error.got}",
                "a vocabulary that holds the tags of an answer",
                "another --student",
            ) from None
        if tokenizer.fast.token_to_id(tag) is None:
            spelled.append(f"{tag} ({count} tokens)")
    if not spelled:
        return []
    message = f"the student {name} has no token of its own for {', '.join(spelled)}"
    fix = "nothing: it learns to spell them, which costs these tokens in each completion"
    return [warn(message, fix)]


class Distillation:
    """The examples of one job, in its folder. Whatever is there already is not made again."""

    def __init__(
        self,
        job: DistillJob,
        path: Path,
        limits: tuple[int, dict[str, Any] | None],
        on_finding: Callable[[Finding], object] = bool,
        progress: Progress = ignore_progress,
    ):
        """`limits`: the token limit of a completion, and the task settings of the teacher's own
        run, None where it is no run on this task."""
        self.job, self.path = job, path
        self.max_new_tokens, self.own_settings = limits
        self.on_finding, self.progress = on_finding, progress
        self.ledger = Ledger()
        self.stages = StageFolder(path)
        self.task = make_task(job.task, dict(job.task_settings))
        self.student = resolve_model(job.student)

    def collect(self) -> Path:
        """Make the file of examples, going on where an earlier call was stopped.

        Raises `ConfigError` for settings that cannot be, or an endpoint that refuses or is silent;
        `DataError` where a stage leaves nothing; `ModelError` for a student that cannot write the
        tags. What the teacher has answered until then is kept.
        """
        check_share(self.job.mix_share, self.files_to_mix)
        teacher, plain, tests = self.check_all()
        problems = list(islice(self.task.problems("train", self.job.seed), self.job.n))
        answers = self.rewrite(self.ask(teacher, problems))
        by_id = {problem.id: problem for problem in problems}
        graded = grade_all(answers, self.task, self.job.keep == "right", by_id)
        self.stages.write(graded)
        chosen = choose(graded.rows, self.job.prefer, self.job.at_most)
        self.stages.write(chosen)
        mixed = mix(chosen.rows, self.files_to_mix, self.job.mix_share, self.job.seed)
        self.stages.write(mixed)
        path = self.stages.write(keep_from_tests(mixed.rows, tests, plain))
        self.price(path, teacher)
        return path

    @property
    def files_to_mix(self) -> list[Path]:
        return [Path(name) for name in self.job.mix]

    def with_template(self, template: str) -> Task:
        """The task with its problems in this frame, where it has frames. The student's words are
        left out where this frame has no place for them: they are of the student's own."""
        name = self.job.task
        if not takes_template(name):
            return self.task
        settings = dict(self.job.task_settings)
        own = in_frame(settings, template, lambda: setting_names(constructor(name))[0])
        return make_task(name, own)

    def check_all(self) -> tuple[Teacher, Task, HeldOutQuestions]:
        """Whatever can be refused before a teacher is paid. Returns the teacher, the task in the
        frame in which examples are compared with tests, and the tests."""
        for note in notes_of(self.task):
            self.on_finding(note)
        for path in self.files_to_mix:
            foreign_rows(path, Stage("mixed"))
        tokenizer = Tokenizer.load(self.student)
        for finding in check_student(self.job.student, tokenizer):
            self.on_finding(finding)
        first = next(self.task.problems("train", self.job.seed), None)
        if first is None:
            raise DataError(
                "no problem in the training split", "at least one", "more rows in --data"
            )
        Prompt.of(first, self.task, tokenizer)  # the student can read what it is to be asked
        teacher = self.make_teacher()
        self.rewriter()
        plain = self.with_template("plain")
        tests = HeldOutQuestions.of(plain, TEST_SEED, self.job.tests or FEWEST_TESTS)
        open_folder(self.path, self.job.as_row(), reuses=True)
        return teacher, plain, tests

    def make_teacher(self) -> Teacher:
        job, settings = self.job, self.job.teacher
        if not settings.is_endpoint:
            return OwnTeacher(settings.name, job.usd_per_hour, job.watts)
        endpoint = TeacherEndpoint(
            settings.name,
            settings.model or "",
            key=os.environ.get(TeacherEndpoint.key_variable),
            seed=job.seed,
            workers=settings.workers,
            timeout_s=settings.timeout_s,
            tries=settings.tries,
            path=TEXT if settings.api == "text" else CHAT,
            prices=settings.prices,
        )
        return EndpointTeacher(endpoint)

    def teacher_task(self) -> Task:
        """The task as the teacher is asked: in its own frame."""
        settings = self.job.teacher
        if settings.template is not None:
            return self.with_template(settings.template)
        if not settings.is_endpoint:
            own = self.own_settings
            frame = own.get("template") if own else None
            return self.with_template(frame) if isinstance(frame, str) else self.task
        return self.with_template("instruct") if settings.api == "chat" else self.task

    def ask(self, teacher: Teacher, problems: list[Problem]) -> list[Row]:
        """The teacher's answers, those of earlier calls included."""
        job, path = self.job, self.path / ANSWERS
        if len(problems) < job.n:
            text = f"{len(problems):,} problems in the training split, not {job.n:,}"
            self.on_finding(warn(text, "--n takes them all; more rows in --data give more"))
        sampling = Sampling(
            self.max_new_tokens, job.teacher.per_problem, job.teacher.temperature, job.seed
        )
        questions = Questions(self.teacher_task(), problems, sampling)
        requests = teacher.requests(questions)
        known = self.rows_of(ANSWERS)
        if job.reuse:
            self.take_over(Path(job.reuse), requests, known)
        lost, stage = self.rows_of(LOST), Stage("answers")

        def keep(rows: list[Row]) -> None:
            append(path, rows)
            known.update({row["key"]: row for row in rows})

        left = []
        for request in requests:
            if request.key in known:
                continue
            if request.key in lost:
                row = lost[request.key]
                stage.drop(str(row.get("reason", UNANSWERED)), str(row.get("details", "")))
            else:
                left.append(request)
        if left:
            kept = KeptAnswers(keep, self.lose, bool(known))
            answers = teacher.answer(left, questions, kept, self.progress_of("answers"))
            for reason, details in answers.lost:
                stage.drop(reason, details)
        stage.rows = [known[request.key] for request in requests if request.key in known]
        self.stages.note(stage)
        if not stage.rows:
            raise DataError(
                f"no answer of the teacher to {len(problems):,} problems: {stage.reasons()}",
                "answers",
                "another --teacher, or a smaller --max-new-tokens",
            )
        self.ledger.add_chain(chain_of(self.student), BASE, "student")
        self.ledger.add_chain(teacher.chain(), TEACHER, "teacher")
        self.ledger.add(teacher.cost(stage.rows))
        return stage.rows

    def rows_of(self, name: str) -> dict[str, Row]:
        """What is in a file of this folder already, by keys."""
        drop_half_line(self.path / name)
        return known_rows(self.path / name, read_rows)

    def lose(self, row: Row) -> None:
        append(self.path / LOST, [row])

    def take_over(self, other: Path, requests: list[Request], known: dict[str, Row]) -> None:
        """Add the answers of another distillation that fit. Raises `ConfigError` where it has
        none at all."""
        theirs = known_rows(other / ANSWERS, read_rows)
        if not theirs:
            raise ConfigError(
                f"--reuse {other}: no answers in it",
                f"the folder of a distillation, with {ANSWERS}",
                "--reuse data/NAME of the other one, or without it",
            )
        keys = {request.key for request in requests}
        again = [row for key, row in theirs.items() if key in keys - known.keys()]
        if again:
            append(self.path / ANSWERS, again)
            known |= {row["key"]: row for row in again}
        elif not keys & known.keys():
            text = f"none of the {len(theirs):,} answers in {other} is to one of these requests"
            fix = "the same teacher, prompts, temperature, seed, and limits of problem and tokens"
            self.on_finding(warn(text, fix))

    def progress_of(self, what: str) -> Callable[[int, int], None]:
        return lambda done, total: self.progress(what, done, total)

    def rewriter(self) -> Rewriter | None:
        """The endpoint that rewrites, where one does."""
        settings = self.job.rewrite
        if settings.by in ("none", "rule"):
            return None
        rewriter = Rewriter(
            settings.by,
            settings.model or "",
            key=os.environ.get(Rewriter.key_variable),
            seed=self.job.seed,
            workers=self.job.teacher.workers,
            timeout_s=self.job.teacher.timeout_s,
            tries=self.job.teacher.tries,
            prices=settings.prices,
        )
        rewriter.address()
        return rewriter

    def rewrite(self, answers: list[Row]) -> list[Row]:
        """The answers in the student's tags, where that is wanted."""
        if self.job.rewrite.by == "none":
            return answers
        rewriter, path = self.rewriter(), self.path / REWRITTEN
        if rewriter is None:
            stage = rewrite_by_rule(answers)
        else:
            stage, rows = rewrite_by_model(
                answers,
                rewriter,
                (self.rows_of(REWRITTEN), self.rows_of(LOST)),
                (lambda row: append(path, [row]), self.lose),
                self.progress_of("rewritten"),
            )
            self.ledger.add(rewriting_cost(rewriter, rows))
        self.stages.write(stage)
        if not stage.rows:
            raise DataError(
                f"none of {len(answers):,} answers could be rewritten: {stage.reasons()}",
                "answers with an end that can be told from the thought",
                "--rewrite none, where they are in the form of the task already",
            )
        return stage.rows

    def price(self, examples: Path, teacher: Teacher) -> None:
        """Write the ledger, and the cost of the examples beside them."""
        usd, complete = self.ledger.usd("own")
        kwh = self.ledger.kwh("own")
        write_data_cost(examples, f"answers of {teacher.name}", usd if complete else None, kwh)
        self.ledger.write(self.path / "ledger.json")

    def add_training(self, summary: Row, tests_s: float | None, price: tuple[float, float]) -> None:
        """Note what training and tests have cost, and write the ledger again."""
        self.ledger.add(machine_entry("fine-tuning", summary["seconds"], price))
        if tests_s is not None:
            self.ledger.add(machine_entry("tests before and after", tests_s, price))
        self.ledger.write(self.path / "ledger.json")
