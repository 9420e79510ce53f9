"""The examples of the study `priming`: puzzles of the training split, worked out in one style.

Each kind is what one condition of Gandhi et al. (arXiv 2503.01307) reads before RL. There a large
model wrote them; here the writer of the corpus does, with other rates. As there, wrong answers are
not left out: .56 to .60 of the answers are right (there .28 to .44).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from aha.core.seeds import seed_for
from aha.corpus.bases import TraceMix
from aha.corpus.shards import drawn_puzzle
from aha.corpus.traces import Trace, TraceWriter, completion_text
from aha.store.durable import to_json, write_text
from aha.tasks.countdown import TARGETS, puzzle_line, split_of
from aha.tasks.tags import answer_ending, plain_frame

# Searches by chance alone: no order, no eyes, no other pass.
SEARCH = replace(
    TraceMix(),
    verify=0.0,
    backtrack=0.0,
    backward=0.0,
    subgoal=0.0,
    give_up=0.12,
    patient=0.0,
    max_attempts=16,
    abandon=0.0,
    insight=0.0,
    gold_attempt=0.0,
)


@dataclass(frozen=True)
class ExampleKind:
    """One style: the rates of the writer, which answers are kept, and what becomes of the
    thought."""

    name: str
    mix: TraceMix
    wrong_only: bool = False
    thought: str = "kept"  # or "empty", or "dots"


def with_rates(**rates: Any) -> TraceMix:
    """The search with some behaviours at these rates."""
    return replace(SEARCH, **rates)


ALL_FOUR = with_rates(verify=1.0, backtrack=0.45, backward=0.2, subgoal=0.2)
KINDS = {
    kind.name: kind
    for kind in (
        ExampleKind("all", ALL_FOUR),
        ExampleKind("backtracking", with_rates(backtrack=0.45)),
        ExampleKind("backtracking-verification", with_rates(verify=1.0, backtrack=0.45)),
        ExampleKind("backtracking-backward", with_rates(backtrack=0.45, backward=0.4)),
        ExampleKind("backtracking-subgoal", with_rates(backtrack=0.45, subgoal=0.4)),
        ExampleKind("wrong-only", ALL_FOUR, wrong_only=True),
        ExampleKind("empty", ALL_FOUR, thought="empty"),
        ExampleKind("dots", ALL_FOUR, thought="dots"),
    )
}
CONTROLS = ("empty", "dots", "nothing")
Length = Callable[[str], int]  # tokens of a text


def example_rows(
    kind: ExampleKind, numbers: tuple[int, ...], seed: int, length: Length
) -> Iterator[dict[str, Any]]:
    """Endless rows `prompt`, `completion` for `aha sft`, and whether the answer is right.

    All kinds with the same rates get the same puzzles and workings: dots are as long as the thought
    in whose place they stand.
    """
    rng = Random(seed_for("examples", seed))
    writer = TraceWriter(kind.mix, rng)
    while True:
        trace = drawn_puzzle(writer, rng.choice(numbers), TARGETS)
        if split_of(trace.numbers, trace.target) != "train":
            continue
        writer.search(trace)
        if kind.wrong_only and trace.solved:
            continue
        prompt = plain_frame(puzzle_line(trace.numbers, trace.target))
        completion = with_thought(kind.thought, trace, length)
        yield {"prompt": prompt, "completion": completion, "right": trace.solved}


def with_thought(thought: str, trace: Trace, length: Length) -> str:
    """The completion of a trace with its thought kept, empty, or as many dots."""
    if thought == "kept":
        return completion_text(trace)
    ending = answer_ending(trace.answer)
    if thought == "empty":
        return ending
    working = "".join(f"{text}\n" for text in trace.lines)
    return f"{'.' * max(1, length(working) - 1)}\n{ending}"


def write_examples(
    path: Path, kind: ExampleKind, numbers: tuple[int, ...], seed: int, count: int, length: Length
) -> float:
    """Write so many examples as JSON lines; returns the share with a right answer. A file that is
    there is written again, to the same content."""
    rows = list(islice(example_rows(kind, numbers, seed, length), count))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "".join(f"{to_json(row)}\n" for row in rows))
    return float(sum(row["right"] for row in rows) / len(rows))
