"""`aha distill` on the command line: from a teacher to a tested student, stopped and gone on
with."""

import json
import threading
import time

import pytest
import uvicorn

from aha.serve.api import Api, make_api
from aha.serve.open_models import ModelCache
from aha.serve.prompts import TrainingTask

from ..distill.fake_teacher import FakeTeacher
from ..fake_endpoint import started

FEW = ("--n", 6, "--tests", 4, "--max-new-tokens", 40, "--epochs", 2, "--examples", 3)
QUICK = (*FEW, "--dtype", "float32", "--workers", 1, "--tries", 2)


teach = started(FakeTeacher)


@pytest.fixture
def teacher(teach):
    return teach()


def test_a_student_is_taught_tested_and_paid_for(aha, model, teacher, tmp_path):
    words = ("distill", "--teacher", teacher.url, "--student", model, "--name", "one")
    words += (*QUICK, "--teacher-price", 1, 2, "--seed", 3)
    stopped = aha(*words, "--budget", "0.000001s")
    assert stopped.code == 3, stopped.err
    # Not `aha train --resume`, which would leave out the test after the training.
    assert "the budget is spent; go on with: the same command with --name one" in stopped.out
    done = aha(*words)
    assert done.code == 0, done.err
    assert len(teacher.bodies) == 6 and "resumes" not in done.err
    assert "graded" in done.out and "6 kept" in done.out
    assert "solve rate 0.000 -> 0.000" in done.out and "no evidence of a change" in done.out
    assert "teacher's generation (300 tokens)" in done.out and "fine-tuning" in done.out
    assert "with the making of the student's base" in done.out
    ledger = json.loads((tmp_path / "data/one/ledger.json").read_text())
    assert ledger["own_usd"] > 0.0012 and ledger["with_base_usd"] is None
    summary = json.loads((tmp_path / "runs/one/summary.json").read_text())
    assert summary["after"]["problems"] == 4 and summary["base_cost_usd"] == pytest.approx(0.0012)
    assert summary["cost_usd"] > 0 and summary["wall_s"] > summary["seconds"]
    # Reports, cards and lists take the run with its tests.
    assert aha("report", "runs/one", "--out", "report.html").code == 0
    exported = aha("export", "runs/one", "--out", "exported")
    assert (
        exported.code == 0 and "held-out problems" in (tmp_path / "exported/README.md").read_text()
    )
    # With other settings nothing is taught: the run is done, and was made with these.
    other = aha(*words, "--lr", 0.5)
    assert other.code == 2 and "runs/one learns with optim.lr 0.001, not 0.5" in other.err
    # Once more: nothing is left to do.
    again = aha(*words)
    assert again.code == 0 and len(teacher.bodies) == 6
    assert json.loads((tmp_path / "runs/one/summary.json").read_text()) == summary
    chain = aha("sft", "runs/one", "--data", "data/one/examples.jsonl", "--epochs", 1)
    assert chain.code == 0 and "after one (sft)" in chain.out
    assert chain.out.count("after answers of") == 1  # learnt once more, and paid for once


def test_work_without_a_name_says_under_which_it_goes_on(aha, model, tmp_path):
    """The same command alone would begin in another folder, and pay for every answer again."""
    words = ("distill", "--teacher", "http://127.0.0.1:9/v1", "--student", model, *QUICK)
    for number in (1, 2):
        lost = aha(*words)
        name = "distilled" if number == 1 else "distilled-2"
        assert lost.code == 2 and f"and --name {name}\n" in lost.err
    assert "--name" not in aha(*words, "--name", "distilled").err
    early = aha("distill", "--teacher", "nowhere", "--student", model)
    assert early.code == 2 and "--name" not in early.err, "nothing is there to go on with"


def test_our_own_server_can_teach(aha, model, tmp_path):
    """`aha serve` over HTTP, with the prompts of the student; a random model knows no answer."""
    api = Api(ModelCache().get(str(model)), "tiny", TrainingTask(), 0)
    app = make_api(api, "127.0.0.1", None)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    words = ("distill", "--teacher", f"http://127.0.0.1:{port}", "--student", model, *QUICK)
    words += ("--teacher-api", "text", "--name", "one")
    try:
        done = aha(*words, "--collect-only")
        assert done.code == 2 and "none of 6 answers of the teacher is left" in done.err
        rows = (tmp_path / "data/one/answers.jsonl").read_text().splitlines()
        assert len(rows) == 6 and json.loads(rows[0])["tokens"] > 0
    finally:
        server.should_exit = True
        thread.join()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--teacher", "nobody"), "no model called 'nobody'"),
        (("--teacher", "http://127.0.0.1:9/v1", "--tries", 1), "no usable answer from the teacher"),
        (("--rewrite", "well"), "--rewrite 'well'"),
        (("--mix-share", 0.5), "--mix-share 0.5 without --mix"),
        (("--mix", "none.jsonl"), "none.jsonl is no file"),
        (("--n", 0), "--n"),
        (("--lr", "nan"), "optim.lr = nan"),
        (("--task", "chess"), "no task 'chess'"),
        (("--name", "a/b"), "--name 'a/b'"),
    ],
)
def test_bad_input_is_one_line_and_no_run(aha, model, teacher, tmp_path, words, message):
    given = () if "--teacher" in words else ("--teacher", teacher.url)
    done = aha("distill", *given, "--student", model, *FEW, *words)
    assert done.code == 2 and message in done.err, done.err
    assert not (tmp_path / "runs").exists()


def test_a_test_that_cannot_be_is_an_error_before_a_teacher_is_paid(aha, model, teacher):
    words = ("distill", "--teacher", teacher.url, "--student", model, "--n", 2)
    done = aha(*words, "--max-new-tokens", 100_000)
    assert done.code == 2 and "--max-new-tokens" in done.err and teacher.bodies == []


def test_the_same_name_with_other_settings_is_refused(aha, model, teacher):
    words = ("distill", "--teacher", teacher.url, "--student", model, *QUICK, "--name", "one")
    assert aha(*words, "--collect-only").code == 0
    done = aha(*words, "--keep", "all", "--collect-only")
    assert done.code == 2 and "was made with keep 'right'" in done.err
    reused = aha(*words[:-1], "two", "--keep", "all", "--reuse", "data/one", "--collect-only")
    assert reused.code == 0 and len(teacher.bodies) == 6


def test_a_run_under_the_name_that_learns_something_else_is_left_alone(
    aha, model, teacher, tmp_path
):
    path = tmp_path / "own.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n')
    assert aha("sft", model, "--data", path, "--epochs", 1, "--name", "one").code == 0
    done = aha("distill", "--teacher", teacher.url, "--student", model, *QUICK, "--name", "one")
    assert done.code == 2 and "learns from" in done.err and "--name one-2" in done.err
    assert teacher.bodies == []  # before a teacher is paid
