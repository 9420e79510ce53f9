"""Many requests to one OpenAI-compatible endpoint: at the same time, and each tried again.

vLLM, llama.cpp, Ollama, `aha serve` and paid services all speak it. Each answer is passed to the
caller at once, so that answers that were paid for are kept if the process stops. Needs the extra
[judge].
"""

import random
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar
from urllib.parse import urlsplit

from aha.core.errors import ConfigError, MissingExtra, shorter
from aha.core.seeds import seed_for

MAX_PAUSE_S = 60.0
# Requests in a row without an answer: then the endpoint is down, not the request. Of one that has
# never answered a single silence is enough, but not a single refusal: that one may be too long.
MAX_LOST = 8
BUSY = (408, 409, 425, 429)  # HTTP statuses after which another try may work
ABOUT_ONE = (400, 413, 422)  # statuses that may be about this one request, such as its length
LOCAL = ("127.0.0.1", "localhost", "::1")
CHAT, TEXT = "chat/completions", "completions"

Subject = TypeVar("Subject")  # what a request is about
Answer = TypeVar("Answer")  # what is read out of the reply


@dataclass(frozen=True)
class Endpoint:
    """An endpoint, its model, and limits on requests.

    `workers` is the number of requests at the same time. `pause_s` is the pause before the second
    try; it doubles with each further try. `path` is what the address ends with.
    """

    # For messages: what the model is here, the option that names it, and where its key is read.
    role: ClassVar[str] = "model"
    option: ClassVar[str] = "the address"
    key_variable: ClassVar[str] = "AHA_KEY"

    url: str
    model: str
    key: str | None = None
    seed: int = 0
    workers: int = 4
    timeout_s: float = 120.0
    tries: int = 6
    pause_s: float = 1.0
    path: str = CHAT

    def address(self) -> str:
        """`.../v1/chat/completions` for the base address in any of its usual spellings.

        Raises `ConfigError` for a text that is no http(s) address.
        """
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                f"{self.option} {self.url!r}",
                "the http(s) address of an OpenAI-compatible endpoint",
                f"{self.option} http://127.0.0.1:8000/v1",
            )
        base = self.url.rstrip("/") + ("" if parts.path.strip("/") else "/v1")
        for ending in (CHAT, TEXT):
            base = base.removesuffix(f"/{ending}")
        return f"{base}/{self.path}"

    def model_field(self) -> dict[str, str]:
        """The field of a request that names the model; none for a server that has one alone."""
        return {"model": self.model} if self.model else {}


class TryAgain(Exception):
    """A request failed in a way that may pass. `pause_s`: the seconds to wait that the endpoint
    asked for, or 0."""

    def __init__(self, why: str, pause_s: float = 0.0):
        super().__init__(why)
        self.pause_s = pause_s


class Refused(Exception):
    """The endpoint does not take a request, and would not take it the next time either."""


@dataclass
class Replies(Generic[Answer]):
    """The answers by the names of their requests, and of those without one the reason."""

    answers: dict[str, Answer] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Resumed:
    """For a caller that goes on where an earlier call was stopped, and will not ask in vain again.

    `has_answered`: whether the earlier call had answers. `lose(name, why)` gets a request without
    an answer once the endpoint has answered another one since: not the endpoint is to blame then.
    """

    has_answered: bool = False
    lose: Callable[[str, str], object] = lambda name, why: None


FIRST_CALL = Resumed()


