"""The model card of a trained model: training, results, cost.

Every number comes from the run's files; a section without numbers is left out.
"""

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from aha.core.errors import RunError
from aha.export.use_section import example_of, example_section, use_section
from aha.model.folders import is_packaged, looks_like_hub_name, run_of
from aha.model.weights import LoadedModel
from aha.store.guarded_files import number
from aha.store.run_folder import Run, is_tuning


def model_card(run: Path, model: LoadedModel, form: str, base: str | None, name: str) -> str:
    """The text of README.md, front matter included.

    `run` is a run folder, a checkpoint of one, or a model folder; `form` is hf, adapter or gguf,
    `base` the base model's name, and `name` what the written model is loaded by.
    """
    summary = read_record(run, "summary.json")
    owner = run_of(run) or (run if summary else None)
    config = None if owner is None else read_record(owner, "config.json")
    tuned = is_tuning(config)
    parts = [front_matter(form, base, tuned), f"# {run.name}"]
    if summary:
        environment = read_record(run, "environment.json")
        try:
            parts += [introduction(model, form, base, config)]
            untested = tuned and not summary.get("before")
            parts += [] if untested else [evidence_section(summary)]
            parts += [] if tuned else form_section(config)
            parts += [cost_section(summary)]
            parts += [origin_section(summary, environment or {}), recipe_section(config or {})]
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise RunError(
                f"the records of {run} are damaged: {error!r:.200}",
                "summary.json, config.json and environment.json as the run wrote them",
                "copy them anew from where the run was made, or export its model folder alone",
            ) from error
    else:
        parts.append(introduction(model, form, base, config))
        parts.append("No run with a finished test belongs to this model: nothing was measured.")
        parts += [] if tuned else form_section(config)
    example = example_of(run)
    parts += [example_section(example)] if example else []
    parts.append(use_section(form, name, example, token_limit(config)))
    parts.append(licence_section(base))
    return "\n\n".join(parts) + "\n"


def read_record(run: Path, name: str) -> dict[str, Any] | None:
    """A JSON file of the run; None where it is missing. Raises `RunError` for a damaged one, and
    for one that leads out of the run: the card goes to other people."""
    return Run(run).read(name) if os.path.lexists(run / name) else None


def measured(value: object) -> float:
    """A number. Raises ValueError for what is none: a card has no nan."""
    known = number(value)
    if known is None:
        raise ValueError(f"{value!r:.60} in place of a number")
    return known


def token_limit(config: dict[str, Any] | None) -> int | None:
    """The limit of a completion in training; None where the run has none."""
    rollout = (config or {}).get("rollout")
    limit = number(rollout.get("max_new_tokens")) if isinstance(rollout, dict) else None
    return None if limit is None else int(limit)


def licence_section(base: str | None) -> str:
    """Which licence the weights have, as far as it is known here."""
    if base and is_packaged(base):
        return f"## Licence\nApache-2.0, as that of {base}, from which it was trained."
    if base and looks_like_hub_name(base):
        return f"## Licence\nThe weights are made from {base}: its licence holds for them."
    return "## Licence\nThat of the base model, which is not known here."


def front_matter(form: str, base: str | None, tuned: bool = False) -> str:
    """The metadata for the hub; a licence only where that of the base model is known."""
    names = {"hf": "transformers", "adapter": "peft", "gguf": "gguf"}
    method = "supervised-fine-tuning" if tuned else "reinforcement-learning"
    lines = [f"library_name: {names[form]}", f"tags: [{method}, reasoning, aha]"]
    if base and looks_like_hub_name(base):
        lines.append(f"base_model: {base}")
    if base and is_packaged(base):
        lines.append("license: apache-2.0")
    return "\n".join(["---", *lines, "---"])


def introduction(
    model: LoadedModel, form: str, base: str | None, config: dict[str, Any] | None
) -> str:
    """One sentence: size, architecture, base model and task."""
    shape = model.policy.config
    size = f"{model.policy.num_parameters() / 1e6:.2f} million parameters"
    what = "An adapter (LoRA) for a model" if form == "adapter" else "A model"
    text = f"{what} of {size}, architecture {shape.architecture}"
    if base:
        text += f", trained from {Path(base).name if base.startswith('/') else base}"
    if is_tuning(config):
        pairs = config is not None and config["kind"] == "prefer"
        text += " by learning from preference pairs" if pairs else " by supervised fine-tuning"
        text += "" if pairs else " on examples"
    elif isinstance(task := (config or {}).get("task"), dict):
        text += f" with reinforcement learning on the task {task.get('name')}"
    return text + "."


