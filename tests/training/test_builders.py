"""What a run measures of its recipe before it begins."""

from itertools import islice
from pathlib import Path

import pytest

from aha.core.config import RunConfig
from aha.model.weights import LoadedModel
from aha.training.builders import COUNTED, MEASURED, held_out_of, prompt_tokens_of, task_of

from ..tiny import TOKENIZER, tiny_transformer


@pytest.mark.parametrize("template", ["plain", "r1"])
def test_the_prompts_of_a_plan_are_those_of_the_run(template):
    """The first ones of its training problems; those of `plain` are not measured."""
    cfg = RunConfig.model_validate({"task": {"template": template}, "seed": 3})
    model = LoadedModel(tiny_transformer(max_position_embeddings=512), TOKENIZER, Path("none"))
    task = task_of(cfg)
    measured = prompt_tokens_of(cfg, task, model)
    if template == "plain":
        assert measured == 0
        return
    texts = [task.ask(problem) for problem in islice(task.problems("train", 3), MEASURED)]
    sizes = [len(TOKENIZER.encode(text)) for text in texts]
    assert measured == sum(sizes) / MEASURED > 24


def test_the_held_out_problems_of_a_plan_are_counted():
    """Where a task has fewer than the recipe asks for; a run without validations has none."""

    def counts(largest: int, **evaluations: int) -> tuple[int, int]:
        task = {"name": "calculate", "options": {"largest": largest}}
        raw = {"task": task, "eval": {"every": 10} | evaluations}
        cfg = RunConfig.model_validate(raw)
        return held_out_of(cfg, task_of(cfg))

    assert counts(20) == (87, 71)
    assert counts(20, problems=9, final=12) == (9, 12)
    assert counts(20, every=0, final=0) == (0, 0)
    # Beyond so many the recipe is believed: a task may have no end.
    assert counts(100, problems=3, final=COUNTED + 5) == (3, COUNTED + 5)
