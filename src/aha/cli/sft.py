"""`aha sft`: fine-tunes a model on examples."""

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from aha.api.recipe_names import new_run_path
from aha.cli.own_command import as_typed_here, own_command
from aha.cli.parameters import (
    Budget,
    Count,
    DryRun,
    ModelName,
    Natural,
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
# Under the names of a recipe too: messages about model and optimiser use those.
Lr = Annotated[float | None, Parameter(name=("--lr", "--optim.lr"))]
FinalLr = Annotated[float | None, Parameter(name=("--final-lr", "--optim.final_lr"))]
Warmup = Annotated[int | None, Parameter(name=("--warmup", "--optim.warmup"), converter=whole)]
Decay = Annotated[float | None, Parameter(name=("--weight-decay", "--optim.weight_decay"))]
MicroBatch = Annotated[
    int | None,
    Parameter(name=("--micro-batch-tokens", "--optim.micro_batch_tokens"), converter=whole),
]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16"] | None, Parameter(name=("--dtype", "--optim.dtype"))
]
State = Annotated[
    Literal["device", "cpu", "8bit"] | None, Parameter(name=("--optim-state", "--optim.state"))
]
Recompute = Annotated[
    Literal["true", "false"] | None, Parameter(name=("--recompute", "--optim.recompute"))
]
Rank = Annotated[int | None, Parameter(name=("--lora-rank", "--model.lora_rank"), converter=whole)]
Alpha = Annotated[float | None, Parameter(name=("--lora-alpha", "--model.lora_alpha"))]
TunedOn = Annotated[
    Literal["auto", "cpu", "cuda", "mps"] | None, Parameter(name=("--device", "--model.device"))
]


def sft(
    base: ModelName,
    *,
    data: Examples,
    name: TuningName = None,
    epochs: Count = 3,
    examples: Count = 16,
    max_tokens: Natural = 0,
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
    optim_state: State = None,
    recompute: Recompute = None,
    micro_batch_tokens: MicroBatch = None,
    checkpoint_every: Natural = 100,
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
    epochs
        How often each example is learnt.
    examples
        Examples of an update.
    max_tokens
        Longest example, prompt included; longer ones are dropped and counted. 0: what the model
        can read.
    lr
        Learning rate after the warm-up. Without it 1e-3 for models below 5 million parameters, 2e-4
        for adapters, else 1e-5.
    final_lr
        Share of lr at the last step, linear; 0.1 without it.
    warmup
        Steps over which lr rises to its value; 5 without it.
    weight_decay
        Decoupled weight decay; 0 without it.
    lora_rank
        Rank of LoRA adapters that train instead of the weights.
    lora_alpha
        LoRA scale is alpha / rank; without it twice the rank.
    device
        auto: a GPU, except for models below 5 million parameters.
    dtype
        Arithmetic; the weights that train stay float32.
    optim_state
        Where Adam's moments are; cpu: gradients and float32 weights too, in the machine's memory.
    recompute
        Compute activations again for gradients: slower, less memory.
    micro_batch_tokens
        Tokens computed at a time; 16,384 without it.
    checkpoint_every
        Steps between checkpoints; 0: at the end alone.
    dry_run
        Print the settings and what they take on a table of machines, and exit.
    """
    from aha.sft.tuning_config import tuning_config

    model = {"path": base, "device": device, "lora_rank": lora_rank, "lora_alpha": lora_alpha}
    optim = {"lr": lr, "final_lr": final_lr, "warmup": warmup, "weight_decay": weight_decay}
    optim |= {"dtype": dtype, "state": optim_state, "recompute": recompute}
    optim |= {"micro_batch_tokens": micro_batch_tokens}
    settings: dict[str, Any] = {"data": data, "bad_rows": bad_rows, "epochs": epochs}
    settings |= {"examples": examples, "max_tokens": max_tokens, "seed": seed}
    settings |= {"checkpoint_every": checkpoint_every, "usd_per_hour": usd_per_hour}
    settings |= {"watts": watts, "model": model_keys(model), "optim": model_keys(optim)}
    cfg = tuning_config(settings)
    if dry_run:
        print_tuning_plan(cfg)
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
    if changes:
        raise ConfigError(
            f"--resume of a fine-tuning with {next(iter(changes))}",
            "the run as it was configured",
            f"aha train --resume {path}",
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
    say(
        f"{cfg.model.path} learns {len(examples.examples):,} examples of "
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
    say(f"the model is in {tuning.run.model}; {own_command()} eval {tuning.run.path} tests it")


def print_tuning_plan(cfg: Any) -> None:
    """The settings as one object, and the plan on this machine and on all of the table."""
    from aha.core.sizes import GB
    from aha.model.folders import resolve_model
    from aha.plan.machines import money
    from aha.sft.tuning_plan import lines_of_plan, plans_on_cards, tuning_prediction
    from aha.sft.tuning_run import open_run_parts

    opened = open_run_parts(cfg, resolve_model(cfg.model.path))
    say_json(opened.cfg.model_dump(mode="json"), indent=2)
    for note in opened.examples.notes:
        say(f"{note.level}: {note.message}")
    plan_of = (opened.cfg, opened.model, opened.examples)
    for line in lines_of_plan(tuning_prediction(*plan_of), float("inf")):
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
