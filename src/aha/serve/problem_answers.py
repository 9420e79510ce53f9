"""One problem put to one model, told while it thinks and judged at the end.

The dashboard's chat and the terminal's get this as a callable.
"""

import queue
from collections.abc import Iterator

from aha.core.records import Graded, Problem, Prompt
from aha.eval.suite import completion_row
from aha.rollout.engine import Sampling
from aha.serve.open_models import OpenModels
from aha.serve.scheduler import Turns
from aha.tasks.protocol import Task


class Speaker:
    """`speaker(model, task, problem, how)`: a stream of what happens.

    `how` has seed, temperature and max_new_tokens. In order: {"origin": ...} once the model is
    open, {"text": ...} for each new piece, and {"row": ...}, the graded completion as a line of
    completions/*.jsonl. Closing the stream ends the work. Raises an `AhaError` where there is
    nothing to tell.
    """

    def __init__(self, network: bool = True):
        self.models, self.turns = OpenModels(network=network), Turns()

    def __call__(self, model: str, task: Task, problem: Problem, how: dict) -> Iterator[dict]:
        opened = self.models.get(model)
        yield {"origin": opened.origin}
        prompt = Prompt.of(problem, task, opened.tokenizer)
        room = max(1, opened.positions - len(prompt.tokens))
        most = min(how["max_new_tokens"], room)
        sampling = Sampling(most, 1, how["temperature"], how["seed"])
        news: queue.SimpleQueue = queue.SimpleQueue()
        job = self.turns.ask(opened.engine, [prompt], sampling, news.put)
        try:
            while (told := news.get()) is not None:
                if isinstance(told, Exception):
                    raise told
                if told.text:
                    yield {"text": told.text}
                if told.completion is not None:
                    yield {"row": completion_row(Graded.of(told.completion, task))}
        finally:
            job.stop()
