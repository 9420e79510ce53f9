"""Weights in and out: the Hugging Face folder layout, safetensors only.

config.json  model.safetensors (or shards with an index)  tokenizer.json  tokenizer_config.json
generation_config.json; or, for an adapter, adapter_config.json  adapter_model.safetensors
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from aha.core.errors import ModelError
from aha.model.architecture import ModelConfig, UnsupportedModel
from aha.model.folders import folder_of, name_of
from aha.model.hf_policy import HfPolicy, load_hf
from aha.model.lora import CONFIG as ADAPTER
from aha.model.lora import (
    add_lora,
    load_adapter,
    merge_lora,
    read_adapter_config,
    save_adapter,
)
from aha.model.policy import Policy
from aha.model.tensors import TensorFiles, read_object, weight_files
from aha.model.tokenizer import Tokenizer
from aha.model.transformer import Transformer

MODEL_FOLDER = "a Hugging Face model folder with config.json, model.safetensors and tokenizer.json"


@dataclass
class LoadedModel:
    """A policy, its tokenizer, and the folder of both."""

    policy: Policy
    tokenizer: Tokenizer
    path: Path


def save_model(
    folder: Path, policy: Policy, tokenizer: Tokenizer, dtype: torch.dtype = torch.float32
) -> None:
    """Write a folder that `transformers` loads; the adapters of a LoRA policy are left out."""
    folder.mkdir(parents=True, exist_ok=True)
    stop = tokenizer.stop_ids
    ids: dict[str, Any] = {"eos_token_id": stop[0], "pad_token_id": tokenizer.pad_id}
    extra = {"bos_token_id": tokenizer.bos_id, "torch_dtype": str(dtype).removeprefix("torch.")}
    if isinstance(policy, HfPolicy):
        policy.save(folder, dtype)
    else:
        write_json(folder / "config.json", policy.config.to_hf() | ids | extra)
        write_weights(folder, policy, dtype)
    if len(stop) > 1:
        ids["eos_token_id"] = list(stop)
    sampling = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
    write_json(folder / "generation_config.json", ids | sampling)
    tokenizer.save(folder)


def write_weights(folder: Path, policy: Policy, dtype: torch.dtype) -> None:
    """Write model.safetensors next to config.json."""
    tensors = {
        name: tensor.detach().to("cpu", dtype).contiguous()
        for name, tensor in policy.weights().items()
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    # safetensors makes its file private; the weights are as public as the rest of the folder.
    shutil.copymode(folder / "config.json", folder / "model.safetensors")


def save_policy(folder: Path, policy: Policy, tokenizer: Tokenizer, base: Path) -> None:
    """Write what has been trained: a model folder, or with LoRA the adapter alone, which names the
    frozen `base` that it belongs to."""
    if policy.adapter is None:
        save_model(folder, policy, tokenizer)
    else:
        save_adapter(folder, policy, name_of(base))


def write_json(path: Path, content: Mapping[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


def load_model(folder: str | Path) -> LoadedModel:
    """The model of a folder, whoever wrote it; an adapter is merged into its base. The weights
    become float32. Raises `ModelError` where config, weights and tokenizer do not fit each
    other."""
    folder = Path(folder)
    if (folder / ADAPTER).is_file() and not (folder / "config.json").is_file():
        return load_merged(folder)
    if not (folder / "config.json").is_file():
        raise ModelError(f"no model in {folder}", MODEL_FOLDER, "check the path")
    policy = read_policy(folder)
    tokenizer = Tokenizer.load(folder)
    if tokenizer.vocab_size > policy.config.vocab_size:
        raise ModelError(
            f"{folder}: a tokenizer of {tokenizer.vocab_size} tokens for a model of "
            f"{policy.config.vocab_size}",
            "no token without a row in the embedding",
            "check that tokenizer.json belongs to these weights",
        )
    return LoadedModel(policy, tokenizer, folder)


def read_policy(folder: Path) -> Policy:
    """A `Transformer` if it supports what config.json describes, else an `HfPolicy`."""
    raw = read_object(folder / "config.json")
    try:
        config = ModelConfig.from_hf(raw)
    except UnsupportedModel as reason:
        return load_hf(folder, raw, reason)
    # On "meta" nothing is initialised: random weights of a 3B model take minutes, for nothing.
    with torch.device("meta"):
        policy = Transformer(config)
    policy.to_empty(device="cpu")
    load_weights(policy, folder)
    return policy


def load_merged(folder: Path) -> LoadedModel:
    """The base that an adapter names, with the adapter in its weights."""
    config = read_adapter_config(folder)
    base = folder_of(str(config.get("base_model_name_or_path")))
    if base == folder or not (base / "config.json").is_file():
        raise ModelError(
            f"{folder / ADAPTER} names the base {str(base)!r}, where no model is",
            "the folder or hub name of the model that the adapter was trained on",
            "put it there, or change base_model_name_or_path",
        )
    model = load_model(base)
    add_lora(model.policy, config["r"], 1.0, seed=0)
    load_adapter(model.policy, folder)
    merge_lora(model.policy)
    return LoadedModel(model.policy, model.tokenizer, folder)


def load_weights(policy: Policy, folder: Path) -> None:
    """Fill the policy from every safetensors file of the folder; names and shapes must match."""
    if isinstance(policy, HfPolicy):
        policy.fill(folder)
        return
    files = TensorFiles(weight_files(folder))
    for name in list(files.file_of):
        tied_copy = name == "lm_head.weight" and policy.config.tie_word_embeddings
        # Old writers saved the rotary frequencies, which follow from the configuration.
        if tied_copy or name.endswith("rotary_emb.inv_freq"):
            del files.file_of[name]
    files.fill(policy.weights(), folder)


def load_policy(policy: Policy, folder: Path) -> None:
    """Fill the policy, or its adapters if it has some, from what `save_policy` wrote."""
    (load_weights if policy.adapter is None else load_adapter)(policy, folder)
