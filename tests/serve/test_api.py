"""The server under the real client of OpenAI, over a socket."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import openai
import pytest
from starlette.testclient import TestClient

from aha.rollout.engine import Sampling
from aha.rollout.native import NativeEngine
from aha.serve.api import MAX_REQUEST_BYTES, Api, make_api
from aha.serve.open_models import OpenModel
from aha.serve.prompts import TrainingTask, prompts_of_text
from aha.web.server import make_server, open_socket

from ..tiny import TOKENIZER, ask, tiny_transformer

PUZZLE = "numbers 3 7 25 target 82"
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": PUZZLE}]}
TEXT = {"model": "tiny", "prompt": "numbers 3 7 25"}


@pytest.fixture(scope="module")
def opened(tmp_path_factory) -> OpenModel:
    engine = NativeEngine(tiny_transformer(), TOKENIZER, "float32", loop="torch")
    return OpenModel("tiny", tmp_path_factory.mktemp("tiny"), engine)


@contextmanager
def served(api: Api):
    """OpenAI's client of a server in a thread."""
    listener = open_socket("127.0.0.1", 0)
    server = make_server(make_api(api))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    yield openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=120)
    server.should_exit = True
    thread.join(20)


@pytest.fixture(scope="module")
def client(opened):
    with served(Api(opened, "tiny", TrainingTask(), 1_700_000_000)) as client:
        yield client


def alone(
    opened: OpenModel, most: int, n: int = 1, temperature: float = 1.0, seed: int = 7
) -> list:
    """What the engine writes for the puzzle when nobody else asks."""
    sampling = Sampling(most, n, temperature, seed)
    return opened.engine.generate([ask(3, 7, 25, target=82)], sampling)[0]


def test_models(client):
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").created == 1_700_000_000
    with pytest.raises(openai.NotFoundError, match="'gpt'; wanted 'tiny'"):
        client.models.retrieve("gpt")


def test_a_conversation_is_what_the_engine_writes_with_that_seed(client, opened):
    done = client.chat.completions.create(**CHAT, max_tokens=20, n=3, seed=7, temperature=0.7)
    want = alone(opened, 20, 3, 0.7)
    assert [choice.message.content for choice in done.choices] == [one.text for one in want]
    assert [choice.finish_reason for choice in done.choices] == [one.finish for one in want]
    assert [choice.index for choice in done.choices] == [0, 1, 2]
    assert done.object == "chat.completion" and done.model == "tiny"
    assert done.usage.prompt_tokens == len(ask(3, 7, 25, target=82).tokens)
    assert done.usage.completion_tokens == sum(len(one.tokens) for one in want)
    assert done.usage.total_tokens == done.usage.prompt_tokens + done.usage.completion_tokens


def test_a_stream_tells_the_same_in_pieces(client, opened):
    options = {"include_usage": True}
    stream = client.chat.completions.create(
        **CHAT, max_completion_tokens=25, n=2, seed=7, stream=True, stream_options=options
    )
    texts, finished, usage, chunks = {0: "", 1: ""}, {}, None, 0
    for chunk in stream:
        assert chunk.object == "chat.completion.chunk"
        usage = chunk.usage or usage
        for choice in chunk.choices:
            assert choice.index not in finished
            texts[choice.index] += choice.delta.content or ""
            chunks += bool(choice.delta.content)
            if choice.finish_reason:
                finished[choice.index] = choice.finish_reason
    want = alone(opened, 25, 2)
    assert [texts[0], texts[1]] == [one.text for one in want]
    assert finished == {0: want[0].finish, 1: want[1].finish}
    assert usage.completion_tokens == sum(len(one.tokens) for one in want)
    assert chunks > 20, "told in one lump"


def test_texts_go_in_and_come_out_as_they_are(client, opened):
    texts = ["numbers 3 7 25 target 82\n<think>\n", "numbers 1 2"]
    done = client.completions.create(model="tiny", prompt=texts, max_tokens=9, n=2, seed=3)
    prompts = prompts_of_text({"prompt": texts}, TOKENIZER)
    want = [
        one for group in opened.engine.generate(prompts, Sampling(9, 2, 1.0, 3)) for one in group
    ]
    assert [choice.text for choice in done.choices] == [one.text for one in want]
    assert done.object == "text_completion"
    stream = client.completions.create(
        model="tiny", prompt=texts[0], max_tokens=9, seed=3, stream=True
    )
    assert "".join(chunk.choices[0].text for chunk in stream if chunk.choices) == want[0].text


