import json
import shutil
from zlib import crc32

import pytest
from starlette.testclient import TestClient

from aha.web.dashboard import Dashboard, make_app
from aha.web.runs import RunsFolder

from .conftest import make_run, make_tuning, metrics, row, write_rows


@pytest.fixture
def client(run) -> TestClient:
    app = make_app(run.parent)
    return TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False)


def test_the_list_of_runs_names_the_signs_of_the_events(client):
    found = client.get("/api/runs").json()
    assert [run["name"] for run in found["runs"]] == ["demo"]
    assert found["kinds"]["true-check"] == ["✓", "true check"]


def test_the_overview_has_curves_tests_and_the_place_to_go_on_from(client, run):
    found = client.get("/api/runs/demo").json()
    assert found["steps"] == 5 and found["curves"]["solve_rate"]["value"][-1] == 0.5
    assert [(row["step"], row["total_tokens"], row["elapsed_s"]) for row in found["evals"]] == [
        *((0, 0, 0), (2, 2000, 4), (4, 4000, 8), (5, 5000, 10))
    ]
    assert found["card"]["after"]["solve_rate"] == 0.9 and found["notes"] == []
    files = [(run / f"{name}.jsonl").read_bytes() for name in ("metrics", "evals")]
    places = [f"{len(file)}-{crc32(file[-128:])}" for file in files]
    assert found["offsets"] == ".".join([*places, "0-0"])


def test_the_gain_is_paired(client):
    gain = client.get("/api/runs/demo/gain").json()
    assert gain["problems"] == 20 and gain["gain"] == pytest.approx(0.7)
    assert gain["verdict"] == "better" and gain["won"] == 16 and gain["lost"] == 2


def test_files_completions_and_groups(client):
    files = client.get("/api/runs/demo/files").json()
    assert files == {"step": [1, 2, 3, 4, 5], "eval": [2, 4], "tests": ["before", "after"]}
    at = "/api/runs/demo"
    right = client.get(f"{at}/completions?file=step_000003&verdict=right").json()
    assert right["matching"] == right["right"] == 6 and right["total"] == 16
    group = client.get(f"{at}/completions?file=step_000003&group=2").json()
    assert [one["correct"] for one in group["rows"]] == [True, True, False, False]
    assert client.get(f"{at}/groups?file=step_000003").json()["groups"] == 4
    one = client.get(f"{at}/completion?file=before&place=19").json()
    assert one["reason"] == "makes 35, not 82" and one["attempts"] == 1


def test_the_same_puzzles_through_time(client):
    at = "/api/runs/demo/history"
    found = client.get(f"{at}?family=validation&change=learnt").json()
    assert found["files"] == ["eval_000002", "eval_000004"] and found["matching"] == 2
    assert [cell[1] for cell in found["lines"][0]["cells"]] == [False, True]
    tests = client.get(f"{at}?family=test").json()
    assert tests["files"] == ["before", "after"] and tests["problems"] == 20
    assert client.get(f"{at}?family=test&change=lost").json()["matching"] == 2


def test_behaviors_are_counted_over_the_steps(client):
    found = {"waiting": True}
    while found["waiting"]:  # a request counts for a moment; a busy machine needs several
        found = client.get("/api/runs/demo/behaviors").json()
    assert found["step"] == [1, 2, 3, 4, 5]
    # 6 of 16 completions are right: two attempts each, one in the others.
    assert found["attempts"][0] == pytest.approx((6 * 2 + 10) / 16)
    assert found["backtracks_root"][0] == pytest.approx(6 / 16)


def test_comparing_runs(client, run):
    make_run(run.parent / "other", right_after=10, seed=1)
    found = client.get("/api/compare?run=demo&run=other").json()
    assert [one["card"]["name"] for one in found["runs"]] == ["demo", "other"]
    assert found["differences"] == [["seed", "0", "1"]]
    paired = found["paired"][0]
    assert paired["verdict"] == "worse" and paired["points"] == "-40.0 points"
    assert "90.0 % [" in paired["text"] and "] in other, on the same 20" in paired["text"]
    (band,) = found["bands"]
    assert band["runs"] == [0, 1] and band["curves"]["reward"]["low"][-1] == 0.5
    assert client.get("/api/compare").json()["runs"] == []


def test_a_comparison_has_the_charts_of_its_kinds_of_runs(client, run):
    """The loss of an update of RL is no measure of it, and a fine-tuning has no rewards."""
    make_tuning(run.parent / "tuned", ranked=0.5)
    write_rows(run / "metrics.jsonl", [metrics(6, loss=0.1)])
    for names, titles in (
        (("demo",), ["Solve rate", "Reward", "Length in tokens", "Entropy"]),
        (("tuned",), ["Loss", "Pairs ranked rightly", "Gradient norm"]),
    ):
        found = client.get("/api/compare?" + "&".join(f"run={name}" for name in names)).json()
        assert [chart["title"] for chart in found["charts"]][: len(titles)] == titles
    both = client.get("/api/compare?run=demo&run=tuned").json()
    assert {"Reward", "Loss"} <= {chart["title"] for chart in both["charts"]}
    assert "loss" not in both["runs"][0]["curves"] and "loss" in both["runs"][1]["curves"]


def test_many_runs_are_compared_and_each_pair_is_reckoned_once(client, run):
    names = [make_run(run.parent / f"run{n}", steps=1, seed=n).name for n in range(13)]
    found = client.get("/api/compare?" + "&".join(f"run={name}" for name in names)).json()
    assert len(found["runs"]) == 12 and len(found["paired"]) == 11
    assert found["differences"] == [["seed", *map(str, range(12))]]
    assert found["bands"][0]["runs"] == list(range(12))
    dashboard = Dashboard(RunsFolder(run.parent))
    runs = [dashboard.find(name) for name in names[:3]]
    first, again = (dashboard.comparisons.page(runs)["paired"] for _ in range(2))
    assert all(old is new for old, new in zip(first, again, strict=True))
    write_rows(runs[1].path / "completions" / "after.jsonl", [row(50, True)])
    changed = dashboard.comparisons.page(runs)["paired"]
    assert [old is new for old, new in zip(first, changed, strict=True)] == [False, True]


