"""A judge that counts what the detector counts."""

import re
from collections import Counter

from aha.behaviors.detector import count_behaviours
from aha.behaviors.judge import QUESTIONS

from ..fake_endpoint import FakeEndpoint


def verdict(text: str) -> int:
    """What the detector counts, read out of the message alone."""
    (question,) = [one for one in QUESTIONS if one.definition in text]
    numbers = tuple(map(int, re.search(r"^Numbers: (.*)$", text, re.M)[1].split()))
    target = int(re.search(r"^Target: (.*)$", text, re.M)[1])
    working = re.search(r"^~{8}\n(.*)\n~{8}$", text, re.M | re.S)[1]
    return getattr(count_behaviours(working, numbers, target), question.behaviour)


class FakeJudge(FakeEndpoint):
    """Faults more: "no count", "no choices". `misbehave` is told how often `text` was asked."""

    def __init__(self, misbehave=lambda before, text: None, count=verdict, slow_s: float = 0.0):
        self.count = count
        self.asked: Counter = Counter()
        super().__init__(misbehave, slow_s)

    def requests_before(self, text: str) -> int:
        self.asked[text] += 1
        return self.asked[text] - 1

    def reply(self, body: dict, text: str, fault: str | None) -> dict:
        if fault == "no choices":
            return {"choices": []}
        said = f"I have looked. <count> {self.count(text)} </count>"
        if fault == "no count":
            said = "Three, I think. <count>three</count>"
        return {"choices": [{"message": {"content": said}}]}
