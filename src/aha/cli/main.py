"""`aha COMMAND`: every command imports its room only when it is called, so that help is instant."""

import json
import sys
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, CycloptsError, Parameter, validators

import aha
from aha.core.errors import AhaError, ConfigError

app = App(
    name="aha",
    help="Train a language model to reason with reinforcement learning, and watch it happen.",
    version=aha.__version__,
)
config_app = App(name="config", help="Recipes and their keys.")
app.command(config_app)

# The type of one word: cyclopts gathers the words of a starred argument by itself.
Overrides = Annotated[str, Parameter(show=False, allow_leading_hyphen=True)]
Count = Annotated[int, Parameter(validator=validators.Number(gte=1))]
Split = Literal["train", "validation", "test", "test_targets"]


def run() -> None:
    """Entry point: errors that a user can mend are one line and exit code 2."""
    try:
        app(sys.argv[1:], exit_on_error=False, print_error=False)
    except CycloptsError as error:
        print(f"aha: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except AhaError as error:
        print(f"aha: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("aha: stopped", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # `aha problems | head` closes the pipe before we are done
        sys.stderr.close()
        sys.exit(0)


# -- training -------------------------------------------------------------------------------


@app.command
def demo(
    *overrides: Overrides, seed: int = 0, name: str | None = None, dry_run: bool = False
) -> None:
    """Watch aha-tiny teach itself Countdown: evaluate, train, evaluate again, report card.

    Takes minutes on two CPU cores and no network. `--key value` overrides the recipe.
    """
    path = Path("runs") / (name or free_name("demo"))
    start_run(find_recipe("demo"), path, ("--seed", str(seed), *overrides), dry_run)


@app.command
def train(
    recipe: str | None = None,
    *overrides: Overrides,
    name: str | None = None,
    resume: Path | None = None,
    dry_run: bool = False,
) -> None:
    """Train with a recipe (a packaged name or a TOML file); `--section.key value` overrides it.

    Parameters
    ----------
    recipe: packaged recipe (demo, laptop-3to4, ...) or path of a TOML file.
    name: name of the run folder below runs/; the recipe's name with a number by default.
    resume: run folder to go on with, from its last checkpoint.
    dry_run: print the resolved config and leave.
    """
    if resume is not None:
        if recipe or overrides:
            raise ConfigError("--resume with a recipe or overrides", "the run as it was configured")
        from aha.cli.live import resume_run

        resume_run(resume)
        return
    if recipe is None:
        raise ConfigError("no recipe", f"one of {', '.join(packaged_recipes())}, or a TOML file")
    found = find_recipe(recipe)
    start_run(found, Path("runs") / (name or free_name(found.stem)), overrides, dry_run)


def start_run(recipe: Path, path: Path, overrides: tuple[str, ...], dry_run: bool) -> None:
    from aha.core.config import load_config

    cfg = load_config(recipe, parse_overrides(overrides))
    if dry_run:
        from aha.train.experiment import check_names

        check_names(cfg)
        print(cfg.model_dump_json(indent=2))
        return
    from aha.cli.live import start

    start(cfg, path)


@app.command
def pretrain(
    out: Path = Path("runs/pretrain"),
    *,
    tokens: int = 44_000_000,
    seed: int = 0,
    layers: int = 4,
    hidden: int = 128,
    mlp: int = 384,
    mix: str = "",
    lr: float | None = None,
    start: Path | None = None,
    dry_run: bool = False,
) -> None:
    """Pre-train a tiny base from nothing on the project's own traces; resumes where it stopped.

    Parameters
    ----------
    out: folder of the model and its state.
    tokens: tokens of documents to read.
    mix: rates of the corpus to change, as in "backtrack=0,search=0.2".
    """
    from aha.cli.pretraining import make_config, pretrain_base

    cfg = make_config(tokens, seed, mix, lr)
    pretrain_base(out, cfg, {"layers": layers, "hidden": hidden, "mlp": mlp}, start, dry_run)


# -- looking --------------------------------------------------------------------------------


@app.command(name="eval")
def evaluate(
    model: str,
    *,
    task: Literal["countdown"] = "countdown",
    numbers: Annotated[list[int], Parameter(consume_multiple=True)] = [3],  # noqa: B006
    split: Split = "test",
    n: Count = 1000,
    seed: int = 0,
    group_size: int = 1,
    temperature: float = 1.0,
    max_new_tokens: int | None = None,
    data: str | None = None,
    json: bool = False,
    out: Path | None = None,
) -> None:
    """Solve rate of a model or run on held-out problems, with a 95 % interval.

    Parameters
    ----------
    model: aha-tiny, a run folder or a Hugging Face model folder.
    numbers: sizes of the puzzles, drawn evenly.
    group_size: completions of each problem; above 1, pass@k is reported too.
    max_new_tokens: 320 for three numbers, 1024 for more, unless given.
    json: print one JSON object.
    out: file for every completion, as JSON lines.
    """
    from aha.cli.looking import evaluate_model

    if max_new_tokens is None:
        max_new_tokens = 320 if max(numbers, default=0) <= 3 else 1024
    options = {
        "numbers": tuple(numbers),
        "split": split,
        "n": n,
        "seed": seed,
        "group_size": group_size,
        "temperature": temperature,
        "max_new_tokens": max_new_tokens,
        "data": data,
    }
    evaluate_model(model, options, as_json=json, out=out)


@app.command
def ask(
    *numbers: int,
    target: int,
    model: str = "aha-tiny",
    seed: int = 0,
    temperature: float = 1.0,
    max_new_tokens: int = 1024,
) -> None:
    """Put one puzzle to a model and watch it think: `aha ask 3 7 25 --target 82`."""
    from aha.cli.looking import ask_model

    ask_model(model, numbers, target, seed, temperature, max_new_tokens)


@app.command
def problems(
    *,
    task: Literal["countdown"] = "countdown",
    split: Split = "test",
    numbers: Annotated[list[int], Parameter(consume_multiple=True)] = [3],  # noqa: B006
    n: Count = 1000,
    seed: int = 0,
    data: str | None = None,
) -> None:
    """Print problems as JSON lines: id, numbers, target."""
    from itertools import islice

    from aha.tasks.countdown import Countdown

    source = Countdown(tuple(numbers), data=data)
    for problem in islice(source.problems(split, seed), n):
        given = problem.given
        row = {"id": problem.id, "numbers": list(given["numbers"]), "target": given["target"]}
        print(json.dumps(row))


@app.command
def grade(*, task: Literal["countdown"] = "countdown") -> None:
    """Grade completions: JSON lines {numbers, target, completion} in, verdicts out."""
    from aha.cli.looking import grade_lines

    grade_lines(sys.stdin.buffer, sys.stdout)


@app.command
def baseline(
    *,
    numbers: Annotated[list[int], Parameter(consume_multiple=True)] = [3],  # noqa: B006
    tokens: int = 320,
    n: Count = 1000,
    seed: int = 0,
) -> None:
    """What random search solves within a budget of tokens, written in aha-tiny's grammar."""
    from aha.cli.looking import random_baseline

    random_baseline(tuple(numbers), tokens, n, seed)


# -- watching -------------------------------------------------------------------------------


@app.command
def dash(
    runs: Path = Path("runs"),
    *,
    host: str = "127.0.0.1",
    port: Annotated[int, Parameter(validator=validators.Number(gte=0, lte=65_535))] = 8765,
    open: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Watch runs in a browser while they train: curves, completions, the same puzzles through time.

    Parameters
    ----------
    runs: folder of runs, or one run folder.
    host: 127.0.0.1 is seen from this machine alone; any other asks for a token that is printed.
    port: where to listen; the next free one if it is taken, 0 for any.
    open: open the browser as well.
    """
    from aha.web.serve import serve

    serve(runs, host, port, open)


@app.command
def report(run: Path, *, out: Path | None = None) -> None:
    """Write a run's report as one HTML file that opens offline; RUN/report.html unless given."""
    from aha.cli.watching import make_report

    make_report(run, out)


@app.command
def compare(first: Path, second: Path) -> None:
    """Compare two runs on the same held-out problems: paired interval, config, winners, losers."""
    from aha.cli.watching import print_comparison

    print_comparison(first, second)


@app.command
def behaviors(path: Path, *, json: bool = False) -> None:
    """Count what completions do (attempts, checks, going back ...) in a file or a run.

    Parameters
    ----------
    path: JSON lines of {numbers, target, completion}, or a run folder.
    json: print JSON lines.
    """
    from aha.cli.watching import print_behaviours

    print_behaviours(path, json)


@config_app.command
def show(recipe: str | None = None, *overrides: Overrides) -> None:
    """Print every key with its value: the defaults, or a recipe with its overrides."""
    from aha.core.config import load_config

    cfg = load_config(find_recipe(recipe) if recipe else None, parse_overrides(overrides))
    print(cfg.model_dump_json(indent=2))


# -- names and overrides --------------------------------------------------------------------


def packaged_recipes() -> list[str]:
    folder = Path(str(files("aha"))) / "recipes"
    return sorted(path.stem for path in folder.glob("*.toml"))


def find_recipe(name: str) -> Path:
    """A packaged recipe by name, or a file by path."""
    path = Path(name)
    if path.suffix == ".toml" or path.is_file():
        return path
    packaged = Path(str(files("aha"))) / "recipes" / f"{name}.toml"
    if not packaged.is_file():
        raise ConfigError(
            f"no recipe {name!r}", f"one of {', '.join(packaged_recipes())}, or a TOML file"
        )
    return packaged


def free_name(stem: str) -> str:
    """`stem`, or `stem-2`, `stem-3` ... : the first that no run has taken."""
    number = 1
    while (Path("runs") / (name := stem if number == 1 else f"{stem}-{number}")).exists():
        number += 1
    return name


def parse_overrides(tokens: tuple[str, ...]) -> dict:
    """`--optim.lr 3e-4 --task.numbers "[3, 4]"` as {dotted key: value}; values read as TOML."""
    import tomllib

    found, rest = {}, list(tokens)
    while rest:
        key = rest.pop(0)
        if not key.startswith("--"):
            raise ConfigError(f"{key!r} stands alone", "--section.key value")
        key, equals, text = key[2:].partition("=")
        if not equals:
            if not rest:
                raise ConfigError(f"--{key} has no value", "--section.key value")
            text = rest.pop(0)
        try:
            found[key] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            found[key] = text
    return found