def test_stop_ends_the_text_before_it(client, opened):
    (want,) = alone(opened, 40)
    stop = want.text[9:11]
    done = client.chat.completions.create(**CHAT, max_tokens=40, seed=7, stop=[stop, "\n\n\n\n"])
    head = want.text[: want.text.find(stop)]
    assert done.choices[0].message.content == head and done.choices[0].finish_reason == "stop"
    assert done.usage.completion_tokens < len(want.tokens)
    stream = client.chat.completions.create(**CHAT, max_tokens=40, seed=7, stop=stop, stream=True)
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream]
    assert "".join(pieces) == head


def test_temperature_0_is_greedy_and_without_a_seed_every_answer_is_another(client, opened):
    greedy = [client.chat.completions.create(**CHAT, max_tokens=12, temperature=0) for _ in "ab"]
    (want,) = alone(opened, 12, temperature=0.0)
    assert {done.choices[0].message.content for done in greedy} == {want.text}
    free = [client.chat.completions.create(**CHAT, max_tokens=30) for _ in range(4)]
    assert len({done.choices[0].message.content for done in free}) > 1


def test_without_max_tokens_the_model_writes_until_its_context_is_full(client, opened):
    done = client.chat.completions.create(**CHAT, seed=7, stop=["never written"])
    room = opened.positions - done.usage.prompt_tokens
    (want,) = alone(opened, room)
    assert done.choices[0].message.content == want.text


def test_several_requests_at_once_get_what_each_gets_alone(client, opened):
    def one(seed: int) -> tuple[str, str]:
        stream = seed % 2 == 0
        done = client.chat.completions.create(
            **CHAT, max_tokens=10 + 7 * seed, seed=seed, stream=stream
        )
        if not stream:
            return done.choices[0].message.content
        return "".join(chunk.choices[0].delta.content or "" for chunk in done)

    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(one, range(12)))
    assert found == [alone(opened, 10 + 7 * seed, seed=seed)[0].text for seed in range(12)]


@pytest.mark.parametrize(
    "more, param, words",
    [
        ({"top_p": 0.9}, "top_p", "top_p 0.9, which this engine does not do"),
        ({"logprobs": True}, "logprobs", "logprobs True"),
        ({"tools": [{"type": "function"}]}, "tools", "which this engine does not do"),
        ({"response_format": {"type": "json_object"}}, "response_format", "json_object"),
        ({"grammar": "x"}, "grammar", "the field 'grammar'"),
        ({"max_tokens": 0}, "max_tokens", "max_tokens 0; wanted a whole number from 1"),
        ({"max_tokens": 100_000}, "max_tokens", "positions together; fix: max_tokens 1"),
        ({"max_tokens": 1.5}, "max_tokens", "1.5"),
        ({"n": 0}, "n", "n 0"),
        ({"n": 1000}, "n", "n 1000"),
        ({"temperature": -1}, "temperature", "temperature -1"),
        ({"temperature": "hot"}, "temperature", "'hot'"),
        ({"seed": "x"}, "seed", "seed 'x'"),
        ({"stop": ["a"] * 5}, "stop", "up to 4"),
        ({"stop": ""}, "stop", "none empty"),
        ({"stream": "yes"}, "stream", "true or false"),
        ({"stream_options": {"x": 1}}, "stream_options", "include_usage"),
        ({"messages": [{"role": "user", "content": "hello"}]}, "messages", "wanted a puzzle"),
    ],
)
def test_errors_have_openais_shape_and_say_got_wanted_fix(client, more, param, words):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**CHAT, extra_body=more)
    error = caught.value
    assert error.body["param"] == error.param == param and words in error.body["message"]
    assert error.type == "invalid_request_error"


def test_a_context_that_is_exceeded_has_openais_code(client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**CHAT, max_tokens=100_000)
    assert caught.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="tiny", prompt="3 " * 500)
    assert caught.value.code == "context_length_exceeded" and caught.value.param == "max_tokens"


