"""A hundred thousand requests that no client should send, to the real application: each is answered
with what is wrong, none with a traceback.

Opt-in: pytest -m fuzz. Hypothesis draws seeds, and each seed writes many requests.
"""

import asyncio
import json
import time
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from aha.rollout.native import NativeEngine
from aha.serve.api import Api, make_api
from aha.serve.open_models import OpenModel
from aha.serve.prompts import TrainingTask
from aha.serve.request_fields import IGNORED, IGNORED_IN_MESSAGE, NEUTRAL, SUPPORTED

from ..fuzz import tries
from ..tiny import TOKENIZER, tiny_transformer

SEEDS, EACH = tries(1_000), 100
LONGEST_S = 20.0
ANSWERS = {200, 400, 404, 405, 413, 429}
PATHS = ("/v1/chat/completions", "/v1/completions")
many = settings(
    max_examples=SEEDS,
    database=None,
    phases=[Phase.generate],  # a smaller seed is no smaller input
    suppress_health_check=list(HealthCheck),
)
pytestmark = [pytest.mark.fuzz, pytest.mark.timeout(0)]

KEYS = sorted({*SUPPORTED, *IGNORED, *NEUTRAL, *IGNORED_IN_MESSAGE, "messages", "prompt", "role"})
KEYS += ["content", "type", "text", "include_usage", "x", "", "\ud800", "a" * 500, "__class__", "9"]
NUMBERS = [0, 1, -1, 2, 5, 0.0, 1.0, 0.5, 1e-9, 5e-324, 1e300, -0.0, 2**31, 2**63, 2**64, -(2**63)]
NUMBERS += [10**40, 10**400, -(10**400), 127, 128, 129, 10.0, 10.1]
TEXTS = ["", " ", "\n", "numbers 3 7 25 target 82", "3 7 25 82", "numbers 3 7", "user", "system"]
TEXTS += ["assistant", "text", "tiny", "auto", "none", "\0", "\ud800", "\udfff x", "é", "e\u0301"]
TEXTS += ["🙂", "\u202eabc", "\x1b[31m", "<|endoftext|>", "{{ 7 * 7 }}", "1" * 3_000, "9" * 400]
RAW = [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"1" * 5_000, b'"\xff"', b"\xed\xa0\x80", b"{"]
RAW += [b"[" * 3_000 + b"]" * 3_000, b'{"a":' * 900, b"\\ud83d", b"\0", b"}", b'"a":1,"a":2', b","]


def value_of(rng: Random, depth: int = 0) -> object:
    """Some JSON value, most often a small one."""
    kind = rng.randrange(12 if depth < 3 else 8)
    if kind < 3:
        return rng.choice(NUMBERS)
    if kind < 6:
        return rng.choice(TEXTS)
    if kind < 8:
        return rng.choice([None, True, False])
    if kind == 8:
        return {rng.choice(KEYS): value_of(rng, depth + 1) for _ in range(rng.randrange(4))}
    if kind == 9:
        deep: object = value_of(rng, 3)
        for _ in range(rng.choice((2, 31, 40, 500))):
            deep = [deep] if rng.random() < 0.5 else {"a": deep}
        return deep
    return [value_of(rng, depth + 1) for _ in range(rng.choice((0, 1, 1, 2, 5)))]


def changed(rng: Random, value: object) -> object:
    """The value with one place in it changed."""
    if isinstance(value, dict) and value and rng.random() < 0.6:
        key = rng.choice(list(value))
        return value | {key: changed(rng, value[key])}
    if isinstance(value, dict):
        return value | {rng.choice(KEYS): value_of(rng)}
    if isinstance(value, list) and value and rng.random() < 0.8:
        place = rng.randrange(len(value))
        return [*value[:place], changed(rng, value[place]), *value[place + 1 :]]
    return value_of(rng)


def request(rng: Random) -> tuple[str, bytes]:
    """(path, body) of a request that began as a good one."""
    path = rng.choice(PATHS)
    body: object = {"model": "tiny", "max_tokens": 2, "seed": 1, "stream": rng.random() < 0.3}
    if "chat" in path:
        body |= {"messages": [{"role": "user", "content": "numbers 3 7 25 target 82"}]}
    else:
        body |= {"prompt": ["numbers 3 7"] if rng.random() < 0.3 else "numbers 3 7"}
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
        body = changed(rng, body)
    raw = json.dumps(body).encode()
    for _ in range(rng.choice((0, 0, 0, 1, 2))):
        place = rng.randrange(len(raw) + 1)
        cut = rng.choice((0, 0, 1, 5, 10**6))
        raw = raw[:place] + rng.choice([*RAW, bytes([rng.randrange(256)])]) + raw[place + cut :]
    return path, raw


async def post(app, path: str, body: bytes) -> tuple[int, bytes]:
    """(status, body) of the answer, without a socket."""
    sent: list[dict] = []
    parts = [body[: len(body) // 2], body[len(body) // 2 :]]
    ended = asyncio.Event()

    async def receive() -> dict:
        if parts:
            return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}
        await ended.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict) -> None:
        sent.append(message)

    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode()}
    scope |= {"query_string": b"", "headers": headers, "http_version": "1.1", "scheme": "http"}
    scope |= {"server": ("127.0.0.1", 80), "client": ("127.0.0.1", 9), "root_path": ""}
    await app(scope | {"asgi": {"version": "3.0", "spec_version": "2.4"}}, receive, send)
    ended.set()
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    engine = NativeEngine(tiny_transformer(), TOKENIZER, "float32", loop="torch")
    model = OpenModel("tiny", tmp_path_factory.mktemp("tiny"), engine)
    return make_api(Api(model, "tiny", TrainingTask(), 0))


counts: dict[int, int] = {}


@many
@given(seed=st.integers(0, 2**32))
def test_every_request_has_an_answer(app, seed):
    async def story() -> None:
        rng = Random(seed)
        for _ in range(EACH):
            path, body = request(rng)
            started = time.perf_counter()
            status, answer = await post(app, path, body)
            assert time.perf_counter() - started < LONGEST_S, body[:500]
            assert status in ANSWERS, (status, body[:500], answer[:500])
            counts[status] = counts.get(status, 0) + 1
            if status != 200:
                error = json.loads(answer)["error"]
                assert error["message"] and error["type"] != "server_error", (body[:500], error)
            else:
                assert b"server_error" not in answer, (body[:500], answer[-500:])

    asyncio.run(story())


def test_some_of_them_were_good():
    assert not counts or (min(counts[200], counts[400]) > SEEDS), counts
