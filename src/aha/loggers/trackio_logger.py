"""A run in trackio (the extra [trackio]): its rows, tables of completions, histograms.

trackio keeps them on this machine, in its own folder, unless its environment variables
TRACKIO_SPACE_ID or TRACKIO_SERVER_URL say otherwise; `trackio show` opens its page.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

from aha.loggers.logger_protocol import LoggedRun
from aha.loggers.run_rows import COLUMNS, Entry

PROJECT = "aha"


def check_import() -> None:
    """Import the package. Raises what the import raises."""
    import trackio  # noqa: F401


@contextmanager
def quietly() -> Iterator[None]:
    """Without the lines that trackio prints: we say one of our own."""
    with redirect_stdout(io.StringIO()):
        yield


class TrackioLogger:
    """One run in trackio, under the name NAME-ID: trackio resumes by name, and two folders may have
    runs of one name."""

    rewinds = False  # trackio keeps every row that it gets

    def open(self, run: LoggedRun) -> None:
        """Begin or resume the run."""
        import trackio

        self.trackio, name = trackio, f"{run.name}-{run.id}"
        with quietly():
            self.run = trackio.init(
                project=PROJECT,
                name=name,
                config=dict(run.config),
                resume="allow",
                embed=False,
                # The run's rows alone; it is the user who asks trackio for more.
                auto_log_cpu=False,
                auto_log_gpu=False,
            )
        run.say(f"trackio: {name}; to see it: trackio show --project {PROJECT}")

    def log(self, entry: Entry) -> None:
        """Hand an entry to trackio's thread, which writes it within a second."""
        values: dict[str, Any] = dict(entry.numbers)
        values.pop("step", None)  # its own word for the same number
        for name, column in entry.histograms.items():
            values[name] = self.trackio.Histogram(column)
        if rows := entry.table:
            values["completions"] = self.trackio.Table(columns=list(COLUMNS), data=rows)
        self.run.log(values, step=entry.step)

    def close(self, failed: bool) -> None:
        """Write what is left."""
        with quietly():
            self.trackio.finish()
