"""What a lab's runs have found: means over seeds, intervals, and a verdict only where they part.

Reads run folders as their files say; a lab of which only a part is done gives a part, and says so.
"""

from dataclasses import asdict, dataclass

from aha.eval.statistics import over_seeds
from aha.store.jsonl import read_rows
from aha.store.run_folder import Run

SEEDS_FOR_A_VERDICT = 3


@dataclass(frozen=True)
class EvalPoint:
    """The held-out solve rate of one recipe at one moment, over its seeds."""

    tokens: float  # of completions so far, mean over seeds
    solve_rate: float
    interval: tuple[float, float]
    mean_tokens: float  # of a completion
    entropy: float | None
    rates: list[float]  # of each seed


@dataclass(frozen=True)
class RecipeResult:
    """One recipe over its finished seeds."""

    recipe: str
    seeds: list[int]
    looks: list[EvalPoint]  # the first is the base's test, the last the trained models'
    spent: list[float]  # completion tokens of each seed
    seconds: float  # of training, mean
    truncated: float
    pass_at_k: dict[str, float]

    @property
    def start(self) -> EvalPoint:
        return self.looks[0]

    @property
    def end(self) -> EvalPoint:
        return self.looks[-1]


@dataclass(frozen=True)
class RecipeVerdict:
    """What may be claimed: `change` from the base, and the recipes that lie wholly below."""

    change: str
    above: list[str]


def recipe_result(recipe: str, runs: list[Run], seeds: list[int]) -> RecipeResult:
    """All that the finished runs of a recipe say together."""
    before, after = ([run.read(f"{name}.json") for run in runs] for name in ("before", "after"))
    metrics = [{row["step"]: row for row in read_rows(run.metrics)} for run in runs]
    evals = [{row["step"]: row for row in read_rows(run.path / "evals.jsonl")} for run in runs]
    last = [rows[max(rows)] for rows in metrics]
    looks = [look(before, [{"generated": 0.0}] * len(runs))]
    # A seed may need a step more than another for the same tokens: only what all have is a mean.
    for step in sorted(set.intersection(*map(set, evals))):
        looks.append(look([rows[step] for rows in evals], [rows[step] for rows in metrics]))
    looks.append(look(after, last))
    passed = [run.read("pass_at_k.json")["pass_at_k"] for run in runs]
    return RecipeResult(
        recipe,
        seeds,
        looks,
        [row["generated"] for row in last],
        mean([row["elapsed_s"] for row in last]),
        mean([report["truncated"] for report in after]),
        {k: mean([one[k] for one in passed]) for k in passed[0]},
    )


def look(reports: list[dict], rows: list[dict]) -> EvalPoint:
    """One moment of all seeds: held-out reports with the metric rows of the same steps."""
    rates = [report["solve_rate"] for report in reports]
    entropies = [row["entropy"] for row in rows if row.get("entropy") is not None]
    return EvalPoint(
        mean([row["generated"] for row in rows]),
        mean(rates),
        over_seeds(rates, reports[0]["problems"]),
        mean([report["mean_tokens"] for report in reports]),
        mean(entropies) if len(entropies) == len(rows) else None,
        rates,
    )


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def verdicts(
    results: list[RecipeResult], tokens: int
) -> tuple[dict[str, RecipeVerdict], list[str]]:
    """A verdict for each recipe, or none at all with the reasons why not."""
    notes = []
    if fewest := [f.recipe for f in results if len(f.seeds) < SEEDS_FOR_A_VERDICT]:
        notes.append(f"fewer than {SEEDS_FOR_A_VERDICT} finished seeds: {', '.join(fewest)}")
    if short := [f.recipe for f in results if not tokens or min(f.spent) < tokens]:
        notes.append(f"ended before the token budget was spent: {', '.join(short)}")
    if notes or not results:
        return {}, notes
    found = {}
    for one in results:
        low, high = one.end.interval
        above = [f.recipe for f in results if f.end.interval[1] < low]
        start_low, start_high = one.start.interval
        change = "learnt" if low > start_high else "worse" if high < start_low else "no evidence"
        found[one.recipe] = RecipeVerdict(change, above)
    return found, notes


def as_json(results: list[RecipeResult], tokens: int) -> dict:
    """The lab's numbers as a JSON object."""
    found, notes = verdicts(results, tokens)
    rows = [
        asdict(one) | {"verdict": asdict(found[one.recipe]) if one.recipe in found else None}
        for one in results
    ]
    return {"budget_tokens": tokens, "notes": notes, "recipes": rows}


def results_by_recipe(done: list[tuple[str, int, Run]]) -> list[RecipeResult]:
    """Findings of (recipe, seed, run) that are done, recipes in the order given."""
    runs: dict[str, list[tuple[int, Run]]] = {}
    for recipe, seed, run in done:
        runs.setdefault(recipe, []).append((seed, run))
    return [
        recipe_result(recipe, [run for _, run in ours], [seed for seed, _ in ours])
        for recipe, ours in runs.items()
    ]
