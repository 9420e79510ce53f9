"""What a plan counts of a recipe's task: with the model's tokenizer, and without one."""

import json
from itertools import islice

import pytest

from aha.algo.recipe import load_recipe
from aha.api.recipe_names import find_recipe
from aha.core.config import RunConfig
from aha.model.folders import PACKAGED, SHIPPED
from aha.training.builders import task_of
from aha.training.task_sizes import (
    COUNTED,
    ESTIMATED,
    MEASURED,
    held_out_of,
    prompt_tokens_of,
    sizes_before,
    sizes_of,
)

from ..tiny import TOKENIZER


@pytest.mark.parametrize("template", ["plain", "r1"])
def test_the_prompts_of_a_plan_are_those_of_the_run(template):
    """The first ones of its training problems, whatever their form."""
    cfg = RunConfig.model_validate({"task": {"template": template}, "seed": 3})
    task = task_of(cfg)
    texts = [task.ask(problem) for problem in islice(task.problems("train", 3), MEASURED)]
    sizes = [len(TOKENIZER.encode(text)) for text in texts]
    assert prompt_tokens_of(cfg, task, TOKENIZER) == sum(sizes) / MEASURED > 5
    assert sizes_of(cfg, task, TOKENIZER, draw=False).prompts_from == "counted"


def test_a_long_prompt_is_counted_in_the_form_plain_too(tmp_path):
    """A question from a file stands in it as it is: 24 tokens were planned for each."""
    rows = [{"question": f"{place} " + "and then " * 200, "answer": 1} for place in range(40)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    cfg = RunConfig.model_validate({"task": {"name": "math", "data": str(path)}})
    sizes = sizes_before(cfg, None)
    assert sizes.prompt_tokens > 400 and sizes.prompts_from == ESTIMATED
    assert sum(sizes.held_out) < 40  # those of the file, not the thousand of the recipe


# What SmolLM2-135M-Instruct reads: counted with its tokenizer and its chat template, whose own
# system's turn is in it; of r1 and instruct as Qwen2.5 reads them, within a few tokens.
@pytest.mark.parametrize(
    ("recipe", "tokens"),
    [
        ("smollm2-sums", 74),
        ("smollm2-products", 72),
        ("smollm2-countdown", 162),
        ("laptop-8gb", 149),
    ],
)
def test_without_the_tokenizer_the_words_of_a_prompt_come_near_its_tokens(recipe, tokens):
    cfg = load_recipe(find_recipe(recipe))
    sizes = sizes_before(cfg, None)
    assert sizes.prompt_tokens == pytest.approx(tokens, rel=0.15)
    assert sizes.prompts_from == ESTIMATED


def test_a_tokenizer_that_is_here_counts():
    """aha-tiny spells words out: by its words a long prompt would be a third as long."""
    cfg = RunConfig.model_validate({"task": {"name": "multiply", "template": "r1"}})
    here, words = (sizes_before(cfg, folder) for folder in (PACKAGED / SHIPPED, None))
    assert here.prompts_from == "counted" and here.prompt_tokens > 2 * words.prompt_tokens
    assert here.held_out == words.held_out


def test_a_task_that_cannot_be_made_here_is_assumed_with_the_reason():
    cfg = RunConfig.model_validate({"task": {"name": "math", "data": "none.jsonl"}})
    sizes = sizes_before(cfg, None)
    assert sizes[:2] == (0, None) and "none.jsonl" in sizes.prompts_from


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


def test_a_plan_does_not_draw_with_a_solver_only_to_count():
    cfg = RunConfig.model_validate({"task": {"options": {"numbers": [2]}}})
    task = task_of(cfg)
    assert held_out_of(cfg, task, draw=False) == (cfg.eval.problems, cfg.eval.final)
    assert held_out_of(cfg, task)[1] < cfg.eval.final == 1_000
