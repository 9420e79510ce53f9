"""`aha behaviors --judge` from the outside: what it prints, keeps, asks again and refuses."""

import json

import pytest

from ..behaviors.fake_judge import FakeJudge
from ..web.conftest import RIGHT, make_run, row, write_rows


@pytest.fixture
def fake():
    fake = FakeJudge(lambda before, text: "500" if before == 0 and "3+7=10" in text else None)
    yield fake
    fake.stop()


def rows(count: int) -> list[dict]:
    """Different texts, every other one with going back and checks."""
    return [
        row(n, True, completion=f"{n}\n" + (RIGHT if n % 2 else "</think>\n<answer>3</answer>"))
        for n in range(count)
    ]


def test_agreement_is_printed_kept_and_paid_for_once(aha, fake, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    write_rows(tmp_path / "texts.jsonl", rows(20))
    words = ("behaviors", "texts.jsonl", "--judge", fake.url, "--judge-model", "m", "--json")
    words += ("--judge-n", "12", "--judge-workers", "8")
    first = aha(*words)
    assert first.code == 0, first.err
    found = {line["behaviour"]: line for line in map(json.loads, first.out.splitlines())}
    checks = found["checks"]
    assert checks["judged"] == 12 and checks["unread"] == 0
    # This judge is honest: it sees what the detector sees.
    assert checks["kappa"] == 1.0 and checks["same_count"] == 1.0
    assert checks["both"] > 0 and checks["neither"] > 0
    assert checks["detector_only"] == checks["judge_only"] == 0
    assert found["subgoals"]["kappa"] is None and found["subgoals"]["neither"] == 12
    kept = [json.loads(line) for line in (tmp_path / "texts.judge.jsonl").open()]
    assert len(kept) == 48 and {one["model"] for one in kept} == {"m"}
    # Again: the same draw, the same numbers, no question.
    fake.asked.clear()
    assert aha(*words).out == first.out and not fake.asked
    # A run that was killed in the middle of a line asks for what is missing, and no more.
    whole = (tmp_path / "texts.judge.jsonl").read_text()
    (tmp_path / "texts.judge.jsonl").write_text(whole[: len(whole) - 5])
    assert aha(*words).out == first.out and len(fake.asked) == 1
    assert len((tmp_path / "texts.judge.jsonl").read_text().splitlines()) == 48
    # Another seed draws others.
    fake.asked.clear()
    assert aha(*words, "--judge-seed", "1").code == 0 and fake.asked


def test_a_run_is_judged_by_its_tests(aha, fake, tmp_path):
    make_run(tmp_path / "run")
    done = aha("behaviors", "run", "--judge", fake.url, "--judge-model", "m")
    assert (
        done.code == 0 and "backward chains" in done.out and "kept in run/judge.jsonl" in done.out
    )
    # All completions of this run are one of two texts.
    assert len(fake.asked) == 8


@pytest.mark.parametrize(
    "words",
    [
        ("--judge", "http://127.0.0.1:1/v1"),
        ("--judge-model", "m"),
        ("--judge", "nowhere", "--judge-model", "m"),
        ("--judge", "http://127.0.0.1:1/v1", "--judge-model", "m", "--judge-n", "0"),
    ],
)
def test_what_cannot_be_asked_is_one_line_and_code_2(aha, tmp_path, words):
    write_rows(tmp_path / "texts.jsonl", rows(2))
    done = aha("behaviors", "texts.jsonl", *words)
    assert done.code == 2 and len(done.err.splitlines()) == 1


def test_a_refusal_is_one_line_with_the_fix(aha, tmp_path):
    fake = FakeJudge(lambda before, text: "401")
    write_rows(tmp_path / "texts.jsonl", rows(2))
    done = aha("behaviors", "texts.jsonl", "--judge", fake.url, "--judge-model", "m")
    fake.stop()
    assert done.code == 2 and "status 401" in done.err and "AHA_JUDGE_KEY" in done.err
    assert len(done.err.splitlines()) == 1
