"""Writes puzzles of Countdown with their working by chance, with a rate for each behaviour.

RL can only amplify what a base model has read. So the corpus has every behaviour at a low rate:
direct guesses (most), trying and checking, going back to an intermediate result, working backwards
from the target, and naming a subgoal first. Many searches fail or end with a wrong answer. The text
is made by rules and random numbers, without a model. Searches in a fixed order are in
`aha.corpus.orderly`.

    numbers 3 7 25 target 82      the prompt
    <think>
    25+7=32                       one operation a line; its result joins the numbers left
    32*3=96 no                    all used: a verdict
    32+3=35 no                    back to 32
    32/3                          not whole, or below zero: left
    82-7=75 need                  backwards: 75 is what the other two must make
    25*3=75 yes
    </think>
    <answer>(25*3)+7</answer>

Sources: the mixture follows Stream of Search (arXiv 2404.03683) and the four behaviours of Gandhi
et al. (arXiv 2503.01307); the compact line grammar is ours.
"""

from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from aha.corpus.bases import TraceMix
from aha.corpus.terms import Move, Table, TableNumber, join, line, without
from aha.tasks.solver import OPERATORS, apply
from aha.tasks.tags import answer_ending

# Operations as they are tried: quotients often, because most of them are not whole.
TRIED = "+-*//"
REDRAWS = 12  # draws of an attempt before one that was made already is written again


@dataclass
class Trace:
    """One document while it is being written."""

    numbers: tuple[int, ...]
    target: int
    gold: list[Move] = field(default_factory=list)  # one solution, as moves on the start terms
    lines: list[str] = field(default_factory=list)
    tried: set[str] = field(default_factory=set)  # keys of the attempts
    answer: str = ""
    distance: int = 10**9  # of the answer from the target
    solved: bool = False
    searches: bool = False

    @property
    def start(self) -> Table:
        """The numbers of the puzzle as terms."""
        return tuple(map(TableNumber.given, self.numbers))


class Attempt(NamedTuple):
    """One attempt as it was written: whether it is right, its expression, the tables on the way
    that a later attempt may start from, and the value that its last line had to make."""

    right: bool
    answer: TableNumber
    tables: list[Table]
    goal: int


class BackwardStep(NamedTuple):
    """`target back kept = need`: when `rest` makes `need`, then `need ahead kept` is the target.

    `moves` make `need` of `rest`, where a solution was asked for.
    """

    kept: TableNumber
    rest: Table
    back: str
    ahead: str
    need: int
    moves: list[Move] | None = None


