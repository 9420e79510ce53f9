"""A recipe as a folder that veRL trains from: prompts, reward, overrides and the script to start.

train.parquet       the prompts of all steps, in order
validation.parquet  those of each validation
test.parquet        those of the test of the model that comes out
reward.py           our grader, in one file
overrides.txt       veRL's settings, a line each
train.sh            starts veRL with them
README.md           what to do, what differs, what was not run
"""

import json
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from aha.algo.algorithms import chosen_of
from aha.core.config import RunConfig
from aha.core.errors import ConfigError, RunError
from aha.core.findings import Finding
from aha.core.records import Problem
from aha.export.verl_keys import Export
from aha.export.verl_reward import reward_file
from aha.export.verl_rows import (
    PromptForm,
    Row,
    held_out_problems,
    row_of,
    train_problems,
    write_rows,
)
from aha.export.verl_table import VERSION, as_hydra, overrides_of
from aha.store.durable import disk_errors, replace_folder
from aha.tasks.catalog import make_task, notes_of
from aha.tasks.protocol import Task

# What TinyZero's script sets and its recipes here leave to the user: a recipe has twelve lines.
TINYZERO = "tinyzero-"
OF_TINYZERO = {
    "optim.final_lr": 1,
    "optim.warmup": 0,
    "optim.beta2": 0.999,
    "optim.weight_decay": 0.01,
    "steps": 1280,
}
OF_ITS_PPO = {"algo.entropy_coef": 0.001}
OF_ITS_GRPO = {"algo.kl_estimator": "k3_clamped"}

README = """# {name}, for veRL {version}

{rows} for {gpus}. Start it where the GPUs are, with this folder:

    {command}

It needs `pip install 'verl[vllm,fsdp]=={version}'` and CUDA. The settings are in `overrides.txt`,
one a line. For N machines: `ray start --head` on one, `ray start --address=HEAD:6379` on the
others, `trainer.nnodes=N`, and the same folder at the same path on all of them.

The model that comes out, back here{tested}:

    python3 -m verl.model_merger merge --backend fsdp --target_dir model \\
        --local_dir checkpoints/global_step_{steps}/actor{evaluate}

## What was checked, and what was not

veRL {version} reads settings, rows and reward files as Aha writes them: tests of Aha compose and
validate settings and compute rewards with veRL's own code, on a CPU. This folder itself was not
tried. Nothing was trained: vLLM, FSDP, Ray's workers, memory and speed are not proven.

## What is otherwise than in a run of Aha

{differences}
"""


@dataclass(frozen=True)
class Handover:
    """What was written: the folder, the command that starts veRL, and what a user should know."""

    folder: Path
    command: str
    notes: tuple[str, ...]
    findings: tuple[Finding, ...]


def tinyzero_settings(name: str, recipe: RunConfig) -> dict[str, Any]:
    """What TinyZero sets beyond the packaged recipe of that name; empty for any other recipe."""
    if not name.startswith(TINYZERO):
        return {}
    return OF_TINYZERO | (OF_ITS_PPO if recipe.algo.advantage == "gae" else OF_ITS_GRPO)


def export_to_verl(cfg: RunConfig, name: str, out: Path, gpus: int = 2, nodes: int = 1) -> Handover:
    """Write the new folder `out`.

    Raises `ConfigError` for settings that veRL cannot express, `RunError` where `out` exists or
    cannot be written, and what the task raises for its data.
    """
    if out.exists():
        raise RunError(f"{out} exists already", "a new folder", "choose another --out")
    if cfg.steps < 1:
        raise ConfigError(f"steps {cfg.steps}", "at least one step", "--steps 60")
    chosen = chosen_of(cfg.algo)
    # Before anything is read or written: whatever the lengths are, the settings can be said or not.
    overrides_of(Export(cfg, chosen, name, cfg.model.path, 1, gpus, nodes))
    form = PromptForm(cfg)
    task = make_task(cfg.task.name, cfg.task.settings())
    counts: dict[str, int] = {}
    longest = [1]
    script = files("aha") / "export" / "verl_train.sh"

    def write(folder: Path) -> None:
        for split, problems in splits_of(task, cfg).items():
            rows = rows_of(problems, split, task, form, longest)
            counts[split] = write_rows(folder / f"{split}.parquet", rows)
        export = Export(cfg, chosen, name, form.model, longest[0], gpus, nodes)
        lines = [as_hydra(key, value) for key, value in overrides_of(export).items()]
        head = f"# veRL {VERSION}, from the recipe {name}. train.sh puts this folder in for $HERE."
        texts = {
            "reward.py": reward_file(cfg.task),
            "overrides.txt": "\n".join([head, *lines]) + "\n",
            "train.sh": script.read_text(encoding="utf-8").replace("@VERSION@", VERSION),
            "README.md": readme(export, counts),
        }
        for file, text in texts.items():
            (folder / file).write_text(text, encoding="utf-8")
        (folder / "train.sh").chmod(0o755)

    with disk_errors(f"write {out}"):
        replace_folder(out, write)
    notes = (*form.notes, *differences(cfg))
    return Handover(out, f"bash {shlex.quote(str(out / 'train.sh'))}", notes, tuple(notes_of(task)))


