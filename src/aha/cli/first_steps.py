"""What `aha` without a command prints: what it is, and the commands to begin with."""

import shlex
from pathlib import Path

import aha
from aha.cli.own_command import own_command
from aha.cli.terminal_text import say

RUNS, DATA = Path("runs"), Path("data")
FIRST = (
    ("demo", "minutes: a small model learns a puzzle while you watch"),
    ("train", "a run of the recipe that fits this machine"),
    ("recipes", "what can be trained, with a sentence each"),
    ("tasks", "what can be learned, with a sentence each"),
    ("plan demo", "memory, time and price, before anything is spent"),
    ("doctor", "whether this machine is ready"),
    ("--help", "all commands; after a command, its options"),
)


def print_first_steps() -> None:
    """The program in a sentence, where to begin, and how to go on with what is there."""
    typed = own_command()
    lines = [f"{typed} {command}" for command, _ in FIRST]
    width = max(map(len, lines))
    say(f"{aha.__doc__.splitlines()[0]}\n\nBegin with:")
    for line, (_, meaning) in zip(lines, FIRST, strict=True):
        say(f"  {line:<{width}}  {meaning}")
    if newest := newest_run():
        say(f"\nYour newest run is {newest}:")
        for line in next_commands(newest):
            say(f"  {line}")


def newest_run() -> Path | None:
    """The run in runs/ that was last written to; None without one."""
    if not RUNS.is_dir():
        return None
    runs = [path for path in RUNS.iterdir() if (path / "config.json").is_file()]
    return max(runs, key=last_change, default=None)


def last_change(run: Path) -> float:
    """The time of the newest of a run's own files."""
    files = (run / name for name in ("config.json", "metrics.jsonl", "summary.json"))
    return max(path.stat().st_mtime for path in files if path.is_file())


def next_commands(run: Path) -> list[str]:
    """The commands that a user may want next, ready to paste: for a finished run what looks at it,
    for any other the one that goes on with it."""
    typed, name = own_command(), shlex.quote(str(run))
    if not (run / "summary.json").is_file():
        if (DATA / run.name / "job.json").is_file():
            # `aha train --resume` would end with the training, without the test after it.
            return [f"the command that began it, with {shlex.join(['--name', run.name])}"]
        return [f"{typed} train --resume {name}"]
    commands = (f"chat {name}", f"report {name}", "dash")
    return [f"{typed} {command}" for command in commands]
