"""Which loggers are chosen, and how they follow a run: with loggers of our own, by the protocol."""

import sys

import pytest

from aha.core.errors import ConfigError, MissingExtra
from aha.loggers import run_loggers
from aha.loggers.run_loggers import RunLoggers, check_installed, chosen_loggers, stored_loggers
from aha.loggers.run_rows import Entry

from .runs import BEFORE, cut_back, new_run, write_step, write_validation


class ListLogger:
    """Keeps what it gets; raises where it is told to."""

    rewinds = False
    holds_s = 0.0

    def __init__(self, fails_at: str = ""):
        self.fails_at, self.entries, self.closed = fails_at, [], []

    def open(self, run) -> None:
        self.opened = run
        self.check("open")

    def log(self, entry) -> None:
        self.check(f"{entry.kind} {entry.step}")
        self.entries.append(f"{entry.kind} {entry.step}")

    def close(self, failed: bool) -> None:
        self.check("close")
        self.closed.append(failed)

    def check(self, place: str) -> None:
        if place == self.fails_at:
            raise OSError(f"no disk at {place}\x1b[2J")


class Rewinding(ListLogger):
    rewinds = True


class Holding(ListLogger):
    holds_s = 10.0


@pytest.fixture
def messages() -> list:
    return []


@pytest.fixture
def follow(messages):
    def start(run, **loggers) -> RunLoggers:
        def tell(step, finding) -> None:
            messages.append((step, finding))

        return RunLoggers(run, list(loggers), tell, messages.append, loggers.__getitem__)

    return start


def test_the_list_of_names():
    assert chosen_loggers("none") == []
    with pytest.raises(ConfigError, match="fix: --log wandb") as caught:
        chosen_loggers("wandbb")
    assert "wandb, tensorboard, trackio" in caught.value.wanted
    for text in ("", ",", "none,wandb", "Wandb", "wandb tensorboard"):
        with pytest.raises(ConfigError):
            chosen_loggers(text)


def test_a_missing_package_says_how_to_install_it(monkeypatch, tmp_path):
    """A folder of its name, as wandb makes one in the current folder, is no package."""
    monkeypatch.setitem(run_loggers.LOGGERS, "aha_tracker", ("aha.loggers.none", "None"))
    with pytest.raises(MissingExtra, match=r"pip install 'aha\[aha_tracker\]', or --log none"):
        check_installed(["aha_tracker"])
    (tmp_path / "aha_tracker").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingExtra):
        check_installed(["aha_tracker"])
    assert "aha_tracker" not in sys.modules


