"""The model card of a trained model: what it was trained on, what that did, and what it cost.

Every number is read from the run's own files; what a run did not measure is not said.
"""

import json
from pathlib import Path

from aha.model.hub import looks_like_hub_name
from aha.model.weights import LoadedModel

USE = {
    "hf": """from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained(FOLDER)
tokenizer = AutoTokenizer.from_pretrained(FOLDER)""",
    "adapter": """from peft import AutoPeftModelForCausalLM

model = AutoPeftModelForCausalLM.from_pretrained(FOLDER)""",
    "gguf": "llama-cli -m model.gguf -p PROMPT",
}


def model_card(run: Path, model: LoadedModel, form: str, base: str | None) -> str:
    """The text of README.md, front matter included."""
    config, summary, environment = (
        read(run / name) for name in ("config.json", "summary.json", "environment.json")
    )
    parts = [
        front_matter(form, base),
        f"# {run.name}",
        opening(model, form, base, config if summary is not None else None),
    ]
    if summary:
        parts += [evidence(summary), price(summary)]
        parts += [origin(summary, environment or {}), recipe(config or {})]
    else:
        parts.append("No run with a finished test belongs to this model: nothing was measured.")
    parts.append(f"## Use\n```\n{USE[form]}\n```")
    return "\n\n".join(parts) + "\n"


def read(path: Path) -> dict | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def front_matter(form: str, base: str | None) -> str:
    """What the hub reads. No licence: that is the base model's, and its owner's to say."""
    names = {"hf": "transformers", "adapter": "peft", "gguf": "gguf"}
    lines = [f"library_name: {names[form]}", "tags: [reinforcement-learning, reasoning, aha]"]
    if base and looks_like_hub_name(base):
        lines.append(f"base_model: {base}")
    return "\n".join(["---", *lines, "---"])


def opening(model: LoadedModel, form: str, base: str | None, config: dict | None) -> str:
    shape = model.policy.config
    size = f"{model.policy.num_parameters() / 1e6:.2f} million parameters"
    what = "An adapter (LoRA) for a model" if form == "adapter" else "A model"
    text = f"{what} of {size}, architecture {shape.architecture}"
    if base:
        text += f", trained from {Path(base).name if base.startswith('/') else base}"
    if config and config.get("task"):
        text += f" with reinforcement learning on the task {config['task']['name']}"
    return text + "."


def evidence(summary: dict) -> str:
    """Held-out results before and after, as the run's own evaluations counted them."""
    both = [summary.get("before"), summary.get("after")]
    if not all(both):
        return "## Evidence\nThe run was made without the held-out test (eval.final 0)."
    rows = ["| held-out problems | before | after |", "|---|---|---|"]

    def row(name: str, show) -> None:
        rows.append(f"| {name} | {show(both[0])} | {show(both[1])} |")

    row("solve rate, 95 % interval", rate_of)
    row("tokens of a completion", lambda found: f"{found['mean_tokens']:.0f}")
    row("cut off at the limit", lambda found: f"{found['truncated']:.1%}")
    for key, name in (("line_accuracy", "lines right"), ("verdict_truth", "checks that are true")):
        if all(key in found["behaviors"] for found in both):
            row(name, lambda found, key=key: f"{found['behaviors'][key]:.1%}")
    problems = both[0]["problems"]
    return (
        "## Evidence\n"
        f"The same {problems} problems before and after, none of them in training, one completion "
        "each at temperature 1; one seed.\n\n" + "\n".join(rows)
    )


def rate_of(found: dict) -> str:
    low, high = found["interval"]
    return f"{found['solve_rate']:.3f} [{low:.3f}, {high:.3f}]"


def price(summary: dict) -> str:
    text = (
        f"## Cost\n{summary['wall_s'] / 60:.1f} minutes with both tests, "
        f"${summary['cost_usd']:.4f} and {1000 * summary['kwh']:.1f} Wh at the price and the power "
        "that the recipe names."
    )
    if summary.get("base_cost_usd") is not None:
        text += f" The base model, once for everybody: ${summary['base_cost_usd']:.2f}."
    return text


def origin(summary: dict, environment: dict) -> str:
    packages = environment.get("packages") or {}
    versions = ", ".join(f"{name} {found}" for name, found in packages.items() if found)
    return (
        f"## Made with\n{summary['steps']} steps, seed {summary['seed']}, commit "
        f"{summary.get('commit') or 'unknown'}, on {environment.get('machine', 'a machine')}; "
        f"{versions or 'versions unknown'}."
    )


def recipe(config: dict) -> str:
    return (
        "## Recipe\nEvery setting, as the run resolved it:\n\n```json\n"
        + json.dumps(config, indent=1)
        + "\n```"
    )
