"""The tests before and after a training belong to that training."""

import json
import shutil

from aha.distill.tested_training import TrainingTests
from aha.eval.suite import EvalSettings
from aha.store.run_folder import Run


def trained(path, model) -> None:
    """A finished run whose model is a copy of this one."""
    config = {"kind": "sft", "data": "examples.jsonl", "steps": 1}
    Run.create(path, config | {"usd_per_hour": 0.1, "watts": 1.0})
    Run(path).write("summary.json", {"before": None, "after": None, "seconds": 1.0})
    shutil.copytree(model, path / "model")


def test_a_training_that_begins_anew_is_tested_anew(student, tmp_path):
    folder, run = tmp_path / "data" / "one", tmp_path / "runs" / "one"
    settings = EvalSettings("countdown", {}, "test", 3, 0, 1, 1.0, 8)
    tests = TrainingTests(folder, run, settings)
    tests.before(str(student))
    trained(run, student)
    first = tests.after()
    assert first.after["solve_rate"] == 0.0
    (folder / "after.json").write_text(json.dumps({**first.after, "solve_rate": 1.0}))
    # With its run the test stays: it is made once.
    tests.before(str(student))
    assert tests.after().after["solve_rate"] == 1.0
    shutil.rmtree(run)
    tests.before(str(student))
    trained(run, student)
    assert tests.after().after["solve_rate"] == 0.0
    assert Run(run).read("after.json")["solve_rate"] == 0.0
    # What was measured of the run that has gone is kept.
    assert json.loads((folder / "earlier_after.json").read_text())["solve_rate"] == 1.0
    assert (folder / "earlier_after.jsonl").is_file() and (folder / "earlier_change.json").is_file()
