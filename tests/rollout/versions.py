"""New weights for an engine, with and without telling it."""

import torch

from aha.rollout.engine import Sampling


def before_still_and_after(engine, policy, prompt) -> tuple:
    """Three completions of one seed: by the first weights; when they have moved and the engine was
    not told; and when it was, as version 7."""
    sampling = Sampling(20, seed=1)
    ((before,),) = engine.generate([prompt], sampling)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(0.5)
    ((still,),) = engine.generate([prompt], sampling)
    engine.load(policy, 7)
    ((after,),) = engine.generate([prompt], sampling)
    return before, still, after
