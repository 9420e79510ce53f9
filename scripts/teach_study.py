"""Distillation, selection and shortening over seeds.

    python scripts/teach_study.py rejection --teacher runs/a,runs/b,runs/c   # with and without it
    python scripts/teach_study.py select --teacher runs/a,runs/b,runs/c      # s1 and its controls
    python scripts/teach_study.py shorten --teacher runs/a,runs/b,runs/c     # SimPO on own answers
    python scripts/teach_study.py money --teacher runs/a,runs/b,runs/c       # RL, distil, both
    python scripts/teach_table.py                            # files results/teaching, with verdicts

A teacher for each seed (0, 1, 2), or one for all. Each run is one of the commands that users have,
with one thread; seeds run side by side, as many as there are cores (`--processes`), and write to
data/teach/. A study that is stopped goes on with the same command. `--student MODEL` takes that
base; without it the student of `rejection` has two fifths of aha-tiny's parameters and has read
pages of arithmetic and puzzles of two numbers alone, so that it solves none of three; the student
of the others is aha-tiny.
"""

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from aha.distill.ledger import OWN
from aha.distill.stages import read_object
from aha.machine.host import num_cores
from aha.model.folders import base_cost, resolve_model
from aha.model.parents import chain_of
from aha.model.weights import load_model
from aha.pretrain.settings import make_job
from aha.store.run_folder import environment, read_rows
from aha.studies.training_stages import make_base

