"""`aha distill`: a student learns from a teacher's right answers."""

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from aha.api.recipe_names import free_name, new_run_path
from aha.api.run_task import task_of_run
from aha.cli.finding_lines import print_finding
from aha.cli.parameters import (
    AT_LEAST_0,
    AT_LEAST_1,
    BadRowsRule,
    Budget,
    Count,
    DataFile,
    ModelName,
    Natural,
    Numbers,
    Seconds,
    TaskName,
    TaskOptions,
    Temperature,
    UsdPerHour,
    Watts,
    Whole,
    task_settings,
    whole,
)
from aha.cli.sft import (
    Dtype,
    Epochs,
    Lr,
    MicroBatch,
    OfUpdate,
    Rank,
    TunedOn,
    Warmup,
    model_keys,
    say_tuning,
)
from aha.cli.terminal_text import say
from aha.core.errors import ConfigError

Teacher = Annotated[
    str,
    Parameter(
        help="Address of an OpenAI-compatible endpoint (http://...), or a run, a model folder, a "
        "name on the hub that generates here. A key is read from AHA_TEACHER_KEY."
    ),
]
Prices = Annotated[
    tuple[float, float] | None,
    Parameter(
        validator=AT_LEAST_0,
        negative=(),
        help="USD for a million tokens of prompts, and of answers; without it the price of the "
        "endpoint is not known.",
    ),
]
Problems = Annotated[
    int, Parameter(converter=whole, validator=AT_LEAST_1, help="Problems of the training split.")
]
Share = Annotated[float | None, Parameter(validator=AT_LEAST_0)]


