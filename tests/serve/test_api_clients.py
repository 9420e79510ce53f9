"""Clients as they come: they hang up, send too much, and write their requests in their own way."""

import json
import logging
import socket
import threading
import time

import pytest

from aha.rollout.native import NativeEngine
from aha.serve.api import MAX_REQUEST_BYTES, Api, make_api
from aha.serve.open_models import OpenModel
from aha.serve.prompts import TrainingTask
from aha.web.server import make_server, open_socket

from ..tiny import TOKENIZER, tiny_transformer

BODY = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "numbers 3 7 25 target 82"}],
    "temperature": 1,
    "max_tokens": 120,
}


class Counting(NativeEngine):
    """Knows how many requests it is generating for, and takes its time."""

    active = 0

    def watch(self, prompts, sampling):
        type(self).active += 1
        try:
            for groups in super().watch(prompts, sampling):
                time.sleep(0.002)
                yield groups
        finally:
            type(self).active -= 1


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    engine = Counting(tiny_transformer(), TOKENIZER, "float32", loop="torch")
    model = OpenModel("tiny", tmp_path_factory.mktemp("tiny"), engine)
    listener = open_socket("127.0.0.1", 0)
    server = make_server(make_api(Api(model, "tiny", TrainingTask(), 0)))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    server.should_exit = True
    thread.join(20)


def request_bytes(body: bytes, length: int | None = None) -> bytes:
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json"
    return f"{head}\r\nContent-Length: {length or len(body)}\r\n\r\n".encode() + body


def send(port: int, data: bytes) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), timeout=60)
    client.sendall(data)
    return client


def answer_of(client: socket.socket) -> bytes:
    answer = b""
    while part := client.recv(65_536):
        answer += part
        if b"\r\n\r\n" in answer and b'"error"' in answer:
            break
    return answer


STREAMED = json.dumps(BODY | {"stream": True}).encode()
WHOLE = json.dumps(BODY).encode()
DEPARTURES = {
    "in the middle of the body": (lambda: request_bytes(WHOLE[:-20], len(WHOLE)), 0),
    "before the first byte of a stream": (lambda: request_bytes(STREAMED), 0),
    "in the middle of a stream": (lambda: request_bytes(STREAMED), 400),
    "while it waits for the whole answer": (lambda: request_bytes(WHOLE), 0),
}


@pytest.mark.parametrize("when", DEPARTURES)
def test_clients_that_hang_up_leave_no_traceback_and_no_work(port, when, caplog):
    data, read = DEPARTURES[when]
    with caplog.at_level(logging.INFO):
        for _ in range(25):
            client = send(port, data())
            if read:
                client.recv(read)
            client.close()
        deadline = time.monotonic() + 60
        time.sleep(0.3)
        while Counting.active and time.monotonic() < deadline:
            time.sleep(0.05)
    assert Counting.active == 0
    assert not [record for record in caplog.records if record.exc_info or record.levelno >= 30]
    # The next one is answered, within the patience of `send`.
    with send(port, request_bytes(json.dumps(BODY | {"max_tokens": 1}).encode())) as client:
        assert client.recv(65_536).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("size", [MAX_REQUEST_BYTES + 1, 30_000_000])
def test_a_body_that_is_too_large_is_refused_before_it_is_read(port, size):
    with send(port, request_bytes(b"{" + b" " * MAX_REQUEST_BYTES, size)) as client:
        answer = answer_of(client)
    assert answer.startswith(b"HTTP/1.1 413") and b"1000000 bytes" in answer


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "\xff/x"]
)
def test_a_body_is_json_whatever_its_header_says(port, kind):
    body = json.dumps(BODY | {"max_tokens": 1}).encode()
    data = request_bytes(body).replace(b"application/json", kind.encode("latin-1"))
    with send(port, data) as client:
        assert client.recv(65_536).startswith(b"HTTP/1.1 200")


def test_an_address_may_end_with_a_slash(port):
    data = request_bytes(json.dumps(BODY | {"max_tokens": 1}).encode())
    with send(port, data.replace(b"completions HTTP", b"completions/ HTTP")) as client:
        assert client.recv(65_536).startswith(b"HTTP/1.1 200")
