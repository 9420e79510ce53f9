"""Callbacks get every row, and one that raises is told and does not end the run."""

import pytest

from aha.api.callbacks import Callbacks
from aha.core.errors import ConfigError

ROW = {"step": 3, "reward": 0.5}


def told(callbacks, times=1):
    findings = []
    for _ in range(times):
        callbacks.step(dict(ROW), lambda step, finding: findings.append((step, finding)))
    return findings


class Both:
    def __init__(self):
        self.steps, self.validations = [], []

    def on_step(self, row):
        self.steps.append(row)

    def on_validation(self, row):
        self.validations.append(row)


class OnlyValidations:
    def __init__(self):
        self.validations = []

    def on_validation(self, row):
        self.validations.append(row)

    def __call__(self, row):
        raise AssertionError("an object with methods is not called itself")


def test_functions_and_objects_are_called():
    rows, both, other = [], Both(), OnlyValidations()
    callbacks = Callbacks([rows.append, both, other])
    assert told(callbacks) == [] and rows == [ROW] == both.steps and other.validations == []
    callbacks.validation({"step": 4}, lambda *unused: None)
    assert both.validations == [{"step": 4}] == other.validations and len(rows) == 1


def test_a_callback_alone_needs_no_list():
    rows = []
    told(Callbacks(rows.append))
    both = Both()
    told(Callbacks(both))
    assert rows == both.steps == [ROW] and told(Callbacks(None)) == []


def test_one_that_raises_is_told_once_and_the_others_are_called():
    rows = []

    def broken(row):
        row["reward"] = "changed"
        raise ValueError("no\nroom")

    findings = told(Callbacks([broken, rows.append]), times=3)
    assert rows == [ROW] * 3, "each has a copy of the row"
    ((step, finding),) = findings
    assert step == 3 and (finding.level, finding.check) == ("warn", "callback")
    assert "broken raised in step 3, and the run goes on: ValueError: no room" in finding.message


def test_an_interrupt_passes():
    def stop(row):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        told(Callbacks([stop]))


@pytest.mark.parametrize("callbacks", [5, [print, "text"], [object()], [Both]])
def test_what_cannot_be_called_is_refused_before_the_run(callbacks):
    with pytest.raises(ConfigError, match="the callback"):
        Callbacks(callbacks)
