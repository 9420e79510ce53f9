"""A GGUF file of llama.cpp as a Hugging Face folder, for `aha import`.

`transformers` reads the shape, the weights and the vocabulary (the extras [hf] and [gguf]). Four
things in a file it leaves out without a word; each is added here, or the file is refused by name:
the rule that splits a text before its merges (SmolLM2's is one it has no name for), rotary
frequencies that are stretched, the token before every text, and the tokens that end a turn.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from tokenizers import Regex, pre_tokenizers
from tokenizers import Tokenizer as FastTokenizer
from tokenizers.pre_tokenizers import ByteLevel, Digits, PreTokenizer, Split
from tokenizers.processors import TemplateProcessing

from aha.core.errors import AhaError, MissingExtra, ModelError, RunError
from aha.core.sizes import GB
from aha.machine.host import memory_bytes
from aha.model.gguf import NAMES_OF_STEPS, ROPE_FACTORS, SPLITS, WHOLE_WORDS
from aha.model.rope_scaling import Llama3Scaling, written_scaling
from aha.model.tokenizer import Tokenizer
from aha.model.weights import LoadedModel, load_model, write_json

if TYPE_CHECKING:
    from gguf import GGUFReader

MAGIC = b"GGUF"
POINTER = b"version https://git-lfs"
ENDS = ("eos_token_id", "eot_token_id", "eom_token_id")  # each of them ends a completion
COPIES = 2  # of all weights in float32, while they are read and while they are written
LLAMA3 = Llama3Scaling(8.0, 1.0, 4.0, 8192)  # of Llama 3.1 and later; only the factor differs


@dataclass(frozen=True)
class GgufHeader:
    """What a GGUF file says of itself, and `transformers` does not look at."""

    architecture: str
    kinds: tuple[str, ...]  # the number types of its tensors
    numbers: int  # in all tensors
    words: str  # the kind of its tokenizer: gpt2 is byte-level BPE, llama sentencepiece
    split: str | None  # the name of the rule that splits text; of byte-level BPE alone
    ends: tuple[int, ...]  # the tokens that end a completion
    before: int | None  # the token before every text
    pad: int | None
    factors: tuple[float, ...]  # of the rotary frequencies; empty where they are plain
    theta: float

    def __str__(self) -> str:
        return f"architecture {self.architecture}, {' and '.join(self.kinds)}"


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
    net, words = read_with_transformers(file, header)
    write_net(folder, net, file, header)
    if header.factors:
        write_scaling(folder / "config.json", file, header)
    fast = corrected(words, header)
    names = [fast.id_to_token(token) for token in header.ends]
    pad = fast.id_to_token(header.pad) if header.pad is not None else None
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": names[0],
        "pad_token": pad or names[0],
        "clean_up_tokenization_spaces": False,
    }
    if header.before is not None:
        settings["bos_token"] = fast.id_to_token(header.before)
    template = words.chat_template if isinstance(words.chat_template, str) else None
    Tokenizer(fast, header.ends, settings["pad_token"], settings, template).save(folder)
    ends = list(header.ends) if len(header.ends) > 1 else header.ends[0]
    write_json(
        folder / "generation_config.json",
        {"eos_token_id": ends, "pad_token_id": fast.token_to_id(settings["pad_token"])},
    )


def write_net(folder: Path, net: Any, file: Path, header: GgufHeader) -> None:
    """config.json and model.safetensors. `save_pretrained` refuses what was read from GGUF, even
    where all weights are plain numbers by now."""
    content = net.config.to_dict()
    content.pop("quantization_config", None)
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


# -- the file -------------------------------------------------------------------------------


def read_header(file: Path) -> GgufHeader:
    """What the file says of itself. Raises `ModelError` for what is no model in one file."""
    try:
        with file.open("rb") as content:
            begin = content.read(len(POINTER))
    except OSError as error:
        raise ModelError(f"{file}: {error.strerror}", "a GGUF file", "check the path") from None
    if not begin.startswith(MAGIC):
        pointer = begin == POINTER
        what = "a pointer of Git LFS" if pointer else f"a file that begins with {begin[:4]!r}"
        fix = "git lfs pull, where it is from" if pointer else "give a file that llama.cpp loads"
        raise ModelError(f"{file}: {what}", "a GGUF file", fix)
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise MissingExtra("gguf", "gguf") from error
    try:
        reader = GGUFReader(file)
    except Exception as error:  # a file that is cut off or of another version fails in many ways
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelError(
            f"{file} cannot be read: {reason}",
            "a whole GGUF file of version 2 or 3",
            "copy it anew: it may have been cut off",
        ) from error
    refuse_part(file, reader)
    return header_of(file, reader)


def refuse_part(file: Path, reader: "GGUFReader") -> None:
    """Raise `ModelError` for a file that is not a whole model."""
    parts, kind = content_of(reader, "split.count") or 1, content_of(reader, "general.type")
    if parts > 1:
        raise ModelError(
            f"{file}: one of {parts} parts of a model",
            "one file with all of it",
            "join them: `llama-gguf-split --merge FIRST.gguf OUT.gguf` of llama.cpp",
        )
    if kind not in (None, "model"):
        raise ModelError(f"{file}: a file of the type {kind!r}", "a model", "import the model")
    if content_of(reader, "general.architecture") is None or not reader.tensors:
        raise ModelError(f"{file}: no architecture or no tensors", "a model", "import a model")
    if "tokenizer.ggml.tokens" not in reader.fields:
        raise ModelError(
            f"{file}: no vocabulary", "a model with its tokenizer", "import a file that has one"
        )


def header_of(file: Path, reader: "GGUFReader") -> GgufHeader:
    """The header of a file that is a model."""

    def token(name: str) -> int | None:
        value = content_of(reader, f"tokenizer.ggml.{name}")
        return value if isinstance(value, int) else None

    architecture = str(content_of(reader, "general.architecture"))
    words = str(content_of(reader, "tokenizer.ggml.model"))
    ends = [end for end in map(token, ENDS) if end is not None]
    if not ends:
        raise ModelError(
            f"{file}: no token that ends a text", f"one of {', '.join(ENDS)}", "import another file"
        )
    begins = content_of(reader, "tokenizer.ggml.add_bos_token")
    begins = words == "llama" if begins is None else begins
    rule = content_of(reader, f"{architecture}.rope.scaling.type")
    if rule not in (None, "none"):
        raise ModelError(
            f"{file}: positions stretched by the rule {rule!r}, which transformers does not read",
            "plain positions, or those of Llama 3",
            "take the model's own folder from the hub",
        )
    factors = [tensor.data for tensor in reader.tensors if tensor.name == ROPE_FACTORS]
    return GgufHeader(
        architecture,
        tuple(sorted({tensor.tensor_type.name for tensor in reader.tensors})),
        sum(int(tensor.n_elements) for tensor in reader.tensors),
        words,
        content_of(reader, "tokenizer.ggml.pre") if words == "gpt2" else None,
        tuple(dict.fromkeys(ends)),
        token("bos_token_id") if begins else None,
        token("padding_token_id"),
        tuple(float(factor) for factor in factors[0]) if factors else (),
        float(content_of(reader, f"{architecture}.rope.freq_base") or 10_000.0),
    )


def content_of(reader: "GGUFReader", key: str) -> Any:
    """The value of a key; None where the file does not have it."""
    field = reader.fields.get(key)
    return None if field is None else field.contents()


def refuse_large(file: Path, header: GgufHeader) -> None:
    """Raise `ModelError` for a model that this machine's memory does not hold, before it is
    read."""
    needed, free = 4 * COPIES * header.numbers, memory_bytes().free
    if free and needed > free:
        raise ModelError(
            f"{file}: {header.numbers / 1e6:,.0f} million weights, {needed / GB:.1f} GB while they "
            "are written in float32",
            f"at most the {free / GB:.1f} GB of memory that are free",
            f"a machine with {needed / GB:.0f} GB, or a smaller model",
        )


# -- what `transformers` makes of it ----------------------------------------------------------


def read_with_transformers(file: Path, header: GgufHeader) -> tuple[Any, Any]:
    """(model, tokenizer). Raises `ModelError` for what it cannot read, and where it would draw a
    weight at random."""
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging
    except ImportError as error:
        raise MissingExtra("transformers", "hf") from error
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    place: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True}
    try:
        words = AutoTokenizer.from_pretrained(file.parent, **place)
        place |= {"dtype": torch.float32, "output_loading_info": True, **plain_numbers()}
        net, info = AutoModelForCausalLM.from_pretrained(file.parent, **place)
    except Exception as error:  # an unknown architecture or number type fails in its own way
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ModelError(
            f"transformers cannot read {file} ({header}): {reason}",
            "an architecture and number types that it reads from GGUF",
            "another quantisation of the model, or its own folder from the hub",
        ) from error
    tied = set(getattr(net, "_tied_weights_keys", None) or ())
    missing = sorted(key for key in info["missing_keys"] if key not in tied)
    if missing or info["mismatched_keys"]:
        raise ModelError(
            f"{file} ({header}): no weights for {', '.join(missing[:3]) or 'some tensors'}",
            "all weights of the model: transformers would draw those at random",
            "take the model's own folder from the hub",
        )
    return net, words


def plain_numbers() -> dict[str, Any]:
    """What tells newer versions of `transformers` not to keep weights quantised."""
    try:
        from transformers import GgufConfig
    except ImportError:
        return {}
    return {"quantization_config": GgufConfig(dequantize=True)}


def corrected(words: Any, header: GgufHeader) -> FastTokenizer:
    """The tokenizer that `transformers` made, with the file's rule of splitting and its token
    before every text. Raises `ModelError` for a rule without a name here or there."""
    content = json.loads(words.backend_tokenizer.to_str())
    if header.words == "gpt2":
        rule = splitting_of(header.split)
        if rule is not None:
            model = FastTokenizer.from_str(json.dumps(content))
            model.pre_tokenizer = rule
            content = json.loads(model.to_str())
            content["model"]["ignore_merges"] = header.split in WHOLE_WORDS
        elif header.split not in rules_of_transformers():
            raise ModelError(
                f"a tokenizer that splits text by the rule {header.split!r}",
                f"one of {', '.join(sorted({*SPLITS.values(), *NAMES_OF_STEPS}))}",
                "take the model's own folder from the hub",
            )
    fast = FastTokenizer.from_str(json.dumps(content))
    if header.before is not None:
        name = fast.id_to_token(header.before)
        fast.post_processor = TemplateProcessing(
            single=f"{name} $A", pair=f"{name} $A $B", special_tokens=[(name, header.before)]
        )
    return fast


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
