"""Weights in and out: the Hugging Face folder layout, safetensors only.

config.json  model.safetensors (or shards with an index)  tokenizer.json  tokenizer_config.json
generation_config.json; or, for an adapter, adapter_config.json  adapter_model.safetensors
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from aha.core.errors import ModelError
from aha.core.findings import Finding, ok, warn
from aha.dist.sharded_tensors import whole
from aha.model.architecture import ModelConfig, left_out, tensor_shapes
from aha.model.config_keys import UnsupportedModel, unknown_keys
from aha.model.folders import ADAPTER, base_name, folder_of, is_packaged, no_base, resolve_model
from aha.model.hf_policy import HfPolicy, load_hf
from aha.model.language_part import language_config, language_name, parts_beside
from aha.model.lora import load_adapter, save_adapter
from aha.model.model_json import read_object
from aha.model.model_warning import warn_of
from aha.model.parents import name_of
from aha.model.peft_adapter import merge_adapter
from aha.model.policy import Policy
from aha.model.rope_scaling import rope_of
from aha.model.tensor_names import base_model_name
from aha.model.tensors import TensorFiles, refuse_size, unread_weights, weight_files
from aha.model.tokenizer import Tokenizer
from aha.model.transformer import Transformer

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
MODEL_FOLDER = "a Hugging Face model folder with config.json, model.safetensors and tokenizer.json"


@dataclass
class LoadedModel:
    """A policy, its tokenizer, and the folder of both."""

    policy: Policy
    tokenizer: Tokenizer
    path: Path
    findings: list[Finding] = field(default_factory=list)  # what was told when it was loaded
    tokens_from: Path = Path()  # the folder of the tokenizer
    for_shards: bool = False  # in the host's memory, from where its shards go to the device


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
    """Write model.safetensors next to config.json. Of a policy in shards, each tensor is gathered
    from all ranks (`gather_weights`)."""
    tensors = {
        name: whole(tensor.detach()).to("cpu", dtype).contiguous()
        for name, tensor in policy.weights().items()
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    # safetensors makes its file private; the weights are as public as the rest of the folder.
    shutil.copymode(folder / "config.json", folder / "model.safetensors")


def gather_weights(policy: Policy) -> None:
    """What a rank that writes nothing does while another one calls `write_weights`."""
    for tensor in policy.weights().values():
        whole(tensor.detach())


def save_policy(folder: Path, policy: Policy, tokenizer: Tokenizer, base: Path) -> None:
    """Write what has been trained: a model folder, or with LoRA the adapter alone, which names the
    frozen `base` that it belongs to."""
    if policy.adapter is None:
        save_model(folder, policy, tokenizer)
    else:
        save_adapter(folder, policy, name_of(base))


def write_json(path: Path, content: Mapping[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


def load_model(folder: str | Path, above: tuple[Path, ...] = ()) -> LoadedModel:
    """The model of a folder, whoever wrote it; an adapter is merged into its base, which may be an
    adapter with its own base; `above` are the adapters that led here. The weights become float32.
    Raises `ModelError` where config, weights and tokenizer do not fit each other; what loads all
    the same but may surprise is a `ModelWarning` and a finding."""
    folder = Path(folder)
    has_config = (folder / "config.json").is_file()
    if (folder / ADAPTER).is_file():
        base = folder if has_config and unread_weights(folder, []) else named_base(folder)
    elif has_config:
        base = folder
    else:
        raise ModelError(f"no model in {folder}", MODEL_FOLDER, "check the path")
    below: list[Finding] = []
    if base != folder and (base / ADAPTER).is_file():
        if base in above:
            raise no_base(folder, base)
        under = load_model(base, (*above, folder))
        policy, below, base = under.policy, under.findings, under.tokens_from
        findings: list[Finding] = []
    else:
        policy, findings = read_policy(base)
    if (folder / ADAPTER).is_file():
        policy, more = merge_adapter(policy, folder)
        findings += more
    tokens_from = folder if (folder / "tokenizer.json").is_file() else base
    tokenizer = Tokenizer.load(tokens_from)
    if tokenizer.vocab_size > policy.config.vocab_size:
        raise ModelError(
            f"{folder}: a tokenizer of {tokenizer.vocab_size} tokens for a model of "
            f"{policy.config.vocab_size}",
            "no token without a row in the embedding",
            "check that tokenizer.json belongs to these weights",
        )
    findings = [replace(finding, check="base_model") for finding in findings]
    for finding in findings:
        warn_of(finding)
    return LoadedModel(policy, tokenizer, folder, below + findings, tokens_from)


def tokenizer_of(folder: Path) -> Tokenizer:
    """The tokenizer of a model's folder; of an adapter without one, that of its base."""
    above: list[Path] = []
    while not (folder / "tokenizer.json").is_file() and (folder / ADAPTER).is_file():
        if folder in above:
            raise no_base(above[-1], folder)
        above.append(folder)
        folder = named_base(folder)
    return Tokenizer.load(folder)


