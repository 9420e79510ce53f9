"""News of a running run as server-sent events: each new row of metrics and evaluations.

The id of an event is where both files were read to, so that a browser that comes back goes on from
there. A run that was cut back by a resume sends its rows anew, and says so.
"""

import asyncio
from collections.abc import AsyncIterator

from aha.web.file_reader import Lines, dumps, end_of
from aha.web.runs import RunFolder

LOOK_S = 0.2
QUIET_S = 15.0  # between signs of life, without which a proxy would hang up
ROWS = 500  # of one event


def offsets_of(text: str | None, run: RunFolder) -> tuple[int, int]:
    """`metrics.evals` as two offsets, or "end" for where both files end; nonsense is the
    beginning."""
    if text == "end":
        return end_of(run.metrics), end_of(run.evals)
    parts = (text or "").split(".")
    if len(parts) != 2 or not all(p.isascii() and p.isdigit() and len(p) < 16 for p in parts):
        return 0, 0
    return int(parts[0]), int(parts[1])


async def news(run: RunFolder, start: tuple[int, int]) -> AsyncIterator[bytes]:
    """Events for ever: `rows` with {metrics, evals, anew}, and `status` where it changes."""
    files = {"metrics": Lines(run.metrics, start[0]), "evals": Lines(run.evals, start[1])}
    status, quiet = None, 0.0
    yield b"retry: 500\n\n"
    while True:
        found = {name: await asyncio.to_thread(lines.more) for name, lines in files.items()}
        if any(rows or anew for rows, anew in found.values()):
            *first, last = parts_of(found)
            for part in first:
                yield b"event: rows\ndata: " + dumps(part) + b"\n\n"
            # Only the last part tells the place: whoever misses it gets all of them again.
            place = ".".join(str(lines.offset) for lines in files.values())
            yield f"id: {place}\nevent: rows\n".encode() + b"data: " + dumps(last) + b"\n\n"
            quiet = 0.0
        now = await asyncio.to_thread(run.status)
        if now != status:
            status = now
            yield b"event: status\ndata: " + dumps(status) + b"\n\n"
        elif quiet >= QUIET_S:
            yield b": still here\n\n"
            quiet = 0.0
        await asyncio.sleep(LOOK_S)
        quiet += LOOK_S


def parts_of(found: dict[str, tuple[list[dict], bool]]) -> list[dict]:
    """The new rows in events of a bearable size; the first says whether all begins anew."""
    longest = max(len(rows) for rows, _ in found.values())
    parts = []
    for begin in range(0, max(longest, 1), ROWS):
        part = {name: rows[begin : begin + ROWS] for name, (rows, _) in found.items()}
        part["anew"] = [name for name, (_, anew) in found.items() if anew and begin == 0]
        parts.append(part)
    return parts