def distill(
    *,
    teacher: Teacher,
    student: ModelName,
    task: TaskName = "countdown",
    options: TaskOptions = "",
    numbers: Numbers = None,
    data: DataFile = None,
    bad_rows: BadRowsRule = None,
    name: str | None = None,
    n: Problems = 1_000,
    seed: Whole = 0,
    per_problem: Count = 1,
    temperature: Temperature = 1.0,
    max_new_tokens: Count | None = None,
    teacher_model: str | None = None,
    teacher_api: Literal["chat", "text"] = "chat",
    teacher_template: Literal["plain", "r1", "instruct"] | None = None,
    teacher_price: Prices = None,
    workers: Count = 4,
    timeout: Seconds = 120.0,
    tries: Count = 6,
    reuse: Path | None = None,
    keep: Literal["right", "all"] = "right",
    prefer: Literal["first", "shortest"] = "first",
    at_most: Natural = 0,
    rewrite: str = "none",
    rewrite_model: str | None = None,
    rewrite_price: Prices = None,
    mix: Annotated[list[Path] | None, Parameter(negative=(), consume_multiple=True)] = None,
    mix_share: Share = None,
    tests: Natural = 1_000,
    epochs: Epochs = 3,
    examples: OfUpdate = 16,
    lr: Lr = None,
    warmup: Warmup = None,
    lora_rank: Rank = None,
    device: TunedOn = None,
    dtype: Dtype = None,
    micro_batch_tokens: MicroBatch = None,
    checkpoint_every: Natural = 100,
    budget: Budget = None,
    usd_per_hour: UsdPerHour = None,
    watts: Watts = None,
    collect_only: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Teach a student what a teacher gets right: ask, reject, choose, fine-tune, test.

    Every stage is a file in data/NAME/, the student's run is runs/NAME/. The same command again
    goes on where it was stopped, and no answer is paid for twice.

    Parameters
    ----------
    name
        Name of both folders; without it, distilled, numbered. A stopped distillation goes on under
        its name.
    seed
        Seed of the problems, of the answers and of the training.
    per_problem
        Answers to each problem.
    max_new_tokens
        Token limit of an answer and of the tests. Default: that of the teacher's run; else 320 for
        Countdown with three numbers and 1024 for anything else.
    teacher_model
        Name of the model at the endpoint; not needed where it serves one alone.
    teacher_api
        chat: /v1/chat/completions; text: /v1/completions, with the prompt as the student reads it.
    teacher_template
        Frame of the teacher's prompts. Default: that of its own run; for a chat instruct.
    workers
        Requests to an endpoint at the same time.
    timeout
        Seconds to wait for an answer before the request is sent again.
    tries
        Tries of a request before it counts as without an answer.
    reuse
        Folder of another distillation, whose answers are taken where teacher, prompt and limits are
        the same.
    keep
        right: wrong answers are dropped, by the task's own grade; all: they are learnt too.
    prefer
        Which answers to a problem come first: first as drawn, or shortest.
    at_most
        Examples of a problem; 0: all its different answers.
    rewrite
        none; rule: the tags are put in by a rule; or the address of an endpoint that rewrites.
    rewrite_model
        Name of the model at that endpoint. A key is read from AHA_REWRITE_KEY.
    mix
        Files of other examples, in any form that `aha sft` reads.
    mix_share
        Share of the examples that come from them; without it all of their rows.
    tests
        Held-out problems before and after; 0: no test.
    checkpoint_every
        Steps between checkpoints of the student; 0: at the end alone.
    collect_only
        Make the examples, and stop before the training.
    """
    from aha.distill.distill_job import DistillJob, RewriteSettings, TeacherSettings

    settings = task_settings(options, numbers, data, bad_rows)
    own = None if teacher.startswith("http") else task_of_run(Path(teacher))
    job = DistillJob(
        TeacherSettings(
            teacher,
            teacher_model,
            teacher_api,
            teacher_template,
            per_problem,
            temperature,
            max_new_tokens,
            teacher_price,
            workers,
            timeout,
            tries,
        ),
        student,
        task,
        settings,
        n,
        seed,
        keep,
        prefer,
        at_most,
        RewriteSettings(checked_rewriter(rewrite), rewrite_model, rewrite_price),
        tuple(map(str, mix or ())),
        mix_share,
        None if reuse is None else str(reuse),
        tests,
        usd_per_hour,
        watts,
    )
    model = {"path": student, "device": device, "lora_rank": lora_rank}
    optim = {"lr": lr, "warmup": warmup, "dtype": dtype, "micro_batch_tokens": micro_batch_tokens}
    raw: dict[str, Any] = {"epochs": epochs, "examples": examples, "seed": seed}
    raw |= {"checkpoint_every": checkpoint_every, "usd_per_hour": usd_per_hour, "watts": watts}
    raw |= {"model": model_keys(model), "optim": model_keys(optim), "data": ""}
    run = new_run_path(name or free_name_of_both("distilled"), "distilled")
    limit = max_new_tokens or (own.max_new_tokens if own else None)
    settings_of_run = own.settings if own and own.name == task else None
    carry_out(job, run, (limit, settings_of_run), raw, (budget, collect_only))


def free_name_of_both(stem: str) -> str:
    """A name that neither a run nor a folder of examples has."""
    name, number = free_name(stem), 1
    while (Path("data") / name).exists() or (Path("runs") / name).exists():
        number += 1
        name = f"{stem}-{number}"
    return name


def checked_rewriter(by: str) -> str:
    """The value of --rewrite. Raises ConfigError for one that is none."""
    if by in ("none", "rule") or by.startswith(("http://", "https://")):
        return by
    raise ConfigError(
        f"--rewrite {by!r}", "none, rule, or the address of an endpoint", "--rewrite rule"
    )


def carry_out(
    job: Any,
    run: Path,
    limits: tuple[int | None, dict[str, Any] | None],
    raw: dict[str, Any],
    how: tuple[str | None, bool],
) -> None:
    """Make the examples, train, test, and print what came of it."""
    from aha.distill.distillation import Distillation
    from aha.distill.tested_training import TrainingTests, open_training
    from aha.sft.tuning_config import tuning_config
    from aha.training.builders import price_of_run

    budget, collect_only = how
    tuning_config(raw)  # settings that cannot be are an error before a teacher is paid
    folder = Path("data") / run.name
    tests = TrainingTests(folder, run, job.eval_settings(limits[0]), print_finding)
    limit = tests.settings.token_limit
    made = Distillation(job, folder, (limit, limits[1]), print_finding, progress_lines())
    say(f"{job.student} learns {job.task} from {job.teacher.name}; the stages are in {folder}")
    path = made.collect()
    for line in made.stages.lines():
        say(line)
    if collect_only:
        say_all(made.ledger.lines())
        say(f"examples are in {path}; `aha sft {job.student} --data {path}` learns them")
        return
    tests.before(job.student)
    tuning = open_training(tuning_config({**raw, "data": str(path)}), run, say, budget)
    if tuning is not None:
        say_tuning(tuning)
    change = tests.after()
    summary = tests.run.read("summary.json")
    cfg = tuning_config(tests.run.read("config.json"))
    made.add_training(summary, change and change.seconds, price_of_run(cfg.recipe))
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
