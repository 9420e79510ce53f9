"""Rows of data for reward functions: a prompt, and columns that the functions take by name.

    {"prompt": "2 + 3 =", "answer": "5"}
    {"prompt": [{"role": "user", "content": "2 + 3?"}], "solution": "5"}            TRL
    {"data_source": "sums", "prompt": [...], "reward_model": {"ground_truth": "5"},
     "extra_info": {...}}                                                           veRL

A row is kept as it is, but in JSON's types: a run writes it beside its completions. veRL's
`reward_model.ground_truth` is the column `ground_truth` as well.
"""

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aha.core.errors import ConfigError, DataError
from aha.core.findings import Finding
from aha.core.seeds import seed_for
from aha.tasks.bad_rows import BadRows
from aha.tasks.files import UnreadableRow, cell_text, is_utf8, media_of, plain_row, read_rows
from aha.tasks.reward_function import RewardFunction

PROMPT = "prompt"
PROMPTS = (PROMPT, "question", "problem", "instruction", "input", "query")
EXPECTED = "rows with a column 'prompt', a text or a list of messages"
PUZZLE_SIZES = range(2, 7)
Message = dict[str, str]
Cells = Mapping[str, Any]


def load_prompt_rows(
    path: Path, rule: str, functions: tuple[RewardFunction, ...]
) -> tuple[list[dict[str, Any]], list[Finding]]:
    """The rows of a file, each once, and notes on rows that were left out (`task.bad_rows`).

    A row without a prompt, or without a column that one of the functions takes, is bad. Raises
    `ConfigError` for an argument that no row has a column for, `DataError` for a file that cannot
    be read, without a column for the prompt, and for a bad row where `rule` refuses it.
    """
    numbered = list(read_rows(path, EXPECTED))
    tables = [row for _, row in numbered if isinstance(row, dict)]
    columns = list(dict.fromkeys(name for row in tables for name in with_truth(row)))
    if tables:
        prompt_column(path, columns, tables)
        for function in functions:
            function.check_columns(dict.fromkeys([*columns, PROMPT]))
    rows: dict[str, dict[str, Any]] = {}
    bad = BadRows(path, rule)
    for number, row in numbered:
        fault = fault_of(row, functions)
        if fault or not isinstance(row, dict):
            bad.add(number, fault or "no object with columns")
        elif (key := row_key(row)) in rows:
            bad.repeat(number)
        else:
            rows[key] = plain_row(row)
    return list(rows.values()), bad.settle(len(rows), EXPECTED)


def prompt_column(path: Path, columns: list[str], rows: list[dict[str, Any]]) -> str:
    """The first of the names of a prompt's column that the data has.

    Raises `DataError` where it has none, with the name that is nearest to one, or else the first
    column of texts.
    """
    for name in PROMPTS:
        if name in columns:
            return name
    near = [c for c in columns if difflib.get_close_matches(str(c).lower(), PROMPTS, 1, 0.6)]
    texts = [c for c in columns if any(isinstance(row.get(c), str) for row in rows)]
    fix = next(iter([*near, *texts]), None)
    raise DataError(
        f"{path} without a column for the prompt, only {', '.join(map(str, columns))[:200]}",
        f"one that is called {', '.join(PROMPTS)}",
        f"columns={{{fix!r}: {PROMPT!r}}} in Python, or rename it" if fix else "add the column",
    )


def fault_of(row: object, functions: tuple[RewardFunction, ...]) -> str:
    """Why a row cannot be used; empty for a good one."""
    if isinstance(row, UnreadableRow):
        return row.reason
    if not isinstance(row, dict):
        return f"{str(row)[:60]!r} is no object with columns"
    if media := media_of(row):
        return f"has {media}, and the models here read text"
    if prompt_of(row) is None:
        name = next((name for name in PROMPTS if name in row), None)
        return f"no prompt: {name} is {str(row[name])[:40]!r}" if name else "no prompt"
    known = [*with_truth(row), PROMPT]
    for function in functions:
        for name in function.columns:
            if name not in known:
                return f"no column {name!r}, which the reward {function.name!r} takes"
    return ""


def with_truth(row: Cells) -> dict[str, Any]:
    """The columns of a row, with veRL's ground truth as one of them."""
    model = row.get("reward_model")
    if isinstance(model, dict) and "ground_truth" in model:
        return {"ground_truth": model["ground_truth"], **row}
    return dict(row)


def columns_of(row: Cells) -> dict[str, Any]:
    """What a reward function can take of a row: its columns, and the prompt as `prompt`."""
    return with_truth(row) | {PROMPT: prompt_of(row)}


def prompt_of(row: Cells) -> str | list[Message] | None:
    """The prompt of a row: a text, or messages with a role and a content each; None without one."""
    for name in PROMPTS:
        cell = row.get(name)
        if isinstance(cell, list) and len(cell) and all(isinstance(m, dict) for m in cell):
            messages = [message_of(message) for message in cell]
            return None if None in messages else [m for m in messages if m is not None]
        text = cell_text(cell)
        if text is not None:
            return text
    return None


def message_of(message: Mapping[str, Any]) -> Message | None:
    """A message with its content as one text, also where that is in parts; None for another."""
    role, content = message.get("role"), message.get("content")
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        content = "\n".join(part for part in parts if isinstance(part, str)) or None
    if not isinstance(role, str) or not role.isidentifier() or not isinstance(content, str):
        return None
    return {"role": role, "content": content} if is_utf8(content) else None


def row_key(row: Cells) -> str:
    """What makes two rows the same: all of their columns."""
    return json.dumps(row, sort_keys=True, default=str)


def row_id(row: Cells) -> str:
    """The id of a row: a hash of its key."""
    return f"{seed_for(row_key(row)):016x}"


def prompt_key(row: Cells) -> str:
    """What makes two prompts the same: their words, whatever the spaces and capitals."""
    prompt = prompt_of(row)
    text = prompt if isinstance(prompt, str) else json.dumps(prompt)
    return " ".join(text.lower().split())


def puzzle_of_row(row: Cells) -> dict[str, Any]:
    """`numbers` and `target` where a row is a Countdown puzzle, so that its ways of search are
    counted; empty for any other row."""
    numbers, target = row.get("numbers", row.get("nums")), row.get("target")
    if not isinstance(numbers, list) or len(numbers) not in PUZZLE_SIZES:
        return {}
    if not all(type(number) is int and number > 0 for number in [*numbers, target]):
        return {}
    return {"numbers": numbers, "target": target}


def check_given(data: object) -> Path:
    """The file of rows. Raises `ConfigError` without one."""
    if not isinstance(data, str | Path):
        raise ConfigError(
            "reward functions without data",
            EXPECTED,
            "data='rows.jsonl', a list of dicts, or an object of Hugging Face datasets",
        )
    return Path(data)
