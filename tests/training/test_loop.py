"""The loop: who is called when, and how a run is asked to stop."""

import os
import signal

import pytest

from aha.training.loop import Interrupt, drive


def test_every_watcher_sees_every_report_before_the_next_step():
    tape = []

    def steps():
        for number in (1, 2):
            tape.append(f"step {number}")
            yield number

    watchers = [lambda report, name=name: tape.append(f"{name} {report}") for name in "ab"]
    drive(steps(), watchers)
    assert tape == ["step 1", "a 1", "b 1", "step 2", "a 2", "b 2"]


def test_stop_is_asked_after_the_watchers_and_before_the_next_step():
    """Whoever stops a run still gets the step's row and its checkpoint."""
    tape = []

    def steps():
        while True:
            tape.append("step")
            yield len(tape)

    drive(steps(), [lambda report: tape.append("watch")], lambda: len(tape) >= 4)
    assert tape == ["step", "watch", "step", "watch"]


def test_no_steps_no_calls():
    drive([], [pytest.fail], pytest.fail)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_asks_and_the_second_is_immediate(number, capfd):
    with Interrupt() as stop:
        assert not stop()
        os.kill(os.getpid(), number)
        assert stop() and capfd.readouterr().err.count("stopping after this step") == 1
        with pytest.raises(KeyboardInterrupt) as again:
            os.kill(os.getpid(), number)
        assert stop.signal == number and again.value.args == (number,)


def test_the_handlers_of_before_are_put_back():
    before = [signal.getsignal(number) for number in Interrupt.SIGNALS]
    with pytest.raises(RuntimeError), Interrupt():
        raise RuntimeError
    assert [signal.getsignal(number) for number in Interrupt.SIGNALS] == before


def test_a_run_that_is_to_outlive_its_terminal_does():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as `nohup` does
    try:
        with Interrupt() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_ends_the_loop_after_its_step():
    seen = []

    def watch(report: int) -> None:
        seen.append(report)
        if report == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with Interrupt() as stop:
        drive(range(1, 10), [watch, seen.append], stop)
    assert seen == [1, 1, 2, 2]
