"""File finished runs under results/: one JSON each, with settings, commit, machine and curve.

    python scripts/collect.py results/demo runs/demo-seed0 runs/demo-seed1 runs/demo-seed2

Besides the run's own summary it evaluates the trained model on held-out *targets*, and runs blind
search at the same mean number of tokens on the same test problems. A summary over all seeds that
are filed there goes to `seeds.json`.
"""

import json
import subprocess
import sys
from pathlib import Path

from aha.eval.statistics import wilson

CURVE = ("step", "elapsed_s", "solve_rate", "mean_tokens", "truncated", "grad_norm", "lr")

OF_SIGN = {"+": "sums", "*": "products"}


def aha(*words: str) -> dict:
    """The last JSON object that a command prints."""
    out = subprocess.run([sys.executable, "-m", "aha", *words], capture_output=True, check=True)
    return json.loads(out.stdout.splitlines()[-1])


def collect(run: Path) -> dict:
    config = json.loads((run / "config.json").read_text())
    summary = json.loads((run / "summary.json").read_text())
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found = {
        "run": run.name,
        "environment": json.loads((run / "environment.json").read_text()),
        "config": config,
        "summary": summary,
        "curve": [{key: row[key] for key in CURVE} for row in rows],
    }
    if config["task"]["name"] == "countdown":
        found |= countdown(run, config, summary)
    if config["task"]["name"] == "ladder":
        found["rungs"] = {name: by_rung(run, name) for name in ("before", "after")}
    return found


def by_rung(run: Path, test: str) -> dict[str, dict]:
    """Solve rate of a test, its 95 % interval and its problems, for each rung of a ladder."""
    right: dict[str, list[bool]] = {}
    for line in (run / "completions" / f"{test}.jsonl").read_text().splitlines():
        row = json.loads(line)
        rung = f"countdown{len(row['numbers'])}" if "numbers" in row else OF_SIGN[row["op"]]
        right.setdefault(rung, []).append(row["correct"])
    return {
        rung: {
            "solve_rate": sum(marks) / len(marks),
            "interval": list(wilson(sum(marks), len(marks))),
            "problems": len(marks),
        }
        for rung, marks in sorted(right.items())
    }


def countdown(run: Path, config: dict, summary: dict) -> dict:
    """What can be asked of puzzles alone: targets that were held out, and blind search."""
    numbers = [word for n in config["task"]["numbers"] for word in ("--numbers", str(n))]
    limit = str(config["rollout"]["max_new_tokens"])
    split = ("--split", "test_targets", "--max-new-tokens", limit, "--json")
    held_out = aha("eval", str(run), *numbers, *split)
    # The folder that it was in belongs to one machine.
    held_out["model"] = f"runs/{run.name}"
    mean = str(summary["after"]["mean_tokens"])
    words = ("--tokens", limit, "--mean-tokens", mean, "--model", str(run))
    blind = aha("baseline", *numbers, *words)
    return {
        "held_out_targets": held_out,
        # Files from before 28 November 2026 have under this key a search whose limit was the mean.
        "blind_search_same_mean_tokens": blind.pop("at_mean"),
        "blind_search_same_limit": blind,
    }


def over_seeds(found: list[dict]) -> dict:
    """What README quotes: every seed's figure, never the best one alone."""
    after = [one["summary"]["after"] for one in found]
    rates = [one["solve_rate"] for one in after]
    told = {
        "seeds": [one["config"]["seed"] for one in found],
        "before": [one["summary"]["before"]["solve_rate"] for one in found],
        "after": rates,
        "after_interval": [one["interval"] for one in after],
        "spread": max(rates) - min(rates),
        "training_s": [one["summary"]["seconds"] for one in found],
        "time_to_aha_s": [one["summary"]["time_to_aha_s"] for one in found],
        "mean_tokens": [one["mean_tokens"] for one in after],
        "cost_usd": [one["summary"]["cost_usd"] for one in found],
        "commit": sorted({one["environment"]["commit"] or "" for one in found}),
        "machine": sorted({one["environment"]["machine"] for one in found}),
    }
    if all("held_out_targets" in one for one in found):
        held_out = [one["held_out_targets"]["solve_rate"] for one in found]
        told["held_out_targets"] = held_out
        told["drop_on_held_out_targets"] = [a - b for a, b in zip(rates, held_out, strict=True)]
        for key in ("line_accuracy", "verdict_truth"):
            told[key] = [one["behaviors"].get(key) for one in after]
    return told


def main(target: Path, runs: list[Path]) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for one in map(collect, runs):
        path = target / f"seed_{one['config']['seed']}.json"
        path.write_text(json.dumps(one, indent=1) + "\n")
    filed = [json.loads(path.read_text()) for path in sorted(target.glob("seed_*.json"))]
    (target / "seeds.json").write_text(json.dumps(over_seeds(filed), indent=2) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
