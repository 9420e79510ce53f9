"""The records hold together, and cannot be changed on the way."""

import pickle
from dataclasses import FrozenInstanceError

import pytest

from aha.core.records import Completion, Graded, Problem, Prompt

PROBLEM = Problem("countdown/3-7=10", "countdown", {"numbers": (3, 7), "target": 10})
PROMPT = Prompt(PROBLEM, "numbers 3 7 target 10", (1, 2, 3))
COMPLETION = Completion(PROMPT, (4, 5), (-0.1, -0.2), "3+7", "stop")
GRADED = Graded(1.0, True, "makes 10", {"answer_blocks": 1.0}, COMPLETION)


@pytest.mark.parametrize("record", [PROBLEM, PROMPT, COMPLETION, GRADED])
def test_frozen_and_picklable(record):
    for name in type(record).__dataclass_fields__:
        with pytest.raises(FrozenInstanceError):
            setattr(record, name, None)
    assert pickle.loads(pickle.dumps(record)) == record


def test_every_token_has_a_log_prob():
    with pytest.raises(AssertionError, match="log-prob"):
        Completion(PROMPT, (4, 5), (-0.1,), "3", "length")


def test_parts_are_not_shared_between_grades():
    assert Graded(0.0, False, "a").parts is not Graded(0.0, False, "b").parts


class Letters:
    """A task and a tokenizer in one: the least that the records ask of either."""

    def ask(self, problem):
        return f"{problem.given['target']}?"

    def say(self, text):
        return text

    def encode(self, text):
        return [ord(letter) for letter in text]

    def grade(self, problem, text):
        right = text == str(problem.given["target"])
        return Graded(float(right), right, "said so")


def test_a_prompt_is_asked_and_encoded_once():
    prompt = Prompt.of(PROBLEM, Letters(), Letters())
    assert (prompt.text, prompt.tokens) == ("10?", (49, 48, 63))
    assert prompt.problem is PROBLEM


def test_a_grade_is_tied_to_its_completion():
    graded = Graded.of(COMPLETION, Letters())
    assert graded.completion is COMPLETION
    assert (graded.reward, graded.reason) == (0.0, "said so")
