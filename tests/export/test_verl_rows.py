"""The rows of an export to veRL: the prompts of the run here, and nothing that veRL would lose."""

import json
from itertools import islice

import pytest
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import pre_tokenizers
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing

from aha.algo.recipe import load_recipe
from aha.core.errors import ConfigError
from aha.core.records import Prompt
from aha.export.verl_rows import (
    PromptForm,
    ground_truth,
    held_out_problems,
    row_of,
    train_problems,
    write_rows,
)
from aha.tasks.catalog import make_task
from aha.tasks.puzzle_rows import load_puzzles
from aha.tasks.question_rows import load_questions
from aha.training.rollouts import FreshProblems, StepSeeds

from ..tiny import tiny_folder

parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra [parquet]")

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def base_folder(folder, begins_with: str | None = None):
    """A model folder with a tokenizer such as Qwen2.5's base: tags are text, and there is a chat
    template. `begins_with`: the token that begins its texts, as Llama has one."""
    tiny_folder(folder)
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    special += [begins_with] if begins_with else []
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    fast = FastTokenizer(BPE({piece: i for i, piece in enumerate(alphabet)}, []))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = ByteLevelDecoder()
    fast.add_special_tokens(special)
    if begins_with:
        place = fast.token_to_id(begins_with)
        fast.post_processor = TemplateProcessing(
            single=f"{begins_with} $A", special_tokens=[(begins_with, place)]
        )
    fast.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|endoftext|>",
        "bos_token": begins_with,
        "chat_template": CHATML,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return base_folder(tmp_path_factory.mktemp("models") / "base")


def config(model, **settings):
    small = {"steps": 2, "rollout.prompts": 3, "model.path": str(model), "task.template": "r1"}
    return load_recipe(None, small | settings)


def test_the_prompts_are_those_of_the_run_step_by_step(base):
    cfg = config(base, seed=7)
    task = make_task("countdown", cfg.task.settings())
    source = FreshProblems(task, 3)
    steps = [source.problems(StepSeeds(7, version)) for version in range(2)]
    assert list(train_problems(task, cfg)) == [problem for step in steps for problem in step]
    held = held_out_problems(task, "test", 4, 5)
    assert held == list(islice(task.problems("test", 5), 4))


