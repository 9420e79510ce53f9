"""Checkpoints: whole or not at all, the newest kept, damage reported."""

from pathlib import Path

import pytest
import torch

from aha.core.errors import RunError
from aha.store.checkpoint import checkpoints, latest_checkpoint, load_state, save_checkpoint


def save(folder: Path, step: int, keep_last: int = 2, write=None) -> Path:
    def model(partial: Path) -> None:
        (partial / "model.txt").write_text(f"weights of step {step}")

    state = {"version": step, "weights": torch.full((100,), float(step))}
    return save_checkpoint(folder, step, state, write or model, keep_last)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_comes_back_bit_for_bit(tmp_path):
    path = save(tmp_path, 20)
    assert path == latest_checkpoint(tmp_path) == tmp_path / "step_000020"
    state = load_state(path)
    assert state["version"] == 20 and torch.equal(state["weights"], torch.full((100,), 20.0))
    assert (path / "model.txt").read_text() == "weights of step 20"


def test_only_the_newest_are_kept(tmp_path):
    for step in (5, 10, 15, 20):
        save(tmp_path, step, keep_last=2)
    assert names(tmp_path) == ["step_000015", "step_000020"]
    save(tmp_path, 25, keep_last=1)
    assert names(tmp_path) == ["step_000025"]


def test_the_newest_is_the_highest_step_not_the_last_written(tmp_path):
    for step in (100, 9, 20):
        save(tmp_path, step, keep_last=5)
    assert latest_checkpoint(tmp_path).name == "step_000100"


def test_a_save_that_dies_leaves_the_earlier_ones_in_force(tmp_path):
    save(tmp_path, 5)

    def die(partial: Path) -> None:
        (partial / "model.txt").write_text("half of the wei")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, 10, write=die)
    assert latest_checkpoint(tmp_path).name == "step_000005"
    # What it left behind is no obstacle to the next attempt.
    save(tmp_path, 10)
    assert names(tmp_path) == ["step_000005", "step_000010"]
    assert (latest_checkpoint(tmp_path) / "model.txt").read_text() == "weights of step 10"


def test_a_step_saved_again_replaces_the_old_one(tmp_path):
    save(tmp_path, 5)
    save(tmp_path, 5, write=lambda partial: (partial / "model.txt").write_text("anew"))
    assert names(tmp_path) == ["step_000005"]
    assert (latest_checkpoint(tmp_path) / "model.txt").read_text() == "anew"


def test_a_folder_without_its_state_is_no_checkpoint(tmp_path):
    save(tmp_path, 5)
    (tmp_path / "step_000010").mkdir()
    assert [path.name for path in checkpoints(tmp_path)] == ["step_000005"]


def test_no_checkpoint_at_all_is_an_error(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(RunError, match="no checkpoint in"):
            latest_checkpoint(folder)


@pytest.mark.parametrize("keep", [0, 1, 200, 900])
def test_a_state_that_was_cut_off_is_an_error_that_names_it(tmp_path, keep):
    path = save(tmp_path, 5) / "trainer.pt"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(RunError, match="trainer.pt") as caught:
        load_state(path.parent)
    assert "\n" not in str(caught.value)


def test_a_state_that_would_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return print, ("code ran",)

    path = save(tmp_path, 5)
    torch.save({"version": Evil()}, path / "trainer.pt")
    with pytest.raises(RunError, match="trainer.pt") as caught:
        load_state(path)
    assert "\n" not in str(caught.value)


def test_a_reader_of_a_damaged_model_is_told_which_one_is_whole(tmp_path):
    for step in (5, 10):
        save(tmp_path, step)
    (tmp_path / "step_000010" / "trainer.pt").write_bytes(b"")  # of no use to a reader
    assert latest_checkpoint(tmp_path).name == "step_000010"
    (tmp_path / "step_000010" / "model.txt").write_text("weights of step 1O")
    with pytest.raises(RunError, match="model.txt is not what was written.*step_000005, which is"):
        latest_checkpoint(tmp_path)


def test_steps_are_numbers_and_not_words(tmp_path):
    for step in (999_999, 1_000_000):
        save(tmp_path, step, keep_last=5)
    save(tmp_path, 7, keep_last=5).rename(tmp_path / "step_mine")
    assert [path.name for path in checkpoints(tmp_path)] == ["step_999999", "step_1000000"]
