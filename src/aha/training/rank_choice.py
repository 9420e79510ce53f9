"""How many ranks a run takes where nobody gives their number (`--ranks auto`)."""

from aha.core.config import RunConfig
from aha.core.errors import AhaError
from aha.core.sizes import RANK_GROUPS
from aha.dist.local_ranks import choose_ranks
from aha.dist.ray_launcher import Gpus
from aha.machine.device import choose_device
from aha.machine.host import SMALL_MODEL, memory_bytes
from aha.model.folders import PlannedModel
from aha.plan.shapes import Shape, shape_of
from aha.training.preflight import predict_run, with_machine_price

SHARE_OF_MEMORY = 0.5  # that all ranks together may take of what is free


def ranks_for(cfg: RunConfig) -> int:
    """On a CPU with a small model one for each core, as `choose_ranks` says, as long as each has
    its groups and its memory; else 1, also for a model whose shape is not known, and on GPUs.
    Downloads nothing.
    """
    shape = shape_on_disk(cfg.model.path)
    if shape is None or cfg.rollout.engine != "native":
        return 1
    device = choose_device(cfg.model.device, shape.parameters)
    if device.type != "cpu":
        return 1
    most, free = cfg.rollout.prompts // RANK_GROUPS, memory_bytes().free
    if free:
        planned = predict_run(with_machine_price(cfg, device), shape, device)
        most = min(most, int(SHARE_OF_MEMORY * free / planned["peak_bytes"]))
    return choose_ranks(None, device, shape.parameters, most)


def shape_on_disk(name: str) -> Shape | None:
    """The shape of a model that is here, or that the plan knows by its name."""
    try:
        return shape_of(PlannedModel.named(name).shaped)
    except AhaError:
        return None


def gpus_of_workers(model: str, device: str) -> Gpus:
    """Whether workers of a cluster, whose GPUs nobody here can see, compute on them: the rule of
    `choose_device`. A model whose shape is not known is not a small one."""
    if device != "auto":
        return "each" if device == "cuda" else "none"
    shape = shape_on_disk(model)
    return "none" if shape is not None and shape.parameters < SMALL_MODEL else "any"
