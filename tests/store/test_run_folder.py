"""The run folder: made once, written whole, and read back with clear complaints."""

import json
import os
import threading

import pytest

from aha.core.errors import RunError
from aha.store.run_folder import Run, environment


@pytest.fixture
def run(tmp_path) -> Run:
    return Run.create(tmp_path / "runs" / "first", {"seed": 3})


def test_create_makes_the_folders_and_says_what_ran(run):
    # code.diff is there where this source tree differs from its commit.
    assert {path.name for path in run.path.iterdir()} - {"code.diff"} == {
        "packages.txt",
        "config.json",
        "environment.json",
        "completions",
        "checkpoints",
    }
    assert run.name == "first" and run.read("config.json") == {"seed": 3}
    assert run.read("environment.json")["packages"]["torch"]


def test_open_finds_the_same_run(run):
    again = Run.open(run.path)
    assert (again.path, again.metrics, again.model) == (run.path, run.metrics, run.model)


def test_a_name_that_is_taken_is_refused_and_nothing_is_touched(run):
    (run.path / "metrics.jsonl").write_text("precious")
    with pytest.raises(RunError, match="exists already") as caught:
        Run.create(run.path, {"seed": 4})
    assert "--name first-2" in str(caught.value) and f"--resume {run.path}" in str(caught.value)
    assert run.read("config.json") == {"seed": 3}
    assert run.metrics.read_text() == "precious"


def test_an_empty_folder_counts_as_taken(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match="exists already"):
        Run.create(tmp_path / "empty", {})


def test_what_a_dead_process_began_to_make_goes_with_the_next_run_of_its_name(tmp_path):
    old, new = tmp_path / ".partial_mine_99999998", tmp_path / ".partial_mine_99999999"
    for folder in (old, new):
        folder.mkdir()
    os.utime(old, (0, 0))
    Run.create(tmp_path / "mine", {})
    # Another process may be making the new one just now.
    assert {path.name for path in tmp_path.iterdir()} == {"mine", new.name}


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_open_refuses_what_is_no_run(tmp_path, name):
    with pytest.raises(RunError, match="no run in"):
        Run.open(tmp_path / name)


def test_write_replaces_the_whole_file_and_leaves_no_scrap(run):
    run.write("summary.json", {"long": "x" * 1000})
    run.write("summary.json", {"short": 1})
    assert run.read("summary.json") == {"short": 1}
    assert not list(run.path.glob("*.partial"))


def test_a_write_that_fails_leaves_the_old_file(run):
    run.write("summary.json", {"good": 1})
    with pytest.raises(TypeError):
        run.write("summary.json", {"bad": {1, 2}})
    assert run.read("summary.json") == {"good": 1}


def test_a_reader_never_meets_half_a_file(run):
    """One thread writes without pause, the other only ever reads whole objects."""
    run.write("state.json", {"rows": [0] * 2000})
    done = threading.Event()

    def write() -> None:
        for value in range(200):
            run.write("state.json", {"rows": [value] * 2000})
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        assert len(set(run.read("state.json")["rows"])) == 1
    writer.join()


@pytest.mark.parametrize("content", [None, "", "{", '{"seed": 3', "\x00"])
def test_a_damaged_file_is_an_error_that_names_it(run, content):
    path = run.path / "config.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(RunError, match="config.json"):
        run.read("config.json")


def test_the_environment_can_be_written_and_knows_the_machine():
    found = json.loads(json.dumps(environment()))
    assert {"python", "platform", "machine", "cores", "commit", "packages"} <= found.keys()
    assert found["cores"] >= 1 and found["machine"]
