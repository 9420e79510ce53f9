"""A trainer whose models are in shards: how it comes to be, and how its state is saved and loaded.

The trainer is made whole, in the host's memory; then `enter_shards` leaves each rank its part of
every model and optimiser. The steps are those of any trainer. The only imports of FSDP2 and of its
checkpoints are in here, inside functions: they take a second, and most runs need neither.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from aha.model.lora import as_transformer
from aha.store.checkpoint import load_state
from aha.training.critic import CriticEstimator
from aha.training.reference import Reference
from aha.training.rl import RLTrainer

SHARDS = "shards"  # the folder in a checkpoint with the tensors that were in shards
SPREAD_PARTS = ("optimizer", "critic", "reference")  # of a trainer's state


def enter_shards(trainer: RLTrainer, checkpoint: Path | None) -> None:
    """Leave this rank its shards of every model, with the state of the checkpoint if there is one.

    All ranks call it together, with the same weights. With adapters the frozen weights are in
    shards, and what trains stays whole: it is small.
    """
    from aha.dist.sharded_model import make_mesh

    trainer.world.in_shards = trainer.micro_batch.fixed = True
    with trainer.world.joint("the shards"):
        trainer.mesh = make_mesh(trainer.device, trainer.world.device_group)
        shard_policy(trainer.policy, trainer)
        trainer.optimizer.begin_anew(trainer.policy.trainable())
        if isinstance(trainer.reference, Reference):
            shard_policy(trainer.reference.policy, trainer)
        if isinstance(trainer.advantages, CriticEstimator):
            shard_critic(trainer.advantages, trainer)
    if checkpoint is not None:
        state = spread_state(trainer, load_state(checkpoint), checkpoint)
        trainer.load_state_dict(state)
    else:
        trainer.publish()


def shard_policy(policy: Any, trainer: RLTrainer) -> None:
    from aha.dist.sharded_model import shard_model

    blocks = list(as_transformer(policy).model.layers)
    small = small_parameters(policy, trainer)
    shard_model(policy, blocks, trainer.mesh, small, ["logprobs_and_entropy"])


def shard_critic(critic: CriticEstimator, trainer: RLTrainer) -> None:
    from aha.dist.sharded_model import shard_model

    blocks = list(critic.model.decoder.model.layers)
    shard_model(critic.model, blocks, trainer.mesh, small_parameters(critic.model, trainer))
    critic.optimizer.begin_anew(critic.model.trainable())


def small_parameters(model: nn.Module, trainer: RLTrainer) -> list[nn.Parameter]:
    """With adapters: theirs, and the head of a critic beside them. Else none."""
    if trainer.policy.adapter is None:
        return []
    named = model.named_parameters()
    return [weight for name, weight in named if ".lora." in name or name.startswith("head.")]


# -- checkpoints -----------------------------------------------------------------------------------


def light_state(trainer: RLTrainer) -> dict[str, Any]:
    """The trainer's state for `trainer.pt`: of tensors in shards it has notes alone."""
    state = trainer.state_dict()
    if not trainer.world.in_shards:
        return state
    from aha.dist.shard_files import without_shards

    light: dict[str, Any] = without_shards(state)[0]
    return light


def write_own_shards(folder: Path, trainer: RLTrainer) -> None:
    """Write this rank's part of the tensors in shards. All ranks call it together."""
    from aha.dist.shard_files import without_shards, write_shards

    _, shards = without_shards(trainer.state_dict())
    if shards:
        with trainer.world.joint(f"the files in {folder}", watched=False):
            write_shards(shards, folder, trainer.mesh.get_group())


def load_before_shards(
    trainer: RLTrainer, state: Mapping[str, Any], checkpoint: Path, for_shards: bool = False
) -> None:
    """Load the state of a checkpoint, whoever saved it. `for_shards`: how far its run is, and no
    more; the rest comes when the trainer enters its shards."""
    if for_shards:
        trainer.load_progress(state)
    else:
        trainer.load_state_dict(whole_state(state, checkpoint))


def whole_state(state: Mapping[str, Any], checkpoint: Path) -> dict[str, Any]:
    """The state of a checkpoint for a trainer that is whole, whoever saved it."""
    if not (checkpoint / SHARDS).is_dir():
        return dict(state)
    from aha.dist.shard_files import read_shards, with_shards

    tensors = read_shards(state, checkpoint / SHARDS, whole_tensor)
    loaded: dict[str, Any] = with_shards(state, tensors)
    return loaded


def whole_tensor(shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype)


def spread_state(trainer: RLTrainer, state: Mapping[str, Any], checkpoint: Path) -> dict[str, Any]:
    """This rank's part of the state of a checkpoint, whoever saved it: any number of ranks with
    shards, or ranks that were whole. All ranks call it together."""
    from aha.dist.shard_files import read_shards, with_shards
    from aha.dist.sharded_model import empty_shard

    mesh = trainer.mesh
    with trainer.world.joint(f"the files in {checkpoint}", watched=False):
        tensors = read_shards(
            state,
            checkpoint / SHARDS,
            lambda shape, dtype: empty_shard(shape, dtype, mesh),
            mesh.get_group(),
        )
    loaded: dict[str, Any] = with_shards(state, tensors)
    if trainer.policy.adapter is not None:  # what trains is whole
        return loaded
    parts = {name: spread(loaded[name], mesh) for name in SPREAD_PARTS if name in loaded}
    return loaded | parts


def spread(state: Any, mesh: Any) -> Any:
    """The same state with this rank's part of every tensor that is whole; a tensor without
    dimensions, such as a count of updates, stays whole."""
    from aha.dist.sharded_model import own_shard
    from aha.dist.sharded_tensors import in_shards

    if isinstance(state, torch.Tensor):
        return own_shard(state, mesh) if state.dim() and not in_shards(state) else state
    if isinstance(state, Mapping):
        return {key: spread(value, mesh) for key, value in state.items()}
    return state
