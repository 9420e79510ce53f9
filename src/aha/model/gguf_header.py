"""What a GGUF file says of itself, and what makes it no model that can be read."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aha.core.errors import MissingExtra, ModelError
from aha.model.gguf import NORMAL, ROPE_FACTORS, ends_by_text
from aha.model.tensors import refuse_size

if TYPE_CHECKING:
    from gguf import GGUFReader

MAGIC = b"GGUF"
POINTER = b"version https://git-lfs"
SIZES = ("block_count", "embedding_length")
ENDS = ("eos_token_id", "eot_token_id", "eom_token_id")  # keys of tokens that end a completion
# Rules of splitting under which llama.cpp begins every text, where a file does not say; those of
# Llama 3.2 do not say.
BEGUN = frozenset(
    "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano tekken "
    "chameleon".split()
)
COPIES = 2  # of all weights in float32, while they are read and while they are written


@dataclass(frozen=True)
class GgufHeader:
    """What a GGUF file says of itself, and `transformers` does not look at."""

    architecture: str
    kinds: tuple[str, ...]  # the number types of its tensors
    numbers: int  # in all tensors
    words: str  # the kind of its tokenizer: gpt2 is byte-level BPE, llama sentencepiece
    split: str | None  # the name of the rule that splits text; of byte-level BPE alone
    ends: tuple[int, ...]  # the tokens that end a completion
    bos: int | None  # the token that begins a text, where there is one
    begins: bool  # whether it is put before every text
    pad: int | None
    factors: tuple[float, ...]  # of the rotary frequencies; empty where they are plain
    theta: float
    template: str | None
    missing: tuple[str, ...]  # of the keys with its sizes; transformers would take those of 7B
    # Of byte-level BPE: its tokens, their kinds, and the merges.
    vocabulary: tuple[list[str], list[int], list[str]] = field(repr=False)

    @property
    def before(self) -> int | None:
        """The token before every text."""
        return self.bos if self.begins else None

    def __str__(self) -> str:
        return f"architecture {self.architecture}, {' and '.join(self.kinds)}"


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
    try:
        refuse_part(file, reader)
        return header_of(file, reader)
    except ModelError:
        raise
    except (TypeError, ValueError, LookupError) as error:  # a text where a number is wanted
        raise ModelError(
            f"{file}: keys that are damaged ({type(error).__name__}: {error})",
            "keys with values as GGUF's specification has them",
            "another file of the model",
        ) from error


def refuse_part(file: Path, reader: "GGUFReader") -> None:
    """Raise `ModelError` for a file that is not a whole model."""
    parts, kind = content_of(reader, "split.count") or 1, content_of(reader, "general.type")
    if parts > 1:
        raise ModelError(
            f"{file}: one of {parts} parts of a model",
            "one file with all of it",
            "join them with llama-gguf-split of llama.cpp",
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
    vocabulary = vocabulary_of(reader)
    named = [end for end in map(token, ENDS) if end is not None]
    ends = [*named, *ends_by_text(*vocabulary[:2])]
    if not ends:
        raise ModelError(
            f"{file}: no token that ends a text", f"one of {', '.join(ENDS)}", "import another file"
        )
    split = content_of(reader, "tokenizer.ggml.pre") if words == "gpt2" else None
    begins = content_of(reader, "tokenizer.ggml.add_bos_token")
    if begins is None:
        begins = words == "llama" or split in BEGUN
    rule = content_of(reader, f"{architecture}.rope.scaling.type")
    if rule not in (None, "none"):
        raise ModelError(
            f"{file}: positions stretched by the rule {rule!r}, which transformers does not read",
            "plain positions, or those of Llama 3",
            "take the model's own folder from the hub",
        )
    template = content_of(reader, "tokenizer.chat_template")
    factors = [tensor.data for tensor in reader.tensors if tensor.name == ROPE_FACTORS]
    return GgufHeader(
        architecture,
        tuple(sorted({tensor.tensor_type.name for tensor in reader.tensors})),
        sum(int(tensor.n_elements) for tensor in reader.tensors),
        words,
        split,
        tuple(dict.fromkeys(ends)),
        token("bos_token_id"),
        bool(begins),
        token("padding_token_id"),
        tuple(float(factor) for factor in factors[0]) if factors else (),
        float(content_of(reader, f"{architecture}.rope.freq_base") or 10_000.0),
        template if isinstance(template, str) else None,
        tuple(key for size in SIZES if (key := f"{architecture}.{size}") not in reader.fields),
        vocabulary,
    )


def vocabulary_of(reader: "GGUFReader") -> tuple[list[str], list[int], list[str]]:
    """Tokens, their kinds and merges; empty lists for what the file does not have."""
    keys = ("tokens", "token_type", "merges")
    tokens, kinds, merges = (
        list(content_of(reader, f"tokenizer.ggml.{key}") or []) for key in keys
    )
    kinds = kinds or [NORMAL] * len(tokens)
    if len(kinds) != len(tokens):
        raise ValueError(f"{len(tokens)} tokens and the kinds of {len(kinds)}")
    return tokens, kinds, merges


def content_of(reader: "GGUFReader", key: str) -> Any:
    """The value of a key; None where the file does not have it."""
    field = reader.fields.get(key)
    return None if field is None else field.contents()


def refuse_large(file: Path, header: GgufHeader) -> None:
    """Raise `ModelError` for a model that this machine's memory does not hold, before it is
    read."""
    refuse_size(file, header.numbers, COPIES)
