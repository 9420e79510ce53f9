"""What solver models miss, tried once and kept."""

from itertools import islice

import pytest

from aha.core.errors import DataError
from aha.core.records import Graded, Prompt
from aha.distill.difficulty import Solver, unread
from aha.model.weights import load_model
from aha.rollout.engine import Sampling
from aha.rollout.native import open_engine
from aha.tasks.countdown import Countdown


class Odd(Countdown):
    """Grades by the problem: every second one is solved, whatever is said."""

    graded = 0

    def grade(self, problem, text):
        Odd.graded += 1
        right = problem.given["target"] % 2 == 1
        return Graded(float(right), right, "by its target")


PROBLEMS = {one.id: one for one in islice(Countdown().problems("train", 0), 6)}


def ignore(done: int, total: int) -> None:
    pass


def test_each_problem_is_tried_once_and_the_tries_are_kept(student, tmp_path):
    Odd.graded = 0
    solver = Solver(str(student), Sampling(4, 2, 1.0, 0), tmp_path / "solvers.jsonl")
    few = dict(list(PROBLEMS.items())[:3])
    first = solver.solved(few, Odd(), ignore)
    assert first == {name: 2 * (one.given["target"] % 2) for name, one in few.items()}
    whole = solver.solved(PROBLEMS, Odd(), ignore)
    assert Odd.graded == 2 * 6 and first.items() <= whole.items()
    usd, kwh = solver.cost()
    assert usd > 0 and kwh > 0
    # Other tries are other results.
    other = Solver(str(student), Sampling(4, 1, 1.0, 0), tmp_path / "solvers.jsonl")
    assert other.cost() == (0, 0) and other.solved(few, Odd(), ignore).keys() == few.keys()


def test_a_problem_that_a_solver_cannot_read_is_not_solved(student, tmp_path):
    asks = Countdown()
    asks.ask = lambda problem: "\u00e9"
    solver = Solver(str(student), Sampling(4, 1, 1.0, 0), tmp_path / "solvers.jsonl")
    results = solver.solved(PROBLEMS, asks, ignore)
    assert set(results.values()) == {None}
    with pytest.raises(DataError, match="6 of 6 problems that s cannot read.*--max-new-tokens"):
        unread("s", results, 4)
    finding = unread("s", results | {"another": 0}, 4)
    assert finding and "they stay as if it had missed them" in finding.message
    assert unread("s", {"another": 0}, 4) is None
    # Longer than its context is no error of all the others.
    long = Solver(str(student), Sampling(10_000, 1, 1.0, 0), tmp_path / "solvers.jsonl")
    assert set(long.solved(PROBLEMS, Countdown(), ignore).values()) == {None}


def test_a_solver_draws_otherwise_than_a_teacher_with_the_same_seed(student, tmp_path):
    solver = Solver(str(student), Sampling(12, 1, 1.0, 0), tmp_path / "solvers.jsonl")
    model = load_model(student)
    engine = open_engine(model.policy, model.tokenizer)
    prompts = [Prompt.of(one, Countdown(), model.tokenizer) for one in PROBLEMS.values()]
    taught, tried = (
        [group[0].tokens for group in engine.generate(prompts, sampling)]
        for sampling in (Sampling(12, 1, 1.0, 0), solver.sampling)
    )
    assert taught != tried
