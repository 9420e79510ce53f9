"""One thread generates for all requests, one token for each in turn; text ends at stop texts.

A completion depends on weights, prompt and seed alone. If all requests were one batch, bf16 would
round differently for other batch sizes, and the same seed would give another text while another
request is active. So each batch has the completions of one request, and requests take turns.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from aha.core.errors import AhaError
from aha.core.records import Completion, Prompt
from aha.rollout.engine import Sampling
from aha.rollout.slot_engine import SlotEngine
from aha.rollout.slots import SlotRow

INCOMPLETE = "\ufffd"  # a character of several tokens decodes to this until its last token is there


# -- tokens to text ------------------------------------------------------------------------------


class TextStream:
    """The text of a growing list of tokens, which ends before the first of the `stop` texts."""

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: tuple[str, ...] = ()):
        self.decode, self.stop = decode, stop
        self.text = ""  # what `read` has returned so far
        self.stopped = False  # a stop text was met

    def read(self, tokens: Sequence[int], ended: bool) -> str:
        """The text that is new since the last call, given all tokens so far.

        An end that may become a stop text or is an incomplete character is held back, unless the
        completion has ended.
        """
        text = self.decode(tokens)
        begins = [begin for begin in (text.find(stop) for stop in self.stop) if begin >= 0]
        if begins:
            text, self.stopped = text[: min(begins)], True
        elif not ended:
            text = text.rstrip(INCOMPLETE)
            text = text[: len(text) - self.held_back(text)]
        new = text[len(self.text) :]
        self.text += new
        return new

    def held_back(self, text: str) -> int:
        """The length of the longest end of `text` that is the beginning of a stop text."""
        longest = max(map(len, self.stop), default=1) - 1
        for size in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-size:]) for stop in self.stop):
                return size
        return 0


# -- requests ------------------------------------------------------------------------------------

MAX_ACTIVE, MAX_WAITING = 8, 64  # requests


class Busy(AhaError):
    """The queue of waiting requests is full."""


@dataclass(frozen=True, slots=True)
class Piece:
    """New text of completion `index` of a request; the last piece has the completion too.

    Completions are numbered prompt by prompt.
    """

    index: int
    text: str
    completion: Completion | None = None


# What a request receives: pieces, then None; or an error, which ends it too.
Event = Piece | Exception | None
OnEvent = Callable[[Event], None]


class Job:
    """One request that is being answered. `stop` ends it at its next turn."""

    def __init__(
        self,
        engine: SlotEngine,
        prompts: list[Prompt],
        sampling: Sampling,
        on_event: OnEvent,
        stop: tuple[str, ...],
    ):
        self.engine, self.on_event = engine, on_event
        self.ticks = engine.watch(prompts, sampling)
        count = len(prompts) * sampling.group_size
        self.texts = [TextStream(engine.tokenizer.decode, stop) for _ in range(count)]
        self.done: set[int] = set()
        self.stopped = False

    def stop(self) -> None:
        """End the job at its next turn; it sends no more events."""
        self.stopped = True

    def advance(self) -> bool:
        """Draw one token of each completion and send new text. True if the job goes on."""
        if self.stopped:
            self.ticks.close()
            return False
        try:
            groups = next(self.ticks, None)
            for index, row in enumerate(row for group in groups or () for row in group):
                if row.tokens and index not in self.done:
                    self.send_new_text(index, row)
            if groups is not None and len(self.done) < len(self.texts):
                return True
            self.ticks.close()
            self.on_event(None)
        except Exception as error:  # sent to the request: the thread must outlive any of them
            self.fail(error)
        return False

    def send_new_text(self, index: int, row: SlotRow) -> None:
        """Send the text that is new in one completion, with the completion if it has ended."""
        stream = self.texts[index]
        text = stream.read(row.tokens, row.ended)
        if row.ended or stream.stopped:
            self.done.add(index)
            completion = replace(self.engine.completed(row), text=stream.text)
            if stream.stopped:
                completion = replace(completion, finish="stop")
            self.on_event(Piece(index, text, completion))
        elif text:
            self.on_event(Piece(index, text))

    def fail(self, error: Exception) -> None:
        """End the request with an error."""
        try:
            self.on_event(error)
        except Exception:  # the client has gone, and with it the event loop that would take this
            self.stopped = True


class Scheduler:
    """The queue of requests and the thread that serves it; the thread starts with the first one."""

    def __init__(self, max_active: int = MAX_ACTIVE, max_waiting: int = MAX_WAITING):
        self.max_active, self.max_waiting = max_active, max_waiting
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def submit(
        self,
        engine: SlotEngine,
        prompts: list[Prompt],
        sampling: Sampling,
        on_event: OnEvent,
        stop: tuple[str, ...] = (),
    ) -> Job:
        """Put a request into the queue; `on_event` is called from the scheduler's thread.

        A completion ends before the first of the `stop` texts. Raises Busy where the queue is full.
        """
        job = Job(engine, prompts, sampling, on_event, stop)
        with self._changed:
            self._waiting = deque(other for other in self._waiting if not other.stopped)
            if len(self._waiting) >= self.max_waiting:
                raise Busy(
                    f"{self.max_waiting} requests in line already",
                    "a shorter line",
                    "ask again later",
                )
            self._waiting.append(job)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._serve, daemon=True, name="aha scheduler"
                )
                self._thread.start()
            self._changed.notify()
        return job

    def _serve(self) -> None:
        active: list[Job] = []
        while True:
            with self._changed:
                while not active and not self._waiting:
                    self._changed.wait()
                while self._waiting and len(active) < self.max_active:
                    active.append(self._waiting.popleft())
            active = [job for job in active if job.advance()]
