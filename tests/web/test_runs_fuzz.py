"""Run folders as they come out of a broken archive, or of a hostile one: every page is shown, and
nothing outside of a folder is read.

Opt-in: pytest -m fuzz. A hundred thousand changed rows, and three hundred folders whose files are
changed too.
"""

import contextlib
import io
import json
import os
import shutil
import time
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from aha.core.errors import AhaError
from aha.web.completions import (
    CompletionFilter,
    IndexCache,
    completion_view,
    completions_page,
    groups_page,
)
from aha.web.curves import Curves
from aha.web.dashboard import make_app
from aha.web.event_spans import token_values
from aha.web.file_reader import dumps
from aha.web.report_page import card_of, figures_of, pairs_of, report_html
from aha.web.run_comparison import compare_before_after, comparison_row
from aha.web.runs import RunFolder
from aha.web.server_events import files_of_events, new_rows

from ..fuzz import tries
from .conftest import make_run

ROW_SEEDS, ROWS = tries(1_000), 100
FOLDER_SEEDS, CHANGES = tries(300), 30
LONGEST_S = 30.0
SECRET = "SECRET-7f3a"


def many(seeds: int):
    """Settings of a test of so many seeds."""
    return settings(
        max_examples=seeds,
        database=None,
        phases=[Phase.generate],  # a smaller seed is no smaller input
        suppress_health_check=list(HealthCheck),
    )


pytestmark = [pytest.mark.fuzz, pytest.mark.timeout(0)]

VALUES = [None, True, False, 0, 1, -1, 1e300, -1e300, 5e-324, 1e308, 2**63, 10**400, -(10**400), ""]
VALUES += ["x", "5", "\0", "\x1b[31m", "\u202eabc", "\ud800", "<script>", "</script>", "a" * 5_000]
VALUES += [
    float("nan"),
    float("inf"),
    [],
    {},
    [[]],
    [1, "a"],
    {"a": {"b": [1]}},
    [None],
    [0.5, 0.1],
]
VALUES += [list(range(50)), {"solve_rate": "x", "interval": 3}, [1e300, -1e300], ["3", 7], [3] * 40]
LINES = [
    b"",
    b"{",
    b"null",
    b"[1]",
    b"\xff\xfe",
    b"NaN",
    b"[" * 2_000,
    b'{"a":' * 900,
    b"1" * 5_000,
]
LINES += [b'{"step": 1e999}', b'{"step": 1, "step": 2}', b"\0" * 100, b'{"x": "' + b"y" * 9_000_000]
KEYS = ["step", "id", "group", "reward", "correct", "pieces", "completion", "numbers", "target"]
KEYS += ["finish", "tokens", "prompt", "reason", "advantage", "logprobs", "solve_rate", "interval"]
KEYS += ["elapsed_s", "grade_errors", "mean_tokens", "level", "check", "message", "fix", "task"]
KEYS += ["model", "path", "name", "steps", "usd_per_hour", "watts", "packages", "aha", "plan", "x"]
PAGES = ("", "/gain", "/behaviors", "/files", "/history", "/history?family=validation", "/report")
FILES = ("before", "after", "step_000001", "eval_000002")


def spoilt(rng: Random, value: object) -> object:
    """The value with one place in it changed."""
    if isinstance(value, dict):
        key = rng.choice(list(value) or KEYS) if rng.random() < 0.8 else rng.choice(KEYS)
        inner = value.get(key)
        if isinstance(inner, dict | list) and rng.random() < 0.6:
            return value | {key: spoilt(rng, inner)}
        if rng.random() < 0.15:
            return {other: value[other] for other in value if other != key}
        return value | {key: rng.choice(VALUES)}
    if isinstance(value, list) and value:
        place = rng.randrange(len(value))
        return [*value[:place], rng.choice(VALUES), *value[place + 1 :]]
    return rng.choice(VALUES)


def spoil_rows(rng: Random, path: Path) -> None:
    """Change a row of a file, or put a line in that is none."""
    lines = path.read_bytes().splitlines()
    place = rng.randrange(len(lines) + 1)
    if place == len(lines) or rng.random() < 0.15:
        lines.insert(place, rng.choice(LINES))
    else:
        with contextlib.suppress(ValueError, RecursionError):
            lines[place] = json.dumps(spoilt(rng, json.loads(lines[place]))).encode()
    end = b"\n" if rng.random() < 0.9 else b""
    path.write_bytes(b"\n".join(lines) + end)


def spoil_file(rng: Random, path: Path, outside: Path) -> None:
    """Put something else in the place of a file or a folder."""
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    targets = (outside / "secret.jsonl", "/dev/zero", path.name, "nothing", "../../outside", "..")
    kind = rng.randrange(6)
    if kind == 0:
        os.mkfifo(path)
    elif kind == 1:
        path.mkdir()
    elif kind in (2, 3):
        path.symlink_to(rng.choice(targets))
    elif kind == 4:
        with path.open("wb") as out:  # sparse: no newline for as long as anybody reads
            out.truncate(rng.choice((100, 40_000_000)))


