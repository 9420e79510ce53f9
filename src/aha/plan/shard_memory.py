"""The memory of one of several ranks whose models are in shards, and when shards are needed.

In shards a rank has its part of the weights, their gradients and the optimiser's state. While a
layer computes its weights are there as a whole, and those of the next one are on their way; the
embedding and the head are there as a whole in the forward and in the backward pass. The matrices
that norms are folded into stay until the backward pass, as without shards. The engine has a whole
copy, which shares nothing with the shards. Nothing of this has been compared with a measurement on
several GPUs.
"""

from dataclasses import replace

from aha.plan.estimate import Plan, generation_bytes, trained_parameters
from aha.plan.speed import Workload

CUT = ("weights", "gradients", "optimiser", "reference")  # parts of a plan that shards divide
LAYERS_GATHERED = 2  # that which computes, and the next


def plan_in_shards(load: Workload, plan: Plan, ranks: int) -> Plan:
    """The plan of one of `ranks` ranks, from that of a rank with whole models. One rank: the same
    plan."""
    if ranks == 1:
        return plan
    shape, lora = load.shape, bool(load.cfg.model.lora_rank)
    memory, width = dict(plan.memory), 4.0  # bytes of a weight in shards
    models = load.decoders + load.method.reference
    trained = trained_parameters(load.cfg, shape)
    if lora:
        # Each model has shards of its own of the frozen weights; what trains is whole.
        whole = 4.0 * trained * load.decoders
        width = (memory["weights"] - whole) / shape.parameters
        memory["weights"] = whole + width * shape.parameters * models / ranks
    else:
        memory |= {part: memory[part] / ranks for part in CUT}
    ends = shape.V * shape.C * (1 if shape.tied else 2)
    layer = (shape.parameters - ends) / shape.L
    memory["folded weights"] += width * (LAYERS_GATHERED * layer + ends)
    copied = plan.memory["generation weights"]
    memory["generation weights"] = max(copied, generation_bytes(shape, 0)) + width * max(
        layer, ends
    )
    return replace(plan, memory=memory)
