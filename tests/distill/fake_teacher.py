"""A teacher that solves puzzles."""

import re

from aha.tasks.countdown import Countdown, as_problem

from ..fake_endpoint import FakeEndpoint

TASK = Countdown()


def problem_in(text: str):
    """The puzzle that a request asks, in any of our frames."""
    line = re.search(r"numbers ([\d ]+) target (\d+)", text)
    if line:
        return as_problem(tuple(map(int, line[1].split())), int(line[2]))
    listed, target = re.search(r"numbers \[([\d, ]+)\][^\d]*(\d+)", text).groups()
    return as_problem(tuple(map(int, listed.split(","))), int(target))


def solve(text: str) -> str:
    """A right completion."""
    return TASK.solve(problem_in(text))


class FakeTeacher(FakeEndpoint):
    """Faults more: "empty", "cut" (at the limit), "apart" (the thought in a field of its own),
    "thought alone" (the same, cut within it), "filtered" (cut by the server)."""

    def __init__(self, misbehave=lambda before, text: None, answer=solve):
        self.answer_of = answer
        super().__init__(misbehave)

    def reply(self, body: dict, text: str, fault: str | None) -> dict:
        answer = "" if fault == "empty" else self.answer_of(text)
        finish = "length" if fault in ("cut", "thought alone") else "stop"
        finish = "content_filter" if fault == "filtered" else finish
        choice = {"text": answer} if "prompt" in body else {"message": {"content": answer}}
        if fault == "apart":  # as vLLM does with a model that thinks
            thought, _, rest = answer.partition("</think>")
            choice = {"message": {"content": rest, "reasoning_content": thought}}
        if fault == "thought alone":
            choice = {"message": {"content": None, "reasoning_content": "let me see"}}
        usage = {"prompt_tokens": 100, "completion_tokens": 50}
        return {"choices": [{**choice, "finish_reason": finish}], "usage": usage}