class TraceWriter:
    """Writes the working of puzzles, from one seeded generator."""

    def __init__(self, mix: TraceMix, rng: Random):
        self.mix, self.rng = mix, rng

    # -- choosing operations ---------------------------------------------------------------

    def any_move(self, terms: Table, trace: Trace | None = None) -> Move:
        """A random legal operation on two of the terms; large results and idle ones are rare.

        With a trace, an operation without a result may be written there and left: `60/18`, `26-59`.
        """
        rng, mix = self.rng, self.mix
        while True:
            i, j = rng.sample(range(len(terms)), 2)
            a, b = terms[i], terms[j]
            op = rng.choice(TRIED)
            below = op == "-" and a.value < b.value
            if below and trace and rng.random() < mix.abandon:
                trace.lines.append(f"{a.value}-{b.value}")
                continue
            if a.value < b.value:
                a, b = b, a
            result = join(a, op, b)
            if result is None:
                if trace and op == "/" and b.value and rng.random() < mix.abandon:
                    trace.lines.append(f"{a.value}/{b.value}")
                continue
            if result.value > mix.high_result and rng.random() > mix.high_rate:
                continue
            if result.value > mix.max_result and rng.random() > mix.max_rate:
                continue
            idle = result.value == 0 or (b.value == 1 and op in "*/")
            if idle and rng.random() > 0.1:
                continue
            if op in "+*" and rng.random() < 0.25:
                a, b = b, a
                result = TableNumber.made(result.value, a, op, b)
            return a, op, b, result

    def hit(self, terms: Table, goal: int) -> Move | None:
        """The operation that makes `goal` of exactly two terms, if there is one."""
        a, b = terms
        if a.value < b.value:
            a, b = b, a
        options = [
            (a, op, b, TableNumber.made(goal, a, op, b))
            for op in OPERATORS
            if apply(op, a.value, b.value) == goal
        ]
        return self.rng.choice(options) if options else None

    def gold_moves(self, terms: Table, goal: int) -> list[Move] | None:
        """A solution from these terms as a list of moves, in random order of search, or None."""
        if len(terms) == 2:
            move = self.hit(terms, goal)
            return [move] if move else None
        pairs = [(i, j) for i in range(len(terms)) for j in range(i)]
        moves = [(pair, op) for pair in pairs for op in OPERATORS]
        self.rng.shuffle(moves)
        for (i, j), op in moves:
            a, b = terms[i], terms[j]
            if a.value < b.value:
                a, b = b, a
            result = join(a, op, b)
            if result is None or result.value > 5 * self.mix.max_result:
                continue
            rest = tuple(t for k, t in enumerate(terms) if k not in (i, j))
            after = self.gold_moves((*rest, result), goal)
            if after is not None:
                return [(a, op, b, result), *after]
        return None

    # -- attempts --------------------------------------------------------------------------

    def forward(
        self, trace: Trace, terms: Table, goal: int, gold: list[Move] | None, insight: float
    ) -> tuple[TableNumber, list[Table]]:
        """Combine until one term is left; returns it and the tables on the way.

        Follows the moves of `gold` where there are any. The last operation makes `goal` on purpose
        with the chance `insight`, where one of the four does.
        """
        tables = []
        moves = list(gold or [])
        while len(terms) > 1:
            tables.append(terms)
            move = moves.pop(0) if moves else None
            if move is None and len(terms) == 2 and self.rng.random() < insight:
                move = self.hit(terms, goal)
            a, op, b, result = move or self.any_move(terms, trace if trace.searches else None)
            trace.lines.append(line(a, op, b, result))
            terms = (*without(terms, a, b), result)
        return terms[0], tables

    def backward_step(self, trace: Trace, terms: Table, gold: bool) -> BackwardStep | None:
        """A random step back from the target; with `gold` one from which there is a solution.

        None where no step fits.
        """
        target, rng = trace.target, self.rng
        options = []
        for kept in terms:
            n = kept.value
            rest = without(terms, kept)
            # target op n = need, so that need (op inverse) n = target
            candidates = [("-", "+", target - n), ("+", "-", target + n), ("*", "/", target * n)]
            if n and target % n == 0:
                candidates.append(("/", "*", target // n))
            for back, ahead, need in candidates:
                if need > 0:
                    options.append(BackwardStep(kept, rest, back, ahead, need))
        rng.shuffle(options)
        if gold:
            for option in options:
                moves = self.gold_moves(option.rest, option.need)
                if moves:
                    return option._replace(moves=moves)
            return None
        return options[0] if options else None

    def attempt_backward(self, trace: Trace, terms: Table, gold: bool) -> Attempt:
        """Write the value that the other numbers must make, then try to make it."""
        step = self.backward_step(trace, terms, gold)
        if step is None:
            return self.attempt_forward(trace, terms, gold)
        trace.lines.append(f"{trace.target}{step.back}{step.kept.value}={step.need} need")
        end, _ = self.forward(trace, step.rest, step.need, step.moves, self.mix.insight)
        right = end.value == step.need
        # Its tables lack the number kept back: a later attempt must not start from them.
        answer = TableNumber.made(trace.target if right else -1, end, step.ahead, step.kept)
        return Attempt(right, answer, [], step.need)

    def attempt_subgoal(self, trace: Trace, terms: Table, gold: bool) -> Attempt:
        """Name a value next to the target first, then reach it, then finish."""
        step = self.backward_step(trace, terms, gold)
        if step is None or step.need == trace.target:
            return self.attempt_forward(trace, terms, gold)
        trace.lines.append(f"aim {step.need}")
        end, _ = self.forward(trace, step.rest, step.need, step.moves, self.mix.insight)
        last = join(end, step.ahead, step.kept)
        if last is None:  # the aim was missed so far that the last operation is not legal
            a, op, b, last = self.any_move((end, step.kept))
        else:
            a, op, b = end, step.ahead, step.kept
        trace.lines.append(line(a, op, b, last))
        return Attempt(last.value == trace.target, last, [], trace.target)

    def attempt_forward(self, trace: Trace, terms: Table, gold: bool) -> Attempt:
        """Combine the numbers on the table until one is left; with `gold` along a solution."""
        moves = None
        if gold:
            full = len(terms) == len(trace.numbers)
            moves = trace.gold if full else self.gold_moves(terms, trace.target)
        end, tables = self.forward(trace, terms, trace.target, moves, self.mix.insight)
        return Attempt(end.value == trace.target, end, tables, trace.target)

    def attempt(self, trace: Trace, start: Table, earlier: list[Table], gold: bool) -> Attempt:
        """One attempt in a style drawn by the rates; `earlier` are the tables to go back to."""
        draw, mix = self.rng.random(), self.mix
        if len(start) == 2:  # by chance alone, so that "yes" and "no" are about as frequent
            end, _ = self.forward(trace, start, trace.target, None, insight=0.0)
            return Attempt(end.value == trace.target, end, [], trace.target)
        if earlier and self.rng.random() < mix.backtrack:
            return self.attempt_forward(trace, self.rng.choice(earlier), gold)
        if draw < mix.backward:
            return self.attempt_backward(trace, start, gold)
        if draw < mix.backward + mix.subgoal:
            return self.attempt_subgoal(trace, start, gold)
        return self.attempt_forward(trace, start, gold)

    # -- whole workings --------------------------------------------------------------------

    def search(self, trace: Trace) -> None:
        """Make attempts until one is right or the search gives up. A repeated attempt is drawn
        again."""
        mix, rng = self.mix, self.rng
        start = trace.start
        trace.searches = True
        verify = rng.random() < mix.verify
        patient = rng.random() < mix.patient
        give_up = mix.give_up / 12 if patient else mix.give_up
        gold_attempt = mix.gold_attempt / 8 if patient else mix.gold_attempt
        earlier: list[Table] = []
        closest = (10**9, "")
        for _ in range(mix.max_attempts):
            gold = rng.random() < gold_attempt
            size = len(trace.lines)
            for _redraw in range(REDRAWS):
                del trace.lines[size:]
                right, answer, tables, goal = self.attempt(trace, start, earlier, gold)
                if answer.key not in trace.tried:
                    break
            trace.tried.add(answer.key)
            earlier = tables[1:] or earlier
            if verify:
                trace.lines[-1] += " yes" if right else " no"
            result = int(trace.lines[-1].split("=")[1].split()[0])
            closest = min(closest, (abs(result - goal), answer.text))
            if right:
                trace.answer, trace.solved = answer.text, True
                return
            if rng.random() < give_up:
                break
        trace.answer = closest[1]

    def any_answer(self, trace: Trace) -> str:
        """An answer at random, for a working that has none."""
        aside = Trace(trace.numbers, trace.target)
        end, _ = self.forward(aside, trace.start, trace.target, None, insight=0.0)
        return end.text

    def guess(self, trace: Trace) -> None:
        """Answer at once: no working at all, or one unchecked attempt."""
        start = trace.start
        gold = self.rng.random() < self.mix.gold_guess
        moves = trace.gold if gold else None
        end, _ = self.forward(trace, start, trace.target, moves, insight=0.0)
        trace.answer, trace.solved = end.text, end.value == trace.target
        if self.rng.random() < 0.5:
            trace.lines.clear()


def completion_text(trace: Trace) -> str:
    """The working and the answer, as a completion of the prompt."""
    body = "".join(f"{text}\n" for text in trace.lines)
    return f"{body}{answer_ending(trace.answer)}"
