"""Examples as rows that keep their problem, so that they can be graded again."""

from collections.abc import Mapping
from typing import Any

from aha.core.records import Graded, Problem
from aha.tasks.protocol import Task
from aha.tasks.tags import LEAD_IN, THINK_OPEN

# The columns of completions of ours; every other one is of the problem.
OWN = frozenset(
    (
        *("id", "task", "prompt", "completion", "tokens", "finish", "reward", "correct", "reason"),
        *("parts", "step", "group", "advantage", "pieces", "logprobs", "entropies", "advantages"),
        *("teacher", "member", "kind", "key"),
    )
)
Row = dict[str, Any]


def problem_row(problem: Problem) -> Row:
    """A problem as JSON."""
    return {"id": problem.id, "task": problem.task, "given": dict(problem.given)}


def read_problem(row: Mapping[str, Any]) -> Problem:
    """The inverse of `problem_row`, but for lists where a task had made tuples."""
    return Problem(str(row["id"]), str(row["task"]), row["given"])


def problem_of(row: Mapping[str, Any], task: str) -> Problem | None:
    """The problem of a completion that `aha eval --out` or a run has written; None where the row
    has none."""
    given = {key: value for key, value in row.items() if key not in OWN}
    if not isinstance(row.get("id"), str) or not given:
        return None
    return Problem(row["id"], str(row.get("task", task)), given)


def problem_for(task: Task, row: Mapping[str, Any]) -> Problem | None:
    """The problem of a row where it is one that this task can ask; None for any other row, such as
    one of somebody's that has an `id` too."""
    problem = problem_of(row, task.name)
    if problem is None or problem.task != task.name:
        return None
    try:
        task.ask(problem)
    except Exception:  # columns of somebody else, in whatever form
        return None
    return problem


def example_row(problem: Problem, prompt: str, answer: Mapping[str, Any], graded: Graded) -> Row:
    """A graded completion as an example: `aha sft` reads prompt and completion, `aha behaviors`
    the columns of the problem."""
    return {
        "id": problem.id,
        "task": problem.task,
        **problem.given,
        "prompt": prompt,
        "completion": answer["text"],
        "tokens": answer.get("tokens"),
        "finish": answer["finish"],
        "reward": graded.reward,
        "correct": graded.correct,
        "reason": graded.reason,
        "teacher": answer.get("teacher"),
        "member": answer.get("member", 0),
    }


def bare_request(prompt: str) -> str:
    """A prompt without the beginning of the answer: what a chat model is to be asked."""
    text = prompt.rstrip()
    for ending in (LEAD_IN, THINK_OPEN):
        text = text.removesuffix(ending).rstrip()
    return text
