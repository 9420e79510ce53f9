"""The dashboard in a real browser: live curves, clicks, filters, narrow screens, hostile text.

Needs a Chromium of the system, which `apt-get install -y chromium` brings on Debian and Ubuntu.
"""

import json
import shlex
from pathlib import Path

import pytest
from playwright.sync_api import expect

from aha.web.runs import RunFolder, is_run
from aha.web.ways_of_run import turn_of_run

from .browser import CHROMIUM, NO_CHROMIUM
from .conftest import (
    make_run,
    make_tuning,
    metrics,
    own,
    row,
    with_tokens,
    write_rows,
    write_step,
)
from .turning import make_turning_run

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM)
EVIL = "<img src=x onerror=window.hacked=1><script>window.hacked=1</script>"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("browser") / "runs"
    make_run(root / "demo")
    make_run(root / "other", right_after=10, seed=1)
    return root


def test_the_list_leads_to_a_run_and_to_a_comparison(visit):
    page = visit.go("#/")
    page.get_by_label("compare demo").check()
    page.get_by_label("compare other").check()
    page.get_by_role("button", name="Compare 2").click()
    page.get_by_text("What differs in their configs").wait_for()
    assert page.locator(".gain").inner_text().count("20 held-out problems") == 1
    assert "seed" in page.locator("table").inner_text()
    page.locator(".cards a", has_text="demo").click()
    page.locator(".tile").first.wait_for()


def test_a_new_step_appears_by_itself(visit, runs):
    run = make_run(runs / "live", steps=3)
    (run / "summary.json").unlink()
    page = visit.go("#/run/live")
    page.locator("canvas").first.wait_for()
    assert "3 / 3" in page.locator(".tiles").inner_text()
    write_step(run, 4)
    write_rows(run / "metrics.jsonl", [metrics(4)])
    page.locator(".tiles", has_text="4 / 3").wait_for()  # within a second: test_large.py, alone


def test_curves_grow_and_a_click_opens_the_completions_of_the_step(visit, runs):
    page = visit.go("#/run/demo")
    chart = page.locator(".chart", has_text="Reward")
    over = chart.locator(".u-over")
    over.wait_for()
    box = over.bounding_box()
    over.click(position={"x": box["width"] - 3, "y": box["height"] / 2})
    page.locator(".group").first.wait_for()
    assert "file=step_000005" in page.url
    assert page.locator(".group").count() == 4 and page.locator("button.cell").count() == 16