def test_another_model_is_not_found(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(**{**CHAT, "model": "gpt-9"})
    assert caught.value.code == "model_not_found" and caught.value.param == "model"


def test_values_that_ask_for_nothing_are_fine(client):
    nothing = {"top_p": 1, "presence_penalty": 0.0, "logit_bias": {}, "user": "me", "tools": None}
    done = client.chat.completions.create(**CHAT, max_tokens=1, extra_body=nothing)
    assert done.usage.completion_tokens == 1


class Slow(NativeEngine):
    """Takes its time, and counts its tokens."""

    drawn = 0

    def watch(self, prompts, sampling):
        for groups in super().watch(prompts, sampling):
            self.drawn += 1
            time.sleep(0.1)
            yield groups


@pytest.mark.parametrize("stream", [True, False])
def test_whoever_hangs_up_is_not_written_for_any_longer(opened, stream):
    engine = Slow(tiny_transformer(), TOKENIZER, "float32", loop="torch")
    api = Api(OpenModel("tiny", opened.folder, engine), "tiny", TrainingTask(), 0)
    with served(api) as client:
        if stream:
            chunks = client.chat.completions.create(**CHAT, seed=7, max_tokens=130, stream=True)
            next(chunks)
            chunks.close()
        else:
            with pytest.raises(openai.APITimeoutError):
                client.with_options(timeout=0.5).chat.completions.create(
                    **CHAT, seed=7, max_tokens=130
                )
        drawn = -1
        while drawn != engine.drawn:
            drawn = engine.drawn
            time.sleep(1)
    assert drawn < len(alone(opened, 130)[0].tokens) // 2


# -- without the client -----------------------------------------------------------------------


@pytest.fixture
def plain(opened) -> TestClient:
    app = make_api(Api(opened, "tiny", TrainingTask(), 0))
    return TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False)


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000])
def test_a_body_that_is_no_object(plain, raw):
    answer = plain.post("/v1/chat/completions", content=raw)
    assert answer.status_code == 400 and "a JSON object" in answer.json()["error"]["message"]


def test_a_body_that_is_too_long(plain):
    answer = plain.post("/v1/completions", content=b" " * (MAX_REQUEST_BYTES + 1))
    assert answer.status_code == 413 and answer.json()["error"]["type"] == "invalid_request_error"


def test_other_addresses_and_methods_have_the_same_shape(plain):
    assert plain.get("/v1/nothing").json()["error"]["message"].startswith("GET /v1/nothing")
    assert plain.get("/v1/chat/completions").status_code == 405
    assert "error" in plain.get("/v1/chat/completions").json()
    assert plain.delete("/v1/models").json()["error"]["message"].startswith("aha does not take")


def test_a_stream_ends_with_done(plain):
    body = CHAT | {"stream": True, "max_tokens": 2}
    lines = plain.post("/v1/chat/completions", json=body).text.strip().split("\n\n")
    assert lines[-1] == "data: [DONE]"
    first = json.loads(lines[0].removeprefix("data: "))
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}


def test_pages_elsewhere_are_refused(plain):
    for headers in ({"origin": "http://evil.example"}, {"host": "evil.example"}):
        answer = plain.post("/v1/completions", json=TEXT, headers=headers)
        assert answer.status_code == 403
        assert answer.json()["error"]["type"] == "authentication_error"


def test_bound_elsewhere_the_token_is_the_api_key(opened):
    app = make_api(Api(opened, "tiny", TrainingTask(), 0), "0.0.0.0", "a-token")
    outside = TestClient(app, base_url="http://192.168.1.5:8000")
    for key in ("", "Bearer wrong", "Basic a-token", "Bearer "):
        answer = outside.get("/v1/models", headers={"authorization": key})
        assert answer.status_code == 403 and "token" in answer.json()["error"]["message"]
    right = outside.get("/v1/models", headers={"authorization": "Bearer a-token"})
    assert right.json()["data"][0]["id"] == "tiny"


def test_a_thinking_budget_closes_the_thought_streamed_and_whole(client):
    settings = {"seed": 4, "n": 6, "max_tokens": 60, "extra_body": {"max_thinking_tokens": 9}}
    whole = client.chat.completions.create(**CHAT, **settings)
    texts = [choice.message.content for choice in whole.choices]
    closed = [text.partition("</think>") for text in texts if "</think>\n<answer>" in text]
    assert len(closed) > 2  # a random model may close a thought, or end, by itself
    assert all(len(TOKENIZER.encode(thought)) <= 9 + 1 for thought, _, _ in closed)
    streamed = [""] * 6
    for chunk in client.chat.completions.create(**CHAT, **settings, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert streamed == texts
