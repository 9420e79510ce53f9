"""Parameters counted from shapes, against what the makers' checkpoints hold."""

import json

import pytest
import torch

from aha.core.errors import ModelError
from aha.model.transformer import Transformer
from aha.plan.shapes import known_shapes, shape_of

from ..tiny import tiny_config

PUBLISHED = {
    "Qwen2.5-0.5B": 494_032_768,
    "Qwen2.5-1.5B": 1_543_714_304,
    "Qwen2.5-3B": 3_085_938_688,
    "Qwen2.5-7B": 7_615_616_512,
    "Qwen2.5-14B": 14_770_033_664,
    "Qwen2.5-32B": 32_763_876_352,
    "Qwen3-0.6B": 596_049_920,
    "Qwen3-1.7B": 1_720_574_976,
    "Qwen3-4B": 4_022_468_096,
    "Qwen3-8B": 8_190_735_360,
    "Llama-3.2-1B": 1_235_814_400,
    "Llama-3.2-3B": 3_212_749_824,
    "SmolLM2-135M": 134_515_008,
    "SmolLM2-360M": 361_821_120,
    "SmolLM2-1.7B": 1_711_376_384,
    "aha-tiny": 814_464,
    "base-10m": 10_408_320,
    "base-multiply": 814_464,
}


def test_every_known_shape_has_the_published_number_of_parameters():
    assert {name: shape.parameters for name, shape in known_shapes().items()} == PUBLISHED


@pytest.mark.parametrize("tied", [True, False])
def test_a_folder_is_counted_as_the_decoder_is(tmp_path, tied):
    config = tiny_config(tie_word_embeddings=tied)
    (tmp_path / "config.json").write_text(json.dumps(config.to_hf()))
    shape = shape_of(str(tmp_path))
    with torch.device("meta"):
        policy = Transformer(config)
    assert shape.parameters == policy.num_parameters()
    assert shape.parameters - shape.multiplied == (0 if tied else config.vocab_size * shape.C)


def test_of_a_model_of_text_and_images_the_language_part_is_counted(tmp_path):
    raw = tiny_config(model_type="llama").to_hf()
    (tmp_path / "config.json").write_text(json.dumps(raw))
    plain = shape_of(str(tmp_path))
    whole = {"model_type": "llava", "vision_config": {"hidden_size": 8}, "text_config": raw}
    (tmp_path / "config.json").write_text(json.dumps(whole))
    assert shape_of(str(tmp_path)) == plain


@pytest.mark.parametrize("key", ["num_local_experts", "num_experts", "n_routed_experts"])
def test_a_mixture_of_experts_is_refused_by_name(tmp_path, key):
    """Counted as a dense model Mixtral would have 7 of its 47 billion parameters."""
    sizes = {"vocab_size": 32, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    content = sizes | {"num_attention_heads": 2}
    (tmp_path / "config.json").write_text(json.dumps(content | {key: 1}))
    assert shape_of(str(tmp_path)).parameters > 0
    (tmp_path / "config.json").write_text(json.dumps(content | {key: 8}))
    with pytest.raises(ModelError, match=f"a mixture of 8 experts \\({key}\\)"):
        shape_of(str(tmp_path))


def test_owner_and_instruct_do_not_change_a_shape():
    assert shape_of("Qwen/Qwen2.5-3B-Instruct") == shape_of("Qwen2.5-3B")
    # Where training will leave it, before it is there; whatever lies there then is what counts.
    assert shape_of("runs/base-10m/model") == shape_of("base-10m")
    with pytest.raises(ModelError, match="Qwen2.5-0.5B, "):
        shape_of("GPT-5")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "3",
        "{}",
        '{"model_type": "gpt2", "n_embd": 8}',
        '{"hidden_size": "x"}',
        '{"hidden_size": 8, "num_attention_heads": 0}',
    ]
    + [
        '{"vocab_size": 1.5, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,'
        ' "num_attention_heads": 2}'
    ],
)
def test_a_config_that_has_no_shape_is_one_line(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelError, match="a model's config") as caught:
        shape_of(str(tmp_path))
    assert "\n" not in str(caught.value)
