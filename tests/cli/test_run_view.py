"""What a run prints while it lasts."""

import io

import pytest
from rich.console import Console

from aha.algo.recipe import load_recipe
from aha.cli import run_view, share_bar
from aha.cli.run_view import print_group, ranked
from aha.core.records import Completion, Graded
from aha.store.run_folder import Run, append

from ..tiny import ask


@pytest.fixture
def screen(monkeypatch):
    """The console of the view, as a file of the width that is asked for."""

    def make(width: int = 80) -> io.StringIO:
        out = io.StringIO()
        monkeypatch.setattr(
            run_view, "console", Console(file=out, width=width, color_system=None, highlight=False)
        )
        return out

    return make


def graded(text: str, reward: float = 0.0, reason: str = "because", **parts: float) -> Graded:
    completion = Completion(ask(3, 7, 25, target=82), (1,) * 9, (-1.0,) * 9, text, "stop")
    return Graded(reward, reward == 1.0, reason, parts, completion)


def test_the_way_that_most_completions_go_is_told_when_it_changes(screen):
    out = screen()
    view = run_view.RunView(load_recipe(None, {}))
    for chance, glance in ((0.9, 0.1), (0.8, 0.2), (0.5, 0.5), (0.45, 0.55), (0.2, 0.8)):
        view.print_leading_way({"way_by_chance": chance, "way_glance": glance})
    view.print_leading_way({})
    assert [line.strip() for line in out.getvalue().splitlines()] == [
        "search: now mostly by chance (90%)",
        "search: now mostly with a glance (55%)",
    ]


def test_a_name_with_brackets_is_printed_as_it_is(aha, model, tmp_path):
    words = ("train", "demo", "--model.path", model, "--steps", 0, "--eval.final", 0)
    limits = ("--eval.every", 0, "--rollout.max_new_tokens", 20)
    done = aha(*words, *limits, "--name", "a[b]c")
    assert done.code == 0 and "all files are in runs/a[b]c" in done.out, done.out + done.err
    assert "aha chat 'runs/a[b]c'\n" in done.out, "quoted: a shell reads brackets as a pattern"


def test_the_table_of_steps_fits_eighty_columns_under_its_heading(screen):
    """Where the output is no terminal, rich takes 80, and a longer row would be two lines."""
    out = screen()
    settings = {"usd_per_hour": "0.2", "watts": "50", "steps": "12345"}
    view = run_view.RunView(load_recipe(None, settings))
    row = {"reward": 0.5, "solve_rate": 1.0, "mean_tokens": 1234.5, "truncated": 1.0}
    row |= {"generated": 0.0}
    for step in (2, 12345):
        view.step(
            row | {"step": step, "tokens": 9, "tokens_per_s": 123456.7, "elapsed_s": 17.0 * step}
        )
    heading, *rows = out.getvalue().splitlines()
    assert len(rows) == 2 and all(len(line) <= 80 for line in (heading, *rows))
    assert {len(heading), len(rows[0])} == {len(rows[1])}
    assert "2/12345" in rows[0] and rows[1].split()[-2] == "0:00"


def test_the_test_before_training_is_shown_at_once_and_counts_in_what_is_left(screen):
    out = screen()
    view = run_view.RunView(load_recipe(None, {"steps": "10"}))
    numbers = {"solve_rate": 0.25, "interval": [0.2, 0.3], "problems": 1000, "mean_tokens": 62.0}
    view.tested("before", numbers | {"seconds": 30.0})
    assert "before: solved 25.0% [20.0%, 30.0%] of 1,000, 62 tokens each, in 0:30" in out.getvalue()
    assert view.clock_of_run().last_test_s() == 30.0


