"""Runs that differ in the seed alone, as one curve: the mean over them, from the lowest to the
highest."""

from collections.abc import Sequence

from aha.store.guarded_files import Row
from aha.web.curves import AXES, MAX_POINTS, Column, Curves, thin
from aha.web.run_comparison import config_differences


def seed_groups(configs: Sequence[Row]) -> list[list[int]]:
    """The places of the runs whose settings are equal but for the seed, in groups of two or more; a
    run without a config belongs to none."""
    groups: list[list[int]] = []
    for place, config in enumerate(configs):
        for group in groups:
            differences = config_differences(configs[group[0]], config)
            if config and all(key == "seed" for key, _, _ in differences):
                group.append(place)
                break
        else:
            groups.append([place])
    return [group for group in groups if len(group) > 1]


def band_of(
    runs: Sequence[Curves], names: Sequence[str], points: int = MAX_POINTS
) -> dict[str, dict[str, Column]]:
    """{name: {step, total_tokens, elapsed_s, value, low, high}} of the steps that all runs have.

    `value` and the axes are means over the runs. A step at which one of them has no number is a
    gap: a mean over fewer seeds would jump.
    """
    tables = [curves.columns_of((*AXES, *names)) for curves in runs]
    rows = [{step: row for row, step in enumerate(table.get("step", []))} for table in tables]
    shared = sorted(step for step in rows[0] if step is not None and all(step in r for r in rows))
    places = [[run[step] for run in rows] for step in shared]

    def values_at(name: str) -> list[list[float] | None]:
        """The numbers of all runs at each shared step; None where one is missing."""
        columns = [table.get(name) for table in tables]
        if any(column is None for column in columns):
            return [None] * len(places)
        picked = [
            [column[row] for column, row in zip(columns, at, strict=True) if column]
            for at in places
        ]
        return [
            known if len(known := [v for v in row if v is not None]) == len(tables) else None
            for row in picked
        ]

    axes = {axis: [mean(values) for values in values_at(axis)] for axis in AXES}
    bands = {}
    for name in names:
        numbers = values_at(name)
        middle = [mean(values) for values in numbers]
        if all(value is None for value in middle):
            continue
        kept = thin(middle, points)
        ends = {"low": min, "high": max}
        bands[name] = (
            {axis: [column[row] for row in kept] for axis, column in axes.items()}
            | {"value": [middle[row] for row in kept]}
            | {
                end: [None if (at := numbers[row]) is None else pick(at) for row in kept]
                for end, pick in ends.items()
            }
        )
    return bands


def mean(values: list[float] | None) -> float | None:
    return None if values is None else sum(values) / len(values)
