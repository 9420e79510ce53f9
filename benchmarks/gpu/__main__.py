"""Everything that is to be measured on a CUDA GPU: `python -m benchmarks.gpu`, or `make gpu`.

Each item runs in a process of its own and leaves a row, whatever happens to it; a table of must,
aim and measured comes at the end. The exit status is 1 if an item failed, 2 if there is no GPU.
Ctrl-C and SIGTERM, as of a machine that is rented for so long, end the item that runs, not its row.
"""

import argparse
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from aha.machine.device import has_cuda

from .bench import Bench
from .items import ITEMS, beginning, measure
from .rows import KEYS, file_of, read_row, table, write_row

RESULTS = Path(__file__).resolve().parents[2] / "results" / "gpu"
LIMIT_S = 900  # of one item
STOPPED = "stopped"
Start = Callable[..., subprocess.CompletedProcess]


def read_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.gpu", description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=ITEMS, help="these items alone")
    size = parser.add_mutually_exclusive_group()
    scales = {"quick": "a third of the time", "tiny": "on a CPU, to see that it runs; no row"}
    for scale, words in scales.items():
        size.add_argument(f"--{scale}", dest="scale", action="store_const", const=scale, help=words)
    parser.add_argument("--device", choices=("cuda", "cpu"), help="cuda, or cpu with --tiny")
    parser.add_argument("--out", type=Path, help="folder of the rows: results/gpu")
    parser.add_argument("--row", type=Path, help=argparse.SUPPRESS)  # one item's own process
    args = parser.parse_args(argv)
    args.scale = args.scale or "full"
    args.device = args.device or ("cpu" if args.scale == "tiny" else "cuda")
    if args.device == "cpu" and args.scale != "tiny":
        parser.error("--device cpu: with --tiny alone, as nothing else is made for a CPU")
    if args.out is None and args.scale != "tiny":
        args.out = RESULTS
    return args


def main(argv: list[str] | None = None, start: Start = subprocess.run) -> int:
    """`start` runs a command line to its end, as `subprocess.run` does."""
    args = read_args(argv)
    if args.device == "cuda" and not has_cuda():
        print(
            "benchmarks.gpu: torch sees no CUDA GPU; wanted one; "
            "fix: --tiny proves the scripts on a CPU",
            file=sys.stderr,
        )
        return 2
    if args.row:
        return run_item(args)
    rows = []
    for item in args.only or ITEMS:
        print(f"\n== {item}", flush=True)
        row = in_own_process(item, args, start)
        rows.append(row)
        stopped = str(row["error"]).startswith(STOPPED)
        # Stopped before its first case it has nothing to put in the place of an older row.
        if args.out and row["card"]["name"] and (row["numbers"] or not stopped):
            write_row(args.out / file_of(row), row)
            print(f"  filed in {args.out / file_of(row)}")
        if stopped:
            break
    return print_summary(rows, args.scale)


def run_item(args: argparse.Namespace) -> int:
    """The life of an item's process. The beginning of its row is there first, and then each case: a
    crash has no time to write one."""
    bench = Bench(args.scale, torch.device(args.device))
    (item,) = args.only
    begun = beginning(item, bench)
    write_row(args.row, begun)
    bench.keep = lambda cases: write_row(args.row, begun | {"numbers": {"cases": cases}})
    row = measure(item, bench)
    write_row(args.row, row)
    return bool(row["error"])


def in_own_process(item: str, args: argparse.Namespace, start: Start) -> dict:
    """Memory that an item has lost, and a GPU that it has upset, end with its process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "row.json"
        command = [sys.executable, "-m", "benchmarks.gpu", "--only", item, "--row", str(path)]
        command += [] if args.scale == "full" else [f"--{args.scale}"]
        command += ["--device", args.device]
        try:
            status = start(command, cwd=RESULTS.parents[1], timeout=LIMIT_S).returncode
            ended = f"ended with status {status} before its row was whole"
        except subprocess.TimeoutExpired:
            ended = f"not done after {LIMIT_S} s"
        except KeyboardInterrupt:
            ended = f"{STOPPED} before its row was whole"
        if not path.exists():
            return missing_row(item, args.scale, ended)
        row = read_row(path)
        if row["seconds"] is None:
            row["error"] = ended
        return row


def missing_row(item: str, scale: str, reason: str) -> dict:
    """For the table alone: a process that never came to its device cannot say on which card."""
    return {key: None for key in KEYS} | {
        "item": item,
        "scale": scale,
        "card": {"name": None},
        "numbers": {},
        "checks": [],
        "error": f"{reason}: see what it printed",
    }


def print_summary(rows: list[dict], scale: str) -> int:
    """Print the table and what failed; the exit status."""
    total = sum(row["seconds"] or 0 for row in rows)
    print(f"\n{rows[0]['card']['name']}, commit {rows[0]['commit']}, {total:.0f} s")
    if scale == "tiny":
        print("TINY: sizes at which nothing is measured; the numbers mean nothing.")
    print(table(rows))
    failed = [row for row in rows if row["error"]]
    for row in failed:
        print(f"FAILED {row['item']}: {row['error']}")
    return bool(failed)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
