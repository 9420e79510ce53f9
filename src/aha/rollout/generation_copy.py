"""The engine of a policy in shards: every rank has a whole copy of its weights for generation.

It is refreshed once a version, layer by layer, and freed while the policy trains. Generation itself
gathers nothing: with the weights in shards every token would be a meeting of all ranks, and the one
whose completions end first would leave the others waiting for ever.
"""

from collections.abc import Callable

from aha.core.records import Completion, Prompt
from aha.model.policy import Policy
from aha.rollout.engine import Engine, Sampling


class GenerationCopy:
    """An `Engine` that is opened with the first weights that it loads: before that the policy is
    not yet where it will train. To load a policy in shards is work of all ranks together."""

    def __init__(self, open_with: Callable[[Policy], Engine]):
        self.open_with = open_with
        self.engine: Engine | None = None

    def load(self, policy: Policy, version: int) -> None:
        if self.engine is None:
            self.engine = self.open_with(policy)
            if version == 0:  # which it has then
                return
        self.engine.load(policy, version)

    def release(self) -> None:
        if self.engine is not None:
            self.engine.release()

    def generate(self, prompts: list[Prompt], sampling: Sampling) -> list[list[Completion]]:
        assert self.engine is not None, "generate() before load()"
        return self.engine.generate(prompts, sampling)