ROOT = Path(__file__).resolve().parent.parent
ROWS = Path("data") / "teach"  # a file for each way and seed that is done
SIZES = {"hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 3}
TESTS = "tests before and after"  # an entry of a ledger
SMALL = "small"  # the student that is made here
STUDENT_TOKENS = 10_000_000
# What a study takes where an option is not given.
USUAL: dict[str, dict[str, Any]] = {
    "rejection": {"student": SMALL, "n": 16_000, "epochs": 5},
    "select": {"student": "aha-tiny", "n": 8_000, "epochs": 5},
    "shorten": {"student": None, "n": 16_000, "epochs": 1, "lr": 2e-4, "nll": 8.0},
    "money": {"student": "aha-tiny", "n": 8_000, "epochs": 3},
}
# Without the strong loss on the chosen ones these pairs unlearn the search (docs/log.md, 28
# November 2026), and the usual 0.1 of DPO is satisfied only where whole completions differ by tens
# of nats.
BETA: dict[str, list[object]] = {"simpo": [], "dpo": ["--beta", 1]}
Row = dict[str, Any]


def aha(*words: object) -> None:
    """One command of ours; an error ends the study, which goes on with the same command."""
    print("$ aha", *words, flush=True)
    code = subprocess.run([sys.executable, "-m", "aha", *map(str, words)]).returncode
    if code:
        sys.exit(f"aha {words[0]} ended with code {code}; what it said is above")


def small_student(seed: int) -> Path:
    """A base that calculates and knows the form of a puzzle, and has never read three numbers."""
    job = make_job(
        "tiny", Path("runs") / f"small-{seed}", SIZES, {"tokens": STUDENT_TOKENS, "seed": seed}
    )
    mix = replace(job.cfg.mix, numbers=(2,), drill=1.0)
    return make_base(replace(job, cfg=replace(job.cfg, mix=mix)), print)


def student_of(args: argparse.Namespace, seed: int) -> str:
    return str(small_student(seed)) if args.student == SMALL else str(args.student)


def parameters_of(name: str) -> int:
    return int(load_model(resolve_model(name)).policy.num_parameters())


def file_result(study: str, way: str, seed: int, name: str, more: Row) -> None:
    """Write one run's numbers: what it did, what it cost, on which machine."""
    data, run = Path("data") / name, Path("runs") / name
    change = read_object(data / "change.json")
    assert change is not None, f"{data} has no test"
    ledger, stages = data / "ledger.json", data / "stages.json"
    row = {
        "study": study,
        "way": way,
        "seed": seed,
        **{when: numbers(change[when]) for when in ("before", "after")},
        "gained": change["gained"],
        "length_change": change["length_change"],
        "ledger": read_object(ledger),
        "usd": own_usd(data, run),
        "stages": json.loads(stages.read_text()) if stages.exists() else None,
        "config": json.loads((run / "config.json").read_text().replace(f"{Path.cwd()}/", "")),
        "environment": environment(),
        **more,
    }
    keep_row(row)


def own_usd(data: Path, run: Path) -> float | None:
    """What a way has cost besides its base: by the ledger of a distillation, else its training."""
    ledger = read_object(data / "ledger.json")
    if ledger is not None:
        return ledger["own_usd"]
    return json.loads((run / "summary.json").read_text())["cost_usd"]


def keep_row(row: Row) -> None:
    """Write the row of a way and a seed."""
    folder = ROWS / row["study"]
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{row['way']}_seed_{row['seed']}.json"
    (folder / name).write_text(json.dumps(row, indent=2) + "\n")


def numbers(row: Row) -> Row:
    keys = ("solve_rate", "interval", "mean_tokens", "truncated", "problems", "seconds")
    return {key: row[key] for key in keys}


# -- the studies ----------------------------------------------------------------------------------


def rejection(args: argparse.Namespace, seed: int) -> None:
    """The same answers with the wrong ones rejected, and with all of them."""
    student = student_of(args, seed)
    sizes = {"parameters": [parameters_of(student), parameters_of(args.teacher)]}
    teacher_rate = rate_of(args.teacher, args.tests)
    first = None
    for way in ("right", "all"):
        name = f"rejection-{way}-{seed}"
        reuse = ("--reuse", Path("data") / first) if first else ()
        aha(*distill_words(args, student, seed, name), "--keep", way, *reuse)
        first = first or name
        file_result("rejection", way, seed, name, {**sizes, "teacher_rate": teacher_rate})


def distill_words(args: argparse.Namespace, student: str, seed: int, name: str) -> list[object]:
    words: list[object] = ["distill", "--teacher", args.teacher, "--student", student]
    words += ["--n", args.n, "--per-problem", args.per_problem, "--tests", args.tests]
    words += ["--seed", seed, "--name", name, "--epochs", args.epochs]
    return words + ([] if args.lr is None else ["--lr", args.lr])


def rate_of(model: str, tests: int) -> Row:
    """The teacher's own rate on the held-out problems of the tests, once."""
    path = Path("data") / f"rate-{Path(model).name}-{tests}.json"
    known = read_object(path)
    if known is None:
        words = ["eval", model, "--n", str(tests), "--json"]
        done = subprocess.run(
            [sys.executable, "-m", "aha", *words], check=True, capture_output=True, text=True
        )
        path.parent.mkdir(exist_ok=True)
        path.write_text(done.stdout)
        known = json.loads(done.stdout)
    return numbers(known)


def select(args: argparse.Namespace, seed: int) -> None:
    """A thousand of the teacher's right answers, chosen as s1 does and in four other ways.

    Each example is read as often as any other, as in s1: all of them are the dearer way. The
    controls are drawn from all that is of quality, whoever solves it.
    """
    student = student_of(args, seed)
    pool = f"pool-{seed}"
    if not (Path("data") / pool / "examples.jsonl").exists():
        aha(*distill_words(args, student, seed, pool), "--collect-only")
    size = len(list(read_rows(Path("data") / pool / "examples.jsonl")))
    for way in ("s1", "random", "longest", "diverse", "all"):
        name = f"select-{way}-{seed}"
        words = ["select", Path("data") / pool / "examples.jsonl", "--by", way, "--n", args.select]
        solver = ("--solver", args.solver or student) if way == "s1" else ()
        aha(*words, "--seed", seed, "--name", name, *solver)
        train_on(args, student, seed, name, Path("data") / name / "selected.jsonl")
        file_result("select", way, seed, name, {"epochs": args.epochs, "pool": size})


def train_on(args: argparse.Namespace, student: str, seed: int, name: str, data: Path) -> None:
    """Fine-tune on a file, with the test before and after that a distillation makes."""
    from aha.distill.tested_training import TrainingTests
    from aha.eval.suite import EvalSettings

    run = Path("runs") / name
    test = EvalSettings("countdown", {}, "test", args.tests, 0, 1, 1.0, None)
    tests = TrainingTests(Path("data") / name, run, test)
    tests.before(student)
    if not run.exists():
        words = ["sft", student, "--data", data, "--epochs", args.epochs, "--seed", seed]
        aha(*words, "--name", name, *([] if args.lr is None else ["--lr", args.lr]))
    elif not (run / "summary.json").exists():
        aha("train", "--resume", run)
    tests.after()


def shorten(args: argparse.Namespace, seed: int) -> None:
    """Pairs of the teacher's own completions of training problems, then SimPO."""
    completions = Path("data") / f"own-{seed}.jsonl"
    if not completions.exists():
        completions.parent.mkdir(exist_ok=True)
        words = ["eval", args.teacher, "--split", "train", "--n", args.n, "--seed", seed]
        partial = completions.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        aha(*words, "--group-size", 8, "--out", partial)
        partial.rename(completions)
    for method in args.methods:
        name = f"shorten-{method}-{seed}"
        words = ["prefer", args.teacher, "--data", completions, "--method", method]
        words += ["--name", name, "--seed", seed, "--tests", args.tests, "--nll", args.nll]
        words += ["--epochs", args.epochs, "--examples", 128, "--pairs", "shorter"]
        words += ["--lr", args.lr, *BETA[method]]
        aha(*words)
        file_result("shorten", method, seed, name, {})


def money(args: argparse.Namespace, seed: int) -> None:
    """RL, distillation, and half of the answers before RL, on one base; each gets the same money,
    the teacher's answers included. Tests are not counted, in any of them."""
    base = student_of(args, seed)
    distilled, both = f"money-distil-{seed}", f"money-both-{seed}"
    aha(*distill_words(args, base, seed, distilled))
    usd = paid_to_learn(distilled)
    file_result("money", "distil", seed, distilled, {"usd": usd})
    rl_run(args, "rl", base, usd, seed)
    half = argparse.Namespace(**{**vars(args), "n": max(1, args.n // 2)})
    aha(*distill_words(half, base, seed, both), "--reuse", Path("data") / distilled)
    rl_run(args, "both", str(Path("runs") / both), usd - paid_to_learn(both), seed, usd)


def paid_to_learn(name: str) -> float:
    """USD of a distillation's answers and training, without its tests."""
    ledger = read_object(Path("data") / name / "ledger.json")
    assert ledger is not None and ledger["own_usd"] is not None, "a distillation with its price"
    own = [one for one in ledger["entries"] if one["payer"] == OWN and one["what"] != TESTS]
    return float(sum(one["usd"] for one in own))


def rl_run(
    args: argparse.Namespace, way: str, base: str, usd: float, seed: int, in_all: float = 0.0
) -> None:
    """Reinforcement learning for so much money, tests not counted; `in_all`: with what was paid
    before."""
    name = f"money-{way}-rl-{seed}"
    run = Path("runs") / name
    if not run.exists():
        words = [sys.executable, "-m", "aha", "train", args.recipe, "--model", base]
        words += ["--name", name, "--seed", str(seed), "--budget", f"{usd:.8f}usd"]
        words += ["--eval.final", "0", "--eval.every", "0"]
        code = subprocess.run(words).returncode
        assert code in (0, 3), "a run that its budget ends has exit code 3"
    tested = Path("data") / f"{name}.jsonl"
    tested.unlink(missing_ok=True)  # of a test that was stopped
    aha("eval", run, "--n", args.tests, "--out", tested)
    rows = list(read_rows(tested))
    right = sum(row["correct"] for row in rows)
    result = {"study": "money", "way": way, "seed": seed, "usd": in_all or usd}
    result["after"] = {
        "solve_rate": right / len(rows),
        "mean_tokens": sum(row["tokens"] for row in rows) / len(rows),
        "problems": len(rows),
    }
    result |= {"environment": environment(), "base_cost": base_cost(resolve_model(base))}
    result["parents"] = chain_of(resolve_model(base))
    keep_row(result)


STUDIES = {"rejection": rejection, "select": select, "shorten": shorten, "money": money}


def side_by_side(args: argparse.Namespace) -> None:
    """A process for each seed, with one thread; Ctrl-C reaches all of them."""
    folder = Path("data") / "teach"
    folder.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, *sys.orig_argv[1:]]

    def one_seed(seed: int) -> int:
        log = folder / f"{args.study}-{seed}.log"
        print(f"seed {seed}: see {log}", flush=True)
        with log.open("a") as file:
            own = [*words, "--only-seed", str(seed)]
            done = subprocess.run(
                own, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=file, stderr=file
            )
        return done.returncode

    with ThreadPoolExecutor(args.processes) as pool:
        codes = dict(zip(args.seeds, pool.map(one_seed, args.seeds), strict=True))
    if failed := [str(seed) for seed, code in codes.items() if code]:
        sys.exit(f"seeds {', '.join(failed)} ended early; the same command goes on")


def read_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--teacher", default="runs/demo", help="a run, or one for each seed: a,b,c")
    parser.add_argument("--student", help="a base, or `small`; see above")
    parser.add_argument("--solver", help="of select; without it the student")
    parser.add_argument("--recipe", default="demo")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--processes", type=int, default=num_cores() or 1)
    parser.add_argument("--only-seed", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--n", type=int, help="training problems")
    parser.add_argument("--per-problem", type=int, default=1)
    parser.add_argument("--select", type=int, default=1_000)
    parser.add_argument("--tests", type=int, default=1_000)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--lr", type=float)
    parser.add_argument("--methods", nargs="+", choices=["simpo", "dpo"], default=["simpo", "dpo"])
    parser.add_argument("--nll", type=float)
    args = parser.parse_args()
    for name, value in USUAL.get(args.study, {}).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    teachers = args.teacher.split(",")
    if len(teachers) not in (1, len(args.seeds)):
        parser.error(f"{len(teachers)} teachers for {len(args.seeds)} seeds: one, or one for each")
    args.teachers = dict(zip(args.seeds, teachers * len(args.seeds), strict=False))
    return args


def main() -> None:
    args = read_args()
    if args.only_seed is None:
        side_by_side(args)
    else:
        args.teacher = args.teachers[args.only_seed]
        STUDIES[args.study](args, args.only_seed)


if __name__ == "__main__":
    main()
