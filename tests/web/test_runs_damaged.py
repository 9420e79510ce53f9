"""Run folders from somebody else: what is damaged is named, all else is shown, nothing outside is
read."""

import json
import os
import shutil

import pytest
from starlette.testclient import TestClient

from aha.cli.behaviors import behaviors
from aha.cli.compare import compare
from aha.core.errors import RunError
from aha.core.findings import fail, warn
from aha.store.run_folder import Run
from aha.web.dashboard import Dashboard, make_app
from aha.web.report_page import report_html, write_report
from aha.web.runs import MAX_FINDINGS, RunFolder, RunsFolder

from .conftest import bytes_read, make_run, metrics, own, write_rows

SECRET = "SECRET-7f3a"
NAMES = ("config.json", "environment.json", "summary.json", "before.json", "after.json")
NAMES += (
    "metrics.jsonl",
    "evals.jsonl",
    "findings.jsonl",
    "completions/after.jsonl",
    "completions",
)


def make_sparse(path):
    path.touch()
    os.truncate(path, 2_000_000_000)


REPLACEMENTS = {
    "a link out": lambda path, secret: path.symlink_to(secret),
    "a link to /dev/zero": lambda path, secret: path.symlink_to("/dev/zero"),
    "a FIFO": lambda path, secret: os.mkfifo(path),
    "a folder": lambda path, secret: path.mkdir(),
    "2 GB without a newline": lambda path, secret: make_sparse(path),
}


@pytest.fixture
def runs(run):
    make_run(run.parent / "good")
    Run(run).tell(2, warn("slow", "wait"))
    return run.parent


@pytest.fixture
def client(runs):
    return TestClient(make_app(runs), base_url="http://127.0.0.1")


@pytest.mark.parametrize(
    "name, kind",
    [
        *((name, "a link out") for name in (*NAMES, "completions")),
        *(
            (name, kind)
            for name in ("config.json", "metrics.jsonl", "evals.jsonl", "completions/after.jsonl")
            for kind in [*REPLACEMENTS][1:]
        ),
    ],
)
def test_what_is_no_file_of_the_run_is_named_and_the_rest_is_shown(
    client, run, tmp_path, name, kind
):
    secret = tmp_path / "secret"
    if name == "completions":
        secret.mkdir()
        (secret / "after.jsonl").write_text(json.dumps({"id": SECRET, "completion": SECRET}) + "\n")
    else:
        content = {"id": SECRET, "completion": SECRET, "model": {"path": SECRET}, "message": SECRET}
        secret.write_text(json.dumps(content) + "\n")
    path = run / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    REPLACEMENTS[kind](path, secret)

    read = bytes_read()
    cards = {card["name"]: card for card in client.get("/api/runs").json()["runs"]}
    assert set(cards) == {"demo", "good"} and cards["good"]["marks"] == []
    # Whoever waits for a FIFO waits until the time limit of the test.
    assert bytes_read() - read < 50_000_000, "a damaged run must not stop the list of all runs"
    shown = client.get("/api/runs/demo").json()
    told = " | ".join([*cards["demo"]["marks"], *shown["notes"]])
    stem = name.split("/")[-1].split(".")[0]
    if kind == "2 GB without a newline" and name == "completions/after.jsonl":
        assert "longer than 8 MB" in str(client.get("/api/runs/demo/groups?file=after").json())
    else:
        assert stem in told, told
    report = client.get("/api/runs/demo/report")
    assert report.status_code == 200
    pages = [client.get(f"/api/runs/demo/{page}").text for page in ("gain", "files", "history")]
    assert SECRET not in "".join([json.dumps(cards), json.dumps(shown), report.text, *pages])


def test_an_error_in_one_card_leaves_the_others_in_the_list(runs, monkeypatch):
    card = RunFolder.card

    def broken(self):
        if self.name == "demo":
            raise TypeError("a number was wanted\x1b[31m")
        return card(self)

    monkeypatch.setattr(RunFolder, "card", broken)
    dashboard = Dashboard(RunsFolder(runs))
    cards = [dashboard.card_of(name) for name in ("demo", "good")]
    assert [card["status"] for card in cards] == ["damaged", "done"]
    assert cards[0]["marks"] == ["damaged: TypeError: a number was wanted␛[31m"]


# -- what the run noticed --------------------------------------------------------------------------


