"""A recipe with a model's shape, as the callers of the plan put them together."""

from aha.algo.algorithms import method_of
from aha.core.config import RunConfig
from aha.plan.shapes import Shape
from aha.plan.speed import Workload


def workload(cfg: RunConfig, shape: Shape) -> Workload:
    return Workload(cfg, method_of(cfg), shape)
