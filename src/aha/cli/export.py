"""`aha export`: a trained model for other programs, or a recipe for veRL."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from aha.cli.parameters import Count, Flag, ModelName
from aha.cli.recipe_keys import Overrides, overrides_of
from aha.cli.terminal_text import console, say_line
from aha.core.errors import ConfigError

Devices = Annotated[Count | None, Parameter(help="verl: GPUs of one machine. Default: 2.")]
Machines = Annotated[Count | None, Parameter(help="verl: machines. Default: 1.")]
Push = Annotated[
    str | None,
    Parameter(help="OWNER/NAME: upload the exported folder there, with the login of `hf auth`."),
]


def export(
    model: ModelName,
    *,
    out: Path,
    form: Literal["hf", "adapter", "gguf", "verl"] = "hf",
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    push: Push = None,
    private: Flag = False,
    dry_run: Flag = False,
    gpus: Devices = None,
    nodes: Machines = None,
    overrides: Overrides = None,
) -> None:
    """Export a run's model for other programs, with a model card; or a recipe for veRL.

    With `--form verl` the first word is a recipe, and its keys can be set as in `aha train`.

    Parameters
    ----------
    out
        New folder to write.
    form
        hf: a folder that transformers loads (an adapter merged in); adapter: the adapter alone;
        gguf: one file for llama.cpp; verl: a recipe's prompts, reward and settings for veRL.
    dtype
        Number type of the written weights, of the forms hf and gguf; an adapter keeps its own.
    private
        Make the repository of --push a private one, where it is new.
    dry_run
        With --push: write the folder, print what would be uploaded, and upload nothing.
    """
    if form in ("verl", "adapter") and dtype != "float32":
        raise ConfigError(
            f"--dtype {dtype} with --form {form}, which writes no weights anew",
            "--form hf or gguf with it",
            "leave --dtype out",
        )
    if form == "verl":
        refuse_for_verl({"--push": push, "--private": private, "--dry-run": dry_run})
        export_recipe(model, out, gpus or 2, nodes or 1, overrides)
        return
    if others := [*(overrides or {}), *(["gpus"] if gpus else []), *(["nodes"] if nodes else [])]:
        raise ConfigError(
            f"--{others[0]} with --form {form}, which exports a model that is trained already",
            "the form that exports a recipe",
            "--form verl, or leave it out",
        )
    if push is None and (private or dry_run):
        given = "--private" if private else "--dry-run"
        raise ConfigError(
            f"{given} without --push", "a repository to push to", f"leave {given} out"
        )
    export_model(model, out, form, dtype, push, private, dry_run)


def export_model(
    model: str,
    out: Path,
    form: Literal["hf", "adapter", "gguf"],
    dtype: Literal["float32", "bfloat16", "float16"],
    push: str | None,
    private: bool,
    dry_run: bool,
) -> None:
    """A trained model, written and then uploaded where that was asked for."""
    from aha.export.formats import export as write_model
    from aha.export.hub_push import check_hub_name, endpoint, files_of
    from aha.export.hub_push import push as upload

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


def refuse_for_verl(given: dict[str, object]) -> None:
    """Raise `ConfigError` for an option, by name, that a model alone has."""
    if unread := [word for word, value in given.items() if value]:
        raise ConfigError(
            f"{unread[0]} with --form verl, which writes a recipe",
            "a model, which can be uploaded",
            f"leave {unread[0]} out",
        )


def export_recipe(name: str, out: Path, gpus: int, nodes: int, options: Overrides) -> None:
    """A recipe for veRL: what it is made of, what could not be checked, and the command."""
    from aha.algo.recipe import load_recipe
    from aha.api.recipe_names import find_recipe, packaged_recipes
    from aha.cli.finding_lines import print_notes
    from aha.export.verl_folder import export_to_verl, tinyzero_settings

    path, overrides = find_recipe(name), overrides_of(options)
    if name in packaged_recipes():
        further = tinyzero_settings(name, load_recipe(path, overrides))
        added = {key: value for key, value in further.items() if key not in overrides}
        if added:
            words = " ".join(f"--{key} {value}" for key, value in added.items())
            say_line(f"TinyZero's own settings, which the recipe leaves out: {words}")
        overrides = added | overrides
    cfg = load_recipe(path, overrides)
    prompts = f"{cfg.steps * cfg.rollout.prompts:,} prompts of {cfg.steps:,} steps"
    say_line(f"writing {prompts}; --steps N writes those of fewer")
    handover = export_to_verl(cfg, path.stem, out, gpus, nodes)
    print_notes(list(handover.findings))
    for note in handover.notes:
        say_line(f"note: {note}")
    say_line(f"{out} has prompts, reward, settings and a README. On {gpus} GPUs with verl 0.9.1:")
    say_line(f"    {handover.command}")
