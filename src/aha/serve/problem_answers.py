"""Completions of one problem by one model, streamed while they are generated and graded at the end.

The dashboard's chat and the terminal's chat get this as a callable.
"""

import queue
from collections.abc import Generator
from typing import Any

from aha.core.records import Graded, Problem, Prompt
from aha.eval.suite import completion_row
from aha.rollout.engine import Sampling
from aha.serve.open_models import ModelCache
from aha.serve.scheduler import Event, Scheduler
from aha.tasks.protocol import Task


class CompletionStreamer:
    """`streamer(model, task, problem, options)` yields the events of one completion.

    `options` has seed, temperature and max_new_tokens. The events in order: {"origin": ...} once
    the model is open, {"text": ...} for each new piece, and {"row": ...}, the graded completion as
    a line of completions/*.jsonl. Closing the generator stops the generation. Raises an AhaError
    where the model cannot be opened or the problem cannot be asked.
    """

    def __init__(self, network: bool = True):
        self.models, self.scheduler = ModelCache(network=network), Scheduler()

    def __call__(
        self, model: str, task: Task, problem: Problem, options: dict[str, Any]
    ) -> Generator[dict[str, Any], None, None]:
        opened = self.models.get(model)
        yield {"origin": opened.origin}
        prompt = Prompt.of(problem, task, opened.tokenizer)
        positions_left = max(1, opened.positions - len(prompt.tokens))
        limit = min(options["max_new_tokens"], positions_left)
        sampling = Sampling(limit, 1, options["temperature"], options["seed"])
        events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        job = self.scheduler.submit(opened.engine, [prompt], sampling, events.put)
        try:
            while (event := events.get()) is not None:
                if isinstance(event, Exception):
                    raise event
                if event.text:
                    yield {"text": event.text}
                if event.completion is not None:
                    yield {"row": completion_row(Graded.of(event.completion, task))}
        finally:
            job.stop()
