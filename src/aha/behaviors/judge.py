"""A language model as a second reader of behaviours, behind any OpenAI-compatible endpoint.

Optional, and never the measure: its counts follow length. It is here to be compared with the exact
detector. Answers are handed to the caller one by one, so that what was paid for is kept whatever
happens next; the same question is asked once. Needs the extra [judge].
"""

import hashlib
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from aha.behaviors.judge_prompts import QUESTIONS, Question, Working, count_in
from aha.core.errors import ConfigError, MissingExtra
from aha.core.seeds import seed_for

MOST_PAUSE_S = 60.0
MOST_LOST = 8  # questions in a row without an answer: then the endpoint is down, not the question
BUSY = (408, 409, 425, 429)
HERE = ("127.0.0.1", "localhost", "::1")

Counts = dict[str, int | None]


@dataclass(frozen=True)
class Judge:
    """Where to ask, and how patiently. `pause_s` before the second try doubles with each one."""

    url: str
    model: str
    key: str | None = None
    seed: int = 0
    workers: int = 4
    timeout_s: float = 120.0
    max_tokens: int = 1_024  # of an answer; one that is cut off before its count is none
    tries: int = 6
    pause_s: float = 1.0

    def address(self) -> str:
        """`.../v1/chat/completions` for the base address in any of its usual spellings."""
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                f"--judge {self.url!r}",
                "the http(s) address of an OpenAI-compatible endpoint",
                "--judge http://127.0.0.1:8000/v1",
            )
        base = self.url.rstrip("/") + ("" if parts.path.strip("/") else "/v1")
        return base if base.endswith("/chat/completions") else f"{base}/chat/completions"

    def name_of(self, question: Question, working: Working) -> str:
        """What an answer is kept under: all that decides it but the address."""
        parts = (self.model, str(self.seed), str(self.max_tokens), question.about(working))
        return hashlib.sha256("\x1f".join(parts).encode("utf-8", "replace")).hexdigest()


class Again(Exception):
    """This try brought no answer, another may. `pause_s`: what the endpoint asked us to wait."""

    def __init__(self, why: str, pause_s: float = 0.0):
        super().__init__(why)
        self.pause_s = pause_s


