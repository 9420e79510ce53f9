"""Distillation, selection and shortening over seeds: runs them, and files results/teaching.

    python scripts/teach_study.py rejection --teacher runs/first      # with and without rejection
    python scripts/teach_study.py select --teacher runs/first         # s1 against its controls
    python scripts/teach_study.py shorten --teacher runs/first        # SimPO on own completions
    python scripts/teach_study.py money --teacher runs/first          # RL, distil, distil then RL
    python scripts/teach_study.py table                               # what is filed, as tables

Each run is one of the commands that users have. A study that is stopped goes on with the same
command. `--student MODEL` takes that base; without it a student of two fifths of aha-tiny's
parameters begins with random weights.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from aha.distill.stages import read_object
from aha.eval.statistics import over_seeds
from aha.model.folders import base_cost, resolve_model
from aha.model.parents import chain_of
from aha.model.tokenizer import build_tokenizer
from aha.model.transformer import Transformer
from aha.model.weights import load_model, save_model
from aha.pretrain.settings import make_job
from aha.store.run_folder import environment, read_rows

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results" / "teaching"
SIZES = {"hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 3}
Row = dict[str, Any]


def aha(*words: object) -> None:
    """One command of ours; an error ends the study, which goes on with the same command."""
    print("$ aha", *words, flush=True)
    subprocess.run([sys.executable, "-m", "aha", *map(str, words)], check=True)


def new_student(seed: int) -> Path:
    """A model with random weights and aha-tiny's vocabulary."""
    import torch

    folder = Path("runs") / f"student-{seed}"
    if not folder.exists():
        policy = Transformer(make_job("tiny", folder, SIZES, {}, "", None).architecture)
        policy.initialise(torch.Generator().manual_seed(seed))
        save_model(folder, policy, build_tokenizer())
    return folder