def test_a_resumed_run_has_as_much_left_as_one_that_was_never_stopped(screen, tmp_path):
    screen()
    price = {"usd_per_hour": "0.2", "watts": "50"}
    cfg = load_recipe(None, price | {"steps": "100", "rollout.expected_tokens": "200"})
    run = Run.create(tmp_path / "first", cfg.model_dump(mode="json"))
    numbers = {"solve_rate": 0.25, "interval": [0.2, 0.3], "problems": 1000, "mean_tokens": 100.0}
    numbers["seconds"] = 300.0
    row = {"reward": 0.5, "solve_rate": 1.0, "truncated": 0.0, "generated": 0.0, "tokens": 9}
    row |= {"tokens_per_s": 1.0}
    whole, resumed = run_view.RunView(cfg), run_view.RunView(cfg)
    whole.tested("before", numbers)
    run.write("before.json", numbers)
    append(run.metrics, [{"step": 0}])  # of a version that kept less
    for step in range(1, 52):
        tokens = 100.0 + 2 * step
        row |= {"step": step, "mean_tokens": tokens, "elapsed_s": step * tokens / 10}
        if step < 51:
            append(run.metrics, [row])
        else:
            resumed.go_on(run)
            resumed.step(row)
        whole.step(row)
    assert resumed.clock_of_run().seconds() == whole.clock_of_run().seconds()
    assert resumed.clock_of_run().last_test_s() > 300.0
    (run.path / "before.json").write_text("{}")
    run_view.RunView(cfg).go_on(run)  # half a record is none


def test_a_bar_is_for_terminals_alone(screen):
    out = screen()
    view = run_view.RunView(load_recipe(None, {}))
    view.progress(512, 1000)
    assert view.bar is None and out.getvalue() == ""


def test_a_bar_goes_away_when_the_test_is_done_or_breaks(monkeypatch):
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    monkeypatch.setattr(run_view, "console", console)
    view = run_view.RunView(load_recipe(None, {}))
    view.progress(512, 1000)
    assert view.bar is not None and view.bar.live.is_started
    view.progress(1000, 1000)
    assert view.bar is None
    view.progress(512, 1000)
    view.close()
    assert view.bar is None


# -- one problem and its completions ---------------------------------------------------------


def test_best_median_and_worst_by_reward():
    group = [graded("a", 0.1), graded("b", 1.0), graded("c", 0.0), graded("d", 0.5)]
    places = ranked(group, [-0.3, 0.6, -0.4, 0.1])
    assert places == [("best", 1), ("median", 0), ("worst", 2)]
    assert ranked(group[:2], [0.0, 0.0]) == [("best", 1), ("worst", 0)]
    assert ranked([graded("a"), graded("b")], [0.0, 0.0]) == [("all alike", 0)]
    assert ranked([graded("a")], [0.0]) == [("", 0)]


GROUP = [graded("[bold]right[/bold]", 1.0, form=0.5), graded("[red", 0.0, "no [/answer]")]


def test_a_group_shows_the_problem_rewards_advantages_and_parts(screen):
    out = screen()
    print_group(7, GROUP, [0.5, -0.5])
    text = out.getvalue()
    assert "step 7: numbers 3 7 25 target 82  1 of 2 right, rewards 0.00 to 1.00" in text
    assert "best, advantage +0.50" in text and "worst, advantage -0.50" in text
    assert "right, reward 1.00, form 0.50: because" in text
    # Model text is never markup, wherever it stands.
    assert "[bold]right[/bold]" in text and "[red" in text and "no [/answer]" in text


def test_a_group_comes_with_the_numbers_of_the_update(screen):
    row = {"groups_flat": 0.875, "reward_std": 0.123, "entropy": 12.345, "kl": 0.12345}
    row |= {"clipped": 0.875, "grad_norm": 1.23e-05}
    words = run_view.update_words(row)
    assert words == (
        "update: flat groups 87.5%, deviation 0.12, entropy 12.345, KL 0.1235, clipped 87.5%, "
        "gradient 1.2e-05"
    )
    # What was not measured is left out.
    assert run_view.update_words({"entropy": 0.5, "kl": None}) == "update: entropy 0.500"
    assert run_view.update_words({}) == ""


def test_side_by_side_where_the_terminal_is_wide(screen):
    for width, lines in ((80, 2), (130, 1)):
        out = screen(width)
        print_group(7, GROUP, [0.5, -0.5])
        tops = [line for line in out.getvalue().splitlines() if "advantage" in line]
        assert len(tops) == lines and all(len(line) <= width for line in tops)


def test_the_bar_of_a_lab_follows_the_share_of_steps_or_tokens(monkeypatch):
    cfg = load_recipe(None, {"steps": "10", "tokens": "1000"})
    for terminal in (False, True):
        out = io.StringIO()
        console = Console(file=out, width=80, force_terminal=terminal)
        monkeypatch.setattr(share_bar, "console", console)
        with run_view.steps_bar(cfg) as bar:
            bar({"step": 5, "generated": 900})
        assert ("90%" in out.getvalue()) == terminal, "no bar where the output is no terminal"
