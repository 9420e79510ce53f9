import json
import os

import pytest

from aha.core.errors import RunError
from aha.doctor.damaged_files import damaged_files
from aha.doctor.run_checks import diagnose
from aha.doctor.run_files import RunRecords

from ..web.conftest import make_run


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "runs" / "demo")


def test_a_whole_run_has_no_damaged_file(run):
    assert damaged_files(run) == []


def test_damage_is_told_in_one_warning(run):
    with (run / "metrics.jsonl").open("a") as out:
        out.write('nonsense\n{"step": 6, "loss": NaN}\n')
    (run / "evals.jsonl").unlink()
    os.mkfifo(run / "evals.jsonl")
    (run / "before.json").write_text("{half")
    (finding,) = damaged_files(run)
    assert finding.level == "warn" and finding.check == "files" and finding.fix
    for words in (
        "1 no JSON",
        "1 values of loss",
        "evals.jsonl is a FIFO",
        "before.json is damaged",
    ):
        assert words in finding.message


def test_the_doctor_tells_it_with_all_else(run):
    with (run / "metrics.jsonl").open("a") as out:
        out.write("nonsense\n")
    assert [f.check for f in diagnose(run)].count("files") == 1


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "evals.jsonl", "before.json"])
@pytest.mark.parametrize("target", ["/dev/zero", "../../secret"])
def test_the_doctor_reads_nothing_outside_of_the_run(run, tmp_path, name, target):
    (tmp_path / "secret").write_text('{"secret": 1}\n')
    (run / name).unlink()
    (run / name).symlink_to(target)
    with pytest.raises(RunError, match=rf"{name} leads out of its folder|no run in"):
        RunRecords.read(run)


@pytest.mark.parametrize(
    "model", [[], "x", {"path": []}, {"path": 5}, {"path": 10**400}, {"path": "\0"}, None]
)
def test_a_config_of_wrong_types_is_no_traceback(run, model):
    (run / "config.json").write_text(json.dumps({"model": model, "task": 3, "optim": [1]}))
    assert diagnose(run)
