"""Cells in processes of their own: side by side, crashed, needed, stopped, gone on with."""

import json
import os
import signal
import sys
import threading
import time

import pytest

from aha.studies.study_frame import StudyFolder

from .test_study_frame import MACHINE

TOY = '''
import os, signal, time
from pathlib import Path
from aha.studies.cell_files import Cell, CellStopped
from aha.studies.study_page import StudyPage

THREADS = os.environ.get("OMP_NUM_THREADS")  # as torch reads it, when this file is imported


class Toy:
    """A cell writes its process; `crash` and `bug` fail, `slow` waits for a file or a signal,
    `hit` stops itself as a signal would, `alone` and `beside` take a while."""

    name = "toy"

    def __init__(self, *names, needs=()):
        kinds = {name: name.rstrip("0123456789") for name in names}
        self.cells = [
            Cell(
                n,
                {"n": n},
                {},
                kinds[n],
                tuple(needs) if n == "last" else (),
                alone=kinds[n] == "alone",
            )
            for n in names
        ]

    def seconds_of(self, cell, card):
        return 1.0

    def run(self, cell, out):
        print("a line of", cell.name)
        if cell.kind == "crash":
            os._exit(9)
        if cell.kind == "hit":
            raise CellStopped(signal.SIGTERM)
        if cell.kind in ("alone", "beside"):
            time.sleep(0.3)
        if cell.kind == "bug":
            raise KeyError("a bug")
        if cell.kind == "slow":
            stopped = []
            signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
            (out / f"{cell.name}.begun").write_text("")
            while not (out / "go").exists():
                time.sleep(0.01)
                if stopped:
                    raise CellStopped(signal.SIGTERM)
        return {"pid": os.getpid(), "threads": THREADS}

    def page(self, done):
        return StudyPage("Toy", "", [], [], [], [], [], {"done": sorted(done)})
'''


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """The class, from a module that another process can import as well."""
    folder = tmp_path_factory.mktemp("toy")
    (folder / "toy_study.py").write_text(TOY)
    sys.path.insert(0, str(folder))
    from toy_study import Toy

    yield Toy
    sys.path.remove(str(folder))


def test_a_crash_a_bug_and_what_needs_them_take_no_other_cell_down(toy, tmp_path):
    lines = []
    study = toy("a1", "crash", "bug", "a2", "last", needs=("crash",))
    folder = StudyFolder(study, tmp_path)
    assert folder.run_cells(MACHINE, lines.append, processes=3) is None
    pids = {result["pid"] for result in folder.done.values()}
    assert folder.done.keys() == {"a1", "a2"} and len(pids) == 2 and os.getpid() not in pids
    assert "ended with code 9; see" in folder.failed["crash"]
    assert folder.failed["bug"] == "KeyError: 'a bug'"
    assert 'raise KeyError("a bug")' in (tmp_path / "cells" / "bug.log").read_text()
    assert folder.failed["last"] == "not run: it needs crash, which failed"
    page = (tmp_path / "study.html").read_text()
    assert "the cell crash failed" in page and "the cell last failed: not run" in page
    assert (tmp_path / "cells" / "a1.log").read_text() == "a line of a1\n"
    record = json.loads((tmp_path / "cells" / "a1.json").read_text())
    assert record["processes"] == 3 and record["cpu_seconds"] >= 0
    begun = {name: len(work.tries) for name, work in folder.begun.items()}
    assert begun == {"crash": 1, "bug": 1}, "the time of a crash is not lost"
    assert folder.begun["crash"].cpu_seconds is None and folder.begun["bug"].cpu_seconds > 0
    again = StudyFolder(toy("a1", "crash", "bug", "a2", "last", needs=("crash",)), tmp_path)
    assert [cell.name for cell in again.to_do] == ["crash", "bug", "last"]


def test_a_cell_has_its_share_of_the_cores_from_its_first_import_on(toy, tmp_path, monkeypatch):
    monkeypatch.setattr("aha.studies.cell_processes.usable_cores", lambda: 7)
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    folder = StudyFolder(toy("a1", "alone"), tmp_path)
    folder.run_cells(MACHINE, lambda line: None, processes=2)
    assert {name: result["threads"] for name, result in folder.done.items()} == {
        "a1": "3",
        "alone": "7",
    }
    assert os.environ["OMP_NUM_THREADS"] == "5", "those of this process are as before"


def test_a_stop_reaches_all_cells_and_the_same_command_goes_on(toy, tmp_path):
    names = ("slow1", "slow2", "a3")

    def stop_when_both_have_begun():
        while not all((tmp_path / f"slow{n}.begun").exists() for n in (1, 2)):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    helper = threading.Thread(target=stop_when_both_have_begun)
    helper.start()
    folder = StudyFolder(toy(*names), tmp_path)
    assert folder.run_cells(MACHINE, lambda line: None, processes=2) == signal.SIGTERM
    helper.join()
    assert not folder.done and not folder.failed
    (tmp_path / "go").write_text("")
    assert json.loads((tmp_path / "study.json").read_text())["seconds"] > 0
    again = StudyFolder(toy(*names), tmp_path)
    assert again.run_cells(MACHINE, lambda line: None, processes=2) is None
    assert again.done.keys() == set(names) and not again.failed
    assert [len(again.records[name].work.tries) for name in names] == [2, 2, 1]
    assert not list((tmp_path / "cells").glob("*.begun"))


def test_the_time_of_cells_that_are_ended_at_once_is_not_lost(toy, tmp_path):
    """As by a second Ctrl-C."""

    def interrupt(line):
        if line.startswith("failed: bug"):
            raise KeyboardInterrupt

    folder = StudyFolder(toy("slow1", "bug"), tmp_path)
    with pytest.raises(KeyboardInterrupt):
        folder.run_cells(MACHINE, interrupt, processes=2)
    work = folder.begun["slow1"]
    assert len(work.tries) == 1 and work.cpu_seconds is None
    assert json.loads((tmp_path / "study.json").read_text())["seconds"] > 0


def test_a_cell_that_a_signal_stops_by_itself_has_failed(toy, tmp_path):
    folder = StudyFolder(toy("hit", "a1"), tmp_path)
    assert folder.run_cells(MACHINE, lambda line: None, processes=1) is None
    assert "was stopped by signal 15" in folder.failed["hit"] and folder.done.keys() == {"a1"}


def test_nothing_runs_beside_a_cell_that_takes_all_cores(toy, tmp_path):
    folder = StudyFolder(toy("beside1", "alone", "beside2"), tmp_path)
    assert folder.run_cells(MACHINE, lambda line: None, processes=3) is None
    tries = sorted(record.work.tries[0] for record in folder.records.values())
    assert len(tries) == 3
    assert all(end <= begin for (_, end), (begin, _) in zip(tries, tries[1:], strict=False))
