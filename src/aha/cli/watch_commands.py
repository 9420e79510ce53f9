"""`aha dash`, `aha report`, `aha compare`, `aha behaviors`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

from aha.cli.app import Count, app

Pins = Annotated[list[str] | None, Parameter(negative=())]


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
    from aha.web.server import serve

    serve(runs, host, port, open, lazy_speaker())


@app.command
def report(run: Path, *, out: Path | None = None, pin: Pins = None) -> None:
    """Write a run's report as one HTML file that opens offline; RUN/report.html unless given.

    Parameters
    ----------
    out
        the file to write.
    pin
        a completion to show besides, as FILE:PLACE counted from 0, such as after:12; may be
        given several times.
    """
    from aha.cli.watching import make_report

    make_report(run, out, pin or [])


@app.command
def compare(first: Path, second: Path) -> None:
    """Compare two runs on the same held-out problems: paired interval, config, winners, losers."""
    from aha.cli.watching import print_comparison

    print_comparison(first, second)


@app.command
def behaviors(
    path: Path,
    *,
    json: bool = False,
    judge: str | None = None,
    judge_model: str | None = None,
    judge_n: Count = 100,
    judge_seed: int = 0,
    judge_workers: Count = 4,
    judge_tokens: Count = 1_024,
    judge_timeout: Annotated[float, Parameter(validator=validators.Number(gt=0))] = 120.0,
) -> None:
    """Count what completions do (attempts, checks, going back ...) in a file or a run.

    Parameters
    ----------
    path
        JSON lines of {numbers, target, completion}, or a run folder.
    json
        print JSON lines.
    judge
        address of an OpenAI-compatible endpoint (vLLM, llama.cpp, Ollama ...) whose model counts
        as well; prints how far it agrees with the detector. A key is read from AHA_JUDGE_KEY.
    judge_model
        the model that it serves.
    judge_n
        completions to ask about, four questions each.
    judge_seed
        of their choice and of the answers.
    judge_workers
        questions at a time.
    judge_tokens
        of an answer at most.
    judge_timeout
        seconds to wait for an answer before asking again.
    """
    if judge or judge_model:
        from aha.behaviors.judge import Judge
        from aha.cli.judging import check_judge, judge_behaviours, key_of_environment

        check_judge(judge, judge_model)
        asked = Judge(
            judge,
            judge_model,
            key_of_environment(),
            judge_seed,
            judge_workers,
            judge_timeout,
            judge_tokens,
        )
        judge_behaviours(path, asked, judge_n, json)
        return
    from aha.cli.watching import print_behaviours

    print_behaviours(path, json)
