"""`aha sft`: fine-tunes a model on examples."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from aha.api.recipe_names import new_run_path
from aha.cli.own_command import as_typed_here, own_command
from aha.cli.parameters import (
    AT_LEAST_0,
    AT_LEAST_1,
    Budget,
    DryRun,
    ModelName,
    UsdPerHour,
    Watts,
    whole,
)
from aha.cli.terminal_text import say, say_json
from aha.core.errors import ConfigError

TuningName = Annotated[
    str | None, Parameter(help="Name of the run folder in runs/; without it, sft, numbered.")
]
Examples = Annotated[
    str,
    Parameter(
        name=("--data", "--task.data"),
        help="Examples as JSON lines or Parquet: prompt and completion, messages, or ShareGPT's "
        "conversations.",
    ),
]
RowRule = Annotated[
    Literal["drop", "refuse"],
    Parameter(
        name=("--bad-rows", "--task.bad_rows"),
        help="Rule for rows that cannot be used: drop and count them, or refuse the file.",
    ),
]
Seed = Annotated[int, Parameter(converter=whole, help="Seed of the examples' order.")]
Epochs = Annotated[
    int, Parameter(converter=whole, validator=AT_LEAST_1, help="How often each example is learnt.")
]
OfUpdate = Annotated[
    int, Parameter(converter=whole, validator=AT_LEAST_1, help="Examples of an update.")
]
MaxTokens = Annotated[
    int,
    Parameter(
        converter=whole,
        validator=AT_LEAST_0,
        help="Longest example, prompt included; longer ones are dropped and counted. 0: what the "
        "model can read.",
    ),
]
CheckpointEvery = Annotated[
    int,
    Parameter(
        converter=whole,
        validator=AT_LEAST_0,
        help="Steps between checkpoints; 0: at the end alone.",
    ),
]


def recipe_key(key: str, meaning: str) -> Parameter:
    """An option for a key of a recipe, under its short name and under its full one: messages about
    model and optimiser use that. Not given, the key has its default."""
    short = key.split(".")[1].replace("_", "-")
    return Parameter(name=(f"--{short}", f"--{key}"), help=meaning)


Lr = Annotated[
    float | None,
    recipe_key(
        "optim.lr",
        "Learning rate after the warm-up. Without it 1e-3 for models below 5 million parameters, "
        "2e-4 for adapters, else 1e-5; for pairs a twentieth of that.",
    ),
]
FinalLr = Annotated[
    float | None,
    recipe_key("optim.final_lr", "Share of lr at the last step, linear; 0.1 without it."),
]
Warmup = Annotated[
    float | None,
    recipe_key("optim.warmup", "Steps over which lr rises to its value; 5 without it."),
]
Decay = Annotated[
    float | None, recipe_key("optim.weight_decay", "Decoupled weight decay; 0 without it.")
]
MicroBatch = Annotated[
    float | None,
    recipe_key("optim.micro_batch_tokens", "Tokens computed at a time; 16,384 without it."),
]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16"] | None,
    recipe_key("optim.dtype", "Arithmetic; the weights that train stay float32."),
]
State = Annotated[
    Literal["device", "cpu", "8bit"] | None,
    recipe_key(
        "optim.state",
        "Where Adam's moments are; cpu: gradients and float32 weights too, in the machine's "
        "memory.",
    ),
]
Recompute = Annotated[
    Literal["true", "false"] | None,
    recipe_key("optim.recompute", "Compute activations again for gradients: slower, less memory."),
]
Rank = Annotated[
    float | None,
    recipe_key("model.lora_rank", "Rank of LoRA adapters that train instead of the weights."),
]
Alpha = Annotated[
    float | None,
    recipe_key("model.lora_alpha", "LoRA scale is alpha / rank; without it twice the rank."),
]
TunedOn = Annotated[
    Literal["auto", "cpu", "cuda", "mps"] | None,
    recipe_key("model.device", "auto: a GPU, except for models below 5 million parameters."),
]


def sft(
    base: ModelName,
    *,
    data: Examples,
    name: TuningName = None,
    epochs: Epochs = 3,
    examples: OfUpdate = 16,
    max_tokens: MaxTokens = 0,
    bad_rows: RowRule = "drop",
    seed: Seed = 0,
    lr: Lr = None,
    final_lr: FinalLr = None,
    warmup: Warmup = None,
    weight_decay: Decay = None,
    lora_rank: Rank = None,
    lora_alpha: Alpha = None,
    device: TunedOn = None,
    dtype: Dtype = None,
    state: State = None,
    recompute: Recompute = None,
    micro_batch_tokens: MicroBatch = None,
    checkpoint_every: CheckpointEvery = 100,
    budget: Budget = None,
    usd_per_hour: UsdPerHour = None,
    watts: Watts = None,
    dry_run: DryRun = False,
) -> None:
    """Fine-tune a model on examples: it learns the completions, and reads the prompts.

    The run is a folder in runs/, as one of `aha train`: `aha train --resume RUN` goes on with it,
    `aha eval RUN`, `aha export RUN` and `aha train RECIPE --model RUN` take its model.

    Parameters
    ----------
    dry_run
        Print the settings and what they take on a table of machines, and exit.
    """
    from aha.sft.tuning_config import tuning_config

    model = {"path": base, "device": device, "lora_rank": lora_rank, "lora_alpha": lora_alpha}
    optim: dict[str, Any] = {"lr": lr, "final_lr": final_lr}
    optim |= {"warmup": warmup, "weight_decay": weight_decay}
    optim |= {"dtype": dtype, "state": state, "recompute": recompute}
    optim |= {"micro_batch_tokens": micro_batch_tokens}
    settings: dict[str, Any] = {"data": data, "bad_rows": bad_rows, "epochs": epochs}
    settings |= {"examples": examples, "max_tokens": max_tokens, "seed": seed}
    settings |= {"checkpoint_every": checkpoint_every, "usd_per_hour": usd_per_hour}
    settings |= {"watts": watts, "model": model_keys(model), "optim": model_keys(optim)}
    cfg = tuning_config(settings)
    if dry_run:
        print_tuning_plan(cfg, budget)
        return
    path = new_run_path(name, "sft")
    from aha.sft.tuning_run import FineTuning

    say_tuning(FineTuning.start(cfg, path, say, budget))


def model_keys(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that were given; the others have their defaults."""
    return {key: value for key, value in settings.items() if value is not None}


