"""The corpus writer: Countdown worked in five styles, most of it badly, with knobs for how often.

A base model can only amplify what it has read, so the corpus holds every behaviour at a low rate:
direct guesses (most), trying and checking, going back to an intermediate result, working
backwards from the target, and naming a subgoal first. It holds dead ends and wrong endings too.
It is written by arithmetic and chance alone; no model takes part.

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

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random

from aha.core.seeds import seed_for
from aha.corpus.drills import page
from aha.corpus.mix import TraceMix
from aha.corpus.products import product_documents
from aha.corpus.terms import Term, join, line, moves_in_order
from aha.tasks.countdown import puzzle_line
from aha.tasks.solver import OPERATORS, apply, can_make

# Operations as they are tried: quotients often, because most of them are not whole.
TRIED = "+-*//"
GIVE_UP_ORDER = 0.02  # chance of an orderly search to end after a branch in vain
REDOS = 12  # draws of an attempt before one that was made already is written again


@dataclass
class Trace:
    """One document while it is being written."""

    numbers: tuple[int, ...]
    target: int
    gold: list[tuple] = field(default_factory=list)  # one solution, as moves on the start terms
    lines: list[str] = field(default_factory=list)
    tried: set[str] = field(default_factory=set)  # keys of the attempts
    answer: str = ""
    distance: int = 10**9  # of the answer from the target
    solved: bool = False
    searches: bool = False

    @property
    def start(self) -> tuple[Term, ...]:
        return tuple(map(Term.given, self.numbers))


class Writer:
    """Writes documents `(prompt, completion)` from one seeded generator."""

    def __init__(self, mix: TraceMix, rng: Random):
        self.mix, self.rng = mix, rng

    # -- choosing operations ---------------------------------------------------------------

    def any_move(
        self, terms: tuple[Term, ...], trace: Trace | None = None
    ) -> tuple[Term, str, Term, Term]:
        """A random legal operation on two of the terms; large results and idle ones are rare.

        With a trace, what turns out to have no result may be left there: `60/18`, `26-59`.
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
                result = join(a, op, b)
            return a, op, b, result

    def hit(self, terms: tuple[Term, ...], goal: int) -> tuple[Term, str, Term, Term] | None:
        """The operation that makes `goal` of exactly two terms, if there is one."""
        a, b = terms
        if a.value < b.value:
            a, b = b, a
        options = []
        for op in OPERATORS:
            if apply(op, a.value, b.value) == goal:
                options.append((a, op, b, join(a, op, b)))
        return self.rng.choice(options) if options else None

    def gold_moves(self, terms: tuple[Term, ...], goal: int) -> list | None:
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
        self, trace: Trace, terms: tuple[Term, ...], goal: int, gold: list | None, insight: float
    ) -> tuple[Term, list[tuple[Term, ...]]]:
        """Combine until one term is left; returns it and the states passed on the way."""
        states = []
        moves = list(gold or [])
        while len(terms) > 1:
            states.append(terms)
            move = moves.pop(0) if moves else None
            if move is None and len(terms) == 2 and self.rng.random() < insight:
                move = self.hit(terms, goal)
            a, op, b, result = move or self.any_move(terms, trace if trace.searches else None)
            trace.lines.append(line(a, op, b, result))
            terms = (*self.without(terms, a, b), result)
        return terms[0], states

    @staticmethod
    def without(terms: tuple[Term, ...], *used: Term) -> tuple[Term, ...]:
        left = list(terms)
        for term in used:
            left.remove(term)
        return tuple(left)

    def backward_step(self, trace: Trace, terms: tuple[Term, ...], gold: bool):
        """One step back from the target: which value must the other terms make?

        Returns (goal for the rest, rest, rebuild) where `rebuild(term)` is the full answer, or
        None when no step fits.
        """
        target, rng = trace.target, self.rng
        options = []
        for kept in terms:
            n = kept.value
            rest = self.without(terms, kept)
            # target op n = need, so that need (op inverse) n = target
            candidates = [("-", "+", target - n), ("+", "-", target + n), ("*", "/", target * n)]
            if n and target % n == 0:
                candidates.append(("/", "*", target // n))
            for back, ahead, need in candidates:
                if need > 0:
                    options.append((kept, rest, back, ahead, need))
        rng.shuffle(options)
        if gold:
            for option in options:
                moves = self.gold_moves(option[1], option[4])
                if moves:
                    return (*option, moves)
            return None
        return (*options[0], None) if options else None

    def attempt_backward(self, trace: Trace, terms: tuple[Term, ...], gold: bool) -> tuple:
        found = self.backward_step(trace, terms, gold)
        if found is None:
            return self.attempt_forward(trace, terms, gold)
        kept, rest, back, ahead, need, moves = found
        trace.lines.append(f"{trace.target}{back}{kept.value}={need} need")
        end, _ = self.forward(trace, rest, need, moves, self.mix.insight)
        # Its tables lack the number kept back: a later attempt must not start from them.
        answer = Term.made(trace.target if end.value == need else -1, end, ahead, kept)
        return end.value == need, answer, [], need

    def attempt_subgoal(self, trace: Trace, terms: tuple[Term, ...], gold: bool) -> tuple:
        """Name a value next to the target first, then reach it, then finish."""
        found = self.backward_step(trace, terms, gold)
        if found is None or found[4] == trace.target:
            return self.attempt_forward(trace, terms, gold)
        kept, rest, _, ahead, need, moves = found
        trace.lines.append(f"aim {need}")
        end, _ = self.forward(trace, rest, need, moves, self.mix.insight)
        last = join(end, ahead, kept)
        if last is None:  # the aim was missed so far that the last operation is not legal
            last_a, last_op, last_b, last = self.any_move((end, kept))
        else:
            last_a, last_op, last_b = end, ahead, kept
        trace.lines.append(line(last_a, last_op, last_b, last))
        return last.value == trace.target, last, [], trace.target

    def attempt_forward(self, trace: Trace, terms: tuple[Term, ...], gold: bool) -> tuple:
        moves = None
        if gold:
            full = len(terms) == len(trace.numbers)
            moves = trace.gold if full else self.gold_moves(terms, trace.target)
        end, states = self.forward(trace, terms, trace.target, moves, self.mix.insight)
        return end.value == trace.target, end, states, trace.target

    # -- documents -------------------------------------------------------------------------

    def search(self, trace: Trace) -> None:
        """Try until solved or given up; an attempt that was made already is drawn anew."""
        mix, rng = self.mix, self.rng
        start = trace.start
        trace.searches = True
        verify = rng.random() < mix.verify
        patient = rng.random() < mix.patient
        give_up = mix.give_up / 12 if patient else mix.give_up
        gold_attempt = mix.gold_attempt / 8 if patient else mix.gold_attempt
        earlier: list[tuple[Term, ...]] = []
        closest = (10**9, "")
        for _ in range(mix.max_attempts):
            gold = rng.random() < gold_attempt
            size = len(trace.lines)
            for _redo in range(REDOS):
                del trace.lines[size:]
                right, answer, states, goal = self.attempt(trace, start, earlier, gold)
                if answer.key not in trace.tried:
                    break
            trace.tried.add(answer.key)
            earlier = states[1:] or earlier
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

    def orderly(self, trace: Trace, terms: tuple[Term, ...], glance: bool) -> bool:
        """Go through the pairs of numbers and + - * / in order, depth first; whether it ended well.

        Of the last two numbers it tries every operation, or with `glance` only the one that comes
        nearest. What was tried need not be remembered: each line says which one is next.
        """
        moves = moves_in_order(terms, self.mix.max_result)
        if len(terms) == 2 and glance:
            whole = [move for move in moves if move[3]]
            moves = [min(whole, key=lambda move: abs(move[3].value - trace.target))][: len(whole)]
        for a, op, b, result in moves:
            if result is None:
                trace.lines.append(f"{a.value}/{b.value}")
                continue
            trace.lines.append(line(a, op, b, result))
            if len(terms) > 2:
                if self.orderly(trace, (*self.without(terms, a, b), result), glance):
                    return True
                if len(trace.lines) > self.mix.max_lines or self.rng.random() < GIVE_UP_ORDER:
                    return False
                continue
            right = result.value == trace.target
            trace.lines[-1] += " yes" if right else " no"
            distance = abs(result.value - trace.target)
            if distance < trace.distance:
                trace.answer, trace.distance = result.text, distance
            if right:
                trace.solved = True
                return True
        return False

    def attempt(self, trace: Trace, start: tuple[Term, ...], earlier: list, gold: bool) -> tuple:
        draw, mix = self.rng.random(), self.mix
        if len(start) == 2:  # by chance alone, so that "yes" and "no" are about as frequent
            end, _ = self.forward(trace, start, trace.target, None, insight=0.0)
            return end.value == trace.target, end, [], trace.target
        if earlier and self.rng.random() < mix.backtrack:
            return self.attempt_forward(trace, self.rng.choice(earlier), gold)
        if draw < mix.backward:
            return self.attempt_backward(trace, start, gold)
        if draw < mix.backward + mix.subgoal:
            return self.attempt_subgoal(trace, start, gold)
        return self.attempt_forward(trace, start, gold)

    def guess(self, trace: Trace) -> None:
        """Answer at once: no working at all, or one unchecked attempt."""
        start = trace.start
        gold = self.rng.random() < self.mix.gold_guess
        moves = trace.gold if gold else None
        end, _ = self.forward(trace, start, trace.target, moves, insight=0.0)
        trace.answer, trace.solved = end.text, end.value == trace.target
        if self.rng.random() < 0.5:
            trace.lines.clear()


def prompt_line(numbers: tuple[int, ...], target: int) -> str:
    """The one-line prompt of aha-tiny, up to and including the opening tag."""
    return f"{puzzle_line(numbers, target)}\n<think>\n"


def completion_text(trace: Trace) -> str:
    body = "".join(f"{text}\n" for text in trace.lines)
    return f"{body}</think>\n<answer>{trace.answer}</answer>"


def made_up(writer: Writer, size: int, targets: range) -> Trace:
    """A puzzle made by playing it: draw numbers, combine them at random, call the end the target.

    Fast, and solvable by construction; puzzles with many solutions come up more often than in
    the task's own draw, which is even over solvable (numbers, target) pairs.
    """
    while True:
        numbers = tuple(writer.rng.randint(1, 99) for _ in range(size))
        terms = tuple(map(Term.given, numbers))
        moves = []
        while len(terms) > 1:
            a, op, b, result = writer.any_move(terms)
            moves.append((a, op, b, result))
            terms = (*writer.without(terms, a, b), result)
        if terms[0].value in targets:
            return Trace(numbers, terms[0].value, gold=moves)


def drawn(writer: Writer, size: int, targets: range) -> Trace:
    """A puzzle as the task draws them: even over solvable (numbers, target) pairs, so that a search
    in order often has to go far."""
    while True:
        numbers = tuple(writer.rng.randint(1, 99) for _ in range(size))
        target = writer.rng.choice(targets)
        if can_make(numbers, target):
            return Trace(numbers, target)


def documents(
    mix: TraceMix, seed: int, keep: Callable[[tuple[int, ...], int], bool]
) -> Iterator[tuple[str, str]]:
    """Endless `(prompt, completion)` pairs; drills have an empty prompt. Products are of their own
    training split.

    `keep(numbers, target)` says which puzzles may be written: `aha pretrain` hands over "belongs
    to the training split", so that no held-out problem and no held-out target is ever read.
    """
    rng = Random(seed_for("traces", seed))
    writer = Writer(mix, rng)
    # An orderly search checks and goes back: with either dial at 0 there is none.
    orderly = mix.orderly if mix.verify and mix.backtrack else 0.0
    while True:
        if mix.multiply:
            yield from product_documents(rng, mix)
        size = rng.choice(mix.numbers)
        searches = size == 2 or rng.random() < mix.search
        in_order = size > 2 and searches and rng.random() < orderly
        trace = (drawn if in_order else made_up)(writer, size, range(10, 101))
        if not keep(trace.numbers, trace.target):
            continue
        if rng.random() < mix.drill:
            # The puzzle's target, so that none is read that may not be.
            yield "", page(rng, mix, trace.target)
        if in_order:
            writer.orderly(trace, trace.start, glance=rng.random() < mix.glance)
        elif searches:
            writer.search(trace)
        else:
            writer.guess(trace)
        yield prompt_line(trace.numbers, trace.target), completion_text(trace)
