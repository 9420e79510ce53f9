"""The runs of a folder as Prometheus text: the numbers of each run's last step.

Format: Prometheus text exposition 0.0.4. A name is `aha_` and that of docs/glossary.md, the label
`run` is the name of the run folder. A number that was not measured has no line.
"""

import re
from collections.abc import Iterator
from typing import Any

from aha.store.guarded_files import number
from aha.web.file_reader import last_row
from aha.web.runs import RunFolder, RunsFolder, rate_of

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MOST_RUNS = 100  # the newest: a scrape asks for all of them every few seconds
MOST_NAMES = 200  # of one run, whose files may be somebody else's
NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n"}

# Besides the numbers of a step: name -> help.
OF_A_RUN = {
    "run_info": "1 for each run; its labels say what it is",
    "run_running": "1 while the run writes, else 0",
    "run_modified_seconds": "When the run last wrote, in seconds since 1970",
    "validation_solve_rate": "solve_rate of the last row of evals.jsonl",
    "validation_step": "step of the last row of evals.jsonl",
    "test_before_solve_rate": "solve_rate of the test before training",
    "test_after_solve_rate": "solve_rate of the test after training",
}
OF_THE_FOLDER = {
    "runs": "Runs in the folder",
    "runs_unreadable": "Runs that could not be read",
}

Labelled = tuple[dict[str, str], float]  # labels, value


def escaped(text: str) -> str:
    """A label's value as it stands between the quotes."""
    readable = text.encode("utf-8", "replace").decode()
    return "".join(ESCAPES.get(character, character) for character in readable)


def line_of(name: str, labels: dict[str, str], value: float) -> str:
    """One line of a metric."""
    inside = ",".join(f'{label}="{escaped(text)}"' for label, text in labels.items())
    return f"aha_{name}{{{inside}}} {value!r}" if labels else f"aha_{name} {value!r}"


def numbers_of_run(run: RunFolder) -> dict[str, Labelled]:
    """The numbers of one run by name, each with its labels."""
    card, label = run.card(), {"run": run.name}
    evaluation, step = last_row(run.evals) or {}, last_row(run.metrics) or {}
    values: dict[str, Any] = {
        "run_running": int(card["status"] == "running"),
        "run_modified_seconds": card["modified"],
        "validation_solve_rate": number(evaluation.get("solve_rate")),
        "validation_step": number(evaluation.get("step")),
    }
    for when in ("before", "after"):
        rate = rate_of(run.read(when))
        values[f"test_{when}_solve_rate"] = rate and rate["solve_rate"]
    # A step's names come from a file: none of them may stand for one of ours.
    names = [name for name in step if NAME.fullmatch(name)]
    names = [name for name in names if name not in OF_A_RUN | OF_THE_FOLDER]
    values |= {name: number(step[name]) for name in names[:MOST_NAMES]}
    labelled = {name: (label, value) for name, value in values.items() if value is not None}
    info = {name: str(card[name]) for name in ("status", "task", "model")}
    return {"run_info": (label | info, 1)} | labelled


def metrics_text(runs: RunsFolder) -> str:
    """All lines: those of one name together, as the format asks."""
    names = runs.names()
    families: dict[str, list[Labelled]] = {}
    unreadable = 0
    for name in names[:MOST_RUNS]:
        try:
            run = runs.find(name)
            numbers = numbers_of_run(run) if run else {}
        except Exception:
            # One damaged folder must not hide the others; it is counted.
            unreadable += 1
            continue
        for family, labelled in numbers.items():
            families.setdefault(family, []).append(labelled)
    families |= {"runs": [({}, len(names))], "runs_unreadable": [({}, unreadable)]}
    return "".join(f"{line}\n" for line in lines_of(families))


def lines_of(families: dict[str, list[Labelled]]) -> Iterator[str]:
    """The lines of each metric, below the two of its heading."""
    texts = OF_A_RUN | OF_THE_FOLDER
    for name, values in sorted(families.items()):
        text = texts.get(name, f"{name} of the last row of metrics.jsonl")
        yield f"# HELP aha_{name} {text}"
        yield f"# TYPE aha_{name} gauge"
        for labels, value in values:
            yield line_of(name, labels, value)
