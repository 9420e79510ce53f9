"""Tensors in shards as files, in a world of one process: what more ranks do with them is in
`tests/training/test_sharded_trainer.py`."""

from datetime import timedelta

import pytest
import torch

from aha.core.errors import RunError
from aha.dist.local_ranks import can_meet

needs_gloo = pytest.mark.skipif(not can_meet(), reason="this torch has no gloo")


@pytest.fixture(scope="module")
def mesh(tmp_path_factory):
    from torch import distributed

    from aha.dist.sharded_model import make_mesh

    store = distributed.FileStore(str(tmp_path_factory.mktemp("store") / "meeting"), 1)
    distributed.init_process_group(
        "gloo", store=store, rank=0, world_size=1, timeout=timedelta(seconds=60)
    )
    yield make_mesh(torch.device("cpu"))
    distributed.destroy_process_group()


def state_of(mesh):
    """As a trainer has it: numbers by parameter, settings, counts."""
    from aha.dist.sharded_model import own_shard

    moments = {
        index: {"step": torch.tensor(3.0), "exp_avg": own_shard(torch.arange(6.0) + index, mesh)}
        for index in range(2)
    }
    groups = [{"lr": 0.1, "betas": (0.9, 0.95), "params": [0, 1]}]
    return {"optimizer": {"state": moments, "param_groups": groups}, "version": 7, "pool": [1, 2]}


@needs_gloo
def test_what_is_in_shards_leaves_a_note_and_comes_back_whole(mesh, tmp_path):
    from aha.dist.shard_files import read_shards, with_shards, without_shards, write_shards
    from aha.dist.sharded_model import empty_shard
    from aha.dist.sharded_tensors import in_shards, whole

    light, shards = without_shards(state_of(mesh))
    assert list(shards) == ["optimizer/state/0/exp_avg", "optimizer/state/1/exp_avg"]
    note = light["optimizer"]["state"][1]["exp_avg"]
    assert note == {"in_shards": "optimizer/state/1/exp_avg", "shape": [6], "dtype": "float32"}
    # What it does not touch keeps its type: the state of a whole trainer is saved as it was.
    assert light["optimizer"]["param_groups"][0]["betas"] == (0.9, 0.95)
    torch.save(light, tmp_path / "trainer.pt")
    light = torch.load(tmp_path / "trainer.pt", weights_only=True)
    folder = tmp_path / "shards"
    write_shards(shards, folder, mesh.get_group())
    tensors = read_shards(light, folder, lambda shape, dtype: torch.empty(shape, dtype=dtype))
    state = with_shards(light, tensors)
    assert state["version"] == 7 and state["pool"] == [1, 2]
    for index in range(2):
        moment = state["optimizer"]["state"][index]["exp_avg"]
        assert not in_shards(moment) and moment.tolist() == [index + i for i in range(6)]
    again = read_shards(
        light, folder, lambda shape, dtype: empty_shard(shape, dtype, mesh), mesh.get_group()
    )
    moment = again["optimizer/state/1/exp_avg"]
    assert in_shards(moment) and whole(moment).tolist() == [1 + i for i in range(6)]


@needs_gloo
def test_files_that_are_not_there_or_not_whole_are_an_error_by_name(mesh, tmp_path):
    from aha.dist.shard_files import read_shards, without_shards, write_shards

    light, shards = without_shards(state_of(mesh))

    def place(shape, dtype):
        return torch.empty(shape, dtype=dtype)

    with pytest.raises(RunError, match=str(tmp_path / "nothing")):
        read_shards(light, tmp_path / "nothing", place)
    with pytest.raises(RunError, match="rank 0 does not see .*; wanted a run folder on a disk"):
        write_shards(shards, tmp_path / "another machine" / "shards", mesh.get_group())
    assert not (tmp_path / "another machine").exists()
    folder = tmp_path / "shards"
    write_shards(shards, folder, mesh.get_group())
    for path in folder.glob("__*"):
        path.unlink()
    with pytest.raises(RunError, match=r"shards: .*; wanted the shards of all ranks"):
        read_shards(light, folder, place)


@needs_gloo
def test_a_disk_that_is_full_is_the_disks_own_error(mesh, tmp_path):
    from aha.dist.shard_files import without_shards, write_shards

    (tmp_path / "shards").write_text("a file where the folder has to be")
    with pytest.raises(OSError):
        write_shards(without_shards(state_of(mesh))[1], tmp_path / "shards", mesh.get_group())


@needs_gloo
def test_own_tensors_are_whole_meanwhile_and_in_shards_again(mesh):
    from aha.dist.sharded_model import shard_model
    from aha.dist.sharded_tensors import in_shards, own_tensors_whole, whole

    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    plain = [weight.detach().clone() for weight in model.parameters()]
    with own_tensors_whole(model):  # of a whole model nothing changes
        assert not any(map(in_shards, model.parameters()))
    kept = list(model[1].parameters())
    shard_model(model, [model[0]], mesh, kept[1:])
    flags = [in_shards(weight) for weight in model.parameters()]
    assert flags == [True, True, True, False]  # the last one is left whole
    with own_tensors_whole(model[0]):
        assert not in_shards(model[0].weight) and in_shards(model[1].weight)
    assert in_shards(model[0].weight)
    for weight, was in zip(model.parameters(), plain, strict=True):
        assert torch.equal(whole(weight).detach(), was)
