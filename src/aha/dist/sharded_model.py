"""Models in shards: FSDP2 of torch, as the rest of the program needs it.

Each rank has a part of every weight, of its gradient and of its optimiser state. A block's weights
are gathered before it computes, forward and backward, and freed after it; a gradient is added up
over the ranks and cut again. So every rank must compute as many micro-batches as the others
(`World.rounds`).

Source: ZeRO stage 3 (arXiv 1910.02054), FSDP (arXiv 2304.11277); `torch.distributed.fsdp`.
"""

import warnings
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Shard, distribute_tensor, empty

from aha.dist.process_group_world import MEETING

# The warning is about changes in place of what a model returns. Nothing here makes any.
VIEW_WARNING = "FSDP2-wrapped module .* returned a view tensor"


def make_mesh(device: torch.device, device_group: Any = None) -> DeviceMesh:
    """All ranks of this run in a row, on this kind of device. All must call it together.

    They meet in the process group of the device (`World.device_group`); on CPUs, where there is
    none, in one of their own. A rank that is `MEETING` late is an error.
    """
    group = device_group or distributed.new_group(timeout=MEETING)
    return DeviceMesh.from_group(group, device.type)


def shard_model(
    model: nn.Module,
    blocks: Sequence[nn.Module],
    mesh: DeviceMesh,
    left_whole: Collection[nn.Parameter] = (),
    methods: Sequence[str] = (),
) -> None:
    """Put a model in shards, in place: its parameters become others, so an optimiser is made anew.

    `blocks` of the model are gathered one at a time, and what is left of it as one more. Parameters
    `left_whole` stay whole in every rank, and their gradients are not added up. `methods` of the
    model compute as `forward` does; none of them calls another. The weights must be the same in all
    ranks. They are moved to the device of the mesh.
    """
    warnings.filterwarnings("ignore", VIEW_WARNING)
    kept = set(left_whole)
    for module in (*blocks, model):
        # The root too is freed after its forward pass: a model that is only read, as a reference
        # is, would keep its embedding and head whole for ever.
        fully_shard(module, mesh=mesh, reshard_after_forward=True, ignored_params=kept)
        assert isinstance(module, FSDPModule)
        # Gradients are summed, never averaged: the loss is divided by the sums over all ranks. And
        # gloo can only sum.
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)
    device = own_device(mesh)
    for parameter in kept:
        parameter.data = parameter.data.to(device)
    for method in methods:
        register_fsdp_forward_method(model, method)


def own_device(mesh: DeviceMesh) -> torch.device:
    """The device on which this rank computes."""
    if mesh.device_type != "cuda":
        return torch.device(mesh.device_type)
    return torch.device("cuda", torch.cuda.current_device())


def own_shard(tensor: torch.Tensor, mesh: DeviceMesh) -> torch.Tensor:
    """This rank's part of a tensor that all ranks have: nothing is sent."""
    shard: DTensor = distribute_tensor(
        tensor.to(own_device(mesh)), mesh, [Shard(0)], src_data_rank=None
    )
    return shard


def empty_shard(shape: Sequence[int], dtype: torch.dtype, mesh: DeviceMesh) -> torch.Tensor:
    """This rank's part of a tensor whose numbers come later."""
    shard: DTensor = empty(tuple(shape), dtype=dtype, device_mesh=mesh, placements=[Shard(0)])
    return shard
