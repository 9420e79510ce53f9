import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aha.core.errors import DataError, RunError
from aha.web import report_figures
from aha.web.report_page import mean_line, report_html, write_report
from aha.web.runs import RunFolder
from aha.web.svg_curves import LEFT, WIDTH, Figure, Line, Point, ticks

from .conftest import make_run, make_tuning, row, write_rows


class Tags(HTMLParser):
    """What a page is made of."""

    def __init__(self, page: str):
        super().__init__()
        self.found, self.links = [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href", "action")]


def test_the_report_is_one_file_without_script_or_address(run, tmp_path):
    size = write_report(RunFolder(run), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    tags = Tags(page)
    assert size == len(page.encode()) < 3_000_000
    assert not {"script", "link", "img", "iframe", "object"} & set(tags.found) and not tags.links
    assert "http" not in page.replace("http-equiv", "") and "url(" not in page
    assert tags.found.count("svg") >= 10


def test_it_says_what_a_reader_wants_to_know(run):
    page = " ".join(re.sub(r"<[^>]+>", " ", report_html(RunFolder(run))).split())
    for words in (
        "+70.0 points",
        "Better: the whole interval is above 0.",
        "20.0% [0.0%, 40.0%]",
        "on the same 20 held-out problems",
        "its base model, once for everybody 10.00 cents, 40.0 Wh",
        "time to aha (solve rate doubled, past one half) 0 min 06 s",
        "optim.lr 0.0003",
        "makes 35, not 82",
        "back to the start",
    ):
        assert words in page, words


def test_no_difference_is_no_evidence(tmp_path):
    page = report_html(RunFolder(make_run(tmp_path / "flat", right_after=4)))
    assert "No evidence of a change" in page and "Better" not in page


def test_text_of_the_model_stays_text(run):
    evil = "<script>alert(1)</script><img src=x onerror=alert(1)>"
    write_rows(run / "completions/before.jsonl", [row(99, False, completion=evil, reason=evil)])
    after = row(99, True, tokens=9_999, completion=evil + "</pre>", id="countdown-99")
    write_rows(run / "completions/after.jsonl", [after])
    config = f'{{"model": {{"path": "{evil}"}}, "{evil}": 1}}'
    (run / "config.json").write_text(config)
    page = report_html(RunFolder(run))
    assert evil not in page and "&lt;script&gt;" in page
    assert not {"script", "img"} & set(Tags(page).found)


def test_pinned_completions_stand_there_once_in_their_order(run):
    page = report_html(RunFolder(run), ["step_000002:3", "after:0", "step_000002:3"])
    assert re.findall(r"\w+:\d+(?=, \d+ tokens)", page) == ["step_000002:3", "after:0"]
    assert "Pinned" not in report_html(RunFolder(run))


@pytest.mark.parametrize(
    "pin", ["after", "after:-1", "after:999", "../after:0", "step_999999:0", "", "after:0:1"]
)
def test_a_pin_that_leads_nowhere_is_an_error(run, pin):
    with pytest.raises(DataError, match="leads nowhere"):
        report_html(RunFolder(run), ["after:0", pin])


def test_pins_are_not_without_end(run):
    with pytest.raises(DataError, match="51 pins"):
        report_html(RunFolder(run), ["after:0"] * 51)


def test_a_run_that_is_not_done_says_so(run):
    for name in ("summary.json", "after.json", "completions/after.jsonl"):
        (run / name).unlink()
    page = report_html(RunFolder(run))
    assert "this run is not done" in page and "No verdict" in page


def test_steps_whose_behaviours_were_not_counted_in_time_are_said(run, monkeypatch):
    said = "behaviours of 4 steps were not counted within 0 s"
    assert "were not counted within" not in report_html(RunFolder(run))
    monkeypatch.setattr(report_figures, "BEHAVIOR_SECONDS", 0.0)
    assert said in report_html(RunFolder(run))


def test_the_report_of_a_fine_tuning_is_about_its_loss(tmp_path):
    """It has written no tokens and tested nothing."""
    page = report_html(RunFolder(make_tuning(tmp_path / "tuned")))
    titles = re.findall(r"<figcaption><b>(.*?)</b>", page)
    assert titles == ["Loss", "Tokens of a completion", "Gradient norm", "Tokens a second"]
    text = " ".join(re.sub(r"<[^>]+>", " ", page).split())
    assert "tokens learnt in training 200 " in text
    assert not [words for words in ("time to aha", "both tests", "is missing") if words in text]


def test_the_report_of_a_distilled_run_has_the_time_of_its_tests(tmp_path):
    """`aha distill` and `aha prefer` test before and after."""
    tuned = make_tuning(tmp_path / "tuned")
    summary = {"before": {"solve_rate": 0.1}, "after": {"solve_rate": 0.5}, "wall_s": 65.0}
    (tuned / "summary.json").write_text(json.dumps(summary))
    text = " ".join(re.sub(r"<[^>]+>", " ", report_html(RunFolder(tuned))).split())
    assert "with both tests 1 min 05 s" in text and "time to aha" not in text


def test_a_place_that_cannot_be_written_is_an_error(run, tmp_path):
    for out in (tmp_path, tmp_path / "none" / "report.html"):
        with pytest.raises(RunError, match="wanted a file in a folder that exists"):
            write_report(RunFolder(run), out)


def test_a_report_that_cannot_be_written_is_an_error_and_leaves_the_old_one(run, tmp_path):
    (tmp_path / "old.html").write_text("old")
    (tmp_path / "old.html.partial").mkdir()  # which no file can replace
    for out in (tmp_path / "old.html", tmp_path / ("x" * 300), Path("/dev/full")):
        with pytest.raises(RunError, match=f"cannot write .*{out.name[:9]}"):
            write_report(RunFolder(run), out)
    assert (tmp_path / "old.html").read_text() == "old"


def test_a_link_of_the_users_own_stays_and_a_device_too(run, tmp_path):
    (tmp_path / "kept.html").write_text("old")
    (tmp_path / "link.html").symlink_to(tmp_path / "kept.html")
    size = write_report(RunFolder(run), tmp_path / "link.html")
    assert (tmp_path / "link.html").is_symlink()
    assert (tmp_path / "kept.html").stat().st_size == size
    assert not list(tmp_path.glob("*.partial"))
    write_report(RunFolder(run), Path("/dev/null"))
    assert Path("/dev/null").is_char_device()


def test_a_mean_has_the_interval_of_the_paired_difference():
    # Differences 1, 2, 3: mean 2, standard deviation 1, so 1.96 / sqrt(3) = 1.13 to each side.
    (line,) = mean_line("x", [(0, 1), (0, 2), (0, 3)], ".2f")
    assert line["difference"] == "+2.00 [+0.87, +3.13]" and line["evidence"] == "more"
    (flat,) = mean_line("x", [(0, 1), (1, 0)], ".2f")
    assert flat["evidence"] == "no evidence"
    assert mean_line("x", [(None, 1), (1, 2)], ".2f") == []


@given(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9))
def test_ticks_are_few_and_reach_both_ends(a, b):
    low, high = min(a, b), max(a, b)
    found = ticks(low, high, 5)
    span = found[-1] - found[0] or 1
    assert 2 <= len(found) <= 12
    assert found[0] <= low + 1e-6 * span and found[-1] >= high - 1e-6 * span


def test_a_figure_draws_lines_gaps_and_intervals():
    lines = [Line("a & b", [1, 2, 3], [0.1, None, 0.3]), Line("empty", [], [])]
    figure = Figure("T<i>", lines, [Point(2, 0.5, 0.4, 0.6)], rate=True)
    svg = figure.svg()
    assert svg.count('class="curve') == 1 and svg.count('class="interval') == 2
    assert "T&lt;i&gt;: a &amp; b from 10% to 30%" in svg
    assert Figure("x", [Line("a", [], [])]).empty


def test_a_figure_draws_a_band_for_each_run_of_intervals_and_the_names_below():
    ends = [(0.0, 0.4), (0.1, 0.5), None, (0.2, 0.6), None]
    band = Line("a", [0, 1, 2, 3, 4], [0.2, 0.3, 0.3, 0.4, 0.5], ends)
    svg = Figure("T", [band, Line("b", [0], [0.1])], rate=True, names={0: "<1", 2: "4"}).svg()
    (outline,) = re.findall(r'class="band b0" d="([^"]+)"', svg)
    places = [tuple(map(float, place.split())) for place in outline.strip("MZ").split("L")]
    # There along the upper ends, back along the lower ones; one value alone has no band.
    assert len(places) == 4 and places[0][0] == places[3][0] < places[1][0] == places[2][0]
    assert places[0][1] < places[3][1] and places[1][1] < places[2][1]
    assert re.findall(r'class="mid">([^<]+)<', svg) == ["&lt;1", "4"]


def test_a_figure_is_as_high_as_its_bands():
    figures = [
        Figure("T", [Line("a", [0, 1], [1.0, 2.0], ends)]) for ends in ([], [(0, 1), (1, 9)])
    ]
    tops = [re.findall(r'class="end">([^<]+)<', figure.svg())[-1] for figure in figures]
    assert tops == ["2", "10"]


@pytest.mark.parametrize("last", [1, 7, 43, 61, 100, 999, 1001, 12_345, 10_000_000])
def test_the_figures_below_a_curve_are_inside_of_the_picture(last):
    """Ticks go on to the next round number, which may lie beyond the last step."""
    svg = Figure("T", [Line("a", [0, last], [0.0, 1.0])]).svg()
    below = re.findall(r'<text x="([\d.]+)" y="183" class="mid">([^<]+)<', svg)
    assert len(below) >= 2
    for x, figure in below:
        half = 2.8 * len(figure)  # a digit of ten pixels is 5.6 wide
        assert LEFT <= float(x) and float(x) + half <= WIDTH + 1, (x, figure)
