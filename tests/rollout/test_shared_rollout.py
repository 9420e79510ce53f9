"""Which rank generates what, and completions that travel without their prompts."""

from aha.core.records import Completion, Graded
from aha.dist.world import World
from aha.rollout.engine import Sampling
from aha.rollout.native import NativeEngine
from aha.rollout.shared_rollout import graded_groups, owners_of, packed_row, unpacked

from ..tiny import TOKENIZER, StartsWith, some_prompts, tiny_transformer


def test_every_group_has_one_rank_and_a_problem_that_comes_twice_the_same():
    prompts = some_prompts(5)
    assert owners_of(prompts, 2) == [0, 1, 0, 1, 0]
    assert owners_of([prompts[0], prompts[0], prompts[1]], 2) == [0, 0, 1]
    assert owners_of(prompts, 1) == [0] * 5
    assert owners_of([], 3) == []


def test_a_completion_travels_without_its_prompt():
    (prompt,) = some_prompts(1)
    completion = Completion(prompt, (5, 6), (-0.1, -2.0), "ab", "length", 3, (0.5, 0.25))
    graded = Graded(0.5, True, "why", {"format": 0.1}, completion)
    row = packed_row(graded)
    again = unpacked(row, prompt)
    assert again == graded and again.completion.prompt is prompt
    assert prompt not in row[1]


def test_a_world_of_one_generates_all_and_hands_on_the_very_records():
    engine, laps = NativeEngine(tiny_transformer(), TOKENIZER, "float32"), []
    task, prompts = StartsWith("0123456789"), some_prompts(3)
    groups = graded_groups(World(), engine, task, prompts, Sampling(6, 2), laps.append)
    assert [[graded.completion.prompt for graded in group] for group in groups] == [
        [prompt, prompt] for prompt in prompts
    ]
    assert laps == ["rollout", "grade", "rollout"]
