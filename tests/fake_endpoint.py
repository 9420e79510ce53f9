"""An OpenAI-compatible endpoint on this machine that misbehaves as it is told.

What an honest answer is, a subclass says: a judge's count, or a teacher's solution.
"""

import json
import threading
import time
from abc import ABC, abstractmethod
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

PAGE = b"<!doctype html><title>Welcome</title>"


class FakeEndpoint(ABC):
    """`misbehave(requests before, text)` names a fault, or None for an honest answer.

    Faults of every endpoint: a status such as "503", "slow", "no JSON", "hangs up"; a subclass
    knows more. `most` is how many requests were open at a time.
    """

    late_s = 30.0  # of an answer that is "slow": longer than anybody waits

    def __init__(self, misbehave=lambda before, text: None, slow_s: float = 0.0):
        self.misbehave, self.slow_s = misbehave, slow_s
        self.bodies: list[dict] = []
        self.headers: list[dict] = []
        self.paths: list[str] = []
        self.times: list[float] = []
        self.now = self.most = 0
        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self.handler())
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    @abstractmethod
    def reply(self, body: dict, text: str, fault: str | None) -> dict:
        """The content of an answer."""

    def requests_before(self, text: str) -> int:
        """How many requests came before this one, which asks `text`."""
        return len(self.bodies)

    def handler(self) -> type:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                fake.answer(self, body)

            def log_message(self, *unused):
                pass

        return Handler

    def answer(self, handler: BaseHTTPRequestHandler, body: dict) -> None:
        text = body["prompt"] if "prompt" in body else body["messages"][-1]["content"]
        with self.lock:
            before = self.requests_before(text)
            self.bodies.append(body)
            self.headers.append({name.lower(): value for name, value in handler.headers.items()})
            self.paths.append(handler.path)
            self.times.append(time.monotonic())
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(self.slow_s)
        # Before the answer is on its way: whoever has it may ask again at once.
        with self.lock:
            self.now -= 1
        fault = self.misbehave(before, text)
        if fault == "hangs up":
            handler.close_connection = True
            return
        if fault == "slow":
            time.sleep(self.late_s)
        status, content = 200, PAGE
        if fault is not None and fault[0].isdigit():
            status, content = int(fault), json.dumps({"error": fault}).encode()
        elif fault != "no JSON":
            content = json.dumps(self.reply(body, text, fault)).encode()
        send(handler, status, content)


def send(handler: BaseHTTPRequestHandler, status: int, content: bytes) -> None:
    handler.send_response(status)
    if status == 429:
        handler.send_header("Retry-After", "0")
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    try:
        handler.wfile.write(content)
    except OSError:
        pass  # whoever asked has given up


def started(kind: type[FakeEndpoint]):
    """A fixture that starts such endpoints and stops them after the test."""

    @pytest.fixture
    def start():
        fakes = []

        def one(*args, **more) -> FakeEndpoint:
            fakes.append(kind(*args, **more))
            return fakes[-1]

        yield one
        for fake in fakes:
            fake.stop()

    return start
