"""File finished runs under results/: one JSON each, with command, commit, machine and curve.

    python scripts/collect.py results/demo runs/demo-seed0 runs/demo-seed1 runs/demo-seed2

Besides the run's own summary it evaluates the trained model on held-out *targets*, and runs blind
search at the same mean number of tokens on the same test problems. A summary over all seeds that
are filed there goes to `seeds.json`.
"""

import json
import subprocess
import sys
from pathlib import Path

CURVE = ("step", "elapsed_s", "solve_rate", "mean_tokens", "truncated", "grad_norm", "lr")


def aha(*words: str) -> dict:
    """The last JSON object that a command prints."""
    out = subprocess.run([sys.executable, "-m", "aha", *words], capture_output=True, check=True)
    return json.loads(out.stdout.splitlines()[-1])


def collect(run: Path) -> dict:
    config = json.loads((run / "config.json").read_text())
    summary = json.loads((run / "summary.json").read_text())
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    numbers = [word for n in config["task"]["numbers"] for word in ("--numbers", str(n))]
    limit = str(config["rollout"]["max_new_tokens"])
    held_out = aha(
        "eval", str(run), *numbers, "--split", "test_targets", "--max-new-tokens", limit, "--json"
    )
    budget = str(round(summary["after"]["mean_tokens"]))
    return {
        "run": run.name,
        "environment": json.loads((run / "environment.json").read_text()),
        "config": config,
        "summary": summary,
        "held_out_targets": held_out,
        "blind_search_same_mean_tokens": aha("baseline", *numbers, "--tokens", budget),
        "blind_search_same_limit": aha("baseline", *numbers, "--tokens", limit),
        "curve": [{key: row[key] for key in CURVE} for row in rows],
    }


def over_seeds(found: list[dict]) -> dict:
    """What README quotes: every seed's figure, never the best one alone."""
    rates = [one["summary"]["after"]["solve_rate"] for one in found]
    drops = [
        one["summary"]["after"]["solve_rate"] - one["held_out_targets"]["solve_rate"]
        for one in found
    ]
    return {
        "seeds": [one["config"]["seed"] for one in found],
        "before": [one["summary"]["before"]["solve_rate"] for one in found],
        "after": rates,
        "after_interval": [one["summary"]["after"]["interval"] for one in found],
        "spread": max(rates) - min(rates),
        "training_s": [one["summary"]["seconds"] for one in found],
        "time_to_aha_s": [one["summary"]["time_to_aha_s"] for one in found],
        "held_out_targets": [one["held_out_targets"]["solve_rate"] for one in found],
        "drop_on_held_out_targets": drops,
        "line_accuracy": [
            one["summary"]["after"]["behaviors"].get("line_accuracy") for one in found
        ],
        "verdict_truth": [
            one["summary"]["after"]["behaviors"].get("verdict_truth") for one in found
        ],
        "mean_tokens": [one["summary"]["after"]["mean_tokens"] for one in found],
        "cost_usd": [one["summary"]["cost_usd"] for one in found],
        "commit": sorted({one["environment"]["commit"] or "" for one in found}),
        "machine": sorted({one["environment"]["machine"] for one in found}),
    }


def main(target: Path, runs: list[Path]) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for one in map(collect, runs):
        path = target / f"seed_{one['config']['seed']}.json"
        path.write_text(json.dumps(one, indent=1) + "\n")
    filed = [json.loads(path.read_text()) for path in sorted(target.glob("seed_*.json"))]
    (target / "seeds.json").write_text(json.dumps(over_seeds(filed), indent=2) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