def judge_all(
    workings: list[Working],
    judge: Judge,
    known: Mapping[str, int],
    keep: Callable[[dict], None],
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> list[Counts]:
    """The four counts of every working; None where the judge gave no usable answer.

    `known` has the counts of earlier answers by their names; `keep` gets each new one at once.
    Raises ConfigError for an endpoint that refuses or is down; what was kept stays kept.
    """
    names = [{q.behaviour: judge.name_of(q, working) for q in QUESTIONS} for working in workings]
    jobs = {
        names[place][question.behaviour]: (working, question)
        for place, working in enumerate(workings)
        for question in QUESTIONS
    }
    found: dict[str, int | None] = {}
    with client_for(judge) as client:
        asking = Asking(judge, client, known, keep)
        pool = ThreadPoolExecutor(judge.workers)
        try:
            futures = {pool.submit(asking.count, name, *job): name for name, job in jobs.items()}
            waiting = set(futures)
            while waiting:
                done, waiting = wait(waiting, timeout=0.2, return_when=FIRST_EXCEPTION)
                found |= {futures[future]: future.result() for future in done}
                tell(len(found), len(jobs))
        finally:
            asking.stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
    return [{key: found[name] for key, name in row.items()} for row in names]


@contextmanager
def client_for(judge: Judge) -> Iterator[Any]:
    """An HTTP client for the endpoint. A proxy of the environment is not asked for this machine."""
    try:
        import httpx2
    except ImportError as error:
        raise MissingExtra("httpx2", "judge") from error
    headers = {"authorization": f"Bearer {judge.key}"} if judge.key else {}
    limits = httpx2.Limits(max_connections=judge.workers)
    away = urlsplit(judge.address()).hostname not in HERE
    with httpx2.Client(
        headers=headers, timeout=judge.timeout_s, limits=limits, trust_env=away
    ) as client:
        yield client


class Asking:
    """Asks questions from several threads, each as often as it takes."""

    def __init__(self, judge: Judge, client: Any, known: Mapping[str, int], keep: Callable):
        self.judge, self.client, self.address = judge, client, judge.address()
        self.known, self.keep = dict(known), keep
        self.stop, self.lock = threading.Event(), threading.Lock()
        self.lost, self.patience = 0, 1  # questions in a row, and how many of them end it all

    def count(self, name: str, working: Working, question: Question) -> int | None:
        """The judge's count; None after all tries."""
        if name in self.known or self.stop.is_set():
            return self.known.get(name)
        text, why = question.about(working), Again("never asked")
        for again in range(self.judge.tries):
            if again and self.stop.wait(self.pause(name, again, why.pause_s)):
                return None
            try:
                answer = self.ask(text, again)
            except Again as reason:
                why = reason
                continue
            self.take(name, question, answer)
            return self.known[name]
        self.give_up(why)
        return None

    def take(self, name: str, question: Question, answer: str) -> None:
        row = {"name": name, "behaviour": question.behaviour, "model": self.judge.model}
        row |= {"seed": self.judge.seed, "count": count_in(answer), "answer": answer}
        with self.lock:
            self.lost, self.patience = 0, MOST_LOST
            self.known[name] = row["count"]
            self.keep(row)

    def give_up(self, why: Again) -> None:
        with self.lock:
            self.lost += 1
            if self.lost < self.patience:
                return
        self.stop.set()
        raise ConfigError(
            f"no usable answer from the judge at {self.address}: {why}",
            "a running endpoint and a model that follows instructions",
            "the same command goes on from the answers that are kept",
        )

    def pause(self, name: str, again: int, asked_s: float) -> float:
        """Seconds before a try: doubled each time, spread so that workers do not march in step."""
        spread = random.Random(seed_for(self.judge.seed, name, again)).uniform(0.5, 1.0)
        own = min(MOST_PAUSE_S, self.judge.pause_s * 2 ** (again - 1)) * spread
        return max(own, min(asked_s, MOST_PAUSE_S))

    def ask(self, text: str, again: int) -> str:
        """One try: an answer with a count in it. Raises Again, or ConfigError for a refusal."""
        from httpx2 import HTTPError, InvalidURL

        body = {
            "model": self.judge.model,
            "messages": [{"role": "user", "content": text}],
            "temperature": 0,
            "max_tokens": self.judge.max_tokens,
            # The same question again would get the same useless answer.
            "seed": self.judge.seed + again,
        }
        try:
            reply = self.client.post(self.address, json=body)
            content = reply.json() if reply.status_code == 200 else reply.text
        except (HTTPError, ValueError) as error:
            raise Again(f"{type(error).__name__}: {error}") from error
        except InvalidURL as error:
            raise ConfigError(
                f"--judge {self.judge.url!r}: {error}", "an http(s) address"
            ) from None
        if reply.status_code in BUSY or reply.status_code >= 500:
            raise Again(f"status {reply.status_code}", seconds_of(reply.headers.get("retry-after")))
        if reply.status_code != 200:
            self.stop.set()
            said = " ".join(content.split())[:200]
            raise ConfigError(
                f"the judge at {self.address} refuses with status {reply.status_code}: {said}",
                "an OpenAI-compatible endpoint that serves this model",
                "check --judge and --judge-model; a key is read from AHA_JUDGE_KEY",
            )
        answer = answer_in(content)
        if answer is None or count_in(answer) is None:
            raise Again("an answer without a count")
        return answer


def answer_in(content: Any) -> str | None:
    """The text of the first choice; None for what is no chat completion."""
    try:
        answer = content["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        return None
    return answer if isinstance(answer, str) else None


def seconds_of(text: str | None) -> float:
    """A Retry-After in seconds; 0 for a date or nonsense."""
    return float(text) if text and text.isascii() and text.isdigit() and len(text) < 6 else 0.0