def send_all(
    endpoint: Endpoint,
    subjects: Mapping[str, Subject],
    body_of: Callable[[Subject, int], Mapping[str, Any]],
    read: Callable[[Any], Answer],
    keep: Callable[[str, Answer], object],
    progress: Callable[[int, int], None] = lambda done, total: None,
    resumed: Resumed = FIRST_CALL,
) -> Replies[Answer]:
    """Send a request about each subject, and read the answers.

    `body_of(subject, retry)` is the JSON of a request, `read(reply)` gets the JSON of a reply and
    raises `TryAgain` for one that is of no use. `keep` is called with each answer at once, from
    several threads but one at a time. Raises `ConfigError` if the endpoint refuses or does not
    answer; earlier answers have been kept then.
    """
    with client_for(endpoint) as client:
        sender = Sender(endpoint, client, body_of, read, keep, resumed)
        pool = ThreadPoolExecutor(endpoint.workers)
        try:
            futures = {pool.submit(sender.send, name, one) for name, one in subjects.items()}
            total, waiting = len(futures), futures
            while waiting:
                done, waiting = wait(waiting, timeout=0.2, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
                progress(total - len(waiting), total)
        finally:
            sender.stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
    sender.finish()
    return sender.replies


@contextmanager
def client_for(endpoint: Endpoint) -> Iterator[Any]:
    """An HTTP client for the endpoint. A proxy from the environment is not used for this machine,
    because the proxy could not reach a server here. Raises `MissingExtra` without httpx2."""
    try:
        import httpx2
    except ImportError as error:
        raise MissingExtra("httpx2", "judge") from error
    headers = {"authorization": f"Bearer {endpoint.key}"} if endpoint.key else {}
    limits = httpx2.Limits(max_connections=endpoint.workers)
    remote = urlsplit(endpoint.address()).hostname not in LOCAL
    with httpx2.Client(
        headers=headers, timeout=endpoint.timeout_s, limits=limits, trust_env=remote
    ) as client:
        yield client


class Sender(Generic[Subject, Answer]):
    """Sends requests from several threads; each is tried again until it is answered or the tries
    are used up."""

    def __init__(
        self,
        endpoint: Endpoint,
        client: Any,
        body_of: Callable[[Subject, int], Mapping[str, Any]],
        read: Callable[[Any], Answer],
        keep: Callable[[str, Answer], object],
        resumed: Resumed,
    ):
        self.endpoint, self.client, self.address = endpoint, client, endpoint.address()
        self.body_of, self.read, self.keep = body_of, read, keep
        self.replies: Replies[Answer] = Replies()
        self.stop, self.lock = threading.Event(), threading.Lock()
        self.has_answered, self.lose = resumed.has_answered, resumed.lose
        self.in_a_row: dict[str, Exception] = {}  # without an answer since the last one

    def send(self, name: str, subject: Subject) -> None:
        """Send one request until it is answered, and hand over the answer."""
        if self.stop.is_set():
            return
        why: Exception = TryAgain("no try")
        for retry in range(self.endpoint.tries):
            named_s = why.pause_s if isinstance(why, TryAgain) else 0.0
            if retry and self.stop.wait(self.pause(name, retry, named_s)):
                return
            try:
                answer = self.read(self.post(self.body_of(subject, retry)))
            except TryAgain as reason:
                why = reason
                continue
            except Refused as reason:
                why = reason
                break
            self.store(name, answer)
            return
        self.give_up(name, why)

    def store(self, name: str, answer: Answer) -> None:
        """Hand an answer to the caller."""
        with self.lock:
            self.has_answered = True
            self.settle()
            self.replies.answers[name] = answer
            self.keep(name, answer)

    def settle(self) -> None:
        """Tell the caller of those without an answer: the endpoint works."""
        for name, why in self.in_a_row.items():
            self.lose(name, str(why))
        self.in_a_row.clear()

    def finish(self) -> None:
        """After the last request: raises `ConfigError` where the endpoint has never answered."""
        if self.in_a_row and not self.has_answered:
            raise self.error_of(next(reversed(self.in_a_row.values())))
        self.settle()

    def give_up(self, name: str, why: Exception) -> None:
        """Count a request without an answer; after too many in a row raises `ConfigError`."""
        with self.lock:
            self.in_a_row[name] = why
            self.replies.lost[name] = str(why)
            most = MAX_LOST if self.has_answered or isinstance(why, Refused) else 1
            if len(self.in_a_row) < most:
                return
        self.stop.set()
        raise self.error_of(why)

    def error_of(self, why: Exception) -> ConfigError:
        """The error for an endpoint of which a request ended so."""
        return self.refusal(why) if isinstance(why, Refused) else self.silence(why)

    def silence(self, why: Exception) -> ConfigError:
        """The error for an endpoint that answers nothing of use any more."""
        return ConfigError(
            f"no usable answer from the {self.endpoint.role} at {self.address}: {why}",
            "a running endpoint and a model that follows instructions",
            f"start it, or check {self.endpoint.option}; then the same command goes on from the "
            "answers that are kept",
        )

    def refusal(self, why: Exception) -> ConfigError:
        """The error for an endpoint that does not take the requests."""
        option = self.endpoint.option
        return ConfigError(
            f"the {self.endpoint.role} at {self.address} refuses with {why}",
            "an OpenAI-compatible endpoint that serves this model",
            f"check {option} and {option}-model; a key is read from {self.endpoint.key_variable}",
        )

    def pause(self, name: str, retry: int, named_s: float) -> float:
        """Seconds before a retry: doubled each time, varied at random so that workers do not all
        try at once, and at least as long as the endpoint asked for."""
        endpoint = self.endpoint
        spread = random.Random(seed_for(endpoint.seed, name, retry)).uniform(0.5, 1.0)
        own = min(MAX_PAUSE_S, endpoint.pause_s * 2.0 ** (retry - 1)) * spread
        return max(own, min(named_s, MAX_PAUSE_S))

    def post(self, body: Mapping[str, Any]) -> Any:
        """One try: the JSON of the reply. Raises `TryAgain`, `Refused` for a request that is not
        taken, and `ConfigError` where none would be."""
        from httpx2 import HTTPError, InvalidURL

        try:
            reply = self.client.post(self.address, json=body)
            content = json_of(reply) if reply.status_code == 200 else None
        except HTTPError as error:
            raise TryAgain(f"{type(error).__name__}: {error}") from error
        except InvalidURL as error:
            raise ConfigError(
                f"{self.endpoint.option} {self.endpoint.url!r}: {error}", "an http(s) address"
            ) from None
        status = reply.status_code
        if status in BUSY or status >= 500:
            raise TryAgain(f"status {status}", seconds_of(reply.headers.get("retry-after")))
        if status != 200:
            reason = Refused(f"status {status}: {shorter(' '.join(reply.text.split()), 200)}")
            if status in ABOUT_ONE:
                raise reason
            self.stop.set()
            raise self.refusal(reason)
        return content


def json_of(reply: Any) -> Any:
    """The JSON of a reply. Raises `TryAgain` for a web page and for other text."""
    try:
        return reply.json()
    except ValueError as error:
        start = " ".join(reply.text.split())[:60]
        what = "a web page (HTML)" if start.startswith("<") else "no JSON"
        raise TryAgain(f"{what} in place of an answer: {start!r}") from error


def chat_answer(content: Any) -> str | None:
    """The text of the first choice; None if this is not a chat completion."""
    try:
        answer = content["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        return None
    return answer if isinstance(answer, str) else None


def seconds_of(text: str | None) -> float:
    """A Retry-After header in seconds; 0 if it is a date or invalid."""
    return float(text) if text and text.isascii() and text.isdigit() and len(text) < 6 else 0.0
