"""A running run as server-sent events: every new row of its metrics and evaluations.

The id of an event has the offsets up to which both files were read, so that a browser that
reconnects continues there. A run whose files were truncated by a resume sends all rows again, and
says which file was rewritten.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from aha.web.file_reader import JsonLines, dumps, end_of
from aha.web.runs import RunFolder

POLL_S = 0.2
KEEP_ALIVE_S = 15.0  # a proxy closes a connection on which nothing is sent for long
ROWS_PER_EVENT = 500


def offsets_of(text: str | None, run: RunFolder) -> tuple[int, int]:
    """The offsets in metrics.jsonl and evals.jsonl, from `METRICS.EVALS`.

    "end" means the ends of both files; any other text that is not two numbers means 0, 0.
    """
    if text == "end":
        return end_of(run.metrics), end_of(run.evals)
    parts = (text or "").split(".")
    if len(parts) != 2 or not all(p.isascii() and p.isdigit() and len(p) < 16 for p in parts):
        return 0, 0
    return int(parts[0]), int(parts[1])


async def run_events(run: RunFolder, start: tuple[int, int]) -> AsyncIterator[bytes]:
    """Events without end: `rows` with {metrics, evals, rewritten}, and `status` when it changes."""
    files = {"metrics": JsonLines(run.metrics, start[0]), "evals": JsonLines(run.evals, start[1])}
    status, quiet_s = None, 0.0
    yield b"retry: 500\n\n"
    while True:
        new = {name: await asyncio.to_thread(lines.read_new) for name, lines in files.items()}
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