def resume_tuning(path: Path, budget: str | None, accept: bool, changes: dict[str, Any]) -> None:
    """Go on with a stopped run of fine-tuning, from its newest whole checkpoint. Raises ConfigError
    for `changes` of its settings."""
    from aha.store.run_folder import resume_command

    if changes:
        raise ConfigError(
            f"{next(iter(changes))} for a fine-tuning that goes on",
            "the run as it was configured",
            resume_command(path),
        )
    from aha.sft.tuning_run import FineTuning

    tuning = FineTuning.resume(path, say, accept, budget)
    say(f"{path} resumes after step {tuning.trainer.version}")
    say_tuning(tuning)


def say_tuning(tuning: Any) -> None:
    """Carry a run out and print it, from the plan to the cost."""
    from aha.cli.run_in_terminal import exit_code
    from aha.plan.machines import money
    from aha.sft.tuning_plan import lines_of_plan

    cfg, examples = tuning.cfg, tuning.examples
    what = "pairs" if cfg.preference else "examples"
    say(
        f"{cfg.model.path} learns {len(examples.examples):,} {what} of "
        f"{examples.num_tokens / len(examples.examples):.0f} tokens, {cfg.epochs} times in "
        f"{cfg.steps:,} steps at {cfg.optim.lr:g}; all files are in {tuning.run.path}"
    )
    prediction = tuning.run.read_or_none("prediction.json")
    for line in lines_of_plan(prediction, tuning.budget_s):
        say(line)
    say(f"watch it in a browser: run `{own_command()} dash` in another terminal")
    every = max(1, cfg.steps // 20)
    say(f"{'step':>7} {'epoch':>6} {'loss':>8} {'gradient':>9} {'lr':>9} {'tokens/s':>9}")

    def on_row(row: dict[str, Any]) -> None:
        if row["step"] % every == 0 or row["step"] in (1, cfg.steps):
            say(
                f"{row['step']:>7} {row['epoch']:>6.2f} {row['loss']:>8.4f} "
                f"{row['grad_norm']:>9.3f} {row['lr']:>9.2e} {row['tokens_per_s']:>9,.0f}"
            )

    outcome = tuning.run_all(lambda text: say(as_typed_here(text)), on_row)
    if outcome.summary is None:
        sys.exit(exit_code(outcome))
    summary = outcome.summary
    say(
        f"{summary['seconds']:,.0f} s, {money(summary['cost_usd'])}, {1000 * summary['kwh']:.1f} Wh"
    )
    for parent in tuning.fingerprints["parents"]:
        usd = parent["cost_usd"]
        cost = "its cost is not known here" if usd is None else money(usd)
        say(f"  after {parent['name']} ({parent['kind']}): {cost}")
    test = f"{own_command()} eval {shlex.quote(str(tuning.run.path))}"
    say(f"the model is in {tuning.run.model}; {test} tests it")


def print_tuning_plan(cfg: Any, budget: str | None) -> None:
    """The settings as one object, and the plan on this machine and on all of the table; how far a
    budget goes on this one."""
    from aha.core.sizes import GB
    from aha.model.folders import resolve_model
    from aha.plan.machines import money
    from aha.sft.tuning_plan import lines_of_plan, plans_on_cards, tuning_prediction
    from aha.sft.tuning_run import open_run_parts
    from aha.training.preparation import seconds_of_budget

    opened = open_run_parts(cfg, resolve_model(cfg.model.path))
    say_json(opened.cfg.model_dump(mode="json"), indent=2)
    for note in opened.examples.notes:
        say(f"{note.level}: {note.message}")
    plan_of = (opened.cfg, opened.model, opened.examples)
    budget_s = seconds_of_budget(budget, opened.cfg.recipe)
    for line in lines_of_plan(tuning_prediction(*plan_of), budget_s):
        say(line)
    plans = plans_on_cards(*plan_of)
    if plans:
        say(f"\n{'machine':<18}{'GB':>5}{'needs':>8}{'fits':>6}{'hours':>9}{'price':>13}")
    for name, (card, plan) in plans.items():
        fits = "yes" if plan.fits(card) else "no"
        say(
            f"{name:<18}{card.memory:>5.0f}{plan.peak / GB:>8.2f}{fits:>6}"
            f"{plan.cost.seconds / 3600:>9.3f}{money(plan.cost.usd):>13}"
        )
