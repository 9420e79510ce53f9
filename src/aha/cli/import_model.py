"""`aha import`: a model folder from a GGUF file of llama.cpp."""

import shlex
from pathlib import Path

from aha.cli.own_command import own_command
from aha.cli.terminal_text import say_line


def import_model(file: Path, *, out: Path) -> None:
    """Make a Hugging Face folder of a GGUF file: `aha import model.gguf --out FOLDER`.

    Weights, tokenizer, chat template and the tokens that end a turn. Needs the extras [hf] and
    [gguf]. Quantised weights keep the values that they have in the file.

    Parameters
    ----------
    file
        GGUF file of a whole model, in any number type that transformers reads.
    out
        New folder to write.
    """
    from aha.model.gguf_import import import_gguf

    model = import_gguf(file, out)
    config = model.policy.config
    template = "a chat template" if model.tokenizer.converses() else "no chat template"
    say_line(
        f"{out}: {config.architecture}, {model.policy.num_parameters() / 1e6:.1f} million weights, "
        f"{model.tokenizer.vocab_size:,} tokens, {template}"
    )
    say_line(f"try it: {own_command()} chat {shlex.quote(str(out))}")
