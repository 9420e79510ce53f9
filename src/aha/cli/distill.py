"""`aha distill`: a student learns from a teacher's right answers."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from aha.api.recipe_names import free_name, new_run_path
from aha.api.run_task import task_of_run
from aha.cli.finding_lines import print_finding
from aha.cli.own_command import own_command
from aha.cli.parameters import (
    AT_LEAST_1,
    BadRowsRule,
    DataFile,
    ModelName,
    Numbers,
    TaskName,
    TaskOptions,
    Whole,
    task_settings,
    whole,
)
from aha.cli.sft import Epochs, OfUpdate, say_tuning
from aha.cli.teaching_options import (
    Answering,
    AnswerOptions,
    BothNames,
    Choosing,
    ExampleOptions,
    Tests,
    TokenLimit,
    Training,
    TrainingOptions,
)
from aha.cli.terminal_text import say, say_line

Teacher = Annotated[
    str,
    Parameter(
        help="Address of an OpenAI-compatible endpoint (http://...), or a run, a model folder, a "
        "name on the hub that generates here. A key is read from AHA_TEACHER_KEY."
    ),
]
Problems = Annotated[
    int, Parameter(converter=whole, validator=AT_LEAST_1, help="Problems of the training split.")
]


def distill(
    *,
    teacher: Teacher,
    student: ModelName,
    task: TaskName = "countdown",
    options: TaskOptions = "",
    numbers: Numbers = None,
    data: DataFile = None,
    bad_rows: BadRowsRule = None,
    name: BothNames = None,
    n: Problems = 1_000,
    seed: Whole = 0,
    max_new_tokens: TokenLimit = None,
    tests: Tests = 1_000,
    epochs: Epochs = 3,
    examples: OfUpdate = 16,
    answering: Answering = None,
    choosing: Choosing = None,
    training: Training = None,
    collect_only: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Teach a student what a teacher gets right: ask, reject, choose, fine-tune, test.

    Every stage is a file in data/NAME/, the student's run is runs/NAME/. The same command with
    --name NAME goes on where it was stopped, and no answer is paid for twice.

    Parameters
    ----------
    seed
        Seed of the problems, of the answers and of the training.
    collect_only
        Make the examples, and stop before the training.
    """
    answering, choosing = answering or AnswerOptions(), choosing or ExampleOptions()
    training = training or TrainingOptions()
    own = None if teacher.startswith("http") else task_of_run(Path(teacher))
    limit = max_new_tokens or (own.max_new_tokens if own else None)
    settings = task_settings(options, numbers, data, bad_rows)
    about = (student, task, settings, n, seed, tests)
    job = job_of(teacher, max_new_tokens, about, answering, choosing, training)
    run = new_run_path(name or free_name_of_both("distilled"), "distilled")
    settings_of_run = own.settings if own and own.name == task else None
    raw = training.raw(student, epochs, examples, seed)
    with told_name(run.name, name):
        carry_out(job, run, (limit, settings_of_run), raw, (training.budget, collect_only))


def job_of(
    teacher: str,
    limit: int | None,
    about: tuple[str, str, dict[str, Any], int, int, int],
    answering: AnswerOptions,
    choosing: ExampleOptions,
    training: TrainingOptions,
) -> Any:
    """The settings of the examples. `about`: student, task, its settings, problems, seed, tests."""
    from aha.distill.distill_job import DistillJob, RewriteSettings, TeacherSettings

    student, task, settings, n, seed, tests = about
    of_teacher = TeacherSettings(
        teacher,
        answering.teacher_model,
        answering.teacher_api,
        answering.teacher_template,
        answering.per_problem,
        answering.temperature,
        limit,
        answering.teacher_price,
        answering.workers,
        answering.timeout,
        answering.tries,
    )
    rewrite = RewriteSettings(
        choosing.checked_rewriter(), choosing.rewrite_model, choosing.rewrite_price
    )
    return DistillJob(
        teacher=of_teacher,
        student=student,
        task=task,
        task_settings=settings,
        n=n,
        seed=seed,
        keep=choosing.keep,
        prefer=choosing.prefer,
        at_most=choosing.at_most,
        rewrite=rewrite,
        mix=tuple(map(str, choosing.mix or ())),
        mix_share=choosing.mix_share,
        reuse=None if answering.reuse is None else str(answering.reuse),
        tests=tests,
        usd_per_hour=training.usd_per_hour,
        watts=training.watts,
    )


def free_name_of_both(stem: str) -> str:
    """A name that neither a run nor a folder of examples has."""
    name, number = free_name(stem), 1
    while (Path("data") / name).exists() or (Path("runs") / name).exists():
        number += 1
        name = f"{stem}-{number}"
    return name


@contextmanager
def told_name(name: str, typed: str | None) -> Iterator[None]:
    """Where the work is stopped or fails, say under which name it goes on: without it the same
    command would begin anew, in another folder. Not said where the user has typed it, nor of a
    training that has ended early: that says so itself."""
    try:
        yield
    except (Exception, KeyboardInterrupt):
        if typed is None and (Path("data") / name).exists():
            words = shlex.join(["--name", name])
            say_line(f"aha: go on with the same command and {words}", sys.stderr)
        raise


def carry_out(
    job: Any,
    run: Path,
    limits: tuple[int | None, dict[str, Any] | None],
    raw: dict[str, Any],
    how: tuple[str | None, bool],
) -> None:
    """Make the examples, train, test, and print what came of it."""
    from aha.distill.distillation import Distillation
    from aha.distill.tested_training import TrainingTests, check_goes_on, open_training
    from aha.sft.tuning_config import tuning_config
    from aha.training.builders import price_of_run

    budget, collect_only = how
    folder = Path("data") / run.name
    # Settings that cannot be are an error before a teacher is paid.
    check_goes_on(run, tuning_config({**raw, "data": str(folder / "examples.jsonl")}))
    tests = TrainingTests(folder, run, job.eval_settings(limits[0]), print_finding)
    limit = tests.settings.token_limit
    made = Distillation(job, folder, (limit, limits[1]), print_finding, progress_lines())
    say(f"{job.student} learns {job.task} from {job.teacher.name}; the stages are in {folder}")
    if not collect_only:
        tests.check(job.student)
    path = made.collect()
    say_all(made.stages.lines())
    if collect_only:
        say_all(made.ledger.lines())
        learn = shlex.join(["sft", job.student, "--data", str(path)])
        say(f"examples are in {path}; `{own_command()} {learn}` learns them")
        return
    tests.before(job.student)
    tuning = open_training(tuning_config({**raw, "data": str(path)}), run, say, budget)
    if tuning is not None:
        say_tuning(tuning)
    change = tests.after()
    summary = tests.run.read("summary.json")
    cfg = tuning_config(tests.run.read("config.json"))
    made.add_training(summary, change.seconds if change else None, price_of_run(cfg.recipe))
    say_all(made.stages.lines())
    say_all(change.lines() if change else [])
    say_all(made.ledger.lines())


def say_all(lines: list[str]) -> None:
    for line in lines:
        say(line)


def progress_lines() -> Any:
    """A line on the error stream for each tenth of what takes long."""
    tenths: dict[str, int] = {}

    def progress(what: str, done: int, total: int) -> None:
        tenth = 10 * done // max(1, total)
        if tenth > tenths.get(what, 0):
            tenths[what] = tenth
            say(f"{what}: {done:,} of {total:,}", file=sys.stderr)

    return progress
