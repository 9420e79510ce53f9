"""A file of examples as tokens: prompts that are read, and completions that are learnt.

What cannot be used is left out as a whole and counted, by kind; nothing is ever shortened.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aha.core.errors import ModelError
from aha.core.findings import Finding
from aha.model.chat_template import RenderedText
from aha.model.tokenizer import Tokenizer
from aha.sft.example_rows import (
    EXPECTED,
    FOREIGN,
    HELD_OUT,
    NO_ANSWER,
    NO_TOKENS,
    TOO_LONG,
    ExampleText,
    UnusableRow,
    example_texts,
)
from aha.tasks.bad_rows import BadRows
from aha.tasks.files import read_rows
from aha.tasks.held_out import held_out_problem

PARTS = ("thought", "solution")
# The tags with which chat templates mark whose turn it is.
TEMPLATE_TAGS = (
    *("<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    *("<start_of_turn>", "<end_of_turn>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"),
    *("[INST]", "[/INST]", "<<SYS>>", "<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>"),
    *("<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>"),
    *("<bos>", "<eos>", "[SYSTEM_PROMPT]", "[TOOL_CALLS]", "[gMASK]", "<sop>"),
)
STRUCK = "</s>"  # at the end it is an end; anywhere else it may be HTML
# Any other tag of this look, of a model that has it as a token; those of Sky-T1 are words.
MARK = re.compile(r"<[|\uff5c][\w\u2581-]{1,40}[|\uff5c]>")
WORDS = frozenset(f"<|{end}_of_{part}|>" for end in ("begin", "end") for part in PARTS)


@dataclass(frozen=True, slots=True)
class Example:
    """The tokens of a prompt, and those of the completion with its stop token."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]

    @property
    def num_tokens(self) -> int:
        return len(self.prompt) + len(self.completion)

    @property
    def rows(self) -> tuple[int, ...]:
        """The lengths of its rows in a batch."""
        return (self.num_tokens,)


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """Two completions of one prompt, each with its stop token: `chosen` is to become likelier than
    `rejected`."""

    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]

    @property
    def completion(self) -> tuple[int, ...]:
        """The tokens of both: what an update computes."""
        return self.chosen + self.rejected

    @property
    def num_tokens(self) -> int:
        return len(self.prompt) + len(self.chosen) + len(self.rejected)

    @property
    def rows(self) -> tuple[int, ...]:
        """The lengths of its rows in a batch: each completion with the prompt."""
        return (len(self.prompt) + len(self.chosen), len(self.prompt) + len(self.rejected))


@dataclass(frozen=True)
class ExampleSet:
    """The examples or pairs of a file in its order, and what is to be said of the rows left
    out."""

    examples: list[Example] | list[PreferencePair]
    notes: list[Finding]

    @property
    def num_tokens(self) -> int:
        """Of prompts and completions."""
        return sum(example.num_tokens for example in self.examples)

    @property
    def rows(self) -> list[int]:
        """The lengths of all rows."""
        return [length for example in self.examples for length in example.rows]


def load_examples(
    path: Path,
    tokenizer: Tokenizer,
    limit: int,
    rule: str = "drop",
    encode: Callable[[object, Tokenizer, int], list[Any]] | None = None,
    expected: str = EXPECTED,
) -> ExampleSet:
    """The examples of a file for this tokenizer, each of at most `limit` tokens.

    `encode` makes them of a row: `encoded_row`, or for a file of pairs `encoded_pair`.

    Raises `DataError` for a file that cannot be read, for the first row that cannot be used where
    `rule` is "refuse", and where no row can be used.
    """
    bad = BadRows(path, rule)
    kinds: dict[str, list[tuple[int, str]]] = {}
    encode = encode or encoded_row
    examples: list[Any] = []
    rows = wrong = 0
    for number, row in read_rows(path, expected):
        try:
            examples += encode(row, tokenizer, limit)
            rows += 1
            wrong += isinstance(row, dict) and row.get("correct") is False
        except UnusableRow as reason:
            bad.add(number, f"a row {reason.kind} ({reason.details})")
            kinds.setdefault(reason.kind, []).append((number, reason.details))
    bad.settle(rows, expected)
    notes = []
    if kinds:
        counts = [counted(kind, rows_of_kind) for kind, rows_of_kind in kinds.items()]
        count = sum(map(len, kinds.values()))
        message = f"{count:,} rows of {path.name} dropped, {rows:,} kept: {'; '.join(counts)}"
        notes.append(Finding("warn", message, "mend the rows, or train without them", "examples"))
    if wrong:
        message = f"{wrong:,} of {rows:,} rows of {path.name} are learnt though graded as wrong"
        fix = "leave rows out whose `correct` is false, unless they are meant to be learnt"
        notes.append(Finding("warn", message, fix, "examples"))
    return ExampleSet(examples, notes)