def test_the_turn_is_told_and_marked_on_the_curves_of_the_search(visit, runs):
    run = make_turning_run(runs / "turns")
    page = visit.go("#/run/turns")
    words = turn_of_run(RunFolder(run)).sentence()
    expect(page.locator(".gain", has_text="Way of search")).to_contain_text(words)
    ways = page.locator(".chart", has_text="Ways of search")
    expect(ways.locator(".readout")).to_contain_text("with a glance")
    assert ways.locator(".readout", has_text="backward").count() == 0
    for name in ("Right at the first attempt", "Attempts for each right", "Tokens for each right"):
        assert page.locator(".chart", has_text=name).locator("canvas").count() == 1
    page.set_viewport_size({"width": 380, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 380


def test_the_keyboard_opens_a_step_as_well(visit):
    page = visit.go("#/run/demo")
    plot = page.locator(".chart", has_text="Reward").locator(".plot")
    plot.locator("canvas").wait_for()
    plot.focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    page.locator(".group").first.wait_for()
    assert "file=step_000004" in page.url
    page.keyboard.press("h")
    page.wait_for_url("**file=step_000003**")


def test_a_group_opens_with_marks_reward_advantage_and_reason(visit):
    page = visit.go("#/run/demo/rollouts?file=step_000003")
    page.locator(".group").nth(2).locator("button.cell").first.click()
    text = page.locator(".completion").inner_text()
    for words in ("✓ right", "advantage +0.50", "reward 1", "makes 82 of every number once"):
        assert words in text
    for words in ("↺ back to the start", "★ solution", "■ right answer"):
        assert words in text
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.locator(".completion", has_text="makes 35, not 82").wait_for()


def test_a_pin_stays_in_the_browser_and_is_in_the_report(visit):
    page = visit.go("#/run/demo/rollouts?file=step_000003&view=list")
    first = page.locator(".completion").first
    first.get_by_role("button", name="pin").wait_for()
    page.keyboard.press("j")
    page.keyboard.press("p")
    second = page.locator(".completion").nth(1)
    second.get_by_role("button", name="pinned").wait_for()
    assert first.get_by_role("button", name="pinned").count() == 0
    page.reload()
    second.get_by_role("button", name="pinned").wait_for()
    visit.go("#/run/demo/report")
    report = page.frame_locator("iframe.report")
    report.get_by_role("heading", name="Pinned").wait_for()
    assert report.get_by_text("step_000003:1, ").count() == 1
    words = page.locator("code", has_text="aha report").inner_text()
    command, path, *pinned = shlex.split(words)[1:]
    assert (command, pinned) == ("report", ["--pin", "step_000003:1"])
    assert is_run(Path(path)) and Path(path).name == "demo"  # it can be typed as it stands
    page.get_by_role("button", name="Remove 1 pinned").press("Enter")
    expect(report.get_by_role("heading", name="Pinned")).to_have_count(0)


def test_a_completion_token_by_token_with_the_keyboard_alone(visit, runs):
    run = make_run(runs / "tokens", steps=2)
    rows = [row(0, True, group=0, advantage=0.5), row(1, True, group=1, advantage=-0.25)]
    write_rows(run / "completions" / "step_000003.jsonl", [rows[0], with_tokens(rows[1])])
    page = visit.go("#/run/tokens/rollouts?file=step_000003&view=list")
    old, new = (page.locator(".completion").nth(n) for n in (0, 1))
    old.get_by_text("Token by token (not recorded)").press("Enter")
    old.get_by_text("No tokens were recorded for this completion").wait_for()
    summary = new.get_by_text("Token by token", exact=True)
    summary.press("Enter")
    strip = new.get_by_role("listbox")
    strip.wait_for()
    strip.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
    said = new.get_by_role("status")
    for words in ("token 4 of", "log-prob -3.000 (5.0 %)", "entropy 1.500", "advantage −0.250"):
        expect(said).to_contain_text(words)
    # A bar beside the colour: the fourth token was a surprise, the first was certain.
    tokens = strip.get_by_role("option")
    assert "█" in tokens.nth(3).inner_text() and "█" not in tokens.nth(0).inner_text()
    new.get_by_role("button", name="advantage", exact=True).press("Enter")
    expect(tokens.nth(3)).to_contain_text("▼")
    page.set_viewport_size({"width": 380, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 380


def test_filters(visit):
    page = visit.go("#/run/demo/rollouts?file=step_000003")
    page.get_by_role("button", name="✓ right", exact=True).click()
    page.get_by_text("6 of 16 completions; 6 right").wait_for()
    page.get_by_role("button", name="✗ wrong", exact=True).click()
    page.get_by_text("10 of 16 completions; 6 right").wait_for()
    page.get_by_role("button", name="all", exact=True).click()
    page.get_by_label("text to find").fill("75+7=82")
    page.get_by_text("6 of 16 completions; 6 right").wait_for()
    expect(page.locator(".completion")).to_have_count(6)


def test_the_same_puzzles_through_time(visit):
    page = visit.go("#/run/demo/history?family=validation")
    page.get_by_text("2 of 8 problems").wait_for()
    page.locator("button.line").first.click()
    page.locator(".side-by-side .completion").nth(1).wait_for()
    sides = page.locator(".side-by-side .completion").all_inner_texts()
    assert "✗ wrong" in sides[0] and "✓ right" in sides[1]


def test_hostile_text_stays_text(visit, runs):
    run = make_run(runs / "evil")
    rows = [row(0, False, completion=EVIL, reason=EVIL, prompt=EVIL, group=0, id=EVIL)]
    write_rows(run / "completions" / "step_000009.jsonl", rows)
    config = {"model": {"path": EVIL}, "task": {"name": EVIL}, EVIL: EVIL}
    (run / "config.json").write_text(json.dumps(config))
    for path in (
        "#/run/evil/rollouts?file=step_000009&view=list",
        "#/run/evil/rollouts?file=step_000009&view=groups&group=0&place=0",
        "#/run/evil",
        "#/",
        "#/compare?run=evil&run=demo",
    ):
        page = visit.go(path)
        page.get_by_text("<img src=x").first.wait_for(state="attached")
        assert page.evaluate("window.hacked") is None
        assert page.locator("img").count() == 0


@pytest.mark.parametrize(
    "path",
    ["#/", "#/run/demo", "#/run/demo/rollouts?file=step_000003&view=list", "#/run/demo/history",
     "#/compare?run=demo&run=other", "#/run/demo/report"],
)  # fmt: skip
def test_every_page_fits_a_narrow_screen(visit, path):
    visit.page.set_viewport_size({"width": 380, "height": 800})
    page = visit.go(path)
    page.locator("main section").wait_for()
    page.wait_for_timeout(500)
    assert page.evaluate("document.documentElement.scrollWidth") <= 380


def test_a_completion_may_come_before_the_list_that_explains_its_signs(visit):
    """Two requests are under way at once, and a busy machine answers them in any order."""
    held = []
    visit.page.route("**/api/runs", lambda route: held.append(route))
    page = visit.go("#/run/demo/rollouts?file=step_000003&view=list")
    page.locator("article.completion .text").first.wait_for()
    assert held, "the list of runs was not asked for"
    for route in held:
        route.continue_()
    page.locator("article.completion .tag[title*=' ']").first.wait_for(state="attached")


def test_the_report_opens_from_disk(visit, runs, tmp_path):
    from aha.web.report_page import write_report
    from aha.web.runs import RunFolder

    write_report(RunFolder(runs / "demo"), tmp_path / "report.html")
    visit.page.goto((tmp_path / "report.html").as_uri())
    assert "+70.0 points" in visit.page.locator("body").inner_text()
    assert visit.page.locator("svg").count() >= 10
    visit.page.set_viewport_size({"width": 380, "height": 800})
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= 380


# -- rewards, groups, seeds, operations ----------------------------------------------------------


@pytest.fixture
def graded_run(runs):
    """A step of three groups of three with rewards of 0, .5 and 1."""
    run = runs / "rewards"
    if not run.exists():
        make_run(run, steps=2)
        rows = [
            row(
                group,
                member == 2,
                group=group,
                reward=member / 2,
                advantage=member / 2 - 0.5 - group,
            )
            for group in range(3)
            for member in range(3)
        ]
        write_rows(run / "completions" / "step_000003.jsonl", rows)
    return run


def test_the_histogram_of_rewards_filters_by_pointer_and_by_keyboard(visit, graded_run):
    page = visit.go("#/run/rewards/rollouts?file=step_000003")
    bars = page.locator(".rewards button")
    bars.first.wait_for()
    assert [bar.get_attribute("aria-label") for bar in bars.all()] == [
        f"3 with reward {reward}" for reward in ("0", "0.5", "1")
    ]
    bars.nth(1).click()
    page.get_by_text("3 of 9 completions").wait_for()
    # Drawn over two bars.
    first, last = bars.nth(1).bounding_box(), bars.nth(2).bounding_box()
    page.mouse.move(first["x"] + 5, first["y"] + 5)
    page.mouse.down()
    page.mouse.move(last["x"] + 5, last["y"] + 5, steps=4)
    page.mouse.up()
    page.get_by_text("6 of 9 completions").wait_for()
    assert "low=0.5&high=1" in page.url
    bars.nth(0).focus()
    page.keyboard.press("Enter")
    page.get_by_text("3 of 9 completions").wait_for()
    bars.nth(1).focus()
    page.keyboard.press("Shift+Enter")
    page.get_by_text("6 of 9 completions").wait_for()
    page.locator(".rewards").get_by_role("button", name="all", exact=True).click()
    page.get_by_text("9 of 9 completions").wait_for()


def test_completions_in_the_order_of_their_advantage(visit, graded_run):
    page = visit.go("#/run/rewards/rollouts?file=step_000003")
    page.get_by_role("button", name="▲ advantage").click()
    shown = page.locator(".completion .advantage")
    expect(shown.first).to_contain_text("+0.50")
    assert "−2.50" in shown.last.inner_text()
    page.get_by_role("button", name="▼ advantage").click()
    expect(shown.first).to_contain_text("−2.50")


def test_a_group_side_by_side(visit, graded_run):
    page = visit.go("#/run/rewards/rollouts?file=step_000003&group=1&place=3")
    page.get_by_role("button", name="side by side").click()
    beside = page.locator(".group .side-by-side .completion")
    expect(beside).to_have_count(3)
    assert "+" not in beside.last.locator(".advantage").inner_text()
    tops = {round(one.bounding_box()["y"]) for one in beside.all()}
    assert len(tops) == 1, "beside each other on a wide screen"
    page.set_viewport_size({"width": 380, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 380
    page.get_by_role("button", name="side by side").click()
    expect(page.locator(".group .completion")).to_have_count(1)


def test_seeds_of_the_same_settings_are_one_curve_with_a_band(visit, runs):
    for seed in (1, 2):
        make_run(runs / f"seed{seed}", seed=seed + 10)
    page = visit.go("#/compare?run=demo&run=seed1&run=seed2")
    keys = page.locator(".chart", has_text="Reward").locator(".readout li")
    expect(keys).to_have_count(1)
    assert "demo + seed1 + seed2" in keys.inner_text()
    page.get_by_role("button", name="one by one").click()
    expect(keys).to_have_count(3)
    assert len({key.get_attribute("class") for key in keys.locator("i").all()}) == 3
    page.get_by_role("button", name="other", exact=True).click()
    expect(page.locator(".cards li")).to_have_count(4)


def test_time_of_a_step_memory_and_what_clipped(visit, runs):
    run = make_run(runs / "operations", steps=0)
    phases = {"rollout_s": 1.0, "grade_s": 0.25, "train_s": 0.5, "publish_s": 0.0}
    rows = [metrics(n, memory_gb=0.5 + n / 10, clipped=0.02, **phases) for n in range(1, 9)]
    write_rows(run / "metrics.jsonl", rows)
    (run / "notes.md").write_text("- a first try\n")
    page = visit.go("#/run/operations")
    step = page.locator(".chart", has_text="Seconds of a step")
    expect(step.locator(".readout")).to_contain_text("generation 1")
    assert step.locator(".readout", has_text="critic").count() == 0
    expect(page.locator(".chart", has_text="Memory").locator(".readout")).to_contain_text("1.3")
    expect(page.locator(".chart", has_text="Clipped tokens")).to_contain_text("2.0 %")
    assert page.locator(".chart", has_text="KL to the reference").count() == 0
    assert page.get_by_text("a first try").is_visible()
    visit.go("#/")
    assert page.get_by_role("row", name="operations").get_by_text("a first try").is_visible()


def test_no_panel_of_a_fine_tuning_waits_for_numbers_that_never_come(visit, runs):
    for seed in (0, 1):
        make_tuning(runs / f"tuned{seed}", seed)
    page = visit.go("#/run/tuned0")
    expect(page.locator(".chart", has_text="Memory").locator(".readout")).to_contain_text("0.4")
    assert page.get_by_text("no numbers yet").count() == 0
    tiles = page.locator(".tiles")
    expect(tiles).to_contain_text("loss, last update0.250epoch 1.00")
    assert "–" not in tiles.inner_text() and "solved" not in tiles.inner_text()
    assert "held-out" not in tiles.inner_text()
    tested = {"before": {"solve_rate": 0.1}, "after": {"solve_rate": 0.5}, "steps": 4}
    (make_tuning(runs / "distilled") / "summary.json").write_text(json.dumps(tested))
    visit.go("#/run/distilled")
    expect(page.locator(".tiles")).to_contain_text("held-out test10.0 → 50.0 %")
    page = visit.go("#/compare?run=tuned0&run=tuned1")
    expect(page.locator(".chart figcaption b")).to_have_text(["Loss", "Gradient norm"])
    expect(page.locator(".chart", has_text="Loss").locator(".readout")).to_contain_text("0.25")


def test_completions_without_a_puzzle_have_no_panels_of_behaviour(visit, runs):
    run = make_run(runs / "texts", steps=0)
    text = {"numbers": None, "target": None, "prompt": "Why?", "completion": "Because."}
    write_rows(run / "metrics.jsonl", [metrics(1)])
    write_step(run, 1, **text)
    page = visit.go("#/run/texts")
    expect(page.locator("h2", has_text="Completions")).to_be_visible()
    expect(page.locator("h2", has_text="Behaviour")).to_have_count(0)
    visit.go("#/run/demo")
    expect(page.locator("h2", has_text="Behaviour")).to_be_visible()


def test_a_dead_run_is_told_from_a_live_one(visit, runs):
    for name in ("dead", "living"):
        (make_run(runs / name) / "summary.json").unlink()
    own(runs / "living")
    page = visit.go("#/")
    page.get_by_role("row", name="living").get_by_text("● running").wait_for()
    assert page.get_by_role("row", name="dead").get_by_text("‖ interrupted").is_visible()


@pytest.mark.parametrize("width", [1280, 380])
def test_every_figure_of_the_axis_is_inside_of_the_chart(visit, width):
    """uPlot centres a figure below its tick: the last one needs room at the side."""
    page = visit.go("#/run/demo")
    page.set_viewport_size({"width": width, "height": 800})
    page.locator(".chart canvas").first.wait_for()
    room = page.evaluate(
        """() => [...document.querySelectorAll(".plot:has(.u-over)")].map((plot) => {
          const over = plot.querySelector(".u-over");
          return plot.getBoundingClientRect().right - over.getBoundingClientRect().right;
        })"""
    )
    assert room and min(room) >= 14
