"""A running run as server-sent events: every new row of its metrics, evaluations and findings.

The id of an event has the offsets up to which the files were read, so that a browser that
reconnects continues there. A run whose files were truncated by a resume sends all rows again, and
says which file was rewritten.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from aha.store.guarded_files import JsonLines, Row, number
from aha.web.curves import add_derived
from aha.web.file_reader import dumps, end_of
from aha.web.runs import MAX_FINDINGS_BYTES, RunFolder, finding_view, interval_of

POLL_S = 0.2
KEEP_ALIVE_S = 15.0  # a proxy closes a connection on which nothing is sent for long
ROWS_PER_EVENT = 500


def files_of_events(run: RunFolder) -> dict[str, JsonLines]:
    """The files whose new rows are sent, from their beginnings."""
    findings = JsonLines(run.findings_file, max_bytes=MAX_FINDINGS_BYTES)
    return {"metrics": JsonLines(run.metrics), "evals": JsonLines(run.evals), "findings": findings}


def offsets_of(text: str | None, run: RunFolder) -> list[int]:
    """The offsets in the files of `files_of_events`, from `METRICS.EVALS.FINDINGS`.

    "end" means the ends of the files; any other text that is no such numbers means their
    beginnings.
    """
    files = files_of_events(run)
    if text == "end":
        return [end_of(lines.file) for lines in files.values()]
    parts = (text or "").split(".")
    if len(parts) != len(files) or not all(
        part.isascii() and part.isdigit() and len(part) < 16 for part in parts
    ):
        return [0] * len(files)
    return [int(part) for part in parts]


async def run_events(run: RunFolder, start: list[int]) -> AsyncIterator[bytes]:
    """Events without end: `rows` with {metrics, evals, findings, rewritten}, and `status` when it
    changes."""
    files = files_of_events(run)
    for lines, offset in zip(files.values(), start, strict=True):
        lines.offset = offset
    status, quiet_s = None, 0.0
    yield b"retry: 500\n\n"
    while True:
        new = {name: await asyncio.to_thread(new_rows, name, files[name]) for name in files}
        if any(rows or rewritten for rows, rewritten in new.values()):
            *first, last = split_rows(new)
            for part in first:
                yield b"event: rows\ndata: " + dumps(part) + b"\n\n"
            # Only the last part has the offsets: a browser that misses it receives all parts again.
            offsets = ".".join(str(lines.offset) for lines in files.values())
            yield f"id: {offsets}\nevent: rows\n".encode() + b"data: " + dumps(last) + b"\n\n"
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
