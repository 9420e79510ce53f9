"""`aha export`: a trained model for other programs."""

from pathlib import Path
from typing import Literal

from aha.cli.parameters import ModelName


def export(
    model: ModelName,
    *,
    out: Path,
    form: Literal["hf", "adapter", "gguf"] = "hf",
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
) -> None:
    """Write a run's model for others, with a model card that carries the run's evidence.

    Parameters
    ----------
    out
        New folder to write.
    form
        hf: a folder that transformers loads (an adapter merged in); adapter: the adapter alone;
        gguf: one file for llama.cpp.
    dtype
        Number type of the weights in the folder; an adapter stays as it is.
    """
    from aha.export.formats import export as write_model

    print(f"{write_model(model, out, form, dtype)} holds the model and its card, README.md")
