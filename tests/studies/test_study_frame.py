"""The frame of a study, with a study of sums: grid, resume, failures, folders of other settings."""

import json
import time
from dataclasses import replace

import pytest

from aha.cli.error_translation import as_user_error
from aha.core.errors import ConfigError, RunError
from aha.plan.machines import load_cards
from aha.store.run_lock import RunLock
from aha.studies.cell_files import Cell, CellFiles, CellStopped, clock_seconds
from aha.studies.study_frame import Machine, StudyFolder, check_cells
from aha.studies.study_page import StudyPage, StudyTable
from aha.web.svg_curves import Figure, Line

MACHINE = Machine(load_cards()[1]["cpu-2-cores"], usd_per_hour=3.6, watts=100.0)


class Sums:
    """Implements `Study`: a cell adds two numbers, takes two seconds, and fails where told to."""

    name = "sums"

    def __init__(self, *numbers: int, broken: tuple[int, ...] = (), shared: int = 10):
        self.cells = [Cell(f"n{n}", {"n": n, "seed": 0}, {"shared": shared}) for n in numbers]
        self.broken, self.ran = broken, []

    def seconds_of(self, cell, card):
        return 2.0

    def run(self, cell, out):
        self.ran.append(cell.name)
        if cell.varied["n"] in self.broken:
            raise ConfigError(f"{cell.varied['n']}", "another\nnumber")
        return {"sum": cell.varied["n"] + cell.shared["shared"]}

    def page(self, done):
        rows = [[name, str(result["sum"])] for name, result in done.items()]
        figure = Figure("<sums>", [Line("sum", [0.0], [1.0])])
        table = StudyTable("Sums", ("cell", "sum"), rows)
        return StudyPage(
            "Sums", "a < b", ["about"], ["one note"], ["n is n"], [figure], [table], {"rows": rows}
        )


def run(study, out) -> list[str]:
    lines: list[str] = []
    StudyFolder(study, out).run_cells(MACHINE, lines.append)
    return lines


def report(out) -> dict:
    return json.loads((out / "study.json").read_text())


def test_all_cells_run_once_and_the_page_has_everything(tmp_path):
    out, study = tmp_path / "study", Sums(1, 2)
    lines = run(study, out)
    assert [line.split("  ")[:2] for line in lines] == [["1/2", "n1"], ["2/2", "n2"]]
    content = report(out)
    assert content["results"] == {"rows": [["n1", "11"], ["n2", "12"]]}
    assert content["done"] == ["n1", "n2"] and content["failed"] == {}
    assert content["cells"][0] == {"name": "n1", "n": 1, "seed": 0, "shared": 10}
    assert content["planned_seconds"] == 4.0
    page = (out / "study.html").read_text()
    assert "2 of 2 cells are done" in page and "n is n" in page and "one note." in page
    assert (
        "a &lt; b" in page
        and "<script" not in page
        and "http" not in page.replace("http-equiv", "")
    )


def test_what_is_done_is_not_done_again(tmp_path):
    run(Sums(1, 2), tmp_path)
    again = Sums(1, 2, 3)
    run(again, tmp_path)
    assert again.ran == ["n3"] and report(tmp_path)["done"] == ["n1", "n2", "n3"]


def test_a_stop_loses_the_cell_that_it_is_in(tmp_path):
    class Stopped(Sums):
        def run(self, cell, out):
            if cell.name == "n2":
                raise KeyboardInterrupt
            return super().run(cell, out)

    with pytest.raises(KeyboardInterrupt):
        run(Stopped(1, 2, 3), tmp_path)
    assert report(tmp_path)["done"] == ["n1"]
    again = Sums(1, 2, 3)
    run(again, tmp_path)
    assert again.ran == ["n2", "n3"]


def test_a_cell_that_fails_is_shown_and_takes_no_other_down(tmp_path):
    lines = run(Sums(1, 2, 3, broken=(2,)), tmp_path)
    assert any(line.startswith("failed: n2: 2; wanted another number") for line in lines)
    content = report(tmp_path)
    assert content["done"] == ["n1", "n3"] and "another number" in content["failed"]["n2"]
    assert "the cell n2 failed: 2" in (tmp_path / "study.html").read_text()
    assert StudyFolder(Sums(1, 2, 3), tmp_path).failed.keys() == {"n2"}
    again = Sums(1, 2, 3)
    run(again, tmp_path)
    assert again.ran == ["n2"] and report(tmp_path)["failed"] == {}


def test_a_cell_that_is_tried_again_and_stopped_has_not_failed(tmp_path):
    class Stopped(Sums):
        def run(self, cell, out):
            raise CellStopped(15)

    run(Sums(1, broken=(1,)), tmp_path)
    assert StudyFolder(Stopped(1), tmp_path).run_cells(MACHINE, str) == 15
    assert report(tmp_path)["failed"] == {} and not StudyFolder(Sums(1), tmp_path).failed


def test_a_page_that_fails_ends_no_cell(tmp_path, monkeypatch):
    class Early(Sums):
        def page(self, done):
            if len(done) < 3:
                raise KeyError("n3")
            return super().page(done)

    monkeypatch.setattr("aha.studies.study_frame.WRITE_EVERY_S", -1.0)
    lines = run(Early(1, 2, 3), tmp_path)
    assert lines.count("no page yet: KeyError: 'n3'") == 2
    assert report(tmp_path)["done"] == ["n1", "n2", "n3"]


