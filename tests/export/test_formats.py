"""What a run gives away: folders that others load, and a card that says only what is so."""

import json
import re
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from aha.core.config import RunConfig
from aha.core.errors import ModelError, RunError
from aha.export.formats import export
from aha.export.model_card import front_matter, licence_section
from aha.export.use_section import example_section, use_section
from aha.model.weights import load_model
from aha.store.run_folder import read_rows

from ..tiny import TOKENIZER, answering_folder
from ..training.test_experiment import config, go

TOKENS_BT = torch.tensor([TOKENIZER.encode("numbers 3 7 25 target 82")])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two finished runs: one that trained all weights, one with an adapter and no test."""
    root = tmp_path_factory.mktemp("runs")
    base = answering_folder(root / "tiny")
    raw = config(base, optim={"lr": 1e-2}, steps=2, eval={"final": 0}).model_dump()
    raw["model"]["lora_rank"] = 4
    go(config(base, steps=2), root / "whole")
    go(RunConfig.model_validate(raw), root / "adapted")
    return root


def front_of(card: str) -> str:
    return re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)[1]


@pytest.mark.parametrize("name", ["whole", "adapted"])
@torch.no_grad()
def test_transformers_loads_the_folder_and_its_logits_are_ours(runs, tmp_path, name):
    out = export(str(runs / name), tmp_path / "out", "hf", "float32")
    ours = load_model(runs / name / "model").policy
    theirs = AutoModelForCausalLM.from_pretrained(out)
    torch.testing.assert_close(theirs(TOKENS_BT).logits, ours(TOKENS_BT), rtol=1e-4, atol=1e-4)
    assert AutoTokenizer.from_pretrained(out)("numbers 3 7").input_ids == TOKENIZER.encode(
        "numbers 3 7"
    )
    base = load_model(runs / "tiny").policy
    assert (ours(TOKENS_BT) - base(TOKENS_BT)).abs().max() > 1e-3


def test_a_narrow_type_halves_the_file_and_is_named(runs, tmp_path):
    sizes = {}
    for dtype in ("float32", "bfloat16"):
        out = export(str(runs / "whole"), tmp_path / dtype, "hf", dtype)
        assert json.loads((out / "config.json").read_text())["torch_dtype"] == dtype
        assert AutoModelForCausalLM.from_pretrained(out).dtype == getattr(torch, dtype)
        sizes[dtype] = (out / "model.safetensors").stat().st_size
    assert sizes["bfloat16"] < 0.7 * sizes["float32"]


def test_an_adapter_alone(runs, tmp_path):
    out = export(str(runs / "adapted"), tmp_path / "out", "adapter", "float32")
    assert {path.name for path in out.iterdir()} == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    ours = load_model(runs / "adapted" / "model").policy.weights()
    found = load_model(out).policy.weights()
    assert all(torch.equal(found[name], ours[name]) for name in ours)
    assert "library_name: peft" in front_of((out / "README.md").read_text())


def test_the_card_carries_the_evidence_of_the_run(runs, tmp_path):
    out = export(str(runs / "whole"), tmp_path / "out", "hf", "float32")
    card = (out / "README.md").read_text()
    summary = json.loads((runs / "whole" / "summary.json").read_text())
    for when in ("before", "after"):
        low, high = summary[when]["interval"]
        assert f"{summary[when]['solve_rate']:.3f} [{low:.3f}, {high:.3f}]" in card
    assert f"The same {summary['before']['problems']} problems" in card
    assert f"{summary['steps']} steps, seed {summary['seed']}, commit" in card
    assert f"${summary['cost_usd']:.4f}" in card and "Wh" in card and "countdown" in card
    recipe = json.loads(re.search(r"```json\n(.*?)\n```", card, re.DOTALL)[1])
    assert recipe == json.loads((runs / "whole" / "config.json").read_text())
    front = front_of(card)
    assert "library_name: transformers" in front
    assert "base_model" not in front  # a folder of this machine is no name on the hub


def test_the_code_on_the_card_runs_as_it_is(runs, tmp_path, capsys):
    out = export(str(runs / "whole"), tmp_path / "out", "hf", "float32")
    card = (out / "README.md").read_text()
    first = next(iter(read_rows(runs / "whole" / "completions" / "after.jsonl")))
    assert f"as the model reads it:\n\n```\n{first['prompt'].rstrip()}\n```" in card
    assert f"which is {'right' if first['correct'] else 'wrong'}:" in card
    (code,) = re.findall(r"```python\n(.*?)\n```", card, re.DOTALL)
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["name"] == str(out) and names["prompt"] == first["prompt"]
    assert names["inputs"].input_ids[0].tolist() == TOKENIZER.encode(first["prompt"])
    assert capsys.readouterr().out.startswith(first["prompt"].splitlines()[0])


@pytest.mark.parametrize("form", ["adapter", "gguf"])
def test_other_forms_have_a_use_section_too(form):
    example = {
        "prompt": "it's 1\n<think>\n",
        "completion": "x```y",
        "correct": False,
        "test": "after",
    }
    text = use_section(form, "runs/My Model", example, 64)
    if form == "gguf":
        assert "-p 'it'\"'\"'s 1\\n<think>\\n' -n 64" in text and "ollama create my-model" in text
        assert "TEMPLATE {{ .Prompt }}" in text and "at hand" in text
    else:
        compile(re.search(r"```python\n(.*?)\n```", text, re.DOTALL)[1], "README.md", "exec")
        assert "AutoPeftModelForCausalLM.from_pretrained(name)" in text
    assert "\n````\nx```y\n````" in example_section(example)


def test_the_licence_is_said_as_far_as_it_is_known():
    assert "license: apache-2.0" in front_matter("hf", "aha-tiny")
    assert "license" not in front_matter("hf", "Qwen/Qwen2.5-0.5B")
    assert "Qwen/Qwen2.5-0.5B: its licence" in licence_section("Qwen/Qwen2.5-0.5B")
    assert "not known" in licence_section("/somewhere/base") and "not known" in licence_section(
        None
    )


def test_a_card_without_a_test_says_so(runs, tmp_path):
    out = export(str(runs / "adapted"), tmp_path / "one", "hf", "float32")
    assert "without the held-out test" in (out / "README.md").read_text()
    out = export(str(runs / "tiny"), tmp_path / "two", "hf", "float32")
    card = (out / "README.md").read_text()
    assert "nothing was measured" in card and "solve rate" not in card


def test_what_cannot_be_exported_is_refused_and_leaves_nothing(runs, tmp_path):
    with pytest.raises(ModelError, match="no adapter.*--form hf"):
        export(str(runs / "whole"), tmp_path / "out", "adapter", "float32")
    assert not (tmp_path / "out").exists()
    pytest.importorskip("gguf")
    with pytest.raises(ModelError, match="a tokenizer that merges nothing.*--form hf"):
        export(str(runs / "whole"), tmp_path / "out", "gguf", "float32")
    assert not (tmp_path / "out").exists()
    (tmp_path / "taken").mkdir()
    with pytest.raises(RunError, match="exists already"):
        export(str(runs / "whole"), tmp_path / "taken", "hf", "float32")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match="cannot write .*file/out"):
        export(str(runs / "whole"), tmp_path / "file" / "out", "hf", "float32")
    assert (tmp_path / "file").read_text() == "mine"
    with pytest.raises(ModelError, match="no model called"):
        export(str(tmp_path / "nothing"), tmp_path / "out", "hf", "float32")


@pytest.mark.parametrize(
    "content",
    ["{half", "5", '{"before": {"interval": null}, "after": [1]}', "nan", "strings", "link"],
)
def test_a_damaged_summary_is_refused_in_one_line_and_leaves_nothing(runs, tmp_path, content):
    """The card goes to other people: no nan, and nothing that lies outside of the run."""
    run = shutil.copytree(runs / "whole", tmp_path / "run")
    path = run / "summary.json"
    text = path.read_text()
    if content == "link":
        path.rename(tmp_path / "elsewhere.json")
        path.symlink_to(tmp_path / "elsewhere.json")
    else:
        number = re.compile(r"-?\d[\d.e-]*")
        odd = {"nan": number.sub("NaN", text), "strings": number.sub('"x"', text)}
        path.write_text(odd.get(content, content))
    with pytest.raises(RunError, match="summary.json"):
        export(str(run), tmp_path / "out", "hf", "float32")
    assert not (tmp_path / "out").exists()
