"""The prompts of a run as veRL's parquet files, in the order in which the run here meets them.

A row has the whole text of its prompt as one message: veRL passes it through as it is. The ground
truth of puzzles and products is JSON, so that files of several tasks can be joined.
"""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from aha.core.config import RunConfig, TaskSection
from aha.core.errors import ConfigError, MissingExtra
from aha.core.records import Problem
from aha.model.folders import cached_folder, looks_like_hub_name, resolve_model
from aha.model.tokenizer import TAGS, Tokenizer
from aha.tasks.protocol import Task
from aha.training.rollouts import FreshProblems, StepSeeds

BATCH = 4096  # rows of a row group
CHATML_OWNER = "Qwen/"  # its models were trained on ChatML, as the template "instruct" writes it
Row = dict[str, Any]


class PromptForm:
    """The prompts of a model, as text: by its tokenizer where that is on this machine.

    `model` is where veRL finds the weights, `notes` what could not be checked. Raises `ConfigError`
    for a model whose completions veRL's rewards would not see whole, `ModelError` for a model
    folder that cannot be read.
    """

    def __init__(self, cfg: RunConfig):
        self.path, self.notes = cfg.model.path, list[str]()
        folder = local_folder(self.path)
        self.model = self.path if looks_like_hub(self.path) or folder is None else str(folder)
        self.tokenizer = None if folder is None else Tokenizer.load(folder)
        if self.tokenizer is None:
            self.without_tokenizer(cfg.task)
        else:
            check_tags(self.path, self.tokenizer)
        if folder is not None and self.model != self.path:
            self.notes.append(f"the model is a folder of this machine: {self.model}")

    def without_tokenizer(self, task: TaskSection) -> None:
        """Notes for a model of the hub that is not in the hub's cache here."""
        plain = self.path.startswith(CHATML_OWNER) and not task.options.get("template_args")
        if task.template == "instruct" and not plain:
            raise ConfigError(
                f"{self.path}, which is not on this machine, with the template 'instruct'",
                "its chat template, by which the prompts are written",
                f"hf download {self.path}",
            )
        self.notes.append(
            f"{self.path} is not on this machine: its prompts are counted in bytes, no token being "
            "shorter, and its tokenizer was not looked at"
        )

    def text(self, problem: Problem, task: Task) -> str:
        """The whole text of a prompt, with the token that begins the model's texts. Raises
        `ConfigError` where the model thinks in tags that the reward file does not read."""
        request = task.ask(problem)
        if self.tokenizer is None:
            return request
        text = self.tokenizer.say(request, **getattr(task, "template_args", {}))
        if own := self.tokenizer.own_tags(text):
            raise ConfigError(
                f"model.path {self.path}, whose chat template thinks in {own[0][0]}",
                f"{own[0][1]}, which the reward file reads",
                "--task.template r1",
            )
        first = "".join(map(str, map(self.tokenizer.fast.id_to_token, self.tokenizer.prefix)))
        ids = self.tokenizer.encode(text)
        plain = self.tokenizer.fast.encode(text, add_special_tokens=False).ids
        return text if ids == plain else f"{first}{text}"

    def tokens(self, text: str) -> int:
        """The tokens of a prompt, or its bytes where there is no tokenizer to ask."""
        if self.tokenizer is None:
            return len(text.encode())
        return len(self.tokenizer.fast.encode(text, add_special_tokens=False).ids)


def looks_like_hub(path: str) -> bool:
    return looks_like_hub_name(path) and not Path(path).is_dir()


def local_folder(path: str) -> Path | None:
    """The folder of a model without a download; None for one of the hub that is not here."""
    if not looks_like_hub(path):
        return resolve_model(path).absolute()
    try:
        return cached_folder(path)
    except MissingExtra:
        return None


def check_tags(path: str, tokenizer: Tokenizer) -> None:
    """Raises `ConfigError` where the tags of an answer are special tokens: veRL strips those, so
    that every reward would be 0."""
    special = {t.content for t in tokenizer.fast.get_added_tokens_decoder().values() if t.special}
    if lost := [tag for tag in TAGS if tag in special]:
        raise ConfigError(
            f"model.path {path}, to which {', '.join(lost)} are special tokens",
            "a model that writes its tags as text: veRL strips special tokens before it asks for "
            "the reward, so that every reward would be 0",
            "--model.path Qwen/Qwen2.5-0.5B --task.template r1",
        )


# -- rows --------------------------------------------------------------------------------------


def train_problems(task: Task, cfg: RunConfig) -> Iterator[Problem]:
    """The problems of every step, as a run here with this seed draws them.

    Raises `ConfigError` where a step has fewer than `rollout.prompts`.
    """
    source = FreshProblems(task, cfg.rollout.prompts)
    for version in range(cfg.steps):
        problems = source.problems(StepSeeds(cfg.seed, version))
        if len(problems) < cfg.rollout.prompts:
            raise ConfigError(
                f"rollout.prompts {cfg.rollout.prompts} of {len(problems)} problems",
                "no more prompts in a step than the training split has problems",
                f"--rollout.prompts {len(problems)}" if problems else "a file with more rows",
            )
        yield from problems


def held_out_problems(task: Task, split: str, count: int, seed: int) -> list[Problem]:
    """The first problems of a held-out split, as evaluations here take them."""
    problems = list(islice(task.problems(split, seed), count))
    if count and not problems:
        raise ConfigError(
            f"no problems in the split {split!r}", "at least one", "a file with more rows"
        )
    return problems


def ground_truth(problem: Problem) -> str:
    """What the reward compares with: the column of the answer, or JSON of what was given."""
    given = problem.given
    if problem.task == "math":
        return str(given["answer"])
    keys = ("numbers", "target") if problem.task == "countdown" else ("a", "b")
    return json.dumps({key: given[key] for key in keys})


def row_of(problem: Problem, text: str, split: str, index: int) -> Row:
    """A row as veRL reads it. `data_source` is none that veRL has a reward of its own for: where
    ours is not loaded, veRL says so in place of grading otherwise."""
    return {
        "data_source": f"aha/{problem.task}",
        "prompt": [{"role": "user", "content": text}],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": ground_truth(problem)},
        "extra_info": {
            "split": split,
            "index": index,
            "id": problem.id,
            "question": str(problem.given.get("question", "")),
        },
    }


def write_rows(path: Path, rows: Iterator[Row]) -> int:
    """Write a Parquet file; the number of rows. Raises `MissingExtra` without pyarrow."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtra("pyarrow", "parquet") from error
    text = pyarrow.string()
    schema = pyarrow.schema(
        {
            "data_source": text,
            "prompt": pyarrow.list_(pyarrow.struct({"role": text, "content": text})),
            "ability": text,
            "reward_model": pyarrow.struct({"style": text, "ground_truth": text}),
            "extra_info": pyarrow.struct(
                {"split": text, "index": pyarrow.int64(), "id": text, "question": text}
            ),
        }
    )
    count = 0
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        while batch := list(islice(rows, BATCH)):
            writer.write_table(pyarrow.Table.from_pylist(batch, schema))
            count += len(batch)
    return count
