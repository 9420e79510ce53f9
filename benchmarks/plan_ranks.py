"""Steps of 1, 2 and 4 ranks on this machine against the simulation of `aha plan --gpus`.

    python benchmarks/plan_ranks.py [--recipe demo] [--steps 8] [--rounds 3] [--ranks 1 2 4]
        [--threads 2] [--section.key value]

Each round runs `aha train RECIPE --ranks N` once for each number, in fresh processes that share
`--threads` cores, with all further options and no evaluation. A run's step time is the median of
its steps after the second. The plan is simulated with the mean length that these runs have had, on
the row of cards.toml for this machine. Only ratios are compared: the time of N ranks over that of
the first number, as measured and as simulated. `measured / simulated` 1.0 means that the
simulation is right. The simulation knows no cost of threads that meet: what ranks gain over them
shows here.
"""

import argparse
from pathlib import Path
from statistics import fmean

import torch
from _common import file_row, head, show, spread
from step_ranks import median_seconds, step_rows

from aha.algo.algorithms import method_of
from aha.algo.recipe import load_recipe
from aha.api.recipe_names import find_recipe
from aha.core.recipe_layers import parse_toml
from aha.plan.cluster import Cluster, simulate
from aha.plan.shapes import shape_of
from aha.plan.speed import Workload
from aha.training.preflight import machine_row


def overrides_in(words: list[str]) -> dict[str, object]:
    """`--section.key value` pairs; a value that is no TOML is a text."""
    settings: dict[str, object] = {}
    for key, text in zip(words[::2], words[1::2], strict=True):
        try:
            settings[key.removeprefix("--")] = parse_toml(f"value = {text}")["value"]
        except ValueError:
            settings[key.removeprefix("--")] = text
    return settings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="demo")
    parser.add_argument("--steps", type=int, default=8, help="at least 4")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--threads", type=int, default=2, help="cores to use")
    parser.add_argument(
        "--out", "--json", dest="out", type=Path, help="file of JSON lines to add the row to"
    )
    options, more = parser.parse_known_args()
    settings = {key: getattr(options, key) for key in ("recipe", "steps", "rounds", "threads")}
    row = head("plan_ranks", (), settings | {"ranks": options.ranks, "more": " ".join(more)})
    cfg = load_recipe(find_recipe(options.recipe), overrides_in(more))
    load = Workload(cfg, method_of(cfg), shape_of(cfg.model.path))
    name, card = machine_row(torch.device("cpu"))
    assert card is not None, "the table has a row for each CPU"
    seconds: dict[int, list[float]] = {ranks: [] for ranks in options.ranks}
    lengths: list[float] = []
    for turn in range(options.rounds):
        for ranks in options.ranks if turn % 2 == 0 else options.ranks[::-1]:
            rows = step_rows(options, more, ranks, False)
            seconds[ranks].append(median_seconds(rows))
            lengths += [step["mean_tokens"] for step in rows]
        print(
            f"round {turn + 1}: {[f'{values[-1]:.3f}' for values in seconds.values()]} s",
            flush=True,
        )
    mean = fmean(lengths)
    simulated = {n: simulate(load, card, mean, Cluster(n)).seconds for n in options.ranks}
    first = options.ranks[0]
    row |= {"card": name, "mean_tokens": mean, "simulated": simulated}
    row["seconds"] = {str(ranks): spread(values) for ranks, values in seconds.items()}
    row["ratios"] = {}
    for ranks in options.ranks[1:]:
        measured = [a / b for a, b in zip(seconds[ranks], seconds[first], strict=True)]
        planned = simulated[ranks] / simulated[first]
        label = f"{ranks} ranks / {first}, measured / simulated"
        row["ratios"][label] = spread([ratio / planned for ratio in measured])
        print(f"{label}: {show(row['ratios'][label], '.2f')} (simulated {planned:.2f})")
    file_row(options.out, row)


if __name__ == "__main__":
    main()
