"""The chat's endpoint, with a voice made here: this room has no model."""

import json
import shutil
import threading

import pytest
from starlette.testclient import TestClient

from aha.core.errors import ModelError
from aha.web.dashboard import make_app

from .conftest import RIGHT, WRONG

ASK = "/api/runs/demo/chat"
OURS = {"x-aha": "chat"}
PUZZLE = "numbers 3 7 25 target 82"


class Voice:
    """Base models answer wrongly, runs rightly."""

    def __init__(self):
        self.asked, self.closed = [], threading.Event()

    def __call__(self, model, task, problem, how):
        self.asked.append((model, task, problem, how))
        text = WRONG if model == "aha-tiny" else RIGHT
        try:
            yield {"origin": "somewhere"}
            for begin in range(0, len(text), 7):
                yield {"text": text[begin : begin + 7]}
            graded = task.grade(problem, text)
            row = {"id": problem.id, **problem.given, "completion": text, "tokens": 9}
            row |= {"correct": graded.correct, "reason": graded.reason, "reward": graded.reward}
            yield {"row": row}
        finally:
            self.closed.set()


@pytest.fixture
def voice() -> Voice:
    return Voice()


@pytest.fixture
def client(run, voice) -> TestClient:
    return TestClient(make_app(run.parent, stream_completion=voice), base_url="http://127.0.0.1")


def lines_of(answer) -> list[dict]:
    assert answer.status_code == 200
    return [json.loads(line) for line in answer.text.splitlines()]


def ask(client, **fields) -> list[dict]:
    return lines_of(client.get(ASK, params={"puzzle": PUZZLE, **fields}, headers=OURS))


def test_both_sides_answer_with_events_and_reason(client, voice, run):
    how = {"seed": "5", "temperature": "0.5", "max_new_tokens": "64"}
    before, after = (ask(client, side=side, **how) for side in ("before", "after"))
    assert before[0] == {"origin": "somewhere"}
    assert "".join(told.get("text", "") for told in after) == RIGHT
    assert before[-1]["row"]["reason"] == "makes 35, not 82" and not before[-1]["row"]["correct"]
    row = after[-1]["row"]
    assert row["correct"] and row["puzzle"] == {"numbers": [3, 7, 25], "target": 82}
    assert "".join(piece[0] for piece in row["pieces"]) == RIGHT
    assert {"true-check", "back-to-start", "right-answer"} <= {
        key for piece in row["pieces"] for key in piece[2]
    }
    assert [asked[0] for asked in voice.asked] == ["aha-tiny", str(run)]
    for _, task, problem, settings in voice.asked:
        assert task.name == "countdown" and problem.given["numbers"] == (3, 7, 25)
        assert settings == {"seed": 5, "temperature": 0.5, "max_new_tokens": 64}
    assert voice.closed.is_set()


def test_the_game_is_the_runs_own(client, voice, run):
    config = {"model": {"path": "base"}, "task": {"name": "countdown", "template": "r1"}}
    (run / "config.json").write_text(json.dumps(config))
    ask(client, side="before")
    model, task, problem, _ = voice.asked[0]
    assert model == "base" and "User:" in task.ask(problem)


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"puzzle": "hello"}, "'hello'; wanted a puzzle"),
        ({"puzzle": ""}, "wanted a puzzle"),
        ({"side": "left"}, "side 'left'; wanted before or after"),
        ({"temperature": "hot"}, "temperature 'hot'"),
        ({"temperature": "nan"}, "temperature 'nan'"),
        ({"temperature": "11"}, "temperature '11'"),
        ({"max_new_tokens": "0"}, "max_new_tokens '0'"),
        ({"max_new_tokens": "99999"}, "max_new_tokens '99999'"),
        ({"seed": "x"}, "seed 'x'"),
    ],
)
def test_what_cannot_be_asked_is_one_line_of_error(client, voice, fields, words):
    (line,) = ask(client, **{"side": "after", **fields})
    assert words in line["error"] and not voice.asked


def test_a_run_on_another_task_says_so(client, run):
    (run / "config.json").write_text(json.dumps({"task": {"name": "multiply"}}))
    (line,) = ask(client, side="after")
    assert "a run on another task" in line["error"]
    assert line["error"].endswith(f"aha ask --model {run}")
    (run / "config.json").write_text(json.dumps({"kind": "sft", "model": {"path": "aha-tiny"}}))
    (line,) = ask(client, side="after")
    assert "a fine-tuning, which has no task" in line["error"]
    assert line["error"].endswith(f"aha chat {run}")


def test_a_run_without_a_base_can_still_be_asked_itself(client, run):
    (run / "config.json").write_text(json.dumps({"task": {"name": "countdown"}}))
    assert "without model.path" in ask(client, side="before")[0]["error"]
    assert ask(client, side="after")[-1]["row"]["correct"]


@pytest.mark.parametrize("fault", [ModelError("no model called 'x'"), RuntimeError("no memory")])
def test_a_fault_on_the_way_is_told_after_what_came_before(run, fault):
    def stream_completion(model, task, problem, how):
        yield {"text": "3+7"}
        raise fault

    client = TestClient(
        make_app(run.parent, stream_completion=stream_completion), base_url="http://127.0.0.1"
    )
    first, last = ask(client, side="after")
    assert first == {"text": "3+7"} and str(fault) in last["error"]


def test_pages_elsewhere_cannot_make_this_machine_compute(client, voice):
    for headers in ({}, {"x-aha": "x"}, {**OURS, "origin": "http://evil.example"}):
        answer = client.get(ASK, params={"puzzle": PUZZLE, "side": "after"}, headers=headers)
        assert answer.status_code == 403
    assert not voice.asked


def test_without_a_voice_the_page_is_told(run):
    client = TestClient(make_app(run.parent), base_url="http://127.0.0.1")
    assert client.get("/api/runs").json()["chat"] is False
    assert client.get(ASK, headers=OURS).status_code == 404


def test_a_run_that_is_gone(client, run):
    shutil.rmtree(run)
    assert client.get(ASK, headers=OURS).status_code == 404


def test_control_characters_become_signs(run):
    def stream_completion(model, task, problem, how):
        yield {"text": "a\x1b[31m\u202e"}

    client = TestClient(
        make_app(run.parent, stream_completion=stream_completion), base_url="http://127.0.0.1"
    )
    assert ask(client, side="after") == [{"text": "a\u241b[31m\ufffd"}]
