"""The picture of a run: what others wrote is only text in it, and a notebook gets it live."""

import sys

import pytest

from aha.api.display import LiveRun, notebook_publisher, run_html, telling_completions

ROWS = [{"step": step, "solve_rate": step / 10, "reward": -step} for step in range(1, 9)]
EVIL = '<img src=x onerror="alert(1)">\x1b[2J'


def test_what_models_and_files_wrote_is_text():
    row = {"reward": 1.0, "prompt": EVIL, "completion": EVIL * 200, "reason": EVIL}
    html = run_html(EVIL, ROWS, [], [EVIL], [row])
    assert "<img" not in html and "\x1b" not in html and "&lt;img" in html
    assert "(shortened)" in html


def test_a_reward_that_is_the_solve_rate_is_drawn_once():
    same = [{**row, "reward": row["solve_rate"]} for row in ROWS]
    assert run_html("", ROWS).count("<svg") == 2 and run_html("", same).count("<svg") == 1
    assert run_html("", []).count("<svg") == 0


def test_a_long_run_is_drawn_with_its_last_step():
    rows = [{"step": step, "solve_rate": 0.5, "reward": 0.5} for step in range(1, 5002)]
    rows[-1]["solve_rate"] = 1.0
    html = run_html("", rows)
    assert "from 50% to 100%" in html and len(html) < 40_000


def test_numbers_that_are_none_leave_gaps():
    rows = [*ROWS, {"step": 9, "solve_rate": None, "reward": float("nan")}, {"step": "x"}]
    assert "<svg" in run_html("", rows, [(3.0, {"solve_rate": 0.5, "interval": None})])


def test_the_best_the_median_and_the_worst_are_shown():
    rows = [{"reward": reward} for reward in (0.0, 1.0, None, 0.5, 0.2)]
    assert [row["reward"] for row in telling_completions(rows)] == [1.0, 0.2, None]
    assert telling_completions(rows[:1]) == rows[:1] and telling_completions([]) == []


def test_a_run_is_drawn_while_it_is_trained():
    pages = []
    live = LiveRun("mine", pages.append)
    live.show("before training", now=True)
    for row in ROWS:
        live.step(row, f"step {row['step']}")
    assert 2 <= len(pages) < 2 + len(ROWS), "at most one a second, the first step at once"
    live.show("after training", now=True)
    assert "<svg" not in pages[0] and "after training" in pages[-1] and "<svg" in pages[-1]


def test_a_script_and_a_terminal_are_no_notebook(monkeypatch):
    monkeypatch.setitem(sys.modules, "IPython", None)
    assert notebook_publisher() is None


def test_a_notebook_gets_one_picture_that_changes():
    pytest.importorskip("IPython", reason="a notebook needs IPython")
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.testing.globalipapp import start_ipython

    shell = start_ipython() or InteractiveShell.instance()
    assert notebook_publisher() is None, "its terminal shows no HTML"
    published = []

    class Publisher(type(shell.display_pub)):
        def publish(self, data, *unused, transient=None, update=False, **more):
            published.append((data.get("text/html"), transient, update))

    shell.display_formatter.active_types = shell.display_formatter.format_types  # as a kernel has
    shell.display_pub, shell.kernel = Publisher(shell=shell), object()
    try:
        publish = notebook_publisher()
        publish("<b>1</b>")
        publish("<b>2</b>")
    finally:
        del shell.kernel
    assert [html for html, _, _ in published] == ["", "<b>1</b>", "<b>2</b>"]
    assert [update for _, _, update in published] == [False, True, True]
    assert len({str(transient) for _, transient, _ in published}) == 1
