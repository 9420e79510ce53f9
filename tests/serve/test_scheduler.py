"""Requests that take turns: each gets what it would get alone."""

import queue
import threading
from dataclasses import replace

import pytest

from aha.core.errors import ConfigError
from aha.rollout.engine import Sampling
from aha.rollout.native import NativeEngine
from aha.serve.scheduler import Busy, Scheduler

from ..tiny import TOKENIZER, ask, tiny_transformer

PROMPT, OTHER = ask(3, 7, 25, target=82), ask(47, 30, 3, target=37)


@pytest.fixture(scope="module")
def engine() -> NativeEngine:
    return NativeEngine(tiny_transformer(), TOKENIZER, "float32", loop="torch")


def collect(news: queue.SimpleQueue) -> tuple[dict, dict]:
    """Completions by index, and the text of all pieces by index."""
    done, texts = {}, {}
    while (piece := news.get(timeout=60)) is not None:
        if isinstance(piece, Exception):
            raise piece
        assert piece.index not in done, "a piece after the last one"
        texts[piece.index] = texts.get(piece.index, "") + piece.text
        if piece.completion:
            done[piece.index] = piece.completion
    return done, texts


def test_many_at_once_get_what_each_gets_alone(engine):
    """More than can be served at once, with different settings, against `generate`."""
    scheduler, requests = Scheduler(max_active=3), []
    for place in range(7):
        prompts = [PROMPT, OTHER] if place % 2 else [OTHER]
        sampling = Sampling(8 + 5 * place, 1 + place % 3, 0.5 + place / 7, seed=place)
        news = queue.SimpleQueue()
        scheduler.submit(engine, prompts, sampling, news.put)
        requests.append((prompts, sampling, news))
    for prompts, sampling, news in requests:
        done, texts = collect(news)
        alone = [one for group in engine.generate(prompts, sampling) for one in group]
        assert [done[index] for index in range(len(alone))] == alone
        assert [texts[index] for index in range(len(alone))] == [one.text for one in alone]


def test_a_short_request_does_not_wait_for_a_long_one(engine):
    scheduler, order = Scheduler(), queue.SimpleQueue()
    for name, length in (("long", 120), ("short", 2)):

        def tell(piece, name=name):
            if piece is None:
                order.put(name)

        scheduler.submit(engine, [PROMPT], Sampling(length, 1, 1.0, 5), tell)
    assert [order.get(timeout=60), order.get(timeout=60)] == ["short", "long"]


def test_a_stop_text_cuts_the_completion_and_counts_as_a_stop(engine):
    sampling = Sampling(40, 3, 1.0, seed=1)
    (alone,) = engine.generate([PROMPT], sampling)
    stop = alone[0].text[5:7]
    news = queue.SimpleQueue()
    Scheduler().submit(engine, [PROMPT], sampling, news.put, (stop,))
    done, texts = collect(news)
    for index, whole in enumerate(alone):
        head, found, _ = whole.text.partition(stop)
        assert done[index].text == texts[index] == head
        assert done[index].finish == ("stop" if found else whole.finish)
        count = len(done[index].tokens)
        assert done[index].tokens == whole.tokens[:count]
        assert done[index].logprobs == whole.logprobs[:count]
        # Not one token more was drawn than it took to see the stop.
        assert found == "" or stop not in TOKENIZER.decode(whole.tokens[: count - 1])


def test_a_fault_is_told_and_the_next_request_is_served(engine):
    scheduler, news = Scheduler(), queue.SimpleQueue()
    scheduler.submit(engine, [PROMPT], Sampling(100_000), news.put)
    with pytest.raises(ConfigError, match="positions"):
        collect(news)
    scheduler.submit(engine, [PROMPT], Sampling(3), news.put)
    assert len(collect(news)[0]) == 1


def test_whoever_goes_away_while_being_told_harms_nobody(engine):
    def gone(piece):
        raise RuntimeError("the loop is closed")

    scheduler, news = Scheduler(), queue.SimpleQueue()
    scheduler.submit(engine, [PROMPT], Sampling(5), gone)
    scheduler.submit(engine, [PROMPT], Sampling(5), news.put)
    assert len(collect(news)[0]) == 1


def test_a_stopped_job_is_told_no_more(engine):
    scheduler, seen, known = Scheduler(), [], threading.Event()

    def tell(piece):
        known.wait(60)
        seen.append(piece)
        job.stop()

    job = scheduler.submit(engine, [PROMPT], Sampling(130, 1, 1.0, 3), tell)
    known.set()
    news = queue.SimpleQueue()
    scheduler.submit(engine, [PROMPT], Sampling(20, 1, 1.0, 4), news.put)
    collect(news)
    assert len(seen) == 1


def test_a_line_that_is_full_refuses_and_forgets_those_who_left(engine):
    scheduler = Scheduler(max_active=1, max_waiting=2)
    hold = threading.Event()
    news = queue.SimpleQueue()
    scheduler.submit(engine, [PROMPT], Sampling(2), lambda piece: hold.wait(60))
    while scheduler._waiting:  # until the first one is being served
        pass
    waiting = [scheduler.submit(engine, [PROMPT], Sampling(2), news.put) for _ in range(2)]
    with pytest.raises(Busy, match="2 requests in line"):
        scheduler.submit(engine, [PROMPT], Sampling(2), news.put)
    waiting[0].stop()
    scheduler.submit(engine, [OTHER], replace(Sampling(2), seed=1), news.put)
    hold.set()
    assert len(collect(news)[0]) == 1
