"""Text to token ids and back, through a Hugging Face `tokenizer.json`.

aha-tiny's own tokenizer has Qwen2's pre-tokenisation, so every digit is a token of its own, and
112 entries: printable ASCII, a newline, the words of the traces, and the R1 tags as special
tokens. Text is encoded once, when a prompt is made, and decoded once, when a completion is done.
"""

import json
from pathlib import Path

from tokenizers import AddedToken, Regex
from tokenizers import Tokenizer as FastTokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split

from aha.core.errors import ModelError

END, PAD = "<|endoftext|>", "<|pad|>"
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
WORDS = ("numbers", " target", " yes", " no", " need", "aim", "multiply", " times", "check", "back")

# The split pattern of Qwen2's tokenizer: one digit a piece, words with their leading space.
QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class Tokenizer:
    """`encode`, `decode` and the ids that generation needs to know."""

    def __init__(self, fast: FastTokenizer, stop: tuple[str, ...] = (END,), pad: str = PAD):
        self.fast = fast
        self.stop_ids = tuple(self.id_of(token) for token in stop)
        pad_id = fast.token_to_id(pad)
        self.pad_id = self.stop_ids[0] if pad_id is None else pad_id

    @property
    def vocab_size(self) -> int:
        return self.fast.get_vocab_size(with_added_tokens=True)

    def id_of(self, token: str) -> int:
        found = self.fast.token_to_id(token)
        if found is None:
            raise ModelError(
                f"the tokenizer has no token {token!r}",
                "a tokenizer with that token",
                "use another model folder or template",
            )
        return found

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`; text that the vocabulary cannot hold is an error, never dropped."""
        ids = self.fast.encode(text, add_special_tokens=False).ids
        # Not `self.decode`, which drops stop tokens: a chat prompt holds some of its own.
        held = self.fast.decode(ids, skip_special_tokens=False)
        if held != text:
            lost = sorted({char for char in text if char not in held})
            raise ModelError(
                f"text with characters this tokenizer cannot hold: {''.join(lost)!r}",
                "printable ASCII",
                "take them out, or use a model with a larger vocabulary",
            )
        return ids

    def decode(self, ids) -> str:
        """The text of `ids`, tags included, stop and pad tokens left out."""
        silent = {self.pad_id, *self.stop_ids}
        return self.fast.decode([i for i in ids if i not in silent], skip_special_tokens=False)

    def save(self, folder: Path) -> None:
        self.fast.save(str(folder / "tokenizer.json"))
        names = {token: self.fast.id_to_token(token) for token in (*self.stop_ids, self.pad_id)}
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": names[self.stop_ids[0]],
            "pad_token": names[self.pad_id],
            "clean_up_tokenization_spaces": False,
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        path = folder / "tokenizer.json"
        try:
            fast = FastTokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain Exception for a bad file
            raise ModelError(f"{path}: {error}", "a readable tokenizer.json") from error
        config_path = folder / "tokenizer_config.json"
        try:
            config = json.loads(config_path.read_text()) if config_path.exists() else {}
        except ValueError as error:
            raise ModelError(f"{config_path}: {error}", "readable JSON") from error
        stop, pad = (_name(config.get(key)) for key in ("eos_token", "pad_token"))
        return cls(fast, (stop or END,), pad or stop or PAD)


def _name(token) -> str | None:
    return token["content"] if isinstance(token, dict) else token


def build_tokenizer() -> Tokenizer:
    """aha-tiny's tokenizer, made from nothing; the same ids on every machine."""
    special = [END, PAD, *TAGS]
    characters = ["\n", *(chr(code) for code in range(32, 127))]
    byte_level = {" ": "Ġ", "\n": "Ċ"}  # how byte-level BPE writes these two
    pieces = special + [byte_level.get(char, char) for char in characters]
    fast = FastTokenizer(BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[]))
    fast.pre_tokenizer = Sequence(
        [
            Split(Regex(QWEN2_PATTERN), behavior="isolated", invert=False),
            ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    fast.decoder = ByteLevelDecoder()
    fast.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    # Added tokens, not entries of the BPE model: `transformers` rebuilds a Qwen2 tokenizer from
    # vocabulary and merges alone, and would spell out a word that no merge makes.
    fast.add_tokens([AddedToken(word, normalized=False) for word in WORDS])
    return Tokenizer(fast)