def test_time_and_money_are_said_before(tmp_path):
    run(Sums(1), tmp_path)
    folder = StudyFolder(Sums(1, 2, 3), tmp_path)
    assert folder.plan_lines(MACHINE) == ["n1: done", "n2: 2 s", "n3: 2 s"]
    seconds = folder.planned_seconds(folder.to_do, MACHINE)
    assert seconds == 4.0 and MACHINE.cost(seconds).usd == pytest.approx(0.004)


def test_a_folder_of_other_settings_is_refused(tmp_path):
    run(Sums(1), tmp_path)
    with pytest.raises(RunError, match="made with shared 10, and not 11.*--out ANOTHER"):
        StudyFolder(Sums(1, shared=11), tmp_path)


def test_the_page_of_another_study_is_not_written_over(tmp_path):
    run(Sums(1), tmp_path)
    other = Sums(2)
    other.name = "differences"
    with pytest.raises(RunError, match="has the study sums; wanted .*differences.*--out ANOTHER"):
        StudyFolder(other, tmp_path)
    assert report(tmp_path)["study"] == "sums"
    for text in ("{", "[]"):  # a page is made again from the cells
        (tmp_path / "study.json").write_text(text)
        run(Sums(1), tmp_path)
        assert report(tmp_path)["done"] == ["n1"]


def test_a_cell_that_began_with_other_settings_is_not_gone_on_with(tmp_path):
    """What it has trained below OUT/runs is of those settings."""
    run(Sums(1, broken=(1,)), tmp_path)
    with pytest.raises(RunError, match="n1.begun was made with shared 10, and not 11"):
        StudyFolder(Sums(1, shared=11), tmp_path)


def test_the_clock_counts_every_try_once_and_the_plan_is_that_of_before(tmp_path):
    class Slow(Sums):
        plan = 4.0

        def seconds_of(self, cell, card):
            return self.plan

        def run(self, cell, out):
            time.sleep(0.05)
            if not self.ran:
                self.ran.append(cell.name)
                raise CellStopped(15)
            return super().run(cell, out)

    study = Slow(1, 2)
    assert StudyFolder(study, tmp_path).run_cells(MACHINE, str) == 15
    assert 0.05 <= report(tmp_path)["seconds"] < 2.0
    study.plan = 9.0  # as where a base is there by now
    run(study, tmp_path)
    content = report(tmp_path)
    assert 0.15 <= content["seconds"] < 4.0 and content["cpu_seconds"] > 0
    assert content["planned_seconds_of_done"] == 4.0 + 9.0
    assert "minutes by the clock" in (tmp_path / "study.html").read_text()
    assert clock_seconds([(5.0, 7.0), (0.0, 2.0), (1.0, 3.0), (1.5, 2.5)]) == 5.0


def test_a_result_of_an_older_version_keeps_its_time_where_no_other_ran_beside_it(tmp_path):
    run(Sums(1), tmp_path)
    path = tmp_path / "cells" / "n1.json"
    stored = json.loads(path.read_text())
    older = {key: stored[key] for key in ("settings", "result")} | {"seconds": 7.5}
    for processes, seconds, words in ((1, 7.5, "in 0.1 minutes"), (2, None, "cells are done (th")):
        path.write_text(json.dumps(older | {"processes": processes}))
        run(Sums(1), tmp_path)
        content = report(tmp_path)
        assert content["done"] == ["n1"] and content["seconds"] == seconds
        assert (content["usd"] is None) == (seconds is None)
        assert words in (tmp_path / "study.html").read_text()


def test_a_damaged_result_is_refused_with_its_name(tmp_path):
    run(Sums(1), tmp_path)
    path = tmp_path / "cells" / "n1.json"
    for text in ("{", "[]", "{}"):
        path.write_text(text)
        with pytest.raises(RunError, match="n1.json, which is no result.*rm"):
            StudyFolder(Sums(1), tmp_path)
    path.unlink()
    run(Sums(1), tmp_path)


def test_a_result_that_cannot_be_read_is_not_one_to_remove(tmp_path, monkeypatch):
    run(Sums(1), tmp_path)

    def refused(path, **more):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.read_text", refused)
    with pytest.raises(PermissionError) as raised:
        CellFiles(tmp_path).read(Sums(1).cells[0])
    assert "fix: change its permissions" in str(as_user_error(raised.value))


def test_two_processes_do_not_work_in_one_folder(tmp_path):
    lock = RunLock(tmp_path)
    try:
        with pytest.raises(RunError):
            run(Sums(1), tmp_path)
    finally:
        lock.release()


def test_cells_that_differ_in_more_than_the_study_varies_are_refused():
    one, other = Sums(1).cells[0], Sums(2, shared=11).cells[0]
    with pytest.raises(ConfigError, match="shared 10 in n1 and 11 in n2.*n, seed alone"):
        check_cells([one, other])
    with pytest.raises(ConfigError, match="the cell n1 twice"):
        check_cells([one, one])
    with pytest.raises(ConfigError, match="the cell same twice"):
        check_cells([one, replace(one, name="same")])
    with pytest.raises(ConfigError, match="without cells"):
        check_cells([])
