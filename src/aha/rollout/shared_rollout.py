"""Completions that several ranks generate: each its share, and all of them everywhere.

What travels is what a completion has besides its prompt, which every rank has already. It is put
on that very prompt: rows belong to one group if they have the same prompt object.
"""

from collections.abc import Callable, Sequence
from typing import Any

from aha.core.records import Completion, Graded, Prompt
from aha.dist.world import World
from aha.rollout.engine import Engine, Sampling
from aha.tasks.protocol import Task

# The fields of `Graded` and of `Completion`, but for the prompt.
Row = tuple[tuple[Any, ...], tuple[Any, ...]]


def graded_groups(
    world: World,
    engine: Engine,
    task: Task,
    prompts: list[Prompt],
    sampling: Sampling,
    lap: Callable[[str], object] = bool,
) -> list[list[Graded]]:
    """One graded group for each prompt, in the same order and the same in every rank.

    A completion is a function of the weights, its prompt and its own seed, so it does not matter
    which rank generates it. `lap(phase)` is called at the end of "rollout" and of "grade"; to wait
    for the other ranks' completions counts as "rollout".
    """
    owners = owners_of(prompts, world.size)
    ours = [prompt for prompt, rank in zip(prompts, owners, strict=True) if rank == world.rank]
    generated = engine.generate(ours, sampling)
    lap("rollout")
    # A bad completion is a low reward with a reason, never an exception.
    own = [[graded_one(world, completion, task) for completion in group] for group in generated]
    lap("grade")
    world.count_work("rollout")
    groups = exchanged(own, prompts, owners, world)
    lap("rollout")
    return groups


def graded_one(world: World, completion: Completion, task: Task) -> Graded:
    world.pulse()  # a grader may compute in another process, or wait for one
    return Graded.of(completion, task)


def owners_of(prompts: Sequence[Prompt], size: int) -> list[int]:
    """The rank that generates each prompt's group.

    A problem that comes twice belongs to one rank: the engine counts how often it has come, and
    gives its second group other seeds.
    """
    ids = dict.fromkeys(prompt.problem.id for prompt in prompts)
    rank_of = {name: place % size for place, name in enumerate(ids)}
    return [rank_of[prompt.problem.id] for prompt in prompts]


def exchanged(
    own: list[list[Graded]], prompts: Sequence[Prompt], owners: Sequence[int], world: World
) -> list[list[Graded]]:
    """The groups of all prompts, from those of the prompts that this rank owns."""
    if world.size == 1:
        return own
    packed = [[packed_row(graded) for graded in group] for group in own]
    shares = [iter(share) for share in world.gather(packed, "the completions")]
    pairs = zip(prompts, owners, strict=True)
    return [[unpacked(row, prompt) for row in next(shares[rank])] for prompt, rank in pairs]


def packed_row(graded: Graded) -> Row:
    """All of it but the prompt."""
    one = graded.completion
    numbers = (one.version, one.entropies, one.forced)
    completion = (one.tokens, one.logprobs, one.text, one.finish, *numbers)
    return (graded.reward, graded.correct, graded.reason, dict(graded.parts)), completion


def unpacked(row: Row, prompt: Prompt) -> Graded:
    """The inverse of `packed_row`, on this prompt."""
    (reward, correct, reason, parts), completion = row
    return Graded(reward, correct, reason, parts, Completion(prompt, *completion))
