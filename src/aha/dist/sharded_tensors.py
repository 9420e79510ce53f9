"""Tensors that lie in shards: each rank has a part of them, and no rank has the whole.

What other rooms call of that, for any tensor or module: one that is whole is left as it is, so that
they need not know which it is. Imports nothing of torch.distributed, which takes a second.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


def in_shards(tensor: torch.Tensor) -> bool:
    """Whether this rank has a part of the tensor alone."""
    return hasattr(tensor, "full_tensor")


def own_part(tensor: torch.Tensor) -> torch.Tensor:
    """What this rank has of a tensor; itself where it is whole. Sends nothing."""
    to_local = getattr(tensor, "to_local", None)
    if to_local is None:
        return tensor
    part: torch.Tensor = to_local()
    return part


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor as a whole, from the shards of all ranks; itself where it is whole already.

    Every rank must call it for the same tensors in the same order.
    """
    gather = getattr(tensor, "full_tensor", None)
    if gather is None:
        return tensor
    gathered: torch.Tensor = gather()
    return gathered


@contextmanager
def own_tensors_whole(module: nn.Module) -> Iterator[None]:
    """Meanwhile the module's own tensors are whole, which are all but those of blocks in it that
    are in shards of their own. Every rank must do it for the same modules in the same order."""
    unshard, reshard = getattr(module, "unshard", None), getattr(module, "reshard", None)
    if unshard is None or reshard is None:
        yield
        return
    unshard()
    try:
        yield
    finally:
        reshard()
