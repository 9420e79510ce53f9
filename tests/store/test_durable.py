"""A process that dies at any moment of a write leaves the old or the new content, never half."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from aha.core.errors import RunError
from aha.store.checkpoint import checkpoints, newest_whole, save_checkpoint
from aha.store.durable import disk_errors, recover, replace_folder
from aha.store.run_folder import Run, append, read_rows, truncate_after

from ..dying import deaths, in_child


def save(folder: Path, step: int, keep_last: int = 2, text: str = "") -> Path:
    def model(partial: Path) -> None:
        (partial / "config.json").write_text(text or f"model of step {step}")

    return save_checkpoint(folder, step, {"step": torch.tensor(step)}, model, keep_last)


def fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def test_a_save_that_dies_costs_at_most_its_own_step(tmp_path):
    folder, steps = tmp_path / "checkpoints", []

    def prepare() -> None:
        fresh(folder)
        for step in (2, 4):
            save(folder, step)

    for call in deaths(lambda: save(folder, 6), prepare):
        saved = newest_whole(folder)
        assert saved.step in (4, 6) and saved.damaged == [], call
        assert int(saved.state["step"]) == saved.step
        steps.append(saved.step)
        # Of two that are kept one is always whole, whatever step a removal was in.
        assert len(checkpoints(folder)) >= 2 or saved.step == 6
        save(folder, 8)
        assert sorted(p.name for p in folder.iterdir())[-1] == "step_000008"
        assert not [p for p in folder.iterdir() if p.name.startswith(".")]
    assert steps == sorted(steps) and {*steps} == {4, 6} and len(steps) > 15


def test_a_step_that_is_saved_again_is_never_lost(tmp_path):
    """With one checkpoint kept there is nothing to fall back to."""
    folder, texts = tmp_path / "checkpoints", []

    def prepare() -> None:
        save(fresh(folder), 4, 1, "old")

    for call in deaths(lambda: save(folder, 4, 1, "new"), prepare):
        saved = newest_whole(folder)
        assert saved.step == 4, call
        texts.append((saved.path / "config.json").read_text())
    # Between the two renames the old one is taken back, which is why "old" may come last but one.
    assert {*texts} == {"old", "new"} and texts[-1] == "new"


def test_a_model_is_the_old_or_the_new_one(tmp_path):
    model, texts = tmp_path / "run" / "model", []

    def write(text: str):
        def files(folder: Path) -> None:
            for name in "ab":
                (folder / name).write_text(text)

        return lambda: replace_folder(model, files)

    def prepare() -> None:
        fresh(model.parent)
        write("old")()

    for _ in deaths(write("new"), prepare):
        recover(model.parent)
        texts.append({path.read_text() for path in model.iterdir()})
        assert len([*model.iterdir()]) == 2
    assert all(len(text) == 1 for text in texts) and texts[-1] == {"new"}


def test_a_run_is_made_whole_or_not_at_all(tmp_path, monkeypatch):
    path, there = tmp_path / "runs" / "mine", []
    monkeypatch.setattr("aha.store.run_folder.environment", lambda: {"commit": "abc"})

    def make() -> None:
        Run.create(path, {"seed": 1}, {"prediction.json": {"seconds": 2.0}})

    for _ in deaths(make, lambda: shutil.rmtree(path.parent, ignore_errors=True)):
        there.append(path.exists())
        if path.exists():
            run = Run.open(path)
            assert run.read("config.json") == {"seed": 1} and run.read("environment.json")
            assert run.read("prediction.json") and run.completions.is_dir()
    assert there == sorted(there) and {*there} == {False, True}


def test_rows_are_cut_or_not(tmp_path):
    path, counts = tmp_path / "metrics.jsonl", []

    def prepare() -> None:
        path.unlink(missing_ok=True)
        append(path, [{"step": step} for step in range(1, 7)])

    for _ in deaths(lambda: truncate_after(path, "step", 4), prepare):
        counts.append(len(list(read_rows(path))))
    assert {*counts} == {4, 6} and counts[-1] == 4


def test_two_that_begin_a_run_of_one_name_make_one(tmp_path, monkeypatch):
    path = tmp_path / "mine"
    monkeypatch.setattr("aha.store.run_folder.check_new", lambda path: None)  # both have looked
    Run.create(path, {"seed": 1})
    with pytest.raises(RunError, match="exists already"):
        Run.create(path, {"seed": 2})
    assert json.loads((path / "config.json").read_text()) == {"seed": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


# -- damage ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["trainer.pt", "config.json", "SHA256SUMS"])
def test_one_flipped_bit_is_noticed_and_an_older_checkpoint_taken(tmp_path, name):
    for step in (2, 4):
        save(tmp_path, step)
    path = tmp_path / "step_000004" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    saved = newest_whole(tmp_path)
    assert saved.step == 2 and len(saved.damaged) == 1
    # The damaged one is out of the way of what comes, and goes when there is a new one.
    assert [p.name for p in checkpoints(tmp_path)] == ["step_000002"]
    save(tmp_path, 4)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step_000002", "step_000004"]


@pytest.mark.parametrize("name", ["trainer.pt", "config.json", "SHA256SUMS"])
@pytest.mark.parametrize("content", [None, b"", b"x"])
def test_a_file_that_is_lost_or_cut_is_noticed(tmp_path, name, content):
    for step in (2, 4):
        save(tmp_path, step)
    path = tmp_path / "step_000004" / name
    path.unlink() if content is None else path.write_bytes(content)
    assert newest_whole(tmp_path).step == 2


def test_a_file_that_nobody_wrote_is_noticed(tmp_path):
    path = save(tmp_path, 2)
    (path / "model-00001-of-00002.safetensors").write_text("of another model")
    with pytest.raises(RunError, match="model-00001-of-00002.safetensors is not in SHA256SUMS"):
        newest_whole(tmp_path)


def test_checkpoints_of_before_there_were_checksums_are_read(tmp_path):
    folder = tmp_path / "step_000003"
    folder.mkdir()
    torch.save({"step": 3}, folder / "trainer.pt")
    assert newest_whole(tmp_path).state == {"step": 3}
    assert newest_whole(tmp_path / "nowhere") is None


def test_sha256sum_reads_the_checksums(tmp_path):
    import subprocess

    path = save(tmp_path, 2)
    check = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    assert subprocess.run(check, cwd=path, capture_output=True).returncode == 0


def test_a_full_disk_leaves_the_older_checkpoints(tmp_path):
    """The limit on the size of a file stands in for the disk: torch and safetensors hide both."""
    from safetensors.torch import save_file

    save(tmp_path, 2)

    def fill(write) -> None:
        import resource
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        with pytest.raises(RunError, match="cannot save the checkpoint of step 4.*too large"):
            write()

    big = {"weights": torch.zeros(10_000)}
    by_torch = lambda: save_checkpoint(tmp_path, 4, big, lambda folder: None, 1)  # noqa: E731
    model = lambda folder: save_file(big, folder / "model.safetensors")  # noqa: E731
    for write in (by_torch, lambda: save_checkpoint(tmp_path, 4, {}, model, 1)):
        assert in_child(lambda write=write: fill(write)) == 0
        assert [path.name for path in tmp_path.iterdir()] == ["step_000002"]
    assert newest_whole(tmp_path).step == 2


def test_rows_that_the_disk_does_not_take_leave_no_half_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    append(path, [{"step": 1}])

    def fill() -> None:
        import resource
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, 1_000))
        with pytest.raises(RunError, match="cannot write .*metrics.jsonl"):
            append(path, [{"step": 2, "text": "x" * 2_000}])

    assert in_child(fill) == 0
    assert path.read_text() == '{"step": 1}\n'


def test_json_holds_no_number_that_is_none(tmp_path):
    run = Run.create(tmp_path / "run", {})
    append(run.metrics, [{"loss": float("nan"), "parts": [float("inf"), 1.5]}])
    run.write("summary.json", {"gain": float("-inf")})
    assert run.metrics.read_text() == '{"loss": null, "parts": [null, 1.5]}\n'
    assert run.read("summary.json") == {"gain": None}


def test_a_run_that_was_removed_is_named_and_not_begun_anew(tmp_path):
    """It said that the disk was full, and the next checkpoint made a folder of the old name."""
    run = tmp_path / "run"
    run.mkdir()
    append(run / "metrics.jsonl", [{"step": 1}])
    run.rename(tmp_path / "elsewhere")
    for write in (
        lambda: append(run / "metrics.jsonl", [{"step": 2}]),
        lambda: save(run / "checkpoints", 2),
    ):
        with pytest.raises(RunError, match="removed or renamed meanwhile") as error:
            write()
        assert error.value.fix == "give the folder its name back, or begin anew"
    assert not run.exists()


def test_each_fault_of_the_disk_has_its_own_fix():
    def told(number: int, kept: str = "") -> RunError:
        with pytest.raises(RunError) as error, disk_errors("write it", kept):
            raise OSError(number, os.strerror(number))
        return error.value

    assert "df -h" in told(errno.ENOSPC).fix and "df -h" not in told(errno.EIO).fix
    assert "chmod" in told(errno.EROFS).fix and "chmod" in told(errno.EACCES).fix
    whole = "the older ones are whole"
    assert told(errno.EDQUOT, whole).fix.endswith(f"; {whole}")
    assert whole not in told(errno.ENOENT, whole).fix
