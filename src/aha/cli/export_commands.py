"""`aha export`."""

from pathlib import Path
from typing import Literal

from aha.cli.app import app


@app.command
def export(
    model: str,
    *,
    out: Path,
    form: Literal["hf", "adapter", "gguf"] = "hf",
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
) -> None:
    """Write a run's model for others, with a model card that carries the run's evidence.

    Parameters
    ----------
    model
        a run folder, or a model folder or name as `aha eval` takes it.
    out
        the new folder.
    form
        hf, a folder that transformers loads (an adapter merged in); the adapter alone; or gguf.
    dtype
        of the weights in the folder; an adapter stays as it is.
    """
    from aha.export.formats import export as give

    print(f"{give(model, out, form, dtype)} holds the model and its card, README.md")