def counted(kind: str, rows: list[tuple[int, str]]) -> str:
    """How many rows of a kind there are, with the first of them."""
    number, details = rows[0]
    return f"{len(rows):,} {kind} (first: row {number}, {details})"


def encoded_row(row: object, tokenizer: Tokenizer, limit: int) -> list[Example]:
    """The examples of a row. Raises `UnusableRow` where one of them cannot be used."""
    try:
        return list(encoded_texts(example_texts(row), tokenizer, limit))
    except ModelError as error:
        raise UnusableRow(NO_TOKENS, error.got) from None


def encoded_texts(texts: list[ExampleText], tokenizer: Tokenizer, limit: int) -> Iterator[Example]:
    for text in texts:
        prompt, completion = prompt_text(text.prompt, tokenizer), text.completion
        if (problem := held_out_problem(prompt)) is not None:
            raise UnusableRow(HELD_OUT, problem)
        ends = [name for i in tokenizer.stop_ids if (name := tokenizer.fast.id_to_token(i))]
        # A row may bring its end, or several, with a line break of the file's writer.
        while end := next((one for one in ends if completion.rstrip().endswith(one)), None):
            completion = completion.rstrip().removesuffix(end)
        if not completion.strip():
            raise UnusableRow(NO_ANSWER, "the completion is its end alone")
        refuse_tags(completion, tokenizer, (*TEMPLATE_TAGS, *ends))
        if completion.rstrip().endswith(STRUCK):
            raise UnusableRow(FOREIGN, f"{STRUCK}, which is not the end of this model's turns")
        own = (*tokenizer.encode(RenderedText(completion)), tokenizer.stop_ids[0])
        example = Example(tuple(tokenizer.encode(prompt)), own)
        if example.num_tokens > limit:
            raise UnusableRow(TOO_LONG, f"{example.num_tokens:,} tokens, at most {limit:,} fit")
        yield example


def prompt_text(prompt: str | list[dict[str, str]], tokenizer: Tokenizer) -> str:
    """The prompt as the model reads it: messages in its own chat template, a text as it is, but for
    ChatML, which is rewritten in the model's template as in RL."""
    if isinstance(prompt, str):
        text = tokenizer.say(prompt)
        if not isinstance(text, RenderedText):
            unknown = [tag for tag in TEMPLATE_TAGS if not knows(tokenizer, tag)]
            refuse_tags(text, tokenizer, tuple(unknown))
        return text
    if not tokenizer.converses():
        raise UnusableRow(FOREIGN, "a conversation, and this model has no chat template")
    for message in prompt:
        refuse_tags(message["content"], tokenizer, TEMPLATE_TAGS)
    return tokenizer.converse(prompt)


def knows(tokenizer: Tokenizer, tag: str) -> bool:
    """Whether it is a token, or a word of the model's own template, as [INST] is for Llama 2."""
    return tokenizer.fast.token_to_id(tag) is not None or tag in (tokenizer.template or "")


def refuse_tags(text: str, tokenizer: Tokenizer, tags: tuple[str, ...]) -> None:
    """Raises `UnusableRow` for a tag in what somebody says: with it another turn would begin; and
    for any mark that this model does not have."""
    marks = [mark for mark in MARK.findall(text) if mark not in WORDS]
    for tag in (*tags, *(mark for mark in marks if not knows(tokenizer, mark))):
        if tag in text:
            unknown = "" if knows(tokenizer, tag) else ", which this model does not have"
            raise UnusableRow(FOREIGN, f"{tag}{unknown}")
