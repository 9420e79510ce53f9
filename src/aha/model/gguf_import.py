"""A GGUF file of llama.cpp as a Hugging Face folder, for `aha import`.

`transformers` reads the shape and the weights (the extras [hf] and [gguf]). Some things in a file
it leaves out without a word; each is added here, or the file is refused by name: the rule that
splits a text before its merges (SmolLM2's is one it has no name for), rotary frequencies that are
stretched, the token before every text, the tokens that end a turn. So byte-level vocabularies are
built here, and only those of other kinds by `transformers`.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, pre_tokenizers
from tokenizers import Tokenizer as FastTokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Digits, PreTokenizer, Split
from tokenizers.processors import TemplateProcessing

from aha.core.errors import AhaError, MissingExtra, ModelError, RunError
from aha.model.gguf import (
    CONTROL,
    NAMES_OF_STEPS,
    SPLITS,
    UNUSED,
    USER_DEFINED,
    WHOLE_WORDS,
)
from aha.model.gguf_header import GgufHeader, read_header, refuse_large
from aha.model.rope_scaling import Llama3Scaling, written_scaling
from aha.model.tokenizer import Tokenizer
from aha.model.weights import LoadedModel, load_model, write_json

LLAMA3 = Llama3Scaling(8.0, 1.0, 4.0, 8192)  # of Llama 3.1 and later; only the factor differs


def import_gguf(file: Path, out: Path) -> LoadedModel:
    """Write the model of a GGUF file as the new folder `out`, which `transformers` and every
    command here load; its weights are float32, the values of the quantised ones.

    Returns the model as it was loaded from there. Raises `RunError` where `out` exists or cannot be
    written, `MissingExtra`, and `ModelError`, with what it is, for a file that cannot be read.
    """
    if out.exists():
        raise RunError(f"{out} exists already", "a new folder", "choose another --out")
    header = read_header(file)
    refuse_large(file, header)
    with new_folder(out) as folder:
        write_folder(file, header, folder)
        model = load_model(folder)
    return replace(model, path=out, tokens_from=out)


def write_folder(file: Path, header: GgufHeader, folder: Path) -> None:
    """All files of the model."""
    fast = read_tokenizer(file, header)
    write_net(folder, read_net(file, header), file, header)
    if header.factors:
        write_scaling(folder / "config.json", file, header)
    names = [name for token in header.ends if (name := fast.id_to_token(token)) is not None]
    if len(names) < len(header.ends):
        raise ModelError(
            f"{file}: ends of a text with the ids {', '.join(map(str, header.ends))}",
            "tokens of its vocabulary",
            "another file of the model",
        )
    pad = (fast.id_to_token(header.pad) if header.pad is not None else None) or names[0]
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": names[0],
        "pad_token": pad,
        "clean_up_tokenization_spaces": False,
    }
    if header.bos is not None and (begin := fast.id_to_token(header.bos)) is not None:
        settings["bos_token"] = begin  # a template may write it where nothing else does
    Tokenizer(fast, header.ends, pad, settings, header.template).save(folder)
    ends = list(header.ends) if len(header.ends) > 1 else header.ends[0]
    write_json(
        folder / "generation_config.json",
        {"eos_token_id": ends, "pad_token_id": fast.token_to_id(pad)},
    )


def write_net(folder: Path, net: Any, file: Path, header: GgufHeader) -> None:
    """config.json and model.safetensors. `save_pretrained` refuses what was read from GGUF, even
    where all weights are plain numbers by now."""
    content = net.config.to_diff_dict()
    left_out = ("quantization_config", *(key for key in content if key.startswith("_")))
    content = {key: value for key, value in content.items() if key not in left_out}
    content |= {"architectures": [type(net).__name__], "torch_dtype": "float32"}
    write_json(folder / "config.json", content)
    tensors: dict[str, torch.Tensor] = {}
    places: set[int] = set()
    for name, tensor in net.state_dict().items():
        if not tensor.is_floating_point():
            raise ModelError(
                f"transformers keeps {name} of {file} ({header}) quantised",
                "weights as plain numbers",
                "take the model's own folder from the hub",
            )
        if tensor.data_ptr() not in places:  # a tied head is the embedding once more
            tensors[name] = tensor.float().contiguous()
        places.add(tensor.data_ptr())
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    shutil.copymode(folder / "config.json", folder / "model.safetensors")


# -- what `transformers` makes of it ----------------------------------------------------------


def transformers_of(header: GgufHeader) -> Any:
    """The package, quiet. Raises `MissingExtra`."""
    try:
        import transformers
    except ImportError as error:
        raise MissingExtra("transformers", "hf") from error
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers


def cannot_read(file: Path, header: GgufHeader, error: Exception) -> ModelError:
    """The error for what `transformers` cannot read: each kind of file fails in its own way."""
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    return ModelError(
        f"transformers cannot read {file} ({header}): {reason}",
        "an architecture and number types that it reads from GGUF",
        "another quantisation of the model, or its own folder from the hub",
    )


def read_net(file: Path, header: GgufHeader) -> Any:
    """The model with its weights as float32. Raises `ModelError` for what cannot be read, and where
    a weight would be drawn at random."""
    if header.missing:
        raise cannot_read(file, header, KeyError(f"no {' and no '.join(header.missing)}"))
    place: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True}
    place |= {"dtype": torch.float32, "output_loading_info": True, **plain_numbers()}
    loader = transformers_of(header).AutoModelForCausalLM
    try:
        net, info = loader.from_pretrained(file.parent, **place)
    except Exception as error:
        raise cannot_read(file, header, error) from error
    tied = set(getattr(net, "_tied_weights_keys", None) or ())
    missing = sorted(key for key in info["missing_keys"] if key not in tied)
    if missing or info["mismatched_keys"]:
        raise ModelError(
            f"{file} ({header}): no weights for {', '.join(missing[:3]) or 'some tensors'}",
            "all weights of the model: transformers would draw those at random",
            "take the model's own folder from the hub",
        )
    return net


def plain_numbers() -> dict[str, Any]:
    """What tells newer versions of `transformers` not to keep weights quantised."""
    try:
        from transformers import GgufConfig
    except ImportError:
        return {}
    return {"quantization_config": GgufConfig(dequantize=True)}


def read_tokenizer(file: Path, header: GgufHeader) -> FastTokenizer:
    """The tokenizer. Raises `ModelError` for a kind or a rule of splitting that has no name here or
    in `transformers`: with another one the model would read other tokens than it was trained on."""
    rule = splitting_of(header.split)
    if rule is not None:
        fast = byte_level_tokenizer(header, rule)
    elif header.words == "gpt2" and header.split not in rules_of_transformers():
        raise ModelError(
            f"{file}: a tokenizer that splits text by the rule {header.split!r}",
            f"one of {', '.join(sorted({*SPLITS.values(), *NAMES_OF_STEPS}))}",
            "take the model's own folder from the hub",
        )
    else:
        loader = transformers_of(header).AutoTokenizer
        try:
            words = loader.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)
        except Exception as error:
            raise cannot_read(file, header, error) from error
        fast = FastTokenizer.from_str(words.backend_tokenizer.to_str())
    if header.before is not None:
        name = fast.id_to_token(header.before)
        if name is None:
            raise ModelError(
                f"{file}: the token {header.before} before every text",
                "a token of its vocabulary",
                "another file of the model",
            )
        fast.post_processor = TemplateProcessing(
            single=f"{name} $A", pair=f"{name} $A $B", special_tokens=[(name, header.before)]
        )
    elif fast.post_processor is not None:  # of transformers, which may begin a text by itself
        fast.post_processor = TemplateProcessing(single="$A", pair="$A $B", special_tokens=[])
    return fast


def byte_level_tokenizer(header: GgufHeader, rule: PreTokenizer) -> FastTokenizer:
    """Byte-level BPE with the tokens of the file under their ids."""
    tokens, kinds, merges = header.vocabulary
    vocab = {token: i for i, token in enumerate(tokens) if kinds[i] != UNUSED}
    parts = (merge.partition(" ") for merge in merges)
    pairs = [(left, right) for left, _, right in parts]
    refuse_strange_merges(pairs, vocab)
    fast = FastTokenizer(BPE(vocab=vocab, merges=pairs, ignore_merges=header.split in WHOLE_WORDS))
    fast.pre_tokenizer, fast.decoder = rule, ByteLevelDecoder()
    for kind, add in ((CONTROL, fast.add_special_tokens), (USER_DEFINED, fast.add_tokens)):
        named = [token for token, own in zip(tokens, kinds, strict=True) if own == kind]
        add([AddedToken(token, normalized=False, special=kind == CONTROL) for token in named])
    return fast


def refuse_strange_merges(pairs: list[tuple[str, str]], vocab: dict[str, int]) -> None:
    """Raise `ModelError` for a merge of or into what is no token: the library would end Python."""
    for left, right in pairs:
        if not {left, right, left + right} <= vocab.keys():
            raise ModelError(
                f"a vocabulary with the merge {left + ' ' + right!r:.60}, one of which is no token",
                "merges of its tokens into its tokens",
                "another file of the model",
            )


def splitting_of(name: str | None) -> PreTokenizer | None:
    """The pre-tokenizer that llama.cpp calls by this name; None for one that is not known here."""
    for pattern, known in SPLITS.items():
        if known == name:
            pieces = Split(Regex(pattern), "isolated")
            return pre_tokenizers.Sequence([pieces, ByteLevel(False, use_regex=False)])
    if name not in NAMES_OF_STEPS:
        return None
    steps: dict[str, PreTokenizer]
    steps = {"Digits": Digits(individual_digits=True), "ByteLevel": ByteLevel(False)}
    return pre_tokenizers.Sequence([steps[step] for step in NAMES_OF_STEPS[name]])


def rules_of_transformers() -> frozenset[str]:
    """The names of rules that `transformers` itself knows; empty in versions without a list."""
    try:
        from transformers.integrations.gguf import gguf_tokenizer_mapping as theirs
    except ImportError:
        return frozenset()
    return frozenset(getattr(theirs, "GGUF_PRE_TOKENIZER_SPLITS", ()))


def write_scaling(path: Path, file: Path, header: GgufHeader) -> None:
    """Write the stretched positions into config.json. Raises `ModelError` where the factors in
    the file are not those of Llama 3."""
    if set(header.factors) == {1.0}:
        return
    scaling = scaling_of(header)
    if scaling is None:
        raise ModelError(
            f"{file}: rotary frequencies divided by factors up to {max(header.factors):g}",
            "those of Llama 3.1 and later, which are computed from four numbers",
            "take the model's own folder from the hub",
        )
    content = json.loads(path.read_text(encoding="utf-8"))
    key = "rope_parameters" if content.get("rope_parameters") else "rope_scaling"
    content[key] = {**(content.get(key) or {}), **written_scaling(scaling)}
    write_json(path, content)


def scaling_of(header: GgufHeader) -> Llama3Scaling | None:
    """Llama 3's rule with the largest factor of the file, if it gives the file's factors."""
    half = len(header.factors)
    frequencies = header.theta ** -(torch.arange(half, dtype=torch.float32) / half)
    rule = replace(LLAMA3, factor=max(header.factors))
    factors = frequencies / rule.stretch(frequencies, header.theta)
    return rule if torch.allclose(factors, torch.tensor(header.factors), rtol=1e-3) else None


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder that becomes `out` where the block ends without an error, and else is gone."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
        partial.chmod(0o755)
    except OSError as error:
        raise RunError(f"cannot write {out}: {error.strerror}", "a folder to write into") from None
    try:
        yield partial
        os.replace(partial, out)
    except OSError as error:
        if isinstance(error, AhaError):
            raise
        raise RunError(
            f"cannot write {out}: {error.strerror}", "a folder with space left"
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