def splits_of(task: Task, cfg: RunConfig) -> dict[str, Iterable[Problem]]:
    """The problems of each file. A recipe without a test has no test.parquet."""
    splits: dict[str, Iterable[Problem]] = {"train": train_problems(task, cfg)}
    for split, count in (("validation", cfg.eval.problems), ("test", cfg.eval.final)):
        if count:
            splits[split] = held_out_problems(task, split, count, cfg.eval.seed)
    return splits


def rows_of(
    problems: Iterable[Problem], split: str, task: Task, form: PromptForm, longest: list[int]
) -> Iterator[Row]:
    """The rows of a split; `longest` keeps the length of the longest prompt so far."""
    for index, problem in enumerate(problems):
        text = form.text(problem, task)
        longest[0] = max(longest[0], form.tokens(text))
        yield row_of(problem, text, split, index)


def differences(cfg: RunConfig) -> list[str]:
    """What a run of veRL does otherwise than one here with the same recipe, in words."""
    notes = []
    if cfg.rollout.engine == "native" and cfg.algo.correction == "none":
        notes.append(
            "veRL generates with vLLM, whose log-probs are not quite the trainer's, and nothing "
            "corrects them"
        )
    if cfg.optim.warmup:
        notes.append("the rate is 0 in veRL's first step, and rises one step later than here")
    if cfg.algo.zero_variance != "keep":
        notes.append(
            "veRL draws prompts until the batch is full, not algo.resample_rounds times, and after "
            "the last of train.parquet the first again"
        )
    if cfg.algo.advantage == "reinforce_pp":
        notes.append("where all returns of a step are equal, veRL divides rounding errors by 1e-4")
    return notes


def toml(value: Any) -> str:
    """A setting of a task as `--options` reads it, which is JSON for all that a task can have."""
    return json.dumps(list(value) if isinstance(value, tuple) else value)


def test_command(cfg: RunConfig, problems: int) -> str:
    """The command that tests the model that comes out on the problems of test.parquet."""
    words = ["aha eval model --split test", f"--n {problems}", f"--task {cfg.task.name}"]
    settings = cfg.task.settings()
    if "data" in settings:
        words.append(f"--data {shlex.quote(str(settings.pop('data')))}")
    if settings:
        options = ", ".join(f"{key} = {toml(value)}" for key, value in settings.items())
        words.append(f"--options {shlex.quote(options)}")
    words.append(f"--max-new-tokens {cfg.rollout.max_new_tokens} --seed {cfg.eval.seed}")
    return " ".join(words)


def readme(export: Export, counts: dict[str, int]) -> str:
    """The page of the folder."""
    cfg, test = export.cfg, counts.get("test", 0)
    notes = differences(cfg) or ["nothing but what the page docs/verl.md says of every run"]
    rows = ", ".join(f"{count:,} prompts in {split}.parquet" for split, count in counts.items())
    machines = f" on each of {export.nodes} machines" if export.nodes > 1 else ""
    return README.format(
        name=export.name,
        version=VERSION,
        rows=rows,
        gpus=f"{export.gpus} GPUs{machines}",
        command="bash train.sh",
        tested=f", tested on the {test} problems of test.parquet" if test else "",
        steps=cfg.steps,
        evaluate=f"\n    {test_command(cfg, test)}" if test else "",
        differences="\n".join(f"- {note}" for note in notes),
    )
