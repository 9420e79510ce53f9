"""What ranks on several machines compare before anything is written."""

from pathlib import Path

import pytest

from aha.core.errors import ConfigError, RunError
from aha.dist.world import World
from aha.training.same_run import check_visible, compare


def test_the_first_rank_that_differs_is_named_with_its_values():
    same = {"optim": {"lr": 0.1}, "usd_per_hour": 0.08}
    compare([same, same | {"usd_per_hour": 2.5}], "the same")  # of each machine
    other = {"optim": {"lr": 0.2}, "usd_per_hour": 0.08}
    with pytest.raises(ConfigError, match=r"rank 0 and rank 2 .*: optim\.lr 0\.1 and 0\.2; wanted"):
        compare([same, same, other], "the same")
    with pytest.raises(ConfigError, match="base sha256 aaaaaaaaaaaa and sha256 bbbbbbbbbbbb"):
        compare([{"base": "a" * 64}, {"base": "b" * 64}], "the same")
    many = {f"key{number}": number for number in range(9)}
    with pytest.raises(ConfigError, match="key2 2 and none, and 6 more"):
        compare([many, {}], "the same")


class FarAway(World):
    """Another machine: it has not the disk of rank 0."""

    def broadcast(self, value, source, place):
        return Path("/no-such-disk") / value.name if isinstance(value, Path) else value


def test_a_folder_that_a_rank_cannot_see_is_refused_and_nothing_is_left(tmp_path):
    run = tmp_path / "runs" / "first"
    check_visible(World(), run)
    with pytest.raises(RunError, match=r"rank 0 on .* cannot see '/no-such-disk'") as error:
        check_visible(FarAway(), run)
    assert "shared disk" in error.value.fix
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path):
    run = tmp_path / "runs" / "first"
    run.parent.mkdir()
    run.parent.chmod(0o500)
    try:
        if not _may_write(run.parent):
            with pytest.raises(RunError, match="rank 0 cannot write to"):
                check_visible(World(), run)
    finally:
        run.parent.chmod(0o700)


def _may_write(folder: Path) -> bool:
    """root may write anywhere."""
    try:
        (folder / "x").touch()
    except OSError:
        return False
    return True
