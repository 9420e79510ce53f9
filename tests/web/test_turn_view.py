"""The turn of the way of search on the pages: one sentence, marked curves, a puzzle by rule."""

import json
import re

import pytest
from starlette.testclient import TestClient

from aha.behaviors.turn import NoTurn, Share, Turn
from aha.web.dashboard import make_app
from aha.web.report_page import report_html
from aha.web.run_comparison import compare_before_after
from aha.web.runs import RunFolder
from aha.web.svg_curves import Figure, Line
from aha.web.turn_view import WAY_WORDS, telling_pair, turn_words, way_of
from aha.web.ways_of_run import turn_of_run

from .conftest import make_run, metrics, own, row, write_rows
from .turning import make_turning_run

EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def turned(tmp_path_factory):
    return make_turning_run(tmp_path_factory.mktemp("turned") / "runs" / "demo")


def words_of(page: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


def served(run) -> TestClient:
    return TestClient(make_app(run.parent), base_url="http://127.0.0.1")


def turn_on_page(run) -> dict:
    return served(run).get(f"/api/runs/{run.name}/behaviors").json()["turn"]


def test_terminal_dashboard_and_report_say_the_same_sentence(turned):
    turn = turn_of_run(RunFolder(turned))
    assert isinstance(turn, Turn) and (turn.before, turn.way) == ("by_chance", "glance")
    assert 10 <= turn.step <= 14, "the shares cross at step 12"
    words = turn_words(turn)
    assert f"step {turn.step}" in words and "with a glance" in words
    content = turn_on_page(turned)
    # Each step of this run has 32 completions of about 100 tokens, and takes two seconds.
    assert content["words"] == words and content["step"] == turn.step
    assert content["elapsed_s"] == 2.0 * turn.step
    page = report_html(RunFolder(turned))
    assert words in words_of(page.replace("&gt;", ">"))


def test_the_report_marks_the_turn_and_shows_a_puzzle_that_made_it(turned):
    page, turn = report_html(RunFolder(turned)), turn_of_run(RunFolder(turned))
    marked = re.findall(r'aria-label="([^":]+):[^"]*; turn at step (\d+)"', page)
    assert {int(step) for _, step in marked} == {turn.step}
    assert [name for name, _ in marked] == [
        *("Solve rate", "Tokens of a completion", "Ways of search", "Right at the first attempt"),
        *("Attempts for each right answer", "Tokens for each right answer"),
    ]
    words = words_of(page)
    first = words[words.index("The way of search") : words.index("Over the steps")]
    assert "search: by chance ✗ wrong" in first and "search: with a glance ✓ right" in first
    assert "chosen by this rule, not by hand" in first
    ways = page[page.index("Ways of search") :].split("</figure>")[0]
    assert "by chance from" in ways and "with a glance from" in ways
    assert "backward" not in ways, "a way that no completion goes has no curve"


def pair_of(place: int, before: str, after: str, tokens: int, **more) -> None:
    """Rows of one puzzle in both tests: (before, after), with their texts as they stand."""
    old = row(place, False, completion=before, tokens=50)
    return old, row(place, True, completion=after, tokens=tokens) | more


CHANCE = "7+3=10\n25-10=15 no\n25*7=175\n175-3=172 no\n25+3=28\n28-7=21 no\n7*3=21\n25+21=46 no"
GLANCE = "7+3=10\n25+10=35 no\n7-3=4\n25*4=100 no\n7*3=21\n25+21=46 no\n25+3=28\n28+7=35 no"
TURN = Turn(5, "glance", "by_chance", Share(0.1, 0.0, 0.2, 40), Share(0.9, 0.8, 1.0, 40))


def compared(tmp_path, pairs):
    run = make_run(tmp_path / "pairs", steps=0)
    for place, name in enumerate(("before", "after")):
        (run / "completions" / f"{name}.jsonl").unlink()
        write_rows(run / "completions" / f"{name}.jsonl", [pair[place] for pair in pairs])
    return compare_before_after(RunFolder(run))


def test_the_puzzle_is_chosen_by_rule(tmp_path):
    pairs = [pair_of(n, CHANCE, GLANCE, tokens) for n, tokens in enumerate((90, 70, 80))]
    pairs.append(pair_of(3, CHANCE, GLANCE, 81, correct=False))  # is not learnt
    pairs.append(pair_of(4, CHANCE, GLANCE, 82, finish="length"))  # is cut
    pairs.append(pair_of(5, GLANCE, GLANCE, 83))  # has not changed its way
    assert {way_of(old) for old, _ in pairs} == {"by_chance", "glance"}
    pair, rule = telling_pair(compared(tmp_path, pairs), TURN)
    assert pair[1]["tokens"] == 80 and rule.startswith("3 of 6 held-out puzzles")
    assert "“by chance” before to “with a glance” after, and from wrong to right" in rule


def test_without_a_learnt_puzzle_any_that_changed_is_shown_and_without_one_none(tmp_path):
    wrong = [pair_of(n, CHANCE, GLANCE, 80 + n, correct=False) for n in range(3)]
    pair, rule = telling_pair(compared(tmp_path / "a", wrong), TURN)
    assert pair[1]["tokens"] == 81 and "right" not in rule
    pair, rule = telling_pair(compared(tmp_path / "b", [pair_of(0, GLANCE, GLANCE, 80)]), TURN)
    assert pair is None and rule.startswith("No held-out puzzle was tested that went from")


def test_a_run_that_did_not_turn_says_so_and_marks_nothing(tmp_path):
    run = make_turning_run(tmp_path / "runs" / "flat", steps=20, turn=100)
    turn = turn_of_run(RunFolder(run))
    assert isinstance(turn, NoTurn) and turn_words(turn) == turn.sentence()
    page = report_html(RunFolder(run))
    assert turn.reason in words_of(page).replace("&gt;", ">") and 'class="turn"' not in page
    assert turn_on_page(run) == {"words": turn_words(turn)}
    (run / "summary.json").unlink()
    own(run)
    # While it runs, it may still turn.
    assert turn_on_page(run) == {"words": ""}


def test_a_run_without_any_way_of_search_says_nothing_of_a_turn(tmp_path):
    run = make_run(tmp_path / "runs" / "sums", steps=0)
    for name in ("before", "after"):
        file = run / "completions" / f"{name}.jsonl"
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        file.write_text("".join(json.dumps(one | {"numbers": None}) + "\n" for one in rows))
    write_rows(run / "metrics.jsonl", [metrics(step) for step in range(1, 4)])
    assert turn_of_run(RunFolder(run)) is None and turn_words(None) == ""
    page = report_html(RunFolder(run))
    assert "The way of search" not in page and "Ways of search" not in page
    client = served(run)
    assert turn_on_page(run) == {"words": ""}
    assert not set(WAY_WORDS) & set(client.get("/api/runs/sums").json()["curves"])


def test_an_older_run_without_the_columns_is_read_from_its_completions(tmp_path):
    run = make_turning_run(tmp_path / "runs" / "old", columns=False)
    client = served(run)
    content = client.get("/api/runs/old").json()
    assert "way_glance" not in content["curves"]
    search = dict(content["charts"])["Search"]
    assert ["with a glance", "way_glance"] in [line[:2] for line in search[0]["series"]]
    while (counted := client.get("/api/runs/old/behaviors").json())["waiting"]:
        assert counted["turn"] == {"words": ""}
    assert counted["way_glance"][0] < 0.3 < 0.7 < counted["way_glance"][-1]
    assert turn_words(turn_of_run(RunFolder(run))) in words_of(
        report_html(RunFolder(run)).replace("&gt;", ">")
    )


def test_hostile_text_in_the_shown_puzzle_stays_text(tmp_path):
    run = make_turning_run(tmp_path / "runs" / "evil")
    for name in ("before", "after"):
        file = run / "completions" / f"{name}.jsonl"
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        rows = [one | {"completion": one["completion"] + EVIL, "reason": EVIL} for one in rows]
        file.write_text("".join(json.dumps(one) + "\n" for one in rows))
    page = report_html(RunFolder(run))
    assert "chosen by this rule" in page and EVIL not in page and "&lt;script&gt;" in page


@pytest.mark.parametrize(
    ("step", "side"), [(1, ""), (15, "mid"), (30, "end")], ids=["left", "middle", "right"]
)
def test_the_words_at_a_turn_stay_inside_the_figure(step, side):
    line = Line("a", list(range(31)), [0.5] * 31)
    svg = Figure("T", [line], rate=True, turn=step).svg()
    assert svg.count('class="turn"') == 1
    assert re.search(rf'class="{side}">turn, step {step}</text>', svg)
    assert svg.split('aria-label="')[1].startswith(f"T: a from 50% to 50%; turn at step {step}")
    assert 'class="turn"' not in Figure("T", [line], rate=True).svg()
    assert 'class="turn"' not in Figure("T", [line], rate=True, turn=31).svg()
