"""What a run measures of its recipe before it begins."""

from itertools import islice
from pathlib import Path

import pytest

from aha.core.config import RunConfig
from aha.model.weights import LoadedModel
from aha.training.builders import MEASURED, prompt_tokens_of, task_of

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
