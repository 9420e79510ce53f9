"""An OpenAI-compatible endpoint on this machine that judges well and behaves as badly as told."""

import json
import re
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from aha.behaviors.detector import count_behaviours
from aha.behaviors.judge import QUESTIONS


def verdict(text: str) -> int:
    """What the detector counts, read out of the message alone."""
    (question,) = [one for one in QUESTIONS if one.definition in text]
    numbers = tuple(map(int, re.search(r"^Numbers: (.*)$", text, re.M)[1].split()))
    target = int(re.search(r"^Target: (.*)$", text, re.M)[1])
    working = re.search(r"^~{8}\n(.*)\n~{8}$", text, re.M | re.S)[1]
    return getattr(count_behaviours(working, numbers, target), question.behaviour)


class FakeJudge:
    """`misbehave(times asked before, text)` names a fault, or None for an honest answer."""

    late_s = 30.0  # of an answer that is "slow"

    def __init__(self, misbehave=lambda before, text: None, count=verdict, slow_s: float = 0.0):
        self.misbehave, self.count, self.slow_s = misbehave, count, slow_s
        self.asked: Counter = Counter()
        self.bodies: list[dict] = []
        self.headers: list[dict] = []
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

    def handler(self) -> type:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                fake.answer(self, body)

            def log_message(self, *unused):
                pass

        return Handler

    def answer(self, handler, body: dict) -> None:
        text = body["messages"][-1]["content"]
        with self.lock:
            before = self.asked[text]
            self.asked[text] += 1
            self.bodies.append(body)
            self.headers.append({k.lower(): v for k, v in handler.headers.items()})
            self.times.append(time.monotonic())
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(self.slow_s)
        # Before the answer is on its way: whoever has it may ask again at once.
        with self.lock:
            self.now -= 1
        self.send(handler, self.misbehave(before, text), text)

    def send(self, handler, fault: str | None, text: str) -> None:
        honest = f"I have looked. <count> {self.count(text)} </count>"
        status, content = 200, {"choices": [{"message": {"content": honest}}]}
        if fault == "hangs up":
            handler.close_connection = True
            return
        if fault == "slow":
            time.sleep(self.late_s)
        elif fault == "no count":
            content = {
                "choices": [{"message": {"content": "Three, I think. <count>three</count>"}}]
            }
        elif fault == "no choices":
            content = {"choices": []}
        elif fault is not None and fault[0].isdigit():
            status, content = int(fault), {"error": fault}
        data = b"<html>" if fault == "no JSON" else json.dumps(content).encode()
        handler.send_response(status)
        if fault == "429":
            handler.send_header("Retry-After", "0")
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        try:
            handler.wfile.write(data)
        except OSError:
            pass  # whoever asked has given up
