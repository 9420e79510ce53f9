"""Weights in and out: the Hugging Face folder layout, safetensors only.

config.json  model.safetensors  tokenizer.json  tokenizer_config.json  generation_config.json
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from aha.core.errors import ModelError
from aha.model.tokenizer import Tokenizer
from aha.model.transformer import Decoder, ModelConfig

WANTED = "a Hugging Face model folder with config.json, model.safetensors and tokenizer.json"


@dataclass
class LoadedModel:
    """A decoder with the tokenizer that belongs to it, and where they came from."""

    decoder: Decoder
    tokenizer: Tokenizer
    path: Path


def save_model(folder: Path, decoder: Decoder, tokenizer: Tokenizer) -> None:
    """Write a folder that `transformers` loads as a Qwen2 model."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = {"eos_token_id": tokenizer.stop_ids[0], "pad_token_id": tokenizer.pad_id}
    write_json(folder / "config.json", decoder.config.to_hf() | ids | {"bos_token_id": None})
    sampling = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
    write_json(folder / "generation_config.json", ids | sampling)
    tokenizer.save(folder)
    tensors = {
        name: tensor.detach().to("cpu", torch.float32).contiguous()
        for name, tensor in decoder.state_dict().items()
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    # safetensors makes its file private; the weights are as public as the rest of the folder.
    shutil.copymode(folder / "config.json", folder / "model.safetensors")


def write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


def load_model(folder: str | Path) -> LoadedModel:
    """Read such a folder, whoever wrote it. Raises `ModelError` for anything that does not fit."""
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise ModelError(f"no model in {folder}", WANTED, "check the path")
    try:
        raw = json.loads((folder / "config.json").read_text())
    except ValueError as error:
        raise ModelError(f"{folder / 'config.json'}: {error}", "readable JSON") from error
    if not isinstance(raw, dict):
        raise ModelError(f"{folder / 'config.json'} holds no object", WANTED)
    decoder = Decoder(ModelConfig.from_hf(raw))
    load_weights(decoder, folder)
    return LoadedModel(decoder, Tokenizer.load(folder), folder)


def load_weights(decoder: Decoder, folder: Path) -> None:
    """Fill the decoder from every safetensors file of the folder; names and shapes must match."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickles = [*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")]
        got = f"{pickles[0].name}, a pickle that could run code" if pickles else "no weights"
        raise ModelError(f"{folder}: {got}", "model.safetensors", "save it with save_pretrained")
    tensors = {}
    for path in files:
        try:
            tensors |= load_file(path)
        except SafetensorError as error:
            raise ModelError(f"{path}: {error}", "a whole safetensors file") from error
    if decoder.config.tie_word_embeddings:
        tensors.pop("lm_head.weight", None)
    wanted = decoder.state_dict()
    missing, extra = wanted.keys() - tensors.keys(), tensors.keys() - wanted.keys()
    if missing or extra:
        names = ", ".join(sorted(missing or extra)[:3])
        problem = "lack" if missing else "have unknown"
        raise ModelError(
            f"the weights in {folder} {problem} {names}",
            f"the {len(wanted)} tensors that config.json describes",
            "check that all shards are there and that config.json is theirs",
        )
    for name, tensor in wanted.items():
        if tensors[name].shape != tensor.shape:
            raise ModelError(
                f"{name} has shape {list(tensors[name].shape)} in {folder}",
                f"{list(tensor.shape)}, as config.json says",
            )
    decoder.load_state_dict(tensors)
