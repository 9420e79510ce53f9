"""`aha export`: a trained model for other programs."""

from pathlib import Path
from typing import Literal

from aha.cli.parameters import ModelName
from aha.cli.terminal_text import say_line


def export(
    model: ModelName,
    *,
    out: Path,
    form: Literal["hf", "adapter", "gguf"] = "hf",
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
) -> None:
    """Export a run's model for other programs, with a model card that has the run's results.

    Parameters
    ----------
    out
        New folder to write.
    form
        hf: a folder that transformers loads (an adapter merged in); adapter: the adapter alone;
        gguf: one file for llama.cpp.
    dtype
        Number type of the written weights; an adapter keeps its own.
    """
    from aha.export.formats import export as write_model

    say_line(f"{write_model(model, out, form, dtype)} has the model and its card, README.md")
