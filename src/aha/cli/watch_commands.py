"""`aha dash`, `aha report`, `aha compare`, `aha behaviors`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

from aha.cli.app import app


@app.command
def dash(
    runs: Path = Path("runs"),
    *,
    host: str = "127.0.0.1",
    port: Annotated[int, Parameter(validator=validators.Number(gte=0, lte=65_535))] = 8765,
    open: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Watch runs in a browser while they train: curves, completions, the same puzzles through time.

    Parameters
    ----------
    runs
        folder of runs, or one run folder.
    host
        127.0.0.1 is seen from this machine alone; any other asks for a token that is
        printed.
    port
        where to listen; the next free one if it is taken, 0 for any.
    open
        open the browser as well.
    """
    from aha.cli.talking import lazy_speaker
    from aha.web.serve import serve

    serve(runs, host, port, open, lazy_speaker())


@app.command
def report(run: Path, *, out: Path | None = None) -> None:
    """Write a run's report as one HTML file that opens offline; RUN/report.html unless given."""
    from aha.cli.watching import make_report

    make_report(run, out)


@app.command
def compare(first: Path, second: Path) -> None:
    """Compare two runs on the same held-out problems: paired interval, config, winners, losers."""
    from aha.cli.watching import print_comparison

    print_comparison(first, second)


@app.command
def behaviors(path: Path, *, json: bool = False) -> None:
    """Count what completions do (attempts, checks, going back ...) in a file or a run.

    Parameters
    ----------
    path
        JSON lines of {numbers, target, completion}, or a run folder.
    json
        print JSON lines.
    """
    from aha.cli.watching import print_behaviours

    print_behaviours(path, json)
