import re

from aha.web.chart_list import COLOURS, charts_of, columns
from aha.web.curves import BEHAVIOURS

from ..pages import DOCS, read

DERIVED = {"grade_error_share"}  # by the server, of other numbers


def test_every_column_of_a_chart_is_one_that_a_run_writes():
    rows = re.findall(r"^\| (`.+?`) \|", read(DOCS / "glossary.md"), re.MULTILINE)
    known = {name for row in rows for name in re.findall(r"`(\w+)`", row)} | DERIVED
    for heading, charts in (*charts_of(0.08), *charts_of(0.08, tuning=True)):
        for chart in charts:
            source = BEHAVIOURS if chart.get("counted") else known
            for _, column, colour in chart["series"]:
                assert column in source, (heading, chart["title"], column)
                assert 0 <= colour < COLOURS
    assert {"solve_rate", "memory_gb", "clipped"} <= set(columns())


def test_without_a_price_there_is_no_chart_of_the_cost():
    titles = [
        [chart["title"] for _, charts in charts_of(price) for chart in charts]
        for price in (None, 0.08)
    ]
    assert [title for title in titles[1] if title not in titles[0]] == ["Cost"]
    assert len(titles[1]) == len(set(titles[1]))


def test_a_fine_tuning_has_charts_of_its_own():
    titles = [chart["title"] for _, charts in charts_of(None, tuning=True) for chart in charts]
    assert titles[:3] == ["Loss", "Margin of the pairs", "Pairs ranked rightly"]
    assert "Reward" not in titles and "Memory" in titles
    assert {"loss", "margin", "ranked"} <= set(columns())


def test_what_not_every_run_measures_is_left_out_where_it_is_missing():
    """Such as the memory, which no system but Linux and macOS tells: an empty panel would say that
    numbers are to come."""
    for tuning in (False, True):
        charts = {one["title"]: one for _, some in charts_of(None, tuning) for one in some}
        for title in ("Memory", "Clipped tokens", "KL to the reference"):
            assert charts[title]["optional"]