def spoil(rng: Random, run: Path, outside: Path) -> None:
    """Some changes; most of them to rows, because a file that is gone hides the others."""
    for _ in range(CHANGES):
        paths = [path for path in run.rglob("*") if path.is_file() and not path.is_symlink()]
        path = rng.choice(paths) if paths else None
        if path and rng.random() < 0.95:
            if path.suffix == ".json":
                with contextlib.suppress(ValueError, RecursionError):
                    path.write_text(json.dumps(spoilt(rng, json.loads(path.read_bytes()))))
                    continue
            if path.stat().st_size < 1_000_000:
                spoil_rows(rng, path)
        else:
            spoil_file(
                rng, rng.choice([p for p in run.rglob("*")] or [run / "config.json"]), outside
            )
        if not any(run.iterdir()):
            return


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    run = make_run(folder / "demo", steps=3)
    with (run / "findings.jsonl").open("w") as out:
        out.write('{"step": 1, "level": "warn", "check": "c", "message": "m", "fix": "f"}\n' * 3)
    return run


@many(ROW_SEEDS)
@given(seed=st.integers(0, 2**32))
def test_every_row_is_drawn(good, tmp_path_factory, seed):
    """A hundred changed rows of each kind, in one run."""
    rng, run = Random(seed), tmp_path_factory.mktemp("rows") / "run"
    try:
        shutil.copytree(good, run)
        for name in ("metrics", "evals", "findings", "completions/after", "completions/before"):
            path = run / f"{name}.jsonl"
            rows = [json.loads(line) for line in path.read_bytes().splitlines()]
            changed = [rng.choice(rows) for _ in range(ROWS // 5)]
            for _ in range(2):
                changed = [spoilt(rng, row) for row in changed]
            path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *changed]))
        draw_all_rows(RunFolder(run))
    finally:
        shutil.rmtree(run.parent)


def draw_all_rows(run: RunFolder) -> None:
    index = IndexCache().index(run.completion_file("after"))
    rows = index.rows(index.entries)
    shown = [
        completions_page(index, CompletionFilter(text="x", low=0.0), 0),
        groups_page(index, 0),
        index.faults(),
    ]
    shown += [completion_view(row, 0, 1_000) for row in rows] + [token_values(row) for row in rows]
    curves, faults = Curves(run), []
    curves.refresh()
    shown += [curves.thinned(curves.columns), curves.last(), curves.faults(), curves.grading_note()]
    shown += [figure.svg() for figure in figures_of(run, curves, faults)]
    shown += [new_rows(name, lines) for name, lines in files_of_events(run).items()]
    shown += [run.card(), run.notes(), run.status()]
    comparison = compare_before_after(run, faults)
    if comparison is not None:
        shown += [
            comparison_row(comparison, faults),
            pairs_of(comparison),
            card_of(run, comparison),
        ]
    for content in shown:
        text = dumps(content).decode("ascii")
        assert "NaN" not in text and "Infinity" not in text


@many(FOLDER_SEEDS)
@given(seed=st.integers(0, 2**32))
def test_every_page_of_a_damaged_run_is_shown(good, tmp_path_factory, seed):
    root = tmp_path_factory.mktemp("fuzz")
    try:
        look_at_everything(Random(seed), good, root)
    finally:
        shutil.rmtree(root)


def look_at_everything(rng: Random, good: Path, root: Path) -> None:
    from aha.cli.compare import compare
    from aha.doctor.run_checks import diagnose

    outside, run = root / "outside", root / "runs" / "bad"
    outside.mkdir()
    (outside / "secret.jsonl").write_text(json.dumps({"id": SECRET, "completion": SECRET}) + "\n")
    shutil.copytree(good, root / "runs" / "good")
    shutil.copytree(good, run)
    spoil(rng, run, outside)
    client = TestClient(make_app(root / "runs"), base_url="http://127.0.0.1")
    pages = [f"/api/runs/bad{page}" for page in PAGES]
    pages += [
        f"/api/runs/bad/{view}?file={name}" for view in ("completions", "groups") for name in FILES
    ]
    pages += [f"/api/runs/bad/{view}?file=after&place=3" for view in ("completion", "tokens")]
    pages += ["/api/compare?run=bad&run=good", "/api/compare?run=good&run=bad"]
    started = time.perf_counter()
    shown = client.get("/api/runs").json()["runs"]
    assert "good" in [card["name"] for card in shown]
    for page in pages:
        answer = client.get(page)
        assert answer.status_code in (200, 404), (page, answer.text[:500])
        assert SECRET not in answer.text, page
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        for tell in (
            lambda: report_html(RunFolder(run)),
            lambda: diagnose(run),
            lambda: compare(run, root / "runs" / "good"),
        ):
            with contextlib.suppress(AhaError):
                assert SECRET not in str(tell())
    assert SECRET not in printed.getvalue()
    assert time.perf_counter() - started < LONGEST_S