def test_a_step_of_more_prompts_than_a_file_has_is_refused(base, tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = ({"question": f"{n}+1?", "answer": str(n + 1)} for n in range(12))
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    settings = {"task.name": "math", "task.data": str(path), "rollout.prompts": 64}
    cfg = config(base, **settings)
    task = make_task("math", cfg.task.settings())
    count = task.num_problems("train")
    with pytest.raises(ConfigError, match=f"--rollout.prompts {count}"):
        list(train_problems(task, cfg))
    settings["rollout.prompts"] = count
    assert len(list(train_problems(task, config(base, **settings)))) == 2 * count


@pytest.mark.parametrize("begins_with", [None, "<|begin_of_text|>"])
@pytest.mark.parametrize("template", ["r1", "instruct"])
def test_the_text_of_a_prompt_has_the_tokens_of_the_run_here(tmp_path, template, begins_with):
    cfg = config(base_folder(tmp_path / "base", begins_with), **{"task.template": template})
    form = PromptForm(cfg)
    task = make_task("countdown", cfg.task.settings())
    problem = next(task.problems("train", 0))
    text = form.text(problem, task)
    ids = form.tokenizer.fast.encode(text, add_special_tokens=False).ids
    assert ids == form.tokenizer.encode(form.tokenizer.say(task.ask(problem)))
    assert len(ids) == form.tokens(text) and text.endswith("<think>")


def test_the_variables_of_a_chat_template_are_those_of_the_recipe(tmp_path):
    file = base_folder(tmp_path / "base") / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    settings["chat_template"] = "{{ mood | default('dull') }} " + CHATML
    file.write_text(json.dumps(settings))
    options = {"template_args": {"mood": "merry"}}
    cfg = config(file.parent, **{"task.template": "instruct", "task.options": options})
    form, task = PromptForm(cfg), make_task("countdown", cfg.task.settings())
    problem = next(task.problems("train", 0))
    text, own = form.text(problem, task), Prompt.of(problem, task, form.tokenizer)
    assert text.startswith("merry ")
    assert form.tokenizer.fast.encode(text, add_special_tokens=False).ids == list(own.tokens)
    there = {"model.path": "Qwen/not-here", "task.template": "instruct", "task.options": options}
    with pytest.raises(ConfigError, match=r"hf download Qwen/not-here"):
        PromptForm(load_recipe(None, there))


def test_a_template_that_thinks_in_other_tags_is_refused_and_the_fix_works(tmp_path):
    """The reward file reads a task's own: R1's form would never be paid for."""
    file = base_folder(tmp_path / "base") / "tokenizer_config.json"
    settings = json.loads(file.read_text()) | {"chat_template": CHATML + "{# [THINK] #}"}
    file.write_text(json.dumps(settings))

    def text(template: str) -> str:
        cfg = config(file.parent, **{"task.template": template})
        task = make_task("countdown", cfg.task.settings())
        return PromptForm(cfg).text(next(task.problems("train", 0)), task)

    with pytest.raises(ConfigError, match=r"thinks in \[THINK\].*--task.template r1"):
        text("instruct")
    assert text("r1").endswith("<think>")


def test_a_model_whose_tags_are_special_tokens_is_refused():
    """veRL strips special tokens from a completion: no answer would be left."""
    with pytest.raises(ConfigError, match=r"<answer>.*special tokens.*--model\.path"):
        PromptForm(load_recipe(None, {"model.path": "aha-tiny"}))


def test_a_model_that_is_not_here_is_counted_in_bytes_and_said():
    form = PromptForm(load_recipe(None, {"model.path": "Qwen/not-on-this-machine"}))
    assert form.model == "Qwen/not-on-this-machine" and "not on this machine" in form.notes[0]
    assert form.tokens("é1") == 3
    with pytest.raises(ConfigError, match=r"hf download meta-llama/not-here"):
        PromptForm(
            load_recipe(None, {"model.path": "meta-llama/not-here", "task.template": "instruct"})
        )


def written(tmp_path, name, settings, count=12):
    task = make_task(name, settings)
    problems = list(islice(task.problems("train", 0), count))
    rows = (row_of(p, f"prompt {i}", "train", i) for i, p in enumerate(problems))
    assert write_rows(tmp_path / "rows.parquet", rows) == len(problems)
    return tmp_path / "rows.parquet", problems


def test_puzzles_are_read_again_as_data(tmp_path):
    path, problems = written(tmp_path, "countdown", {"numbers": (3, 4)})
    rows, notes = load_puzzles(path)
    given = [(problem.given["numbers"], problem.given["target"]) for problem in problems]
    assert sorted(rows) == sorted(given) and notes == []


def test_questions_are_read_again_as_data_without_their_frame(tmp_path):
    source = tmp_path / "source.jsonl"
    pairs = [(f"What is {n} + 1?", f"so\n#### {n + 1}") for n in range(12)]
    source.write_text("".join(f"{json.dumps({'question': q, 'answer': a})}\n" for q, a in pairs))
    path, problems = written(tmp_path, "math", {"data": str(source)})
    rows, notes = load_questions(path)
    assert sorted(rows) == sorted(pair for pair in pairs if pair in rows)
    assert len(rows) == len(problems) and notes == []


def test_rows_of_several_tasks_have_one_schema(tmp_path):
    """veRL joins its files into one table: a struct for each task would not fit."""
    schemas = []
    for name in ("countdown", "multiply"):
        (tmp_path / name).mkdir()
        path, problems = written(tmp_path / name, name, {}, 3)
        schemas.append(parquet.read_schema(path))
        rows = parquet.read_table(path).to_pylist()
        assert [row["extra_info"]["index"] for row in rows] == [0, 1, 2]
        assert json.loads(rows[0]["reward_model"]["ground_truth"]) == json.loads(
            ground_truth(problems[0])
        )
        assert {row["data_source"] for row in rows} == {f"aha/{name}"}
        assert rows[0]["prompt"] == [{"role": "user", "content": "prompt 0"}]
    assert schemas[0] == schemas[1]