def evidence_section(summary: dict[str, Any]) -> str:
    """The held-out tests before and after training, from the run's summary."""
    before, after = summary.get("before"), summary.get("after")
    if not before or not after:
        return "## Evidence\nThe run was made without the held-out test (eval.final 0)."
    rows = ["| held-out problems | before | after |", "|---|---|---|"]

    def add_row(name: str, as_text: Callable[[dict[str, Any]], str]) -> None:
        rows.append(f"| {name} | {as_text(before)} | {as_text(after)} |")

    add_row("solve rate, 95 % interval", rate_with_interval)
    add_row("tokens of a completion", lambda report: f"{measured(report['mean_tokens']):.0f}")
    add_row("truncated at the limit", lambda report: f"{measured(report['truncated']):.1%}")
    for key, name in (("line_accuracy", "lines right"), ("verdict_truth", "checks that are true")):
        if all(number(report["behaviors"].get(key)) is not None for report in (before, after)):
            add_row(name, partial(behavior_text, key))
    problems = before["problems"]
    return (
        "## Evidence\n"
        f"The same {problems} problems before and after, none of them in training, one completion "
        "each at temperature 1; one seed.\n\n" + "\n".join(rows)
    )


def form_section(config: dict[str, Any] | None) -> list[str]:
    """How the model was asked, by the run's config; nothing where that has no task. Asked in
    another form, it does not do what the evidence says. The prompt itself: `example_section`."""
    task = (config or {}).get("task")
    if not isinstance(task, dict):
        return []
    options = task.get("options") or {}
    template, name = task.get("template", "plain"), task.get("name")
    text = f"## How it was asked\nThe template `{template}` of the task {name}"
    text += f", with {json.dumps(options)}" if options else ""
    return [f"{text}."]


def rate_with_interval(report: dict[str, Any]) -> str:
    """`0.842 [0.818, 0.863]`."""
    low, high = map(measured, report["interval"])
    return f"{measured(report['solve_rate']):.3f} [{low:.3f}, {high:.3f}]"


def behavior_text(key: str, report: dict[str, Any]) -> str:
    """A behaviour's share in per cent."""
    return f"{report['behaviors'][key]:.1%}"


def cost_section(summary: dict[str, Any]) -> str:
    """Time, money and energy of the run, and the base model's price."""
    text = (
        f"## Cost\n{measured(summary['wall_s']) / 60:.1f} minutes{with_tests(summary)}, "
        f"${measured(summary['cost_usd']):.4f} and {1000 * measured(summary['kwh']):.1f} Wh at the "
        "price and the power that the recipe names."
    )
    if summary.get("base_cost_usd") is not None:
        text += f" The base model, once for everybody: ${measured(summary['base_cost_usd']):.2f}."
    elif "base_cost_usd" in summary:
        text += " The pre-training of the base model, by its makers, is not in this."
    return text


def with_tests(summary: dict[str, Any]) -> str:
    """A fine-tuning has no tests of its own."""
    return "" if "examples" in summary else " with both tests"


def origin_section(summary: dict[str, Any], environment: dict[str, Any]) -> str:
    """Steps, seed, commit, machine and versions."""
    packages = environment.get("packages") or {}
    versions = ", ".join(f"{name} {version}" for name, version in packages.items() if version)
    return (
        f"## Made with\n{summary['steps']} steps, seed {summary['seed']}, commit "
        f"{summary.get('commit') or 'unknown'}, on {environment.get('machine', 'a machine')}; "
        f"{versions or 'versions unknown'}."
    )


def recipe_section(config: dict[str, Any]) -> str:
    """The run's config."""
    return (
        "## Recipe\nEvery setting, as the run resolved it:\n\n```json\n"
        + json.dumps(config, indent=1)
        + "\n```"
    )
