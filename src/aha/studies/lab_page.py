"""The lab as lab.json and as one HTML file: table, curves with intervals, verdicts; no script."""

import json
from functools import cache
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined

import aha
from aha.store.run_folder import environment
from aha.studies.method_lab import PlannedRun
from aha.studies.verdicts import (
    EvalPoint,
    RecipeResult,
    RecipeVerdict,
    as_json,
    results_by_recipe,
    verdicts,
)
from aha.web.event_spans import visible
from aha.web.svg_curves import Figure, Line, Point, short

# Told apart by those who see few colours as well: beyond the sixth, the lines are dashed.
COLOURS = ("#22577a", "#c2410c", "#2b7044", "#6a47a3", "#8a5a00", "#0f8b8d")


def finished_results(planned: list[PlannedRun]) -> list[RecipeResult]:
    return results_by_recipe([(one.recipe, one.cfg.seed, one.run) for one in planned if one.done])


def write_results(planned: list[PlannedRun], out: Path) -> None:
    """lab.json and lab.html as things stand."""
    results, cfg, machine = finished_results(planned), planned[0].cfg, environment()
    base = json.loads((out / "base.json").read_text(encoding="utf-8"))
    content = as_json(results, cfg.tokens) | {
        "planned": [one.run.name for one in planned],
        "base": {"model": cfg.model.path, "pass_at_k": base["pass_at_k"]},
        "task": cfg.task.model_dump(mode="json", exclude={"format_reward"}),
        "environment": machine,
    }
    (out / "lab.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    sizes, limit = " or ".join(map(str, cfg.task.numbers)), cfg.rollout.max_new_tokens
    passed = ", ".join(f"pass@{k} {rate:.3f}" for k, rate in base["pass_at_k"].items())
    about = [
        f"{cfg.model.path} on {cfg.task.name}, {sizes} numbers; at most {limit} tokens a "
        f"completion; {cfg.tokens or 'no limit of'} completion tokens a run",
        f"the base: {passed}, of {base['completions'] // base['problems']} completions of "
        f"{base['problems']} problems",
        f"{machine['machine']}, {machine['cores']} cores, commit {machine['commit']}",
    ]
    page = lab_html(results, cfg.tokens, len(planned), about)
    (out / "lab.html").write_bytes(page.encode("utf-8", "replace"))


def lab_html(results: list[RecipeResult], tokens: int, planned: int, about: list[str]) -> str:
    """The page; `about` are lines on base, problems, budget and machine."""
    found, notes = verdicts(results, tokens)
    finished = sum(len(one.seeds) for one in results)
    if finished < planned:
        notes.insert(0, f"{finished} of {planned} runs are done")
    content = {
        "version": aha.__version__,
        "about": [visible(line) for line in about],
        "notes": [visible(note) for note in notes],
        "header": HEADER,
        "rows": [[visible(cell) for cell in row] for row in table(results, found)],
        "overview": [figure for figure in overview(results) if not figure.empty],
        "single": [alone(one) for one in results],
        "styles": [
            (place, COLOURS[place % len(COLOURS)], place >= len(COLOURS))
            for place in range(max(len(results), *(len(one.seeds) for one in results), 0))
        ],
    }
    return template().render(content)


@cache
def template():
    text = (files("aha.studies") / "lab.html.j2").read_text(encoding="utf-8")
    return Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(
        text
    )


# -- the table -------------------------------------------------------------------------------

HEADER = (
    *("recipe", "seeds", "solved before", "solved after, 95 %", "pass@4", "pass@16", "tokens"),
    *("cut off", "entropy", "spent", "training", "verdict"),
)


def table(results: list[RecipeResult], found: dict[str, RecipeVerdict]) -> list[list[str]]:
    """One row a recipe, in the order of HEADER; - where a thing is not known."""
    rows = []
    for one in results:
        minutes, seconds = divmod(round(one.seconds), 60)
        entropies = [look.entropy for look in one.looks if look.entropy is not None]
        rows.append(
            [
                one.recipe,
                str(len(one.seeds)),
                f"{one.start.solve_rate:.3f}",
                rate_of(one.end),
                *(passed(one, k) for k in ("4", "16")),
                f"{one.end.mean_tokens:.0f}",
                f"{one.truncated:.1%}",
                f"{entropies[-1]:.3f}" if entropies else "-",
                short(sum(one.spent) / len(one.spent)),
                f"{minutes}:{seconds:02d}",
                words(found.get(one.recipe)),
            ]
        )
    return rows


def rate_of(look: EvalPoint) -> str:
    low, high = look.interval
    return f"{look.solve_rate:.3f} [{low:.3f}, {high:.3f}]"


def passed(one: RecipeResult, k: str) -> str:
    return f"{one.pass_at_k[k]:.3f}" if k in one.pass_at_k else "-"


def words(verdict: RecipeVerdict | None) -> str:
    """A verdict for a reader."""
    if verdict is None:
        return "-"
    return (
        f"{verdict.change}; above {', '.join(verdict.above)}" if verdict.above else verdict.change
    )


# -- the curves ------------------------------------------------------------------------------


def overview(results: list[RecipeResult]) -> list[Figure]:
    """All recipes in one picture each: solve rate, length, entropy, against tokens."""

    def lines(value_of) -> list[Line]:
        return [
            Line(one.recipe, [look.tokens for look in one.looks], list(map(value_of, one.looks)))
            for one in results
        ]

    return [
        Figure("Solve rate", lines(lambda look: look.solve_rate), rate=True, note="held-out"),
        Figure("Tokens of a completion", lines(lambda look: look.mean_tokens), note="held-out"),
        Figure("Entropy, nats a token", lines(lambda look: look.entropy), note="in training"),
    ]


def alone(one: RecipeResult) -> Figure:
    """One recipe: a line for each seed, and the mean with its interval."""
    tokens = [look.tokens for look in one.looks]
    seeds = [
        Line(f"seed {seed}", tokens, [look.rates[place] for look in one.looks])
        for place, seed in enumerate(one.seeds)
    ]
    points = [Point(look.tokens, look.solve_rate, *look.interval) for look in one.looks]
    return Figure(one.recipe, seeds, points, rate=True)
