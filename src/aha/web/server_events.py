"""A running run as server-sent events: every new row of its metrics, evaluations and findings.

The id of an event has the places up to which the files were read, so that a browser that
reconnects continues there. A run whose files were truncated by a resume sends all rows again, and
says which file was rewritten. It may have grown beyond the old place before the browser is back;
the checksum in the place tells.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

from aha.store.guarded_files import JsonLines, Row, number
from aha.web.curves import add_derived
from aha.web.file_reader import dumps, end_of
from aha.web.runs import MAX_FINDINGS_BYTES, RunFolder, finding_view, interval_of

POLL_S = 0.2
KEEP_ALIVE_S = 15.0  # a proxy closes a connection on which nothing is sent for long
ROWS_PER_EVENT = 500
PLACE = re.compile(r"([0-9]{1,15})-([0-9]{1,10})")


def files_of_events(run: RunFolder) -> dict[str, JsonLines]:
    """The files whose new rows are sent, from their beginnings."""
    findings = JsonLines(run.findings_file, max_bytes=MAX_FINDINGS_BYTES)
    return {"metrics": JsonLines(run.metrics), "evals": JsonLines(run.evals), "findings": findings}


def places_of(files: dict[str, JsonLines]) -> str:
    """How far the files were read, as `METRICS.EVALS.FINDINGS`: the id of an event."""
    return ".".join(lines.place for lines in files.values())


def go_on_from(files: dict[str, JsonLines], text: str | None) -> None:
    """Let the reading of the files begin at the places that `places_of` has written.

    "end" means the ends of the files; any other text that is no such places means their
    beginnings.
    """
    if text == "end":
        for lines in files.values():
            lines.go_on_from(end_of(lines.file), None)
        return
    places = [PLACE.fullmatch(part) for part in (text or "").split(".")]
    if len(places) == len(files) and all(places):
        for lines, place in zip(files.values(), filter(None, places), strict=True):
            lines.go_on_from(int(place[1]), int(place[2]))


async def run_events(run: RunFolder, start: str | None = None) -> AsyncIterator[bytes]:
    """Events without end: `rows` with {metrics, evals, findings, rewritten}, and `status` when it
    changes. `start` as for `go_on_from`."""
    files = files_of_events(run)
    go_on_from(files, start)
    status, quiet_s = None, 0.0
    yield b"retry: 500\n\n"
    while True:
        new = {name: await asyncio.to_thread(new_rows, name, files[name]) for name in files}
        if any(rows or rewritten for rows, rewritten in new.values()):
            *first, last = split_rows(new)
            for part in first:
                yield b"event: rows\ndata: " + dumps(part) + b"\n\n"
            # Only the last part has the places: a browser that misses it receives all parts again.
            head = f"id: {places_of(files)}\nevent: rows\ndata: "
            yield head.encode() + dumps(last) + b"\n\n"
            quiet_s = 0.0
        now = await asyncio.to_thread(run.status)
        if now != status:
            status = now
            yield b"event: status\ndata: " + dumps(status) + b"\n\n"
        elif quiet_s >= KEEP_ALIVE_S:
            yield b": keep alive\n\n"
            quiet_s = 0.0
        await asyncio.sleep(POLL_S)
        quiet_s += POLL_S


def new_rows(name: str, lines: JsonLines) -> tuple[list[Row], bool]:
    """(new rows of a file in the form that the page draws, whether the file was rewritten)."""
    rows, rewritten = lines.read_new()
    return [view for row in rows if (view := VIEWS[name](row)) is not None], rewritten


def metrics_view(row: Row) -> Row | None:
    """A step's numbers; None for a row without a step."""
    if number(row.get("step")) is None:
        return None
    add_derived(row)
    return {key: number(value) for key, value in row.items()}


def evaluation_view(row: Row) -> Row | None:
    """A held-out measurement; None for a row without a step, a solve rate or an interval."""
    step, rate, ends = number(row.get("step")), number(row.get("solve_rate")), interval_of(row)
    if step is None or rate is None or ends is None:
        return None
    seconds = number(row.get("elapsed_s"))
    return {"step": step, "elapsed_s": seconds, "solve_rate": rate, "interval": ends}


VIEWS = {"metrics": metrics_view, "evals": evaluation_view, "findings": finding_view}


def split_rows(new: dict[str, tuple[list[dict[str, Any]], bool]]) -> list[dict[str, list[Any]]]:
    """The (new rows, rewritten) of each file as the data of events of at most ROWS_PER_EVENT rows.

    `rewritten`, in the first event, names the files whose earlier rows are void.
    """
    longest = max(len(rows) for rows, _ in new.values())
    parts = []
    for begin in range(0, max(longest, 1), ROWS_PER_EVENT):
        part: dict[str, list[Any]] = {
            name: rows[begin : begin + ROWS_PER_EVENT] for name, (rows, _) in new.items()
        }
        part["rewritten"] = [
            name for name, (_, rewritten) in new.items() if rewritten and begin == 0
        ]
        parts.append(part)
    return parts
