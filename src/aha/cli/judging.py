"""`aha behaviors --judge`: a language model reads the same completions as the exact detector."""

import json
import os
import random
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from aha.behaviors.agreement import Agreement, agreement
from aha.behaviors.detector import count_behaviours
from aha.behaviors.judge import Judge, judge_all
from aha.behaviors.judge_prompts import MAX_WORKING_CHARS, QUESTIONS, Working
from aha.core.errors import ConfigError, DataError
from aha.core.seeds import seed_for
from aha.store.jsonl import append, drop_half_line, read_rows
from aha.web.event_spans import puzzle_of, text_of
from aha.web.file_reader import all_rows
from aha.web.runs import is_run, open_run

KEY = "AHA_JUDGE_KEY"
console = Console(highlight=False)


def judge_behaviours(path: Path, judge: Judge, count: int, as_json: bool) -> None:
    """Ask about `count` completions drawn by the seed; print how far judge and detector agree."""
    judge.address()  # a wrong address is told before anything is read
    workings = drawn(workings_of(path), count, judge.seed)
    answers = answers_file(path)
    drop_half_line(answers)
    known = {
        row["name"]: row["count"]
        for row in read_rows(answers)
        if isinstance(row.get("name"), str) and type(row.get("count")) is int
    }
    screen = Console(stderr=True)
    with Progress(console=screen, transient=True, disable=not screen.is_terminal) as progress:
        task = progress.add_task(f"{judge.model} reads {len(workings)} completions")
        judged = judge_all(
            workings,
            judge,
            known,
            lambda row: append(answers, [row]),
            lambda done, total: progress.update(task, completed=done, total=total),
        )
    found = compared(workings, judged, judge.seed)
    if as_json:
        for one in found:
            print(json.dumps({"model": judge.model, "seed": judge.seed, **one.as_row()}))
        return
    print_agreement(found, judge, answers)


def key_of_environment() -> str | None:
    return os.environ.get(KEY)


def workings_of(path: Path) -> list[Working]:
    """Of a run: its tests before and after training. Of a file: every completion of a puzzle."""
    if is_run(path):
        run = open_run(path)
        files = [file for file in map(run.completion_file, ("before", "after")) if file]
        if not files:
            raise DataError(f"no test in {path}", "completions/before.jsonl or after.jsonl")
    elif path.is_file():
        files = [path]
    else:
        raise DataError(f"no file or run {path}", "JSON lines of completions, or a run folder")
    rows = [(row, puzzle_of(row)) for file in files for row in all_rows(file)]
    found = [Working(text_of(row)[:MAX_WORKING_CHARS], *puzzle) for row, puzzle in rows if puzzle]
    if not found:
        raise DataError(
            f"no completion of a puzzle in {path}",
            '{"numbers": [3, 7, 25], "target": 82, "completion": "..."} on each line',
        )
    return found


def drawn(workings: list[Working], count: int, seed: int) -> list[Working]:
    """`count` of them by the seed, in the order of the file."""
    places = range(len(workings))
    rng = random.Random(seed_for(seed, "judge"))
    return [workings[place] for place in sorted(rng.sample(places, min(count, len(places))))]


def answers_file(path: Path) -> Path:
    """Where the judge's answers are kept: in the run, or beside the file."""
    return path / "judge.jsonl" if path.is_dir() else path.with_suffix(".judge.jsonl")


def compared(workings: list[Working], judged: list[dict], seed: int) -> list[Agreement]:
    detected = [count_behaviours(*working) for working in workings]
    lengths = [len(working.text) for working in workings]
    return [
        agreement(
            question.behaviour,
            [getattr(one, question.behaviour) for one in detected],
            [counts[question.behaviour] for counts in judged],
            lengths,
            seed,
        )
        for question in QUESTIONS
    ]


def print_agreement(found: list[Agreement], judge: Judge, answers: Path) -> None:
    table = Table(box=None, padding=(0, 0, 0, 2))
    table.add_column("")
    titles = ("kappa", "95 %", "both", "detector", "judge", "neither", "same", "rank")
    for title in (*titles, "means", "with length"):
        table.add_column(title, justify="right")
    for one in found:
        ends = one.interval
        table.add_row(
            one.behaviour.replace("_", " "),
            shown(one.kappa),
            "-" if ends is None else f"{ends[0]:.2f}..{ends[1]:.2f}",
            *map(str, (one.both, one.detector_only, one.judge_only, one.neither)),
            shown(one.same_count),
            shown(one.rank),
            f"{shown(one.detector_mean)} / {shown(one.judge_mean)}",
            f"{shown(one.detector_length)} / {shown(one.judge_length)}",
        )
    console.print(table, soft_wrap=True)
    console.print(
        "both, detector (alone), judge (alone), neither: completions that show the behaviour; "
        "same: share with equal counts; rank: Spearman of the counts; means, and their "
        "correlation with the length: detector / judge",
        style="dim",
    )
    unread = sum(one.unread for one in found)
    console.print(
        f"{judge.model}, seed {judge.seed}: {sum(one.num_judged for one in found)} answers"
        + (f", {unread} questions without a usable one, left out" if unread else "")
        + f"; kept in {answers}",
        soft_wrap=True,
        markup=False,
    )


def shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def check_judge(url: str | None, model: str | None) -> None:
    """Both, once one of them is there."""
    if not (url and model):
        raise ConfigError(
            f"--judge {url or 'nowhere'} with --judge-model {model or 'nothing'}",
            "an endpoint and the model that it serves",
            "--judge http://127.0.0.1:8000/v1 --judge-model NAME",
        )