def test_a_package_that_does_not_import_is_an_error_of_its_own(monkeypatch, tmp_path):
    (tmp_path / "aha_tracker.py").write_text("")
    (tmp_path / "aha_broken.py").write_text("def check_import():\n    raise TypeError('old')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(run_loggers.LOGGERS, "aha_tracker", ("aha_broken", "None"))
    with pytest.raises(ConfigError, match="TypeError: old"):
        check_installed(["aha_tracker"])


def test_a_logger_gets_what_is_there_and_then_every_row(tmp_path, follow, messages):
    run = new_run(tmp_path / "first")
    run.write("before.json", BEFORE)
    write_step(run, 1)
    kept = ListLogger()
    loggers = follow(run, tensorboard=kept)
    assert kept.entries == ["before 0", "step 1"]
    write_step(run, 2)
    loggers.follow({"step": 2})
    write_validation(run, 2)
    loggers.follow({"step": 2})
    run.write("after.json", BEFORE)
    loggers.end()
    assert kept.entries[2:] == ["step 2", "validation 2", "after 2"]
    assert kept.closed == [False] and messages == []
    assert kept.opened.config["optim"] == {"lr": 1e-3} and kept.opened.step == -1
    assert kept.opened.config["environment"]["python"] and kept.opened.name == "first"


def test_a_resumed_run_goes_on_in_the_same_run_and_no_step_is_sent_twice(tmp_path, follow):
    run = new_run(tmp_path / "first")
    killed, killed_too = ListLogger(), Rewinding()
    loggers = follow(run, wandb=killed, tensorboard=killed_too)
    for step in (1, 2, 3):
        write_step(run, step)
        loggers.follow()
    cut_back(run, 1)  # as after kill -9, with a checkpoint of step 1
    assert stored_loggers(run.path) == ["wandb", "tensorboard"]
    resumed, rewound = ListLogger(), Rewinding()
    loggers = follow(run, wandb=resumed, tensorboard=rewound)
    for step in (2, 3, 4):
        write_step(run, step)
        loggers.follow()
    assert resumed.opened.id == killed.opened.id and resumed.opened.step == 3
    assert killed.opened.id != killed_too.opened.id
    assert killed.entries + resumed.entries == ["step 1", "step 2", "step 3", "step 4"]
    assert rewound.opened.step == 1 and rewound.entries == ["step 2", "step 3", "step 4"]


def test_what_a_killed_tracker_may_have_lost_is_sent_again(tmp_path, messages):
    run, clock = new_run(tmp_path / "first"), [0.0]

    def start() -> tuple[RunLoggers, Holding]:
        kept = Holding()
        tell = lambda *finding: messages.append(finding)  # noqa: E731
        return RunLoggers(
            run, ["wandb"], tell, messages.append, lambda _: kept, lambda: clock[0]
        ), kept

    run.write("before.json", BEFORE)
    loggers, first = start()
    for step, seconds in ((1, 0.0), (2, 4.0), (3, 8.0), (4, 15.0)):
        clock[0] = seconds
        write_step(run, step)
        loggers.follow()
    # Killed at 15 s: steps 1 and 2 came 10 s ago, and the newest of these may wait for its next.
    assert run.read("loggers.json")["wandb"]["step"] == 1
    loggers, second = start()
    assert second.entries == ["step 2", "step 3", "step 4"]
    assert second.opened.id == first.opened.id
    loggers.end()  # closed, so nothing is held
    _, third = start()
    assert third.entries == [] and messages == []


def test_a_logger_that_is_added_later_gets_the_earlier_steps(tmp_path, follow):
    run = new_run(tmp_path / "first")
    first, late = ListLogger(), ListLogger()
    write_step(run, 1)
    follow(run, wandb=first).end()
    write_step(run, 2)
    follow(run, wandb=ListLogger(), trackio=late).end()
    assert first.entries == ["step 1"] and late.entries == ["step 1", "step 2"]


@pytest.mark.parametrize("place", ["open", "step 1", "validation 2", "close"])
def test_a_logger_that_raises_is_told_once_and_the_others_go_on(tmp_path, follow, messages, place):
    run = new_run(tmp_path / "first")
    bad, good = ListLogger(place), ListLogger()
    loggers = follow(run, wandb=bad, trackio=good)
    for step in (1, 2, 3):
        write_step(run, step)
        if step == 2:
            write_validation(run, 2)
        loggers.follow()
    loggers.end()
    assert good.entries == ["step 1", "step 2", "validation 2", "step 3"]
    assert good.closed == [False]
    ((step, finding),) = messages
    assert finding.level == "warn" and finding.check == "logger_wandb" and "no disk" in str(finding)
    assert "\x1b" not in finding.message and str(run.path) in finding.fix
    assert (f"--resume {run.path}" in finding.fix) == (place != "close")
    # The next process sends what is missing.
    again = ListLogger()
    follow(run, wandb=again, trackio=ListLogger()).end()
    assert bad.entries + again.entries == good.entries


def test_an_error_of_the_run_marks_it_as_failed(tmp_path, follow):
    run, kept = new_run(tmp_path / "first"), ListLogger()
    loggers = follow(run, wandb=kept)
    with pytest.raises(ZeroDivisionError):
        try:
            1 / 0  # noqa: B018
        finally:
            loggers.end()
    assert kept.closed == [True]


def test_an_error_that_the_caller_handles_is_none_of_the_run(tmp_path, follow):
    """`try: train(a) except AhaError: train(b)`: the second run is as good as any."""
    good, bad = ListLogger(), ListLogger()
    try:
        1 / 0  # noqa: B018
    except ZeroDivisionError:
        follow(new_run(tmp_path / "good"), wandb=good).end()
        loggers = follow(new_run(tmp_path / "bad"), wandb=bad)
        with pytest.raises(KeyError):
            try:
                {}[0]
            finally:
                loggers.end()
    assert good.closed == [False] and bad.closed == [True]


def test_the_completions_of_a_step_are_forgotten_once_all_loggers_have_them(tmp_path, follow):
    """They are the bulk of a run, and one that catches up has the entries of all its steps."""
    run = new_run(tmp_path / "first")
    for step in (1, 2):
        write_step(run, step)
    sizes, entries = [], []

    class Reading(ListLogger):
        holds_s = 10.0

        def log(self, entry) -> None:
            sizes.append((len(entry.table), sum("completions" in vars(one) for one in entries)))
            entries.append(entry)

    loggers = follow(run, wandb=Reading())
    assert sizes == [(6, 0), (6, 0)] and len(loggers.held["wandb"]) == 2
    assert not any("completions" in vars(entry) for entry in entries)


class Uncompared(int):
    """A step that is ordered, and never compared for equality."""

    def __eq__(self, other):
        raise AssertionError("entries are compared with each other")

    __hash__ = int.__hash__


def test_no_entry_is_compared_with_each_other_one(tmp_path, messages):
    """A long run that catches up holds all its entries: their pairs are billions."""
    run, clock = new_run(tmp_path / "first"), [0.0]
    tell = lambda *finding: messages.append(finding)  # noqa: E731
    loggers = RunLoggers(
        run, ["wandb"], tell, messages.append, lambda _: Holding(), lambda: clock[0]
    )
    loggers.hand_out([Entry("step", Uncompared(step), {}, run) for step in range(1, 5)])
    clock[0] = 20.0
    loggers.advance("wandb", Holding.holds_s)
    assert [int(entry.step) for _, entry in loggers.held["wandb"]] == [4] and messages == []
    assert int(loggers.positions["wandb"].step) == 3


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"wandb": {"id": "../x", "step": 1}}', '{"wandb": 3}']
)
def test_a_damaged_record_begins_a_new_run_and_says_so(tmp_path, follow, messages, text):
    run, kept = new_run(tmp_path / "first"), ListLogger()
    (run.path / "loggers.json").write_text(text)
    write_step(run, 1)
    follow(run, wandb=kept)
    assert kept.entries == ["step 1"] and "loggers.json is damaged" in messages[0]
    assert stored_loggers(run.path) == ["wandb"]


def test_a_finished_run_that_goes_on_sends_its_last_test_again(tmp_path, follow):
    run, kept = new_run(tmp_path / "first"), ListLogger()
    write_step(run, 1)
    run.write("after.json", BEFORE)
    follow(run, wandb=ListLogger()).end()
    (run.path / "after.json").rename(run.path / "after_000001.json")
    loggers = follow(run, wandb=kept)
    write_step(run, 2)
    run.write("after.json", BEFORE)
    loggers.end()
    assert kept.entries == ["step 2", "after 2"]


def test_without_names_nothing_is_read_or_written(tmp_path, follow):
    run = new_run(tmp_path / "first")
    write_step(run, 1)
    loggers = follow(run)
    loggers.follow()
    loggers.end()
    assert not (run.path / "loggers.json").exists()
