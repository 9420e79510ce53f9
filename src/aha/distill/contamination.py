"""Examples that give tests away: the same problem, or eight words in a row of one.

The eight words are those of s1 (arXiv 2501.19393) and of GPT-3's report. Words that most tests
share are the frame of the question, not its content, and do not count.
"""

import re
from collections import Counter
from collections.abc import Iterable
from itertools import islice

from aha.core.records import Problem
from aha.tasks.held_out import held_out_problem
from aha.tasks.protocol import Task

SPAN = 8  # words
MOST_TESTS = 50_000
FRAME_SHARE = 0.2  # of the tests: words in a row that more of them have are the frame
FEW = 5  # tests: of fewer nothing can be called a frame
WORD = re.compile(r"\w+")

EXACT = "that ask a test problem"
SPANS = f"with {SPAN} words of a test problem"
HELD_OUT = "with a held-out problem"


def words_of(text: str) -> tuple[str, ...]:
    """The words and numbers of a text, without case and punctuation."""
    return tuple(WORD.findall(text.lower()))


def spans_of(words: tuple[str, ...]) -> set[tuple[str, ...]]:
    """All sequences of SPAN words in a row."""
    return {words[place : place + SPAN] for place in range(len(words) - SPAN + 1)}


class HeldOutQuestions:
    """The test problems of a task, as an example must not have them.

    Of a task that makes its problems, and has no end of them, these are the first `limit`; the rest
    of Countdown, `multiply` and `calculate` is known by its numbers (`held_out_problem`).
    """

    def __init__(self, tests: Iterable[str]):
        texts = [words_of(text) for text in tests]
        self.exact = {words for words in texts if words}
        counts = Counter(span for words in texts for span in spans_of(words))
        most = len(texts) * FRAME_SHARE if len(texts) >= FEW else float("inf")
        self.spans = {span for span, count in counts.items() if count <= most}
        self.size = len(texts)

    @classmethod
    def of(cls, task: Task, seed: int, limit: int) -> "HeldOutQuestions":
        """Those of a task, of which a file has all and a generator `limit`."""
        count = getattr(task, "num_problems", None)
        known = count("test") if callable(count) else None
        most = MOST_TESTS if isinstance(known, int) else limit
        return cls(question_of(task, one) for one in islice(task.problems("test", seed), most))

    def reason(self, prompt: str, question: str) -> tuple[str, str] | None:
        """(reason, details) where an example gives a test away; None for a clean one.

        `prompt` is what the student reads, `question` the same without the frame, as far as it is
        known.
        """
        if (held_out := held_out_problem(prompt)) is not None:
            return HELD_OUT, held_out
        words = words_of(question)
        if words in self.exact:
            return EXACT, " ".join(words)
        for text in (question, prompt):
            if shared := spans_of(words_of(text)) & self.spans:
                return SPANS, " ".join(min(shared))
        return None


def question_of(task: Task, problem: Problem) -> str:
    """The problem in its own words: a question as it is given, else the task's prompt."""
    question = problem.given.get("question")
    return question if isinstance(question, str) else task.ask(problem)
