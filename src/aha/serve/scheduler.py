"""One thread for all that is asked: every request gets a token of each of its completions in turn.

A completion is a function of its weights, prompt and seed alone. Were requests put in one batch,
narrow types would round with the company, and the same seed would give another text when somebody
else is asking. So the completions of one request are a batch, and requests take turns.
"""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from aha.core.errors import AhaError
from aha.core.records import Completion, Prompt
from aha.rollout.engine import Sampling
from aha.rollout.native import NativeEngine
from aha.rollout.slots import Row
from aha.serve.stop_text import TextStream

AT_ONCE, IN_LINE = 8, 64


class Busy(AhaError):
    """More requests than the line holds."""


@dataclass(frozen=True, slots=True)
class Piece:
    """New text of completion `index` of a request: its prompts in order, each with its members.

    `completion` comes with the last piece.
    """

    index: int
    text: str
    completion: Completion | None = None


# What a request is told: pieces, then None; or what went wrong, which ends it as well.
Tell = Callable[[Piece | Exception | None], None]


class Job:
    """One request in the making. `stop` ends it at the next turn."""

    def __init__(
        self,
        engine: NativeEngine,
        prompts: list[Prompt],
        sampling: Sampling,
        tell: Tell,
        stop: tuple[str, ...],
    ):
        self.engine, self.tell = engine, tell
        self.steps = engine.watch(prompts, sampling)
        count = len(prompts) * sampling.group_size
        self.cutters = [TextStream(engine.tokenizer.decode, stop) for _ in range(count)]
        self.done: set[int] = set()
        self.stopped = False

    def stop(self) -> None:
        self.stopped = True

    def advance(self) -> bool:
        """Draw one token of each completion and tell it; whether there is more to come."""
        if self.stopped:
            self.steps.close()
            return False
        try:
            groups = next(self.steps, None)
            for index, row in enumerate(row for group in groups or () for row in group):
                if row.tokens and index not in self.done:
                    self.tell_news(index, row)
            if groups is not None and len(self.done) < len(self.cutters):
                return True
            self.steps.close()
            self.tell(None)
        except Exception as error:  # told to whoever asked: the thread must outlive any request
            self.fail(error)
        return False

    def tell_news(self, index: int, row: Row) -> None:
        cutter = self.cutters[index]
        text = cutter.read(row.tokens, row.ended)
        if row.ended or cutter.cut:
            self.done.add(index)
            whole = replace(self.engine.completed(row), text=cutter.told)
            if cutter.cut:
                whole = replace(whole, finish="stop")
            self.tell(Piece(index, text, whole))
        elif text:
            self.tell(Piece(index, text))

    def fail(self, error: Exception) -> None:
        try:
            self.tell(error)
        except Exception:  # whoever asked is gone, and with him the loop that would have told him
            self.stopped = True


class Scheduler:
    """The line of requests and the thread that serves it; the thread starts with the first."""

    def __init__(self, at_once: int = AT_ONCE, in_line: int = IN_LINE):
        self.at_once, self.in_line = at_once, in_line
        self._waiting: deque[Job] = deque()
        self._news = threading.Condition()
        self._thread: threading.Thread | None = None

    def ask(
        self,
        engine: NativeEngine,
        prompts: list[Prompt],
        sampling: Sampling,
        tell: Tell,
        stop: tuple[str, ...] = (),
    ) -> Job:
        """Put a request in line; `tell` is called from the thread. Raises `Busy`."""
        job = Job(engine, prompts, sampling, tell, stop)
        with self._news:
            self._waiting = deque(other for other in self._waiting if not other.stopped)
            if len(self._waiting) >= self.in_line:
                raise Busy(
                    f"{self.in_line} requests in line already", "a shorter line", "ask again later"
                )
            self._waiting.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, daemon=True, name="aha turns")
                self._thread.start()
            self._news.notify()
        return job

    def _work(self) -> None:
        active: list[Job] = []
        while True:
            with self._news:
                while not active and not self._waiting:
                    self._news.wait()
                while self._waiting and len(active) < self.at_once:
                    active.append(self._waiting.popleft())
            active = [job for job in active if job.advance()]
