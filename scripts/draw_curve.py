"""Draw the solve rate of every seed against training time, from the files under results/.

    python scripts/draw_curve.py results/demo docs/demo.png

Needs matplotlib (in the extra [bench]).
"""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt


def smooth(values: list[float], window: int = 3) -> list[float]:
    """Mean of the last `window` values."""
    parts = [values[max(0, i - window + 1) : i + 1] for i in range(len(values))]
    return [sum(part) / len(part) for part in parts]


def main(source: Path, target: Path) -> None:
    figure, (top, bottom) = plt.subplots(
        2, 1, figsize=(7, 5), sharex=True, height_ratios=[2, 1], layout="constrained"
    )
    for path in sorted(source.glob("seed_*.json")):
        one = json.loads(path.read_text())
        minutes = [row["elapsed_s"] / 60 for row in one["curve"]]
        label = f"seed {one['config']['seed']}"
        rates = smooth([row["solve_rate"] for row in one["curve"]])
        (drawn,) = top.plot(minutes, rates, label=label)
        after = one["summary"]["after"]
        low, high = after["interval"]
        rate = after["solve_rate"]
        top.errorbar(
            minutes[-1], rate, [[rate - low], [high - rate]], fmt="o", color=drawn.get_color()
        )
        bottom.plot(minutes, smooth([row["mean_tokens"] for row in one["curve"]]))
        before = one["summary"]["before"]["solve_rate"]
        blind = one["blind_search_same_mean_tokens"]["solve_rate"]
    top.axhline(before, color="grey", linestyle=":", label="base model")
    top.axhline(blind, color="black", linestyle="--", label="blind search, same tokens")
    top.set_ylabel("solved, fresh puzzles\n(dots: 1,000 held-out, 95 %)")
    top.set_ylim(0, 1)
    top.legend(frameon=False, loc="lower right")
    bottom.set_ylabel("tokens")
    bottom.set_xlabel("minutes of training on two CPU cores")
    bottom.set_ylim(bottom=0)
    for axis in (top, bottom):
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(target, dpi=130)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
