import asyncio
import json
import logging

import pytest

from aha.core.findings import warn
from aha.store.run_folder import Run
from aha.web.runs import RunFolder
from aha.web.server import make_server
from aha.web.server_events import (
    ROWS_PER_EVENT,
    files_of_events,
    go_on_from,
    run_events,
    split_rows,
)

from .conftest import held_out, metrics, write_rows


class Listener:
    """Takes events off a stream, one at a time."""

    def __init__(self, run, place=None):
        self.stream = run_events(RunFolder(run), place)

    async def event(self, kind: str) -> tuple[str | None, object]:
        """(id, data) of the next event of a kind."""
        while True:
            raw = (await asyncio.wait_for(anext(self.stream), 60)).decode()
            fields = dict(
                line.split(": ", 1) for line in raw.strip().splitlines() if line[0] != ":"
            )
            if fields.get("event") == kind:
                return fields.get("id"), json.loads(fields["data"])


def test_a_stream_begins_where_the_page_stopped_and_follows_the_files(run):
    async def story():
        listener = Listener(run, "end")
        assert (await listener.event("status"))[1] == "done"
        write_rows(run / "metrics.jsonl", [metrics(6)])
        write_rows(run / "evals.jsonl", [{"step": 6, **held_out(3, 8)}])
        Run(run).tell(6, warn("slow", "wait"))
        seen = {"metrics": [], "evals": [], "findings": []}
        while not all(seen.values()):  # the files may be met at different looks
            place, data = await listener.event("rows")
            for name in seen:
                seen[name] += [row["step"] for row in data[name]]
        assert seen == {"metrics": [6], "evals": [6], "findings": [6]}
        # A browser that comes back with the last id gets nothing twice.
        again = Listener(run, place)
        write_rows(run / "metrics.jsonl", [metrics(7)])
        assert [row["step"] for row in (await again.event("rows"))[1]["metrics"]] == [7]

    asyncio.run(story())


def test_a_half_written_line_waits_for_its_end(run):
    async def story():
        listener = Listener(run)
        assert len((await listener.event("rows"))[1]["metrics"]) == 5
        line = json.dumps(metrics(6))
        with (run / "metrics.jsonl").open("a") as out:
            out.write(line[:20])
        await asyncio.sleep(0.5)
        with (run / "metrics.jsonl").open("a") as out:
            out.write(line[20:] + "\n")
        assert [row["step"] for row in (await listener.event("rows"))[1]["metrics"]] == [6]

    asyncio.run(story())


def test_a_run_that_was_cut_back_says_so(run):
    async def story():
        listener = Listener(run)
        await listener.event("rows")
        (run / "metrics.jsonl").write_text(json.dumps(metrics(1)) + "\n")
        _, data = await listener.event("rows")
        assert data["rewritten"] == ["metrics"] and [row["step"] for row in data["metrics"]] == [1]

    asyncio.run(story())


def test_a_page_that_comes_back_after_a_resume_keeps_no_void_step(run):
    """The file was cut back and has grown beyond the place that the page had reached."""

    async def story():
        place, _ = await Listener(run).event("rows")
        (run / "metrics.jsonl").unlink()
        write_rows(run / "metrics.jsonl", [metrics(step, grad_norm=0.9) for step in range(1, 9)])
        _, data = await Listener(run, place).event("rows")
        assert data["rewritten"] == ["metrics"] and data["evals"] == []
        assert [row["step"] for row in data["metrics"]] == [*range(1, 9)]

    asyncio.run(story())


NONSENSE = ["", "1", "a.b", "1.2.3", "1-2.3-4", "1-2.3-4.5-6.7-8", "-1.0-0.0-0", "١-١.٢-٢.٣-٣"]


def offsets_of(text, run) -> list[int]:
    files = files_of_events(RunFolder(run))
    go_on_from(files, text)
    return [lines.offset for lines in files.values()]


@pytest.mark.parametrize("text", [None, *NONSENSE, "9" * 40 + "-1.1-1.1-1"])
def test_a_place_that_makes_no_sense_is_the_beginning(run, text):
    assert offsets_of(text, run) == [0, 0, 0]


def test_many_rows_come_in_several_events():
    rows = [{"step": i} for i in range(ROWS_PER_EVENT + 1)]
    parts = split_rows({"metrics": (rows, True), "evals": ([], False)})
    assert [len(part["metrics"]) for part in parts] == [ROWS_PER_EVENT, 1]
    assert [part["rewritten"] for part in parts] == [["metrics"], []]


def test_the_end_is_behind_the_last_whole_line_of_each_file(run):
    sizes = [(run / f"{name}.jsonl").stat().st_size for name in ("metrics", "evals")]
    assert offsets_of("end", run) == [*sizes, 0]
    with (run / "metrics.jsonl").open("a") as out:
        out.write('{"step": 6')  # being written: the news must bring it when it is whole
    assert offsets_of("end", run) == [*sizes, 0]
    (run / "evals.jsonl").unlink()
    assert offsets_of("end", run) == [sizes[0], 0, 0]


def test_only_what_a_page_can_draw_is_sent(run):
    """Rows of a wrong shape would end the page's script."""
    write_rows(run / "metrics.jsonl", [{"step": "6"}, metrics(7, reward=[], entropy=1e999)])
    write_rows(run / "evals.jsonl", [{"step": 1, "solve_rate": "x"}, {"interval": 3}])
    write_rows(run / "findings.jsonl", [{"level": [], "message": {"a": "\u202e"}}])

    async def story():
        data = (await Listener(run).event("rows"))[1]
        assert [row["step"] for row in data["metrics"]] == [1, 2, 3, 4, 5, 7]
        assert data["metrics"][-1]["reward"] is data["metrics"][-1]["entropy"] is None
        assert [row["step"] for row in data["evals"]] == [2, 4]
        (finding,) = data["findings"]
        assert finding["level"] == "warn" and "\u202e" not in finding["message"]

    asyncio.run(story())


def test_writes_to_a_client_that_has_gone_are_no_news(caplog):
    make_server(lambda scope, receive, send: None)
    for line in ("socket.send() raised exception.", "an error of the loop"):
        level = logging.WARNING if "socket" in line else logging.ERROR
        logging.getLogger("asyncio").log(level, line)
    assert caplog.messages == ["an error of the loop"]
