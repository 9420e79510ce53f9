"""The results of a lab as lab.json and as one HTML file: table, curves, verdicts; no script."""

import json
from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined, Template

import aha
from aha.core.control_characters import visible
from aha.store.durable import to_json, write_text
from aha.store.run_folder import environment
from aha.studies.method_lab import PlannedRun
from aha.studies.study_page import line_styles
from aha.studies.verdicts import (
    EvalPoint,
    RecipeResult,
    RecipeVerdict,
    as_json,
    results_by_recipe,
    verdicts,
)
from aha.web.svg_curves import Figure, Line, Point, short


def finished_results(planned: list[PlannedRun]) -> list[RecipeResult]:
    """The results of the runs that are done."""
    return results_by_recipe([(p.recipe, p.cfg.seed, p.run) for p in planned if p.done])


def write_results(planned: list[PlannedRun], out: Path, failed: Mapping[str, str]) -> None:
    """Write lab.json and lab.html with the results so far; `failed`: the error of each run that one
    has ended."""
    results, cfg, machine = finished_results(planned), planned[0].cfg, environment()
    base = json.loads((out / "base.json").read_text(encoding="utf-8"))
    content = as_json(results, cfg.tokens) | {
        "planned": [planned_run.run.name for planned_run in planned],
        "failed": dict(failed),
        "base": {"model": cfg.model.path, "pass_at_k": base["pass_at_k"]},
        "task": cfg.task.model_dump(mode="json", exclude={"format_reward"}),
        "environment": machine,
    }
    write_text(out / "lab.json", to_json(content, indent=1) + "\n")
    sizes, limit = " or ".join(map(str, cfg.task.numbers)), cfg.rollout.max_new_tokens
    passed = ", ".join(f"pass@{k} {rate:.3f}" for k, rate in base["pass_at_k"].items())
    about = [
        f"{cfg.model.path} on {cfg.task.name}, {sizes} numbers; at most {limit} tokens a "
        f"completion; {cfg.tokens or 'no limit of'} completion tokens a run",
        f"the base: {passed}, of {base['completions'] // base['problems']} completions of "
        f"{base['problems']} problems",
        f"{machine['machine']}, {machine['cores']} cores, commit {machine['commit']}",
    ]
    about += [f"the run {name} failed: {error}" for name, error in failed.items()]
    page = lab_html(results, cfg.tokens, len(planned), about)
    (out / "lab.html").write_bytes(page.encode("utf-8", "replace"))


def lab_html(results: list[RecipeResult], tokens: int, planned: int, about: list[str]) -> str:
    """The page.

    `tokens` is the budget of a run, `planned` the number of runs, `about` lines of text on base,
    problems, budget and machine.
    """
    by_recipe, notes = verdicts(results, tokens)
    finished = sum(len(result.seeds) for result in results)
    if finished < planned:
        notes.insert(0, f"{finished} of {planned} runs are done")
    content = {
        "version": aha.__version__,
        "about": [visible(line) for line in about],
        "notes": [visible(note) for note in notes],
        "header": HEADER,
        "rows": [[visible(cell) for cell in row] for row in table(results, by_recipe)],
        "overview": [figure for figure in overview(results) if not figure.empty],
        "single": [single_figure(result) for result in results],
        "styles": line_styles(max(len(results), *(len(result.seeds) for result in results), 0)),
    }
    return template().render(content)


@cache
def template() -> Template:
    """The page's template; it escapes all text."""
    text = (files("aha.studies") / "lab.html.j2").read_text(encoding="utf-8")
    return Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(
        text
    )


# -- the table ---------------------------------------------------------------------------------

HEADER = (
    *("recipe", "seeds", "solved before", "solved after, 95 %", "pass@4", "pass@16", "tokens"),
    *("truncated", "entropy", "spent", "training", "verdict"),
)


def table(results: list[RecipeResult], by_recipe: dict[str, RecipeVerdict]) -> list[list[str]]:
    """One row for each recipe, with the columns of HEADER; "-" for a value that is not known."""
    rows = []
    for result in results:
        minutes, seconds = divmod(round(result.seconds), 60)
        entropies = [point.entropy for point in result.points if point.entropy is not None]
        rows.append(
            [
                result.recipe,
                str(len(result.seeds)),
                f"{result.start.solve_rate:.3f}",
                rate_with_interval(result.end),
                *(pass_rate_text(result, k) for k in ("4", "16")),
                f"{result.end.mean_tokens:.0f}",
                f"{result.truncated:.1%}",
                f"{entropies[-1]:.3f}" if entropies else "-",
                short(sum(result.spent) / len(result.spent)),
                f"{minutes}:{seconds:02d}",
                verdict_text(by_recipe.get(result.recipe)),
            ]
        )
    return rows


def rate_with_interval(point: EvalPoint) -> str:
    """`0.842 [0.818, 0.863]`."""
    low, high = point.interval
    return f"{point.solve_rate:.3f} [{low:.3f}, {high:.3f}]"


def pass_rate_text(result: RecipeResult, k: str) -> str:
    """pass@k, or - where it was not measured."""
    return f"{result.pass_at_k[k]:.3f}" if k in result.pass_at_k else "-"


def verdict_text(verdict: RecipeVerdict | None) -> str:
    """A verdict as text, - for none."""
    if verdict is None:
        return "-"
    return (
        f"{verdict.change}; above {', '.join(verdict.above)}" if verdict.above else verdict.change
    )


# -- the curves --------------------------------------------------------------------------------


def overview(results: list[RecipeResult]) -> list[Figure]:
    """Figures with a line for each recipe, against tokens: solve rate, length, entropy."""

    def lines(value_of: Callable[[EvalPoint], float | None]) -> list[Line]:
        return [
            Line(r.recipe, [point.tokens for point in r.points], list(map(value_of, r.points)))
            for r in results
        ]

    return [
        Figure("Solve rate", lines(lambda point: point.solve_rate), rate=True, note="held-out"),
        Figure("Tokens of a completion", lines(lambda point: point.mean_tokens), note="held-out"),
        Figure("Entropy, nats a token", lines(lambda point: point.entropy), note="in training"),
    ]


def single_figure(result: RecipeResult) -> Figure:
    """One recipe: a line for each seed, and the mean with its interval."""
    tokens = [point.tokens for point in result.points]
    seeds = [
        Line(f"seed {seed}", tokens, [point.rates[index] for point in result.points])
        for index, seed in enumerate(result.seeds)
    ]
    means = [Point(point.tokens, point.solve_rate, *point.interval) for point in result.points]
    return Figure(result.recipe, seeds, means, rate=True)
