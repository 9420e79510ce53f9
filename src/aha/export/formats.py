"""Exports a trained model: a Hugging Face folder, an adapter or a GGUF file, with a model card."""

import json
import shutil
from pathlib import Path
from typing import Literal

import torch

from aha.core.errors import ModelError, RunError
from aha.export.model_card import model_card
from aha.model.folders import resolve_model, run_of
from aha.model.gguf import save_gguf
from aha.model.lora import CONFIG as ADAPTER
from aha.model.lora import WEIGHTS as ADAPTER_WEIGHTS
from aha.model.weights import LoadedModel, load_model, save_model
from aha.store.durable import disk_errors

Form = Literal["hf", "adapter", "gguf"]
Dtype = Literal["float32", "bfloat16", "float16"]


def export(name: str, out: Path, form: Form, dtype: Dtype, hub_name: str = "") -> Path:
    """Write the model of a run (or of a model folder) to the new folder `out`, with README.md.

    `hf`: weights, an adapter merged into them, for transformers. `adapter`: the adapter alone, for
    PEFT. `gguf`: one file for llama.cpp. `dtype` is that of the written weights; an adapter keeps
    its own. `hub_name`: the name by which the card loads the model, where it goes to the hub.
    Returns `out`. Raises RunError where `out` exists or cannot be written, ModelError
    where the model cannot be loaded or does not have the form.
    """
    if out.exists():
        raise RunError(f"{out} exists already", "a new folder", "choose another --out")
    folder = resolve_model(name)
    adapter = (folder / ADAPTER).is_file()
    if form == "adapter" and not adapter:
        raise ModelError(
            f"{name} has no adapter: all of its weights were trained",
            "a run with model.lora_rank above 0",
            "--form hf",
        )
    if form == "adapter" and (Path(base_of(folder, folder) or "") / ADAPTER).is_file():
        raise ModelError(
            f"{name} has an adapter whose base has one too",
            "an adapter on a whole model, as PEFT reads it",
            "--form hf",
        )
    # An adapter is loaded with its base model: one that does not fit must not be exported.
    model = load_model(folder)
    with disk_errors(f"write {out}"):
        try:
            out.mkdir(parents=True)
            write_model(out, model, folder, form, getattr(torch, dtype))
            loaded_by = hub_name or str(out)
            owner = run_of(Path(name)) or Path(name)
            # What a run has measured is of its end, not of a checkpoint.
            records = owner if folder.name == "model" else Path(name)
            card = model_card(records, model, form, base_of(folder, owner), loaded_by)
            (out / "README.md").write_text(card, encoding="utf-8")
        except BaseException:  # do not leave a partial model
            shutil.rmtree(out, ignore_errors=True)
            raise
    return out


def write_model(
    out: Path, model: LoadedModel, folder: Path, form: Form, dtype: torch.dtype
) -> None:
    """Write the files of a form; those of an adapter are copied from `folder`."""
    if form == "adapter":
        for file in (ADAPTER, ADAPTER_WEIGHTS):
            shutil.copyfile(folder / file, out / file)
    elif form == "gguf":
        save_gguf(out / "model.gguf", model.policy, model.tokenizer, dtype)
    else:
        save_model(out, model.policy, model.tokenizer, dtype)


def base_of(folder: Path, run: Path) -> str | None:
    """The name of the base model, from the adapter or the run; None where neither has it."""
    for path, keys in (
        (folder / ADAPTER, ("base_model_name_or_path",)),
        (run / "config.json", ("model", "path")),
    ):
        if path.is_file():
            value = json.loads(path.read_text(encoding="utf-8"))
            for key in keys:
                value = value.get(key) if isinstance(value, dict) else None
            if isinstance(value, str):
                return value
    return None
