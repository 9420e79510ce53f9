"""Forced tokens: where a thinking budget closes a thought, or keeps it open.

The end of a thought is recognised by its text, token by token, so a vocabulary may have `</think>`
as one token or spell it with several. While it is spelt, `matched` counts the characters of the tag
that are written already; a table says for each such state and each token what the next state is.

    characters written   token     next state
    0                    "</"      2
    2                    "think"   7
    7                    ">\\n"     8, the end of the thought
    7                    "ing"     0, another word

An end that is suppressed is taken back: the tokens of the tag leave the record and the cache, and
the wait text stands in their place. At the maximum a tag that is half spelt is completed.

Everything is tensor operations without a number from the device, so that CUDA graphs can contain
it; the C loop does the same row by row (`native_c/forcing.h`).

Shapes: B rows, S states, V vocabulary, F forced tokens of all texts, one after the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from aha.core.errors import ModelError
from aha.core.records import Prompt
from aha.model.tokenizer import Tokenizer
from aha.rollout.thinking_budget import WAIT, WAIT_IN_SEARCH, ThinkingBudget
from aha.tasks.tags import THINK_CLOSE

STATES = len(THINK_CLOSE)  # 0 .. STATES - 1 characters are written; STATES: all of them
LINE_END = "\n"
LINE_ENDS = (LINE_END, "Ċ", "<0x0A>")  # as vocabularies write it
NO_MINIMUM = 2**30
NOTHING = -1  # in a queue: no forced token waits to be written


# -- the end of a thought, as a table ---------------------------------------------------------


def pieces_of(tokenizer: Tokenizer, vocab_size: int) -> list[str]:
    """Each token as the vocabulary writes it; empty for ids that the tokenizer does not have.

    A space is written as a sign of its own there, so " think" cannot pass for "think".
    """
    return [tokenizer.fast.id_to_token(token) or "" for token in range(vocab_size)]


def next_state(state: int, piece: str) -> int:
    """The characters of `</think>` that are written after `piece`, where `state` of them were."""
    text = THINK_CLOSE[:state] + piece
    if THINK_CLOSE in text:
        return STATES
    longest = min(len(text), STATES - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(THINK_CLOSE[:n])), 0)


def close_steps(pieces: Sequence[str]) -> npt.NDArray[np.uint8]:
    """[S, V]: the next state for each state and token."""
    steps_SV = np.zeros((STATES, len(pieces)), np.uint8)
    for token, piece in enumerate(pieces):
        opens = THINK_CLOSE[0] in piece
        for state in range(STATES):
            # All other tokens end a half-spelt tag, and begin none.
            if opens or piece.startswith(THINK_CLOSE[state]):
                steps_SV[state, token] = next_state(state, piece)
    return steps_SV


@dataclass(frozen=True)
class ThoughtLength:
    """The thought of one completion: its tokens, who closed it, and how often its end was
    suppressed. "open": the completion ended before its thought."""

    tokens: int
    closed: Literal["model", "budget", "open"]
    waits: int


class ThoughtReader:
    """Measures thoughts, of completions with and without a budget."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int):
        self.pieces = pieces_of(tokenizer, vocab_size)
        self.steps_SV = close_steps(self.pieces)
        self.rows = [row.tobytes() for row in self.steps_SV]  # quick to index

    def read(self, tokens: Sequence[int], forced: Sequence[int], wait_size: int) -> ThoughtLength:
        """`forced` are places of forced tokens; `wait_size` is the number of tokens of the wait
        text, 1 where there is none."""
        state = begin = 0
        places = set(forced)
        for place, token in enumerate(tokens):
            before, state = state, self.rows[state][token]
            if state and (not before or self.rows[0][token] == state):
                begin = place
            if state == STATES:
                closed: Literal["model", "budget"] = "budget" if place in places else "model"
                # The line break before a forced tag belongs to the close.
                while closed == "budget" and begin - 1 in places:
                    if self.pieces[tokens[begin - 1]] not in LINE_ENDS:
                        break
                    begin -= 1
                return ThoughtLength(begin, closed, sum(p < begin for p in places) // wait_size)
        return ThoughtLength(len(tokens), "open", len(places) // wait_size)


# -- the tables of a budget -------------------------------------------------------------------


class ForcedTexts(NamedTuple):
    """Token texts one after the other: `tokens_F`, and the place of each one's follower, NOTHING
    after the last."""

    tokens_F: list[int]
    next_F: list[int]

    def add(self, tokens: Sequence[int]) -> int:
        """Append a text; the place where it begins."""
        start = len(self.tokens_F)
        self.tokens_F.extend(tokens)
        self.next_F.extend([*range(start + 1, start + len(tokens)), NOTHING])
        return start


@dataclass(frozen=True)
class ForcingTables:
    """A budget in the tokens of one vocabulary.

    `close_starts` has the place of the forced close by state, and at its end the one for a thought
    whose last line is complete; `ends_line_V` and `stops_V` are about single tokens.
    """

    steps_SV: npt.NDArray[np.uint8]
    ends_line_V: npt.NDArray[np.bool_]
    stops_V: npt.NDArray[np.bool_]
    texts: ForcedTexts
    close_starts: tuple[int, ...]
    wait_start: int
    wait_size: int
    max_tokens: int
    min_tokens: int
    waits: int

    @classmethod
    def of(
        cls, tokenizer: Tokenizer, vocab_size: int, budget: ThinkingBudget, max_new_tokens: int
    ) -> "ForcingTables":
        """Raises `ModelError` where the vocabulary cannot write the texts, and as `most` does."""
        reader = ThoughtReader(tokenizer, vocab_size)
        most = budget.most(max_new_tokens)
        texts = ForcedTexts([], [])
        starts = []
        lead = encoded(tokenizer, LINE_END)
        spelt = {0, *reader.steps_SV.flat}  # a tag that is one token leaves no state between
        for state in range(STATES):
            rest = THINK_CLOSE[state:] if state in spelt else THINK_CLOSE
            close = encoded(tokenizer, rest + budget.answer_lead)
            check_closes(reader, state if state in spelt else 0, close)
            starts.append(texts.add(close if state else [*lead, *close]))
        starts.append(texts.add(encoded(tokenizer, THINK_CLOSE + budget.answer_lead)))
        wait = lead
        if budget.suppresses:
            wait = encoded(tokenizer, budget.wait_text or default_wait(tokenizer))
        stops_V = np.zeros(vocab_size, bool)
        stops_V[[token for token in tokenizer.stop_ids if token < vocab_size]] = True
        suppressed = max_new_tokens if budget.waits is None else budget.waits
        return cls(
            steps_SV=reader.steps_SV,
            ends_line_V=np.array([piece.endswith(LINE_ENDS) for piece in reader.pieces]),
            stops_V=stops_V,
            texts=texts,
            close_starts=tuple(starts),
            wait_start=texts.add(wait),
            wait_size=len(wait),
            max_tokens=most,
            min_tokens=NO_MINIMUM if budget.min_tokens is None else budget.min_tokens,
            waits=suppressed if budget.suppresses else 0,
        )

    def extra_draws(self, max_new_tokens: int) -> int:
        """How many tokens may be drawn and taken back, at most."""
        return min(self.waits, max_new_tokens) * (STATES - 1)

    def at_line_start(self, prompt: Prompt) -> bool:
        """Whether the prompt ends with a line break."""
        return bool(self.ends_line_V[prompt.tokens[-1]])


def encoded(tokenizer: Tokenizer, text: str) -> list[int]:
    """The tokens of a text that goes on after others, so without those that begin a text."""
    ids = tokenizer.fast.encode(text, add_special_tokens=False).ids
    if not ids or not tokenizer.reads_back(ids, text):
        raise ModelError(
            f"a tokenizer that cannot write {text!r}",
            "one that can, for a thinking budget",
            "another wait text, or no thinking budget",
        )
    return ids


def default_wait(tokenizer: Tokenizer) -> str:
    """The wait text of a vocabulary."""
    return WAIT if tokenizer.fast.token_to_id(WAIT_IN_SEARCH) is None else WAIT_IN_SEARCH


def check_closes(reader: ThoughtReader, state: int, tokens: Sequence[int]) -> None:
    """Raises `ModelError` where these tokens do not complete the tag: the tokenizer writes the end
    of `</think>` otherwise than its beginning."""
    for token in tokens:
        state = reader.rows[state][token]
        if state == STATES:
            return
    raise ModelError(
        f"a tokenizer that does not write {THINK_CLOSE} as it stands",
        "one that does, for a thinking budget",
        "leave the budget out",
    )


# -- the state of the rows --------------------------------------------------------------------


class Forcing:
    """The state of each slot's thought, and the choice between a drawn and a forced token."""

    def __init__(self, tables: ForcingTables, size: int, device: torch.device):
        self.tables = tables
        self.steps_SV = torch.from_numpy(tables.steps_SV).to(device)
        self.ends_line_V = torch.from_numpy(tables.ends_line_V).to(device)
        self.stops_V = torch.from_numpy(tables.stops_V).to(device)
        self.tokens_F, self.next_F, self.close_starts = (
            torch.tensor(list(numbers), device=device)
            for numbers in (*tables.texts, tables.close_starts)
        )
        self.thinking, self.at_line = (
            torch.zeros(size, dtype=torch.bool, device=device) for _ in range(2)
        )
        # Characters of the tag, tokens of it, waits so far, the next forced token, tokens drawn.
        self.matched, self.partial, self.waits, self.queue, self.draws = (
            torch.zeros(size, dtype=torch.long, device=device) for _ in range(5)
        )

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """What moves when a row moves to another slot."""
        numbers = (self.matched, self.partial, self.waits, self.queue, self.draws)
        return (self.thinking, self.at_line, *numbers)

    def begin(self, slots: slice, prompts: Sequence[Prompt]) -> None:
        """New rows in these slots: each inside an empty thought."""
        for numbers in (self.matched, self.partial, self.waits, self.draws):
            numbers[slots] = 0
        self.queue[slots], self.thinking[slots] = NOTHING, True
        at_line = [self.tables.at_line_start(prompt) for prompt in prompts]
        self.at_line[slots] = torch.tensor(at_line, device=self.at_line.device)

    def choose(
        self, slots: slice, drawn_B: torch.Tensor, used_B: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(the tokens to record [B], which of them are forced [B], how many recorded tokens before
        them are taken back [B]), from the tokens that were drawn after `used_B` others."""
        tables = self.tables
        thinking, at_line, matched, partial, waits, queue, draws = (
            tensor[slots] for tensor in self.tensors
        )
        pending = queue >= 0
        full = thinking & ~pending & (used_B >= tables.max_tokens)
        own = thinking & ~pending & ~full  # rows in which the model's token counts
        state = self.steps_SV[matched, drawn_B].long()
        begins = (state > 0) & (self.steps_SV[0, drawn_B] == state)
        closes = own & (state == STATES)
        back = torch.where(closes & ~begins, partial, 0)
        thought = used_B - back
        waiting = (closes | (own & self.stops_V[drawn_B])) & (waits < tables.waits)
        waiting &= thought < tables.min_tokens
        waiting &= thought + tables.wait_size <= tables.max_tokens
        complete_line = at_line & (matched == 0)
        start = self.close_starts[torch.where(complete_line, STATES, matched)]
        start = torch.where(waiting, tables.wait_start, start)
        place = torch.where(full | waiting, start, queue.clamp(min=0))
        forced = pending | full | waiting
        tokens_B = torch.where(forced, self.tokens_F[place], drawn_B)
        queue.copy_(torch.where(forced, self.next_F[place], NOTHING))
        thinking &= ~full & ~(closes & ~waiting)
        spelling = own & ~waiting & (state > 0) & (state < STATES)
        matched.copy_(torch.where(spelling, state, 0))
        partial.copy_(torch.where(spelling, torch.where(begins, 1, partial + 1), 0))
        at_line.copy_(torch.where(spelling, at_line, self.ends_line_V[tokens_B]))
        waits += waiting
        draws += 1
        return tokens_B, forced, torch.where(waiting, back, 0)
