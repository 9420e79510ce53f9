"""`aha report`: a run as one HTML file."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.markup import escape

from aha.cli.terminal_text import console


def report(
    run: Path,
    *,
    out: Path | None = None,
    pin: Annotated[list[str] | None, Parameter(negative=())] = None,
) -> None:
    """Write a run's report as one HTML file that needs no network.

    Parameters
    ----------
    run
        Run folder.
    out
        File to write; without it, RUN/report.html.
    pin
        A completion to show as well, as FILE:PLACE counted from 0, such as after:12. Can be
        repeated.
    """
    from aha.web.report_page import write_report
    from aha.web.runs import open_run

    folder = open_run(run)
    out = out or run / "report.html"
    size = write_report(folder, out, pin or [])
    console.print(f"{escape(str(out))}: {size / 1000:.0f} kB, opens offline", soft_wrap=True)
