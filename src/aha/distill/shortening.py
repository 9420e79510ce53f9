"""Pairs out of a model's own completions, so that it learns to say the same in fewer words.

Of several completions of a prompt the shortest right one is chosen over the longest right one, and
over the shortest wrong one, so that short is not all that counts. Source: Sky-T1-Flash (NovaSky
2025), which shortened completions by a third to a half at nearly equal accuracy; fine-tuning on the
shortest alone gained less than 5 %.

data/NAME/ has job.json (the settings), pairs.jsonl, stages.json, and the tests before.json and
after.json.
"""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

from aha.core.errors import ConfigError, DataError
from aha.distill.distill_job import open_folder
from aha.distill.problem_rows import Row
from aha.distill.stages import Stage, StageFolder
from aha.model.folders import is_run
from aha.sft.pair_rows import EXPECTED, PairRules, pairs_of
from aha.store.run_folder import Run
from aha.store.run_folder import read_rows as rows_of_run
from aha.tasks.files import read_rows

LAST_STEPS = 20


def completions_of(source: Path, last: int) -> Iterator[Row]:
    """The graded completions of a run's last steps, or of a file; each line that is none counts as
    a row without anything."""
    if is_run(source):
        files = sorted(Run(source).completions.glob("step_*.jsonl"))[-last:]
        if not files:
            raise DataError(
                f"no completions/step_*.jsonl in {source}",
                "a run of `aha train` with its completions",
                fresh_completions(source),
            )
        for file in files:
            yield from rows_of_run(file)
        return
    for _, row in read_rows(source, EXPECTED):
        yield row if isinstance(row, dict) else {}


def fresh_completions(model: object) -> str:
    """The fix where there are no completions to choose among."""
    typed = f"aha eval {shlex.quote(str(model))} --split train --group-size 8 --out FILE"
    return f"{typed}, then --data FILE"


def is_of_pairs(source: Path) -> bool:
    """Whether a file has pairs already."""
    if is_run(source):
        return False
    first = next((row for _, row in read_rows(source, EXPECTED)), None)
    return isinstance(first, dict) and "chosen" in first


def collect_pairs(
    source: Path, rules: PairRules, last: int, folder: Path, more: Mapping[str, Any]
) -> tuple[Path, StageFolder]:
    """The file of pairs, and how many there are. A file that has pairs already is taken as it is.
    `more`: settings that the tests in the folder depend on.

    Raises `DataError` where no prompt has completions to choose among, `ConfigError` for a source
    that does not exist, and for a folder that was made with other settings.
    """
    job = {"source": str(source), "rules": asdict(rules), "last": last, **more}
    if not source.exists():
        raise ConfigError(
            f"no file or run {source}",
            "a run, a file of graded completions, or one of pairs",
            "--data FILE, as `aha eval MODEL --split train --group-size 8 --out FILE` writes it",
        )
    if is_of_pairs(source):
        open_folder(folder, job)
        return source, StageFolder(folder)
    stage = Stage("pairs")
    for kind, pair in pairs_of(completions_of(source, last), rules):
        if pair is None:
            stage.drop(kind)
        else:
            stage.keep(pair)
    if not stage.rows:
        raise DataError(
            f"no pair in {source}: {stage.reasons() or 'it is empty'}",
            "several completions of a prompt, right ones of different lengths",
            fresh_completions(source if is_run(source) else more.get("base", "MODEL")),
        )
    open_folder(folder, job)
    stages = StageFolder(folder)
    return stages.write(stage), stages


def lengths_line(rows: list[Row]) -> str:
    """The mean lengths of both sides by kind of pair, for people."""
    texts = []
    for kind, unit in product(("shorter", "right"), ("tokens", "characters")):
        lengths = [row[unit] for row in rows if row.get("kind") == kind and unit in row]
        if lengths:
            chosen, rejected = (sum(side) / len(lengths) for side in zip(*lengths, strict=True))
            texts.append(f"{len(lengths):,} of {kind} ({chosen:.0f} {unit} over {rejected:.0f})")
    return ", ".join(texts)
