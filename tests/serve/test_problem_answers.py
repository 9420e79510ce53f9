import threading

import pytest

from aha.rollout.engine import Sampling
from aha.serve.problem_answers import CompletionStreamer
from aha.serve.scheduler import Scheduler
from aha.tasks.countdown import Countdown
from aha.tasks.problem_lines import parse_puzzle

from ..tiny import StartsWith, ask, tiny_folder

PUZZLE = parse_puzzle("3 7 25 82")
HOW = {"seed": 4, "temperature": 0.8, "max_new_tokens": 30}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return str(tiny_folder(tmp_path_factory.mktemp("streamer") / "tiny"))


@pytest.fixture
def streamer() -> CompletionStreamer:
    return CompletionStreamer()


def test_it_says_where_from_then_what_the_engine_writes_then_the_verdict(streamer, model):
    first, *pieces, last = streamer(model, Countdown(), PUZZLE, HOW)
    prompt = ask(3, 7, 25, target=82)
    engine = streamer.models.get(model).engine
    ((want,),) = engine.generate([prompt], Sampling(30, 1, 0.8, 4))
    assert first == {"origin": "tiny"}
    assert "".join(piece["text"] for piece in pieces) == want.text and len(pieces) > 10
    row = last["row"]
    assert row["completion"] == want.text and row["prompt"] == prompt.text
    assert row["tokens"] == len(want.tokens) and row["finish"] == want.finish
    assert row["correct"] is False and row["reason"] == "no <answer>...</answer> block"
    again = list(streamer(model, StartsWith(want.text[0]), PUZZLE, HOW))
    assert again[-1]["row"]["correct"] is True, "judged by the task that it was given"


def test_it_never_asks_for_more_than_the_model_has_room_for(streamer, model):
    *_, last = streamer(model, Countdown(), PUZZLE, HOW | {"max_new_tokens": 4096, "seed": 1})
    assert last["row"]["tokens"] <= 160 - len(ask(3, 7, 25, target=82).tokens)


def test_two_at_once_get_what_each_gets_alone(streamer, model):
    def told(seed: int) -> list:
        return list(streamer(model, Countdown(), PUZZLE, HOW | {"seed": seed}))

    alone, together = [told(seed) for seed in range(4)], {}
    threads = [
        threading.Thread(target=lambda seed=seed: together.update({seed: told(seed)}))
        for seed in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [together[seed] for seed in range(4)] == alone


class Watched(Scheduler):
    """Remembers its jobs."""

    def submit(self, *given):
        self.job = super().submit(*given)
        return self.job


def test_closing_the_stream_ends_the_work(streamer, model):
    streamer.scheduler = Watched()
    answer = streamer(model, Countdown(), PUZZLE, HOW | {"max_new_tokens": 120})
    assert next(answer) == {"origin": "tiny"} and next(answer)["text"]
    assert not streamer.scheduler.job.stopped
    answer.close()
    assert streamer.scheduler.job.stopped
