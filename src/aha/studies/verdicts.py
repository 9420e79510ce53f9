"""Results of a lab: means over seeds, intervals, and a verdict only where intervals do not overlap.

Reads the run folders of finished runs. An unfinished lab gives its results so far, and notes that
say why there is no verdict yet.
"""

from dataclasses import asdict, dataclass
from typing import Any

from aha.eval.statistics import over_seeds
from aha.store.run_folder import Run, read_rows
from aha.studies.judgement import compared, mean, too_few_seeds

# What an end is beside its start.
CHANGES = {"above": "learnt", "below": "worse", "no evidence": "no evidence"}


@dataclass(frozen=True)
class EvalPoint:
    """One evaluation of one recipe, at the same step of all its seeds."""

    tokens: float  # of completions generated so far, mean over seeds
    solve_rate: float  # held-out, mean over seeds
    interval: tuple[float, float]
    mean_tokens: float  # of a completion
    entropy: float | None
    rates: list[float]  # the solve rate of each seed


@dataclass(frozen=True)
class RecipeResult:
    """One recipe over its finished seeds."""

    recipe: str
    seeds: list[int]
    points: list[EvalPoint]  # the first is the test before training, the last the test after it
    spent: list[float]  # completion tokens that each seed has generated in training
    seconds: float  # of training, mean over seeds
    truncated: float  # share of the completions of the last test
    pass_at_k: dict[str, float]

    @property
    def start(self) -> EvalPoint:
        """The test before training."""
        return self.points[0]

    @property
    def end(self) -> EvalPoint:
        """The test after training."""
        return self.points[-1]


@dataclass(frozen=True)
class RecipeVerdict:
    """What the results allow to claim about a recipe.

    `change` compares the end with the start: learnt, worse or "no evidence". `above` has the
    recipes whose whole interval is below that of this recipe.
    """

    change: str
    above: list[str]


def recipe_result(recipe: str, runs: list[Run], seeds: list[int]) -> RecipeResult:
    """The result of a recipe from its finished runs, one for each seed."""
    before, after = ([run.read(f"{name}.json") for run in runs] for name in ("before", "after"))
    metrics = [{row["step"]: row for row in read_rows(run.metrics)} for run in runs]
    evals = [{row["step"]: row for row in read_rows(run.path / "evals.jsonl")} for run in runs]
    last = [rows[max(rows)] for rows in metrics]
    points = [eval_point(before, [{"generated": 0.0}] * len(runs))]
    # Seeds may need different numbers of steps for the same tokens: use the steps that all have.
    for step in sorted(set.intersection(*map(set, evals))):
        points.append(eval_point([rows[step] for rows in evals], [rows[step] for rows in metrics]))
    points.append(eval_point(after, last))
    passed = [run.read("pass_at_k.json")["pass_at_k"] for run in runs]
    return RecipeResult(
        recipe=recipe,
        seeds=seeds,
        points=points,
        spent=[row["generated"] for row in last],
        seconds=mean([row["elapsed_s"] for row in last]),
        truncated=mean([report["truncated"] for report in after]),
        pass_at_k={k: mean([rates[k] for rates in passed]) for k in shared_keys(passed)},
    )


def eval_point(reports: list[dict[str, Any]], rows: list[dict[str, Any]]) -> EvalPoint:
    """The mean of one evaluation: each seed's held-out report and metrics row of the same step."""
    rates = [report["solve_rate"] for report in reports]
    entropies = [row["entropy"] for row in rows if row.get("entropy") is not None]
    return EvalPoint(
        tokens=mean([row["generated"] for row in rows]),
        solve_rate=mean(rates),
        interval=over_seeds(rates, reports[0]["problems"]),
        mean_tokens=mean([report["mean_tokens"] for report in reports]),
        entropy=mean(entropies) if len(entropies) == len(rows) else None,
        rates=rates,
    )


def shared_keys(rows: list[dict[str, Any]]) -> list[str]:
    """The keys that every row has, in the order of the first: a mean over some of the seeds would
    pass for one over all."""
    return [key for key in rows[0] if all(key in row for row in rows)]


def verdicts(
    results: list[RecipeResult], tokens: int
) -> tuple[dict[str, RecipeVerdict], list[str]]:
    """(verdict by recipe, []), or ({}, the reasons why there is no verdict yet).

    `tokens` is the budget of a run; 0 means that there was none, and then there is no verdict.
    """
    notes = too_few_seeds({result.recipe: len(result.seeds) for result in results})
    if results and not tokens:
        notes.append("no token budget: one run may have generated more than another")
    elif unspent := [r.recipe for r in results if min(r.spent) < tokens]:
        notes.append(f"ended before the token budget was spent: {', '.join(unspent)}")
    if notes or not results:
        return {}, notes
    by_recipe = {}
    for result in results:
        end = result.end.interval
        above = [other.recipe for other in results if compared(end, other.end.interval) == "above"]
        change = CHANGES[compared(end, result.start.interval)]
        by_recipe[result.recipe] = RecipeVerdict(change, above)
    return by_recipe, notes


def as_json(results: list[RecipeResult], tokens: int) -> dict[str, Any]:
    """The results and verdicts of a lab as in lab.json."""
    by_recipe, notes = verdicts(results, tokens)
    rows = []
    for result in results:
        row = asdict(result)
        row["looks"] = row.pop("points")  # the name of older lab.json files
        verdict = by_recipe.get(result.recipe)
        rows.append(row | {"verdict": asdict(verdict) if verdict else None})
    return {"budget_tokens": tokens, "notes": notes, "recipes": rows}


def results_by_recipe(done: list[tuple[str, int, Run]]) -> list[RecipeResult]:
    """The results of finished runs, given as (recipe, seed, run); recipes in the given order."""
    runs: dict[str, list[tuple[int, Run]]] = {}
    for recipe, seed, run in done:
        runs.setdefault(recipe, []).append((seed, run))
    return [
        recipe_result(recipe, [run for _, run in seeded], [seed for seed, _ in seeded])
        for recipe, seeded in runs.items()
    ]
