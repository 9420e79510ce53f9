"""The page that compares runs: their curves, several seeds as one, and each against the first."""

from collections import OrderedDict
from collections.abc import Callable

from aha.store.guarded_files import Row
from aha.store.run_folder import is_tuning
from aha.web.curves import Curves
from aha.web.run_comparison import comparison_of, setting_differences
from aha.web.runs import RunFolder
from aha.web.seed_bands import band_of, seed_groups

MOST_RUNS = 12
KEPT_PAIRS = 256
CHARTS = (
    {"title": "Solve rate", "column": "solve_rate", "rate": True},
    {"title": "Reward", "column": "reward"},
    {"title": "Length in tokens", "column": "mean_tokens"},
    {"title": "Entropy", "column": "entropy"},
    {"title": "Truncated at the limit", "column": "truncated", "rate": True},
)
# Of runs that learn from examples; the loss of an update of RL is no measure of it.
TUNING_CHARTS = (
    {"title": "Loss", "column": "loss"},
    {"title": "Pairs ranked rightly", "column": "ranked", "rate": True},
    {"title": "Gradient norm", "column": "grad_norm"},
)


class ComparisonPage:
    """Makes the page, and keeps what was reckoned of files that have not changed since: the page
    asks every few seconds, and each pair costs two thousand draws."""

    def __init__(self, curves_of: Callable[[RunFolder], Curves]):
        self.curves_of = curves_of
        self.pairs: OrderedDict[object, Row | None] = OrderedDict()

    def page(self, runs: list[RunFolder]) -> Row:
        """The first MOST_RUNS runs as a JSON object."""
        runs = runs[:MOST_RUNS]
        configs = [run.read("config") for run in runs]
        names = [[str(chart["column"]) for chart in charts_of_kind(config)] for config in configs]
        curves = [self.curves_of(run) for run in runs]
        drawn = [own.thinned(columns) for own, columns in zip(curves, names, strict=True)]
        return {
            "runs": [
                {"card": run.card(), "curves": own} for run, own in zip(runs, drawn, strict=True)
            ],
            "charts": [
                chart
                for chart in (*CHARTS, *TUNING_CHARTS)
                if any(chart["column"] in own for own in drawn)
            ],
            "bands": [
                {
                    "runs": group,
                    "curves": band_of([curves[place] for place in group], names[group[0]]),
                }
                for group in seed_groups(configs)
            ],
            "differences": setting_differences(configs) if configs else [],
            "paired": [self.pair(runs[0], other) for other in runs[1:]],
        }

    def pair(self, first: RunFolder, second: RunFolder) -> Row | None:
        """The second run against the first."""
        key = tuple(version_of_test(run) for run in (first, second))
        if key not in self.pairs:
            self.pairs[key] = comparison_of(first, second)
            while len(self.pairs) > KEPT_PAIRS:
                self.pairs.popitem(last=False)
        return self.pairs[key]


def charts_of_kind(config: Row) -> tuple[Row, ...]:
    """The charts that runs with such a config have numbers for."""
    return TUNING_CHARTS if is_tuning(config) else CHARTS


def version_of_test(run: RunFolder) -> tuple[object, ...]:
    """The run's test after training, and as which file it was read."""
    file = run.completion_file("after")
    status = file.stat() if file else None
    return (run.path, status and (status.st_mtime_ns, status.st_size, status.st_ino))
