"""A teacher of ours and an endpoint: every answer once, whatever stops the process."""

from itertools import islice

import pytest

from aha.core.errors import ConfigError
from aha.distill.teachers import (
    EndpointTeacher,
    KeptAnswers,
    OwnTeacher,
    Questions,
    TeacherEndpoint,
    messages_of,
)
from aha.endpoints.chat_requests import TEXT
from aha.rollout.engine import Sampling
from aha.tasks.countdown import Countdown

TASK = Countdown()
PROBLEMS = list(islice(TASK.problems("train", 0), 4))


def questions(task: Countdown = TASK, size: int = 2, tokens: int = 6) -> Questions:
    return Questions(task, PROBLEMS, Sampling(tokens, size, 1.0, 3))


def ignore(done: int, total: int) -> None:
    pass


def endpoint(fake, **more) -> EndpointTeacher:
    settings = {"pause_s": 0.01, "workers": 1, "tries": 2} | more
    return EndpointTeacher(TeacherEndpoint(fake.url, "big", **settings))


def answered(teacher, asked: Questions, requests=None) -> tuple[list[dict], list]:
    rows: list[dict] = []
    requests = teacher.requests(asked) if requests is None else requests
    return rows, teacher.answer(requests, asked, KeptAnswers(rows.extend), ignore).lost


def timeless(rows: list[dict]) -> list[dict]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


# -- ours -----------------------------------------------------------------------------------------


def test_an_answer_of_our_own_does_not_depend_on_what_is_there_already(student):
    teacher = OwnTeacher(str(student), 0.1, 50.0)
    asked = questions()
    whole, lost = answered(teacher, asked)
    requests = teacher.requests(asked)
    assert [row["key"] for row in whole] == [request.key for request in requests] and not lost
    assert len({row["key"] for row in whole}) == 8 and whole[0]["tokens"] <= 6
    part, _ = answered(teacher, asked, requests[3:5])
    assert timeless(part) == timeless(whole[3:5])
    entry = teacher.cost(whole)
    assert entry.usd > 0 and entry.tokens == sum(row["tokens"] for row in whole)
    assert teacher.chain()[-1]["kind"] == "model"


def test_what_our_own_teacher_cannot_read_is_lost_with_its_reason(student):
    teacher = OwnTeacher(str(student), 0.1, 50.0)
    rows, lost = answered(teacher, questions(tokens=1_000))
    assert rows == [] and {reason for reason, _ in lost} == {"longer than the teacher's context"}
    assert len(lost) == 8  # two answers to each of four problems


# -- an endpoint ----------------------------------------------------------------------------------


def test_a_chat_is_asked_in_words_and_a_text_in_the_students(teach):
    fake = teach()
    chat, _ = answered(endpoint(fake), questions(Countdown(template="instruct"), 1))
    text, _ = answered(endpoint(fake, path=TEXT), questions(size=1))
    assert fake.paths[0] == "/v1/chat/completions" and fake.paths[-1] == "/v1/completions"
    messages = fake.bodies[0]["messages"]
    assert [message["role"] for message in messages] == ["system", "user"]
    asked = Countdown(template="instruct").ask(PROBLEMS[0])
    assert asked.endswith("<think>") and messages[-1]["content"] in asked
    assert not messages[-1]["content"].endswith("<think>")
    assert fake.bodies[-1]["prompt"] == TASK.ask(PROBLEMS[-1])
    assert fake.bodies[0]["model"] == "big" and fake.bodies[0]["max_tokens"] == 6
    for row, problem in zip(chat, PROBLEMS, strict=True):
        assert TASK.grade(problem, row["text"]).correct and row["tokens"] == 50
    assert len({row["key"] for row in [*chat, *text]}) == 8
    assert messages_of(TASK.ask(PROBLEMS[0]))[0]["content"].endswith(
        f"target {PROBLEMS[0].given['target']}"
    )


def test_two_answers_to_a_problem_have_different_seeds_and_a_run_has_its_own(teach):
    fake = teach()
    answered(endpoint(fake), questions())
    seeds = [body["seed"] for body in fake.bodies]
    assert len(set(seeds)) == 8 and all(0 <= seed < 2**31 for seed in seeds)
    answered(endpoint(fake), questions())
    assert [body["seed"] for body in fake.bodies[8:]] == seeds


def test_a_thought_that_the_server_keeps_apart_is_put_back(teach):
    rows, _ = answered(endpoint(teach(lambda before, text: "apart")), questions(size=1))
    assert all(row["text"].count("</think>") == 1 for row in rows)
    assert all(TASK.grade(p, row["text"]).correct for p, row in zip(PROBLEMS, rows, strict=True))


def test_a_thought_that_the_limit_has_cut_is_an_answer_that_was_paid_for(teach):
    """A server that keeps thoughts apart has no content then; six tries would think it again."""
    fake = teach(lambda before, text: "thought alone")
    rows, lost = answered(endpoint(fake), questions(size=1))
    assert len(rows) == len(fake.bodies) == 4 and not lost
    assert all(row["finish"] == "length" and row["text"].startswith("let me") for row in rows)


def test_a_completion_that_a_filter_has_cut_is_none(teach):
    fake = teach(lambda before, text: "filtered" if before == 1 else None)
    rows, lost = answered(endpoint(fake, tries=1), questions(size=1))
    assert len(rows) == 3 and len(lost) == 1 and "'content_filter'" in lost[0][1]


@pytest.mark.parametrize("fault", ["500", "no JSON", "429"])
def test_a_fault_that_passes_costs_a_second_request(teach, fault):
    fake = teach(lambda before, text: fault if before == 1 else None)
    rows, lost = answered(endpoint(fake), questions(size=1))
    assert len(rows) == 4 and not lost and len(fake.bodies) == 5


def test_one_request_that_is_refused_or_never_answered_costs_no_other(teach):
    def misbehave(before: int, text: str) -> str | None:
        one, other = (TASK.ask(PROBLEMS[n]) for n in (1, 2))
        return "400" if text == one else "500" if text == other else None

    fake = teach(misbehave)
    rows, lost = answered(endpoint(fake, path=TEXT), questions(size=1))
    assert [row["problem"]["id"] for row in rows] == [PROBLEMS[0].id, PROBLEMS[3].id]
    reasons = sorted(details for _, details in lost)
    assert "status 400" in reasons[0] and reasons[1] == "status 500" and len(fake.bodies) == 5


def test_a_first_request_that_is_too_long_costs_no_other(teach):
    fake = teach(lambda before, text: "400" if text == TASK.ask(PROBLEMS[0]) else None)
    rows, lost = answered(endpoint(fake, path=TEXT), questions(size=1))
    assert len(rows) == 3 and "status 400" in lost[0][1]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("no JSON", "no usable answer from the teacher .* a web page .HTML."),
        ("slow", "no usable answer from the teacher .*ReadTimeout"),
        ("404", "the teacher .* refuses with status 404.*--teacher-model.*AHA_TEACHER_KEY"),
        ("400", "the teacher .* refuses with status 400"),
    ],
)
def test_an_endpoint_that_never_answers_ends_it_in_one_line(teach, fault, message):
    fake = teach(lambda before, text: fault)
    teacher = endpoint(fake, timeout_s=0.5 if fault == "slow" else 60.0)
    with pytest.raises(ConfigError, match=message) as caught:
        answered(teacher, questions(size=1))
    assert "\n" not in str(caught.value)


def test_a_wrong_address_is_refused_before_anything_is_asked():
    with pytest.raises(ConfigError, match="--teacher 'http://'"):
        EndpointTeacher(TeacherEndpoint("http://", "big"))
