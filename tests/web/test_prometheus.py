"""The text at /metrics, read by the parser of Prometheus' own client where that is installed."""

import math

import pytest
from starlette.testclient import TestClient

from aha.web.dashboard import make_app
from aha.web.prometheus import CONTENT_TYPE, MOST_RUNS, line_of, metrics_text
from aha.web.runs import RunsFolder

from .conftest import make_run, metrics, write_rows

parser = pytest.importorskip(
    "prometheus_client.parser", reason="pip install prometheus_client: the oracle of these tests"
)


def values_of(text: str) -> dict[tuple[str, str], float]:
    """(metric, run) -> value, as Prometheus reads it; a metric without a run has "" for it."""
    return {
        (line.name, line.labels.get("run", "")): line.value
        for family in parser.text_string_to_metric_families(text)
        for line in family.samples
    }


def test_the_last_step_of_each_run_is_served_with_the_right_type(run):
    make_run(run.parent / "other", seed=1)
    client = TestClient(make_app(run.parent), base_url="http://127.0.0.1")
    answer = client.get("/metrics")
    assert answer.status_code == 200 and answer.headers["content-type"] == CONTENT_TYPE
    values = values_of(answer.text)
    assert values["aha_step", "demo"] == 5 and values["aha_reward", "demo"] == 0.5
    assert values["aha_validation_step", "demo"] == 4
    assert values["aha_test_after_solve_rate", "demo"] == 0.9
    assert values["aha_step", "other"] == 5
    assert values["aha_run_running", "demo"] == 0  # it has a summary
    assert values["aha_runs", ""] == 2 and values["aha_runs_unreadable", ""] == 0


def test_a_scrape_needs_the_token_where_the_dashboard_does(run):
    app = make_app(run.parent, "0.0.0.0", "secret")
    client = TestClient(app, base_url="http://127.0.0.1")
    assert client.get("/metrics").status_code == 403
    key = {"authorization": "Bearer secret"}
    assert client.get("/metrics", headers=key).status_code == 200


def test_every_name_comes_once_with_its_heading_above_it(run):
    make_run(run.parent / "other", seed=1)
    lines = metrics_text(RunsFolder(run.parent)).splitlines()
    headings = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(headings) == len(set(headings))
    names = [line.partition("{")[0].split()[0] for line in lines if not line.startswith("#")]
    assert list(dict.fromkeys(names)) == headings  # so the lines of one name are together


def test_names_of_runs_are_escaped(tmp_path):
    odd = 'a "quoted" name\nin two lines'
    make_run(tmp_path / odd)
    assert values_of(metrics_text(RunsFolder(tmp_path)))["aha_step", odd] == 5
    odd = 'C:\\new "run"\n'  # \n must not be read as the end of a line
    assert values_of(line_of("step", {"run": odd}, 1) + "\n") == {("aha_step", odd): 1}


def test_what_a_file_holds_neither_breaks_the_text_nor_stands_for_our_own_numbers(tmp_path):
    make_run(tmp_path / "demo")
    bad = metrics(6, **{"runs": 99, "run_running": 7, "x{y} 1\nz": 1, "Upper": 2, "entropy": None})
    bad |= {"loss": math.nan, "kl": math.inf, "lr": True, "grad_norm": "text", "tokens": 10**400}
    write_rows(tmp_path / "demo" / "metrics.jsonl", [bad])
    values = values_of(metrics_text(RunsFolder(tmp_path)))
    assert values["aha_step", "demo"] == 6 and values["aha_runs", ""] == 1
    assert values["aha_run_running", "demo"] in (0, 1)
    given = {name for name, _ in values}
    absent = {"entropy", "loss", "kl", "lr", "grad_norm", "tokens", "Upper"}
    assert not given & {f"aha_{name}" for name in absent}


def test_an_empty_folder_and_a_damaged_run_are_served(tmp_path):
    assert values_of(metrics_text(RunsFolder(tmp_path)))["aha_runs", ""] == 0
    make_run(tmp_path / "good")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "metrics.jsonl").write_bytes(b"\xff\xfe no JSON\n")
    values = values_of(metrics_text(RunsFolder(tmp_path)))
    assert values["aha_step", "good"] == 5 and ("aha_step", "bad") not in values


def test_a_scrape_reads_the_newest_runs_alone(tmp_path):
    for place in range(MOST_RUNS + 3):
        (tmp_path / f"run-{place}").mkdir()
        write_rows(tmp_path / f"run-{place}" / "metrics.jsonl", [metrics(1)])
    values = values_of(metrics_text(RunsFolder(tmp_path)))
    assert sum(name == "aha_step" for name, _ in values) == MOST_RUNS
    assert values["aha_runs", ""] == MOST_RUNS + 3