def test_a_held_out_puzzle_to_try(client, run):
    assert client.get("/api/runs/demo/puzzle").json() == {"numbers": [3, 7, 25], "target": 82}
    for name in ("before", "after"):
        write_rows(run / "completions" / f"{name}.jsonl", [])
        (run / "completions" / f"{name}.jsonl").write_text('{"id": "p", "prompt": "why?"}\n')
    assert "no puzzle in before" in client.get("/api/runs/demo/puzzle").json()["error"]
    shutil.rmtree(run / "completions")
    answer = client.get("/api/runs/demo/puzzle")
    assert answer.status_code == 404 and "no held-out test" in answer.json()["error"]


@pytest.mark.parametrize(
    "path",
    [
        "/api/runs/none",
        "/api/runs/..",
        "/api/runs/%2e%2e",
        "/api/runs/..%2fdemo",
        "/api/runs/demo%00",
        "/api/runs/demo/completions?file=../../secret",
        "/api/runs/demo/completions?file=config",
        "/api/runs/demo/completion?file=before&place=999",
        "/api/compare?run=demo&run=../x",
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2fapp.py",
    ],
)
def test_no_path_leads_out(client, path):
    answer = client.get(path)
    assert answer.status_code in (403, 404), answer.text


@pytest.mark.parametrize("field", ["start", "group", "place", "low", "high", "order"])
@pytest.mark.parametrize("value", ["-1", "x", "1e9", "9" * 30, "٣", "%00"])
def test_nonsense_in_an_address_is_harmless(client, field, value):
    for what in ("completions", "groups", "completion"):
        answer = client.get(f"/api/runs/demo/{what}?file=before&{field}={value}")
        assert answer.status_code in (200, 404)


PAGES = ("", "/gain", "/behaviors", "/files", "/history", "/report")


def spoil(run, how: str) -> None:
    if how == "half-written lines":
        for path in (run / "metrics.jsonl", run / "evals.jsonl", run / "completions/after.jsonl"):
            with path.open("a") as out:
                out.write('{"step": 6, "rew')
    elif how == "missing files":
        for path in run.glob("*.json"):
            path.unlink()
        shutil.rmtree(run / "completions")
    elif how == "only a folder of completions":
        for path in run.iterdir():
            if path.is_file():
                path.unlink()
    elif how == "a newer version":
        for name in ("config", "summary", "before", "after"):
            (run / f"{name}.json").write_text('{"version": 9, "model": [], "task": {"numbers": 3}}')
        strange = {"v": 2, "step": "six", "solve_rate": {"mean": 1}, "reward": None}
        write_rows(run / "metrics.jsonl", [strange])
        write_rows(run / "evals.jsonl", [strange])
    elif how == "wrong kinds":
        for name in ("config", "environment", "summary", "before", "after"):
            (run / f"{name}.json").write_text("[1, 2]")
        write_rows(run / "completions/after.jsonl", [{"id": 1, "completion": 3, "numbers": "x"}])
    elif how == "not UTF-8":
        for path in [*run.glob("*.json*"), *run.glob("completions/*")]:
            path.write_bytes(b'{"a": "\xff\xfe\n\x00"}\n')
    elif how == "NaN":
        write_rows(run / "metrics.jsonl", [metrics(6, reward=float("nan"), loss=float("inf"))])
        (run / "summary.json").write_text('{"cost_usd": NaN, "kwh": Infinity}')


@pytest.mark.parametrize(
    "how",
    [
        *("half-written lines", "missing files", "only a folder of completions", "a newer version"),
        *("wrong kinds", "not UTF-8", "NaN"),
    ],
)
def test_a_damaged_run_is_shown_as_far_as_it_goes(client, run, how):
    spoil(run, how)
    for page in PAGES:
        answer = client.get(f"/api/runs/demo{page}")
        assert answer.status_code == 200, (how, page, answer.text)
        if "json" in answer.headers["content-type"]:
            json.loads(answer.text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert client.get("/api/runs").json()["total"] == 1


def test_strange_completions_stay_text(client, run):
    texts = ["<img src=x onerror=alert(1)>", "\x1b[2J\x00", "\ud800", "7" * 100_000, "(" * 100_000]
    rows = [row(i, False, completion=text, reason=text[:300]) for i, text in enumerate(texts)]
    write_rows(run / "completions/step_000009.jsonl", rows)
    answer = client.get("/api/runs/demo/completions?file=step_000009")
    assert answer.status_code == 200
    found = answer.json()["rows"]
    assert "".join(piece[0] for piece in found[0]["pieces"]) == texts[0]
    assert found[3]["hidden"] > 0 and "\x1b" not in answer.text
    whole = client.get("/api/runs/demo/completion?file=step_000009&place=3").json()
    assert sum(len(piece[0]) for piece in whole["pieces"]) == 100_000


def test_a_run_that_vanishes_is_not_found(client, run):
    assert client.get("/api/runs/demo/groups?file=before").status_code == 200
    shutil.rmtree(run)
    for page in PAGES:
        assert client.get(f"/api/runs/demo{page}").status_code == 404


def test_no_runs_at_all(tmp_path):
    client = TestClient(make_app(tmp_path), base_url="http://127.0.0.1")
    assert client.get("/api/runs").json()["runs"] == []
