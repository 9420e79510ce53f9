"""The parameters that several commands share, with their types and help."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin

from cyclopts import Parameter, Token, validators

from aha.core.errors import ConfigError, shown
from aha.core.recipe_layers import parse_toml

# The upper limit is far above any use: without one a number may be infinite.
AT_LEAST_0 = validators.Number(gte=0, lte=10**15)
AT_LEAST_1 = validators.Number(gte=1, lte=10**15)


def of_64_bits(unused_type: object, value: object) -> None:
    """The validator of every number without one of its own: no NaN, and nothing overflows later."""
    for number in value if isinstance(value, list | tuple) else (value,):
        if isinstance(number, int | float) and not -(2**63) <= number < 2**63:
            raise ValueError("Must be a number that 64 bits can hold.")


def whole(hint: Any, tokens: Sequence[Token]) -> Any:
    """Whole numbers from what was typed. cyclopts itself would make 4 of 3.5."""
    values = [int(token.value) for token in tokens]
    kind = next((k for k in (list, tuple) if k in (hint, get_origin(hint))), None)
    return values[0] if kind is None else kind(values)


# Without an explanation: a command's own docstring has it.
Whole = Annotated[int, Parameter(converter=whole)]
Count = Annotated[int, Parameter(converter=whole, validator=AT_LEAST_1)]
Natural = Annotated[int, Parameter(converter=whole, validator=AT_LEAST_0)]
Amount = Annotated[float, Parameter(validator=AT_LEAST_0)]
Flag = Annotated[bool, Parameter(negative=())]
Seconds = Annotated[float, Parameter(validator=validators.Number(gt=0, lte=10**9))]

# -- problems and models --------------------------------------------------------------------

TASKS = (
    "countdown, curated, calculate, multiply, ladder, math, gym:NAME, a Python file, or an "
    "installed task."
)
TaskName = Annotated[str, Parameter(help=TASKS)]
TaskOfModel = Annotated[
    str,
    Parameter(
        help=f"{TASKS} Default: that of the run, with its settings; of any other model, countdown."
    ),
]
TaskOptions = Annotated[
    str, Parameter(help="Settings of the task as TOML, as in 'digits = [2, 3]'.", metavar="TOML")
]
Numbers = Annotated[
    list[int] | None,
    Parameter(
        converter=whole,
        consume_multiple=True,
        negative=(),
        help="Countdown: how many numbers a puzzle has, 2 to 6; several values are "
        "equally likely. Default: those of the run, else 3.",
    ),
]
# Also under the names that they have in a recipe: messages about a file name those.
DataFile = Annotated[
    str | None,
    Parameter(
        name=("--data", "--task.data"),
        help="File of problems (JSON lines or Parquet) for tasks that read one.",
    ),
]
BadRowsRule = Annotated[
    Literal["refuse", "drop"] | None,
    Parameter(
        name=("--bad-rows", "--task.bad_rows"),
        help="Rule for rows of the file that cannot be used: refuse (the default), or drop and "
        "count them.",
    ),
]
Split = Annotated[
    Literal["train", "validation", "test", "test_targets", "all"],
    Parameter(
        help="Part of the task's problems; training uses only train. all: every row of --data, "
        "for a file that is a test set as a whole."
    ),
]
ProblemCount = Annotated[
    int, Parameter(converter=whole, validator=AT_LEAST_1, help="How many problems.")
]
ProblemSeed = Annotated[
    int, Parameter(converter=whole, help="Seed of the problems and of the completions.")
]
Temperature = Annotated[float, Parameter(help="Sampling temperature.")]
ModelName = Annotated[
    str,
    Parameter(
        help="aha-tiny, a run folder, a Hugging Face model folder, or a name on the hub.",
        completer=lambda context: ["aha-tiny", *run_words(context)],
    ),
]

# -- output and machines --------------------------------------------------------------------

AsJson = Annotated[bool, Parameter(name="--json", negative=(), help="Print JSON.")]
JsonLines = Annotated[
    bool,
    Parameter(
        name="--json",
        negative=(),
        help="Print one JSON object for each event (start, stage, progress, test, step, "
        "validation, group, finding, note, end), for programs.",
    ),
]
DryRun = Annotated[bool, Parameter(negative=())]
Host = Annotated[
    str,
    Parameter(
        help="Address to listen on. 127.0.0.1: only this machine; any other needs a token, "
        "which is printed."
    ),
]
Port = Annotated[
    int,
    Parameter(
        converter=whole,
        validator=validators.Number(gte=0, lte=65_535),
        help="Port to listen on; the next free one if it is taken, 0 for any.",
    ),
]
UsdPerHour = Annotated[
    float | None,
    Parameter(
        validator=AT_LEAST_0,
        help="Price of the machine per hour; without it, that of plan/cards.toml.",
    ),
]
Watts = Annotated[
    float | None,
    Parameter(
        validator=AT_LEAST_0,
        help="Power of the machine under load; without it, that of plan/cards.toml.",
    ),
]

# -- runs -----------------------------------------------------------------------------------


def recipe_words(unused_context: object) -> list[str]:
    """For the shell's completion: packaged recipes, and TOML files of this folder."""
    from aha.api.recipe_names import packaged_recipes

    return [*packaged_recipes(), *sorted(map(str, Path().glob("*.toml")))]