def test_findings_are_in_the_list_on_the_page_and_in_the_report(client, run):
    Run(run).tell(4, fail("<b>the gradient</b> is \u202eno number", "--optim.lr 1e-4"))
    card = client.get("/api/runs").json()["runs"][0]
    marks = {card["name"]: card["marks"] for card in client.get("/api/runs").json()["runs"]}
    assert marks["demo"] == ["✗ 1 fault", "! 1 warning"], card
    findings = client.get("/api/runs/demo").json()["findings"]
    assert [(f["step"], f["level"]) for f in findings] == [(2, "warn"), (4, "fail")]
    assert "\u202e" not in findings[1]["message"]
    report = client.get("/api/runs/demo/report").text
    assert "What the run noticed" in report and "--optim.lr 1e-4" in report
    assert "&lt;b&gt;the gradient&lt;/b&gt;" in report and "\u202e" not in report


@pytest.mark.parametrize("step, status", [(5, "stopped"), (3, "interrupted")])
def test_a_run_that_a_fault_ended_is_stopped_until_it_is_resumed(run, step, status):
    (run / "summary.json").unlink()
    Run(run).tell(step, fail("no number", "a lower rate"))
    assert RunFolder(run).status() == status
    told = "ended by a fault" if status == "stopped" else "this run is not done"
    assert told in report_html(RunFolder(run))
    own(run)
    assert RunFolder(run).status() == "running", "a resume keeps the fault of its first step"


def test_the_fault_that_ended_a_run_is_shown_after_any_number_of_warnings(client, run):
    (run / "summary.json").unlink()
    write_rows(run / "findings.jsonl", [{"step": 2, "level": "warn"}] * MAX_FINDINGS)
    Run(run).tell(5, fail("no number", "a lower rate"))
    Run(run).tell(5, warn("a logger failed", "look"))  # told at the end
    page = client.get("/api/runs/demo").json()
    assert page["card"]["status"] == "stopped" and "✗ 1 fault" in page["card"]["marks"]
    assert [row["level"] for row in page["findings"][-2:]] == ["fail", "warn"]
    assert len(page["findings"]) == MAX_FINDINGS
    # The fixture's warning is one more.
    assert "findings.jsonl: 3 older rows are left out" in page["notes"]
    report = report_html(RunFolder(run))
    assert "no number" in report and "3 older rows are left out" in report


def test_the_report_tells_how_many_could_not_be_graded(run):
    assert "Could not be graded" not in report_html(RunFolder(run))
    write_rows(run / "metrics.jsonl", [metrics(6, grade_errors=5, entropy=None), metrics(7)])
    page = report_html(RunFolder(run))
    assert "Could not be graded" in page and "failed on 5 completions (20.0% of all)" in page


# -- the commands ----------------------------------------------------------------------------------


def test_a_report_is_not_written_through_a_link(run, tmp_path):
    mine = tmp_path / "mine.html"
    mine.write_text("mine")
    for name in ("report.html.partial", "report.html"):
        (run / name).symlink_to(mine)
        with pytest.raises(RunError, match=f"{name} is a link"):
            write_report(RunFolder(run), run / "report.html")
    assert mine.read_text() == "mine"


def test_the_commands_say_what_they_could_not_read(run, capsys):
    with (run / "completions" / "after.jsonl").open("a") as out:
        out.write("nonsense\n" + "[" * 100_000 + "\n")
    compare(run, run)
    printed = " ".join(capsys.readouterr().out.split())
    assert "not read: completions/after.jsonl: damaged lines: 1 no JSON, 1 nested" in printed
    behaviors(run, as_json=True)
    output = capsys.readouterr()
    assert "damaged lines: 1 no JSON" in output.err
    assert all(json.loads(line) for line in output.out.splitlines())


@pytest.mark.parametrize(
    "key, value",
    [
        *(
            ("task", value)
            for value in ([], "x", {"name": []}, {"name": "countdown", "numbers": {}})
        ),
        *(("model", value) for value in ([], None, {"path": []}, {"path": "x" * 10_000})),
        *(("steps", value) for value in ("x", [], 1e308, 10**400, -1)),
        *(("usd_per_hour", value) for value in ("x", [], 10**400, True)),
        *(("seed", value) for value in ({}, "\u202e\x00", 10**4000)),
        *(("rollout", value) for value in ([], {"max_new_tokens": "x"})),
    ],
    ids=str,
)
def test_a_config_of_wrong_types_is_shown_as_far_as_it_goes(client, run, key, value):
    config = json.loads((run / "config.json").read_text()) | {key: value}
    (run / "config.json").write_text(json.dumps(config))
    for page in ("", "/demo", "/demo/report", "/demo/history"):
        answer = client.get(f"/api/runs{page}")
        assert answer.status_code == 200 and "\u202e" not in answer.text
    compared = client.get("/api/compare?run=demo&run=good")
    assert compared.status_code == 200