def student_of(args: argparse.Namespace, seed: int) -> str:
    return args.student or str(new_student(seed))


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
        "stages": json.loads(stages.read_text()) if stages.exists() else None,
        "config": read_object(run / "config.json"),
        "environment": environment(),
        **more,
    }
    folder = RESULTS / study
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{way}_seed_{seed}.json").write_text(json.dumps(row, indent=2) + "\n")


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

    Each student reads as many tokens as any other: the smaller sets more often.
    """
    student = student_of(args, seed)
    pool = f"pool-{seed}"
    if not (Path("data") / pool / "examples.jsonl").exists():
        aha(*distill_words(args, student, seed, pool), "--collect-only")
    size = len(list(read_rows(Path("data") / pool / "examples.jsonl")))
    for way in ("s1", "random", "longest", "diverse", "all"):
        name = f"select-{way}-{seed}"
        words = ["select", Path("data") / pool / "examples.jsonl", "--by", way, "--n", args.select]
        aha(*words, "--seed", seed, "--name", name, "--solver", args.solver or student)
        data = Path("data") / name / "selected.jsonl"
        epochs = args.epochs if way == "all" else max(1, round(args.epochs * size / args.select))
        train_on(args, student, seed, name, data, epochs)
        file_result("select", way, seed, name, {"epochs": epochs, "pool": size})


def train_on(
    args: argparse.Namespace, student: str, seed: int, name: str, data: Path, epochs: int
) -> None:
    """Fine-tune on a file, with the test before and after that a distillation makes."""
    from aha.distill.tested_training import TrainingTests
    from aha.eval.suite import EvalSettings

    run = Path("runs") / name
    test = EvalSettings("countdown", {}, "test", args.tests, 0, 1, 1.0, None)
    tests = TrainingTests(Path("data") / name, run, test)
    tests.before(student)
    if not run.exists():
        words = ["sft", student, "--data", data, "--epochs", epochs, "--seed", seed]
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
    for method in ("simpo", "dpo"):
        name = f"shorten-{method}-{seed}"
        words = ["prefer", args.teacher, "--data", completions, "--method", method]
        words += ["--name", name, "--seed", seed, "--tests", args.tests, "--nll", args.nll]
        aha(*words, *([] if args.lr is None else ["--lr", args.lr]))
        file_result("shorten", method, seed, name, {})


def money(args: argparse.Namespace, seed: int) -> None:
    """RL, distillation, and half of the money for each, on one base; each gets the same money, the
    teacher's answers included."""
    base = student_of(args, seed)
    distilled, both = f"money-distil-{seed}", f"money-both-{seed}"
    aha(*distill_words(args, base, seed, distilled))
    ledger = read_object(Path("data") / distilled / "ledger.json")
    assert ledger is not None and ledger["own_usd"] is not None, "a distillation with its price"
    usd = ledger["own_usd"]
    file_result("money", "distil", seed, distilled, {"usd": usd})
    rl_run(args, "rl", base, usd, seed)
    half = argparse.Namespace(**{**vars(args), "n": max(1, args.n // 2)})
    aha(*distill_words(half, base, seed, both), "--reuse", Path("data") / distilled)
    ledger = read_object(Path("data") / both / "ledger.json")
    assert ledger is not None and ledger["own_usd"] is not None, "a distillation with its price"
    rl_run(args, "both", str(Path("runs") / both), usd - ledger["own_usd"], seed)


def rl_run(args: argparse.Namespace, way: str, base: str, usd: float, seed: int) -> None:
    """Reinforcement learning for so much money, its tests included in the run's own price."""
    name = f"money-{way}-rl-{seed}"
    run = Path("runs") / name
    if not run.exists():
        words = [sys.executable, "-m", "aha", "train", args.recipe, "--model", base]
        words += ["--name", name, "--seed", str(seed), "--budget", f"{usd:.8f}usd"]
        words += ["--eval.final", str(args.tests)]
        code = subprocess.run(words).returncode
        assert code in (0, 3), "a run that its budget ends has exit code 3"
    aha("eval", run, "--n", args.tests, "--out", Path("data") / f"{name}.jsonl")
    rows = list(read_rows(Path("data") / f"{name}.jsonl"))
    right = sum(row["correct"] for row in rows)
    result = {"study": "money", "way": way, "seed": seed, "usd": usd}
    result["after"] = {
        "solve_rate": right / len(rows),
        "mean_tokens": sum(row["tokens"] for row in rows) / len(rows),
        "problems": len(rows),
    }
    folder = RESULTS / "money"
    folder.mkdir(parents=True, exist_ok=True)
    result |= {"environment": environment(), "base_cost": base_cost(resolve_model(base))}
    result["parents"] = chain_of(resolve_model(base))
    (folder / f"{way}_seed_{seed}.json").write_text(json.dumps(result, indent=2) + "\n")


# -- the table ------------------------------------------------------------------------------------


def table(unused_args: argparse.Namespace) -> None:
    """What is filed: means over seeds with 95 % intervals."""
    for folder in sorted(path for path in RESULTS.glob("*") if path.is_dir()):
        print(f"\n{folder.name}\n\n| way | seeds | after | 95 % | tokens | cents |")
        print("|---|---|---|---|---|---|")
        rows = [json.loads(path.read_text()) for path in sorted(folder.glob("*_seed_*.json"))]
        for way in dict.fromkeys(row["way"] for row in rows):
            own = [row for row in rows if row["way"] == way]
            rates = [row["after"]["solve_rate"] for row in own]
            low, high = over_seeds(rates, own[0]["after"]["problems"])
            tokens = sum(row["after"]["mean_tokens"] for row in own) / len(own)
            prices = [(row.get("ledger") or {}).get("own_usd", row.get("usd")) for row in own]
            cents = "-" if None in prices else f"{100 * sum(prices) / len(prices):.2f}"
            mean = sum(rates) / len(rates)
            interval = f"{low:.3f}-{high:.3f}"
            print(f"| {way} | {len(own)} | {mean:.3f} | {interval} | {tokens:.1f} | {cents} |")


STUDIES = {"rejection": rejection, "select": select, "shorten": shorten, "money": money}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("study", choices=[*STUDIES, "table"])
    parser.add_argument("--teacher", default="runs/first")
    parser.add_argument("--student", help="a base; without it random weights")
    parser.add_argument("--solver", help="of select; without it the student")
    parser.add_argument("--recipe", default="demo")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--n", type=int, default=8_000, help="training problems")
    parser.add_argument("--per-problem", type=int, default=2)
    parser.add_argument("--select", type=int, default=1_000)
    parser.add_argument("--tests", type=int, default=1_000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--lr", type=float)
    parser.add_argument("--nll", type=float, default=0.0)
    args = parser.parse_args()
    if args.study == "table":
        table(args)
        return
    for seed in args.seeds:
        STUDIES[args.study](args, seed)


if __name__ == "__main__":
    main()
