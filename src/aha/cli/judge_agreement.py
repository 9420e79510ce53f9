"""`aha behaviors --judge`: the agreement of an LLM judge with the exact detector."""

import random
from pathlib import Path
from typing import Any

from rich.progress import Progress
from rich.table import Table

from aha.behaviors.agreement import Agreement, agreement
from aha.behaviors.detector import count_behaviours
from aha.behaviors.judge import MAX_WORKING_CHARS, QUESTIONS, Judge, Working, judge_all
from aha.cli.behaviors import print_faults
from aha.cli.terminal_text import VisibleConsole, console, say_json
from aha.core.errors import ConfigError, DataError
from aha.core.seeds import seed_for
from aha.store.guarded_files import GuardedFile, read_all_rows
from aha.store.run_folder import append, drop_half_line, read_rows
from aha.web.event_spans import puzzle_of, text_of
from aha.web.runs import is_run, open_run

WIDTH = 110  # columns of the terminal that the table needs


def endpoint_and_model(url: str | None, model: str | None) -> tuple[str, str]:
    """Both, as text. Raises ConfigError if one of them is missing."""
    if not (url and model):
        raise ConfigError(
            f"--judge {url or 'nowhere'} with --judge-model {model or 'nothing'}",
            "an endpoint and the model that it serves",
            "--judge http://127.0.0.1:8000/v1 --judge-model NAME",
        )
    return url, model


def print_judge_agreement(path: Path, judge: Judge, count: int, as_json: bool) -> None:
    """Let the judge count in `count` completions, and print its agreement with the detector."""
    judge.address()  # a wrong address is an error before anything is read
    workings = drawn(workings_of(path), count, judge.seed)
    answers = answers_file(path)
    drop_half_line(answers)
    known = {
        row["name"]: row["count"]
        for row in read_rows(answers)
        if isinstance(row.get("name"), str) and type(row.get("count")) is int
    }
    screen = VisibleConsole(stderr=True)
    with Progress(console=screen, transient=True, disable=not screen.is_terminal) as progress:
        task = progress.add_task(f"{judge.model} reads {len(workings)} completions")
        judge_counts = judge_all(
            workings,
            judge,
            known,
            lambda row: append(answers, [row]),
            lambda done, total: progress.update(task, completed=done, total=total),
        )
    agreements = agreements_of(workings, judge_counts, judge.seed)
    if as_json:
        for agreed in agreements:
            say_json({"model": judge.model, "seed": judge.seed, **agreed.as_row()})
        return
    print_agreement(agreements, judge, answers)


def workings_of(path: Path) -> list[Working]:
    """The completions of a run's two tests, or of a file, that belong to a puzzle."""
    if is_run(path):
        run = open_run(path)
        files = [file for file in map(run.completion_file, ("before", "after")) if file]
        if not files:
            raise DataError(f"no test in {path}", "completions/before.jsonl or after.jsonl")
    elif path.is_file():
        files = [GuardedFile.named_by_user(path)]
    else:
        raise DataError(
            f"no file or run {path}", "JSON lines of completions, or a run folder", "check the path"
        )
    contents = [read_all_rows(file) for file in files]
    print_faults([fault for _, faults in contents for fault in faults])
    rows = [(row, puzzle_of(row)) for rows, _ in contents for row in rows]
    workings = [
        Working(text_of(row)[:MAX_WORKING_CHARS], *puzzle) for row, puzzle in rows if puzzle
    ]
    if not workings:
        raise DataError(
            f"no completion of a puzzle in {path}",
            '{"numbers": [3, 7, 25], "target": 82, "completion": "..."} on each line',
        )
    return workings


def drawn(workings: list[Working], count: int, seed: int) -> list[Working]:
    """`count` of them, chosen by the seed, in the order of the file."""
    places = range(len(workings))
    rng = random.Random(seed_for(seed, "judge"))
    return [workings[place] for place in sorted(rng.sample(places, min(count, len(places))))]


def answers_file(path: Path) -> Path:
    """The file for the judge's answers: in the run folder, or next to the file.

    Raises RunError where a link or something else than a file has its name.
    """
    file = path / "judge.jsonl" if path.is_dir() else path.with_suffix(".judge.jsonl")
    GuardedFile.of(file).check_writable()
    return file


def agreements_of(
    workings: list[Working], judge_counts: list[dict[str, Any]], seed: int
) -> list[Agreement]:
    """The agreement on each behaviour that the judge counts."""
    detected = [count_behaviours(*working) for working in workings]
    lengths = [len(working.text) for working in workings]
    return [
        agreement(
            question.behaviour,
            [getattr(counts, question.behaviour) for counts in detected],
            [counts[question.behaviour] for counts in judge_counts],
            lengths,
            seed,
        )
        for question in QUESTIONS
    ]


def print_agreement(agreements: list[Agreement], judge: Judge, answers: Path) -> None:
    # Wider than a narrow terminal, which then breaks lines: in less room names would be cut.
    table = Table(box=None, padding=(0, 0, 0, 2), width=WIDTH)
    table.add_column("")
    titles = ("kappa", "95 %", "both", "detector", "judge", "neither", "same", "rank")
    for title in (*titles, "means", "with length"):
        table.add_column(title, justify="right")
    for agreed in agreements:
        ends = agreed.interval
        table.add_row(
            agreed.behaviour.replace("_", " "),
            shown(agreed.kappa),
            "-" if ends is None else f"{ends[0]:.2f}..{ends[1]:.2f}",
            *map(str, (agreed.both, agreed.detector_only, agreed.judge_only, agreed.neither)),
            shown(agreed.same_count),
            shown(agreed.rank),
            f"{shown(agreed.detector_mean)} / {shown(agreed.judge_mean)}",
            f"{shown(agreed.detector_length)} / {shown(agreed.judge_length)}",
        )
    console.print(table, soft_wrap=True)
    console.print(
        "both, detector (alone), judge (alone), neither: completions that show the behaviour; "
        "same: share with equal counts; rank: Spearman of the counts; means, and their "
        "correlation with the length: detector / judge",
        style="dim",
    )
    num_judged = sum(agreed.num_judged for agreed in agreements)
    unread = sum(agreed.unread for agreed in agreements)
    console.print(
        f"{judge.model}, seed {judge.seed}: {num_judged} answers"
        + (f", {unread} questions without a usable one, left out" if unread else "")
        + f"; kept in {answers}",
        soft_wrap=True,
        markup=False,
    )


def shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
