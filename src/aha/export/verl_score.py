"""The reward of a row of veRL, by our own graders. `verl_reward` copies what is here, with all that
it needs, into a file that stands alone.

veRL hands over the completion without its prompt and without special tokens, in threads of its
workers, and has no time limit: nothing here keeps a state, and every grader is bounded.
"""

from collections.abc import Callable, Mapping
from typing import Any

from aha.core.records import Graded
from aha.tasks.answers import true_answer
from aha.tasks.countdown import grade_puzzle
from aha.tasks.files import verl_truth
from aha.tasks.math_files import grade_solution
from aha.tasks.multiply import grade_product

Settings = Mapping[str, Any]  # of the recipe's task, as far as its grades depend on them
RowGrader = Callable[[str, Any, Mapping[str, Any], Settings], Graded]


def row_score(
    grade: RowGrader, settings: Settings, text: str, ground_truth: Any, extra_info: Any
) -> dict[str, Any]:
    """The reward as veRL reads it, always with the same keys: "score" is the reward, "acc" 1 where
    the answer is right, "reason" the reason in words.

    Raises `ValueError` for a ground truth that is none of this task: such a row is of another file.
    """
    truth = verl_truth({"reward_model": {"ground_truth": ground_truth}})
    extra = extra_info if isinstance(extra_info, Mapping) else {}
    try:
        graded = grade(text, truth, extra, settings)
    except (KeyError, TypeError, ValueError) as error:
        shown = repr(ground_truth)[:120]
        raise ValueError(
            f"ground_truth {shown} is none of the task of this reward file; "
            "train on the rows that were exported with it"
        ) from error
    return {"score": graded.reward, "acc": float(graded.correct), "reason": graded.reason}


def countdown_row(text: str, truth: Any, extra: Mapping[str, Any], settings: Settings) -> Graded:
    """The grade of a puzzle {"numbers": [3, 7, 25], "target": 82}."""
    numbers = tuple(int(number) for number in truth["numbers"])
    form = (settings["verifier"], settings["template"], settings["format_reward"])
    return grade_puzzle(text, numbers, int(truth["target"]), *form)


def multiply_row(text: str, truth: Any, extra: Mapping[str, Any], settings: Settings) -> Graded:
    """The grade of a product {"a": 37, "b": 48}."""
    return grade_product(text, int(truth["a"]) * int(truth["b"]))


def math_row(text: str, truth: Any, extra: Mapping[str, Any], settings: Settings) -> Graded:
    """The grade of an answer to the question `extra_info.question`, whose words say what is
    counted."""
    answer = true_answer(truth)
    if answer is None:
        raise ValueError("no answer to compare with")
    return grade_solution(text, answer, str(extra.get("question") or ""))[0]
