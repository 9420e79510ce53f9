"""A trained model for others: a Hugging Face folder, an adapter or a GGUF file, with its card."""

import json
import shutil
from pathlib import Path
from typing import Literal

import torch

from aha.core.errors import ModelError, RunError
from aha.export.model_card import model_card
from aha.model.folders import resolve_model
from aha.model.gguf import save_gguf
from aha.model.lora import CONFIG as ADAPTER
from aha.model.lora import WEIGHTS as ADAPTER_WEIGHTS
from aha.model.weights import LoadedModel, load_model, save_model

Form = Literal["hf", "adapter", "gguf"]
Dtype = Literal["float32", "bfloat16", "float16"]


def export(name: str, out: Path, form: Form, dtype: Dtype) -> Path:
    """Write the model of a run (or of a model folder) to the new folder `out`, with README.md.

    `hf`: weights, an adapter merged into them; transformers loads it. `adapter`: the adapter alone,
    as PEFT reads it. `gguf`: one file for llama.cpp and what is built on it.
    """
    if out.exists():
        raise RunError(f"{out} exists already", "a new folder", "choose another --out")
    folder = resolve_model(name)
    adapter = (folder / ADAPTER).is_file() and not (folder / "config.json").is_file()
    if form == "adapter" and not adapter:
        raise ModelError(
            f"{name} has no adapter: all of its weights were trained",
            "a run with model.lora_rank above 0",
            "--form hf",
        )
    model = load_model(
        folder
    )  # an adapter is read as well: one that does not fit is not given away
    try:
        out.mkdir(parents=True)
        write(out, model, folder, form, getattr(torch, dtype))
        card = model_card(Path(name), model, form, base_of(folder, Path(name)))
        (out / "README.md").write_text(card, encoding="utf-8")
    except BaseException as error:  # half of a model must not pass for one
        shutil.rmtree(out, ignore_errors=True)
        if not isinstance(error, OSError):
            raise
        raise RunError(f"cannot write {out}: {error.strerror}", "a folder with room") from None
    return out


def write(out: Path, model: LoadedModel, folder: Path, form: Form, dtype: torch.dtype) -> None:
    if form == "adapter":
        for file in (ADAPTER, ADAPTER_WEIGHTS):
            shutil.copyfile(folder / file, out / file)
    elif form == "gguf":
        save_gguf(out / "model.gguf", model.policy, model.tokenizer, dtype)
    else:
        save_model(out, model.policy, model.tokenizer, dtype)


def base_of(folder: Path, run: Path) -> str | None:
    """The name of what the training began with, where it is known."""
    for path, keys in (
        (folder / ADAPTER, ("base_model_name_or_path",)),
        (run / "config.json", ("model", "path")),
    ):
        if path.is_file():
            found = json.loads(path.read_text(encoding="utf-8"))
            for key in keys:
                found = found.get(key) if isinstance(found, dict) else None
            if isinstance(found, str):
                return found
    return None
