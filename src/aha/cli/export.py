"""`aha export`: a trained model for other programs."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from aha.cli.parameters import Flag, ModelName
from aha.cli.terminal_text import console, say_line

Push = Annotated[
    str | None,
    Parameter(help="OWNER/NAME: upload the exported folder there, with the login of `hf auth`."),
]


def export(
    model: ModelName,
    *,
    out: Path,
    form: Literal["hf", "adapter", "gguf"] = "hf",
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    push: Push = None,
    private: Flag = False,
    dry_run: Flag = False,
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
    private
        Make the repository of --push a private one, where it is new.
    dry_run
        With --push: write the folder, print what would be uploaded, and upload nothing.
    """
    from aha.core.errors import ConfigError
    from aha.export.formats import export as write_model
    from aha.export.hub_push import check_hub_name, endpoint, files_of
    from aha.export.hub_push import push as upload

    if push is None and (private or dry_run):
        given = "--private" if private else "--dry-run"
        raise ConfigError(
            f"{given} without --push", "a repository to push to", f"leave {given} out"
        )
    name = check_hub_name(push) if push else ""
    with console.status("writing the model"):
        write_model(model, out, form, dtype, name)
    say_line(f"{out} has the model and its card, README.md")
    if push and dry_run:
        say_line(f"would be uploaded to {endpoint()}/{name}{', private' if private else ''}:")
        for file in files_of(out):
            say_line(f"{file.size:>14,} bytes  {file.name}")
    elif push:
        with console.status(f"uploading to {endpoint()}/{name}"):
            address = upload(out, name, private)
        say_line(f"{address} has it")