def named_base(folder: Path) -> Path:
    """The folder of the base that an adapter names: any model of `resolve_model`, as the plan takes
    it too."""
    name = base_name(folder)
    is_here = is_packaged(name) or Path(name).is_dir()
    base = resolve_model(name) if is_here else folder_of(name)
    is_model = (base / "config.json").is_file() or (base / ADAPTER).is_file()
    if base == folder or not is_model:
        raise no_base(folder, base)
    return base


def read_policy(folder: Path) -> tuple[Policy, list[Finding]]:
    """A `Transformer` if it supports what config.json describes, else an `HfPolicy`; and what is
    to be told about it."""
    raw = read_object(folder / "config.json")
    findings = left_alone(folder)
    inner, files = language_config(raw), TensorFiles(weight_files(folder))
    if inner is not None:
        files.keep(language_name)
        findings.append(beside_language(folder, raw))
    refuse_size(folder, files.numbers())
    try:
        config = ModelConfig.from_hf(inner or raw)
    except UnsupportedModel as reason:
        policy = load_hf(folder, raw, reason)
        return policy, policy.findings + findings
    raw = inner or raw
    unknown = unknown_keys(raw, rope_of(raw))
    if unknown:
        findings.append(
            warn(
                f"{folder / 'config.json'} has {', '.join(unknown[:5])}, which neither Aha nor "
                f"{config.architecture} of transformers reads",
                "nothing, unless the model was made by a program that computes something with it",
            )
        )
    files, config, more = open_tensors(folder, config, left_out(raw))
    # On "meta" nothing is initialised: random weights of a 3B model take minutes, for nothing.
    with torch.device("meta"):
        transformer = Transformer(config)
    transformer.to_empty(device="cpu")
    files.fill(transformer.weights(), folder)
    return transformer, findings + more


def beside_language(folder: Path, raw: Mapping[str, Any]) -> Finding:
    """What to tell about a model of which the language part alone is read."""
    others = ", ".join(parts_beside(TensorFiles(weight_files(folder)).place_of))
    return ok(
        f"{folder} is a {raw.get('model_type')!r:.60}: its language part is read and trained"
        + (f", {others} are left out" if others else "")
    )


def left_alone(folder: Path) -> list[Finding]:
    """What to tell about files of weights that are not read."""
    read = weight_files(folder)
    names = unread_weights(folder, read)
    if not names:
        return []
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return [
        warn(
            f"{folder}: {read[0].name}{' and its shards' if len(read) > 1 else ''} is read, "
            f"{', '.join(names[:3])}{more} is not",
            "delete what an earlier save has left there",
        )
    ]


def open_tensors(
    folder: Path, config: ModelConfig, left_out: str = ""
) -> tuple[TensorFiles, ModelConfig, list[Finding]]:
    """The tensors of a folder under the names of `Transformer`, checked against its shape, before
    anything of that size is allocated.

    A head that differs from the embedding to which config.json ties it is kept, as `transformers`
    keeps it: the returned config is untied then.
    """
    files, findings = TensorFiles(weight_files(folder)), []
    if config.num_hidden_layers > len(files.place_of):
        raise ModelError(
            f"{folder}: {len(files.place_of)} tensors for {config.num_hidden_layers} layers",
            "at least one for each layer",
            "check that config.json belongs to these weights",
        )
    expected = {*tensor_shapes(config), HEAD}
    if language_config(read_object(folder / "config.json")) is not None:
        files.keep(language_name)
        if HEAD not in files.place_of:  # whatever its two configurations say
            config = replace(config, tie_word_embeddings=True)
    for name in list(files.place_of):
        # Old writers saved the rotary frequencies, which follow from the configuration.
        if name.endswith("rotary_emb.inv_freq"):
            del files.place_of[name]
        else:
            files.rename(name, base_model_name(name, expected))
    if config.tie_word_embeddings and HEAD in files.place_of:
        if EMBEDDING not in files.place_of:
            files.rename(HEAD, EMBEDDING)
        elif same_numbers(files.tensor(HEAD), files.tensor(EMBEDDING)):
            del files.place_of[HEAD]
        else:
            config = replace(config, tie_word_embeddings=False)
            findings.append(
                warn(
                    f"{folder}: config.json ties the head to the embedding, but the file has a "
                    f"head of its own, {HEAD}: it is kept, as transformers keeps it",
                    'write "tie_word_embeddings": false into config.json, or delete that tensor',
                )
            )
    files.check(tensor_shapes(config), folder, left_out)
    return files, config, findings


def same_numbers(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one.float(), other.float())


def load_weights(policy: Policy, folder: Path) -> None:
    """Fill the policy from the safetensors files of the folder; names and shapes must match."""
    if isinstance(policy, HfPolicy):
        policy.fill(folder)
        return
    open_tensors(folder, policy.config)[0].fill(policy.weights(), folder)


def load_policy(policy: Policy, folder: Path) -> None:
    """Fill the policy, or its adapters if it has some, from what `save_policy` wrote."""
    (load_weights if policy.adapter is None else load_adapter)(policy, folder)
