"""A run as event files for TensorBoard (the extra [tensorboard]), in the folder `tensorboard/` of
the run: `tensorboard --logdir runs` shows all runs."""

import shlex
from collections.abc import Mapping
from typing import Any

from aha.loggers.logger_protocol import LoggedRun
from aha.loggers.run_rows import COLUMNS, Entry

FOLDER = "tensorboard"
HEADINGS = tuple(name for name in COLUMNS if name not in ("step", "prompt", "completion"))


def check_import() -> None:
    """Import torch's writer, which needs the package. Raises what the import raises."""
    import torch.utils.tensorboard  # noqa: F401


class TensorboardLogger:
    """One run as event files; steps are global steps."""

    rewinds = True  # a `purge_step` makes TensorBoard drop what was written after it

    def open(self, run: LoggedRun) -> None:
        """Open a new event file; of a new run the first entry is its config."""
        from torch.utils.tensorboard import SummaryWriter

        # Of a new run as well: TensorBoard takes the first mark of a start for no restart, and would
        # drop nothing at the second.
        self.writer = SummaryWriter(str(run.path / FOLDER), purge_step=run.step + 1)
        if run.step < 0:
            self.write_config(flat(run.config))
        self.writer.flush()
        folder = run.path.parent if run.path.name else run.path
        run.say(f"tensorboard: tensorboard --logdir {shlex.quote(str(folder))}")

    def write_config(self, config: Mapping[str, Any]) -> None:
        """The config for the page of hyperparameters, and as text."""
        from torch.utils.tensorboard.summary import hparams

        simple = {
            name: value if isinstance(value, bool | int | float | str) else str(value)
            for name, value in config.items()
        }
        file_writer = self.writer.file_writer
        assert file_writer is not None, "a writer that is open has a file"
        # `add_hparams` would do the same in a second run beside this one.
        for summary in hparams(simple, {"solve_rate": 0.0}):
            file_writer.add_summary(summary)
        lines = [f"{name} = {value}" for name, value in config.items()]
        self.writer.add_text("config", as_code("\n".join(lines)), 0)

    def log(self, entry: Entry) -> None:
        """Write an entry and wait until it is in the file."""
        import numpy

        for name, value in entry.numbers.items():
            self.writer.add_scalar(name, value, entry.step)
        for name, column in entry.histograms.items():
            self.writer.add_histogram(name, numpy.array(column, float), entry.step, bins="auto")
        if rows := entry.table:
            self.writer.add_text("completions", as_text(rows), entry.step)
        self.writer.flush()

    def close(self, failed: bool) -> None:
        """Close the event file."""
        self.writer.close()


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted names."""
    settings: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            settings |= flat(value, f"{prefix}{name}.")
        else:
            settings[prefix + name] = value
    return settings


def as_code(text: str) -> str:
    """A text as Markdown that shows it as it is. Indented, because a fence may be in the text."""
    return "\n".join(f"    {line}" for line in text.splitlines())


def as_text(rows: list[list[Any]]) -> str:
    """Completions as Markdown: TensorBoard has no table that keeps the lines of a text."""
    parts = []
    for row in rows:
        cells = dict(zip(COLUMNS, row, strict=True))
        heading = ", ".join(f"{name} {cells[name]}" for name in HEADINGS)
        parts += [as_code(f"[{heading}]"), as_code(f"{cells['prompt']}{cells['completion']}")]
    # The rule parts two indented blocks, which would be one otherwise.
    return "\n\n---\n\n".join(parts)