def run_words(unused_context: object) -> list[str]:
    """For the shell's completion: the run folders in runs/."""
    return sorted(str(path.parent) for path in Path().glob("runs/*/config.json"))


RecipeName = Annotated[
    str,
    Parameter(help="Packaged recipe (demo, grpo, ...) or a TOML file.", completer=recipe_words),
]
RecipeOfRun = Annotated[
    RecipeName,
    Parameter(
        help="Packaged recipe (demo, grpo, ...) or a TOML file; without it, the recipe that fits "
        "this machine."
    ),
]
RunName = Annotated[
    str | None,
    Parameter(help="Name of the run folder in runs/; without it, the recipe's name, numbered."),
]
Budget = Annotated[
    str | None,
    Parameter(
        help='"2h", "30min" or "5usd": stop before more is spent, with a checkpoint to resume from.'
    ),
]
Dash = Annotated[
    bool | None,
    Parameter(
        help="Serve the dashboard during the run, for this machine only and at low priority; "
        "without it, only if the output is a terminal."
    ),
]
Log = Annotated[
    str | None,
    Parameter(
        help="Loggers that get a copy of the run: wandb, tensorboard, trackio, or several with "
        "commas. A run that goes on has those that it had; none: without any."
    ),
]
Probe = Annotated[
    bool,
    Parameter(
        negative=(),
        help="Measure this machine with the recipe's model, half a minute at most, and plan "
        "with that.",
    ),
]
CalibrationFile = Annotated[
    Path | None,
    Parameter(help="File that --probe writes; without --probe, such a file to plan with."),
]

Anyway = Annotated[
    bool,
    Parameter(
        negative=(),
        help="Begin although the recipe does not suit the model, as far as is known: too high a "
        "learning rate, prompts in a form that the model has not read.",
    ),
]

SharedBy = Annotated[
    str | None,
    Parameter(
        name="--ranks",
        help="Number of processes that share the completions and the rows of each step, with the "
        "cores as threads; auto, the default: one for each core where the model is small and runs "
        "on the CPU, else 1; with --launcher ray 1. A run that goes on keeps its number.",
    ),
]

EvaluatedBy = Annotated[
    str,
    Parameter(
        name="--ranks",
        help="Number of processes that share the problems, or auto: one for each core where the "
        "model is small and the problems are many.",
    ),
]
ShardBy = Annotated[
    Literal["auto", "on", "off"] | None,
    Parameter(
        name="--shard",
        help="Whether each of several ranks has only its shards of the model and of its "
        "optimiser; auto takes shards where a rank has no memory for all of them. --resume "
        "without it takes what the run had.",
    ),
]


def number_of_ranks(text: str) -> int | None:
    """The number, or None for auto. Raises ConfigError for anything else."""
    if text == "auto":
        return None
    # More digits than any machine has cores; int() itself refuses thousands of them.
    if not (text.isascii() and text.isdigit() and len(text) < 10) or int(text) == 0:
        raise ConfigError(f"--ranks {shown(text)}", "auto, or a number from 1 on", "--ranks auto")
    return int(text)


def task_settings(
    options: str, numbers: list[int] | None, data: str | None, bad_rows: str | None = None
) -> dict[str, Any]:
    """The keyword arguments of a task's constructor. Raises ConfigError where `options` is no
    TOML."""
    try:
        settings: dict[str, Any] = parse_toml(f"value = {{{options}}}")["value"]
    except ValueError as error:
        raise ConfigError(f"--options {shown(options)}: {error}", '"digits = [2, 3]"') from None
    if numbers is not None:
        settings["numbers"] = tuple(numbers)
    if data is not None:
        settings["data"] = data
    if bad_rows is not None:
        settings["bad_rows"] = bad_rows
    return settings
