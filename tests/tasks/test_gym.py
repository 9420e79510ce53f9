"""The adapter, on a small module of reasoning-gym's interface; the real one where it is there."""

import sys
from itertools import islice

import pytest

from aha.core.errors import AhaError, ConfigError
from aha.core.records import Problem
from aha.tasks.catalog import make_task

FAKE = """
import random

class Sums:
    def __init__(self, size, seed, terms=2, top=99):
        self.size, self.seed, self.terms, self.top = size, seed, terms, top

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        if index >= self.size:
            raise IndexError
        rng = random.Random(self.seed + index)
        numbers = [rng.randint(1, self.top) for _ in range(self.terms)]
        question = " + ".join(map(str, numbers)) + " ="
        return {"question": question, "answer": str(sum(numbers)), "metadata": {"set": {1}}}

    def score_answer(self, answer, entry):
        # Like theirs: raises on garbage, 0.05 for a number that is wrong.
        return 1.0 if int(answer) == int(entry["answer"]) else 0.05

def create_dataset(name, size=500, seed=None, **config):
    if name != "sums":
        raise ValueError(f"Dataset '{name}' not registered")
    return Sums(size, seed, **config)
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    (tmp_path / "reasoning_gym.py").write_text(FAKE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "reasoning_gym", raising=False)
    yield
    sys.modules.pop("reasoning_gym", None)


def answer_to(problem: Problem) -> int:
    return sum(map(int, problem.given["question"].rstrip("= ").split("+")))


def test_verdicts_come_from_its_scorer(fake):
    task = make_task("gym:sums")
    for problem in islice(task.problems("train", 0), 5):
        right = answer_to(problem)
        found = task.grade(problem, f"<answer>{right}</answer>")
        assert found.reward == 1.0 and found.correct
        wrong = task.grade(problem, f"<answer>{right + 1}</answer>")
        assert wrong.reward == 0.0 and wrong.parts == {"gym_score": 0.05}, "partial credit"
        assert task.grade(problem, str(right)).reward == 0.0


def test_its_own_completion_is_right(fake):
    task = make_task("gym:sums")
    for problem in islice(task.problems("train", 0), 5):
        assert task.grade(problem, task.solve(problem)).correct


def test_a_scorer_that_raises_costs_one_completion(fake):
    task = make_task("gym:sums")
    problem = next(task.problems("train", 0))
    found = task.grade(problem, "<answer>garbage</answer>")
    assert found.reward == 0.0 and found.parts == {"grade_error": 1.0}
    assert "ValueError" in found.reason
    assert task.grade(problem, f"<answer>{answer_to(problem)}</answer>").correct


def test_partial_credit_can_be_had(fake):
    task = make_task("gym:sums", {"strict": False})
    problem = next(task.problems("train", 0))
    found = task.grade(problem, "<answer>0</answer>")
    assert found.reward == 0.05 and not found.correct


def test_options_reach_the_data_set(fake):
    task = make_task("gym:sums", {"terms": 4, "template": "r1"})
    problem = next(task.problems("train", 0))
    assert problem.given["question"].count("+") == 3
    assert problem.given["question"] in task.ask(problem)
    assert task.grade(problem, f"<answer>{answer_to(problem)}</answer>").correct


def test_splits_share_no_question_and_a_small_data_set_ends(fake):
    task = make_task("gym:sums", {"top": 9})
    found = {
        split: {p.given["question"] for p in task.problems(split, 0)}
        for split in ("test", "validation", "train")
    }
    assert sum(map(len, found.values())) == len(set.union(*found.values())) <= 81
    assert all(found.values())


def test_an_unknown_data_set_is_one_line(fake):
    with pytest.raises(ConfigError, match="'summs' not registered"):
        make_task("gym:summs")
    with pytest.raises(ConfigError, match="unexpected keyword"):
        make_task("gym:sums", {"colour": 3})


def test_the_real_one_when_it_is_there():
    pytest.importorskip("reasoning_gym")
    task = make_task("gym:prime_factorization", {}, 30.0)
    problem = next(task.problems("train", 0))
    assert task.grade(problem, "<answer>garbage</answer>").reward == 0.0
    with pytest.raises(AhaError):
        make_task("gym:no_such_data_set")
