"""An OpenAI-compatible endpoint on this machine that solves puzzles, and misbehaves as it is
told."""

import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from aha.tasks.countdown import Countdown, as_problem

TASK = Countdown()


def problem_in(text: str):
    """The puzzle that a request asks, in any of our frames."""
    line = re.search(r"numbers ([\d ]+) target (\d+)", text)
    if line:
        return as_problem(tuple(map(int, line[1].split())), int(line[2]))
    listed, target = re.search(r"numbers \[([\d, ]+)\][^\d]*(\d+)", text).groups()
    return as_problem(tuple(map(int, listed.split(","))), int(target))


def solve(text: str) -> str:
    """A right completion."""
    return TASK.solve(problem_in(text))


class FakeTeacher:
    """`misbehave(number of requests before, text)` names a fault, or None for an answer."""

    def __init__(self, misbehave=lambda before, text: None, answer=solve):
        self.misbehave, self.answer_of = misbehave, answer
        self.bodies: list[dict] = []
        self.paths: list[str] = []
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
                fake.send(self, body)

            def log_message(self, *unused):
                pass

        return Handler

    def send(self, handler, body: dict) -> None:
        text = body["prompt"] if "prompt" in body else body["messages"][-1]["content"]
        with self.lock:
            before = len(self.bodies)
            self.bodies.append(body)
            self.paths.append(handler.path)
        fault = self.misbehave(before, text)
        status, data = 200, b""
        if fault == "slow":
            time.sleep(10.0)
        if fault == "html":
            data = b"<!doctype html><title>Welcome</title>"
        elif fault is not None and fault[0].isdigit():
            status, data = int(fault), json.dumps({"error": fault}).encode()
        else:
            data = json.dumps(self.reply(body, text, fault)).encode()
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        try:
            handler.wfile.write(data)
        except OSError:
            pass  # whoever sent the request has given up

    def reply(self, body: dict, text: str, fault: str | None) -> dict:
        answer = "" if fault == "empty" else self.answer_of(text)
        finish = "length" if fault == "cut" else "stop"
        choice = {"text": answer} if "prompt" in body else {"message": {"content": answer}}
        if fault == "apart":  # as vLLM does with a model that thinks
            thought, _, rest = answer.partition("</think>")
            choice = {"message": {"content": rest, "reasoning_content": thought}}
        usage = {"prompt_tokens": 100, "completion_tokens": 50}
        return {"choices": [{**choice, "finish_reason": finish}], "usage": usage}
