"""Text to token ids and back, through a Hugging Face `tokenizer.json`.

aha-tiny's own tokenizer has Qwen2's pre-tokenisation and 202 entries: printable ASCII, a newline,
the words of the traces, the R1 tags as special tokens, and the numbers from 10 to 99. So a number
below 100 is one token, and a longer one has a token for each digit. Text is encoded once, when a
prompt is made, and decoded once, when a completion has ended.
"""

import json
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, pre_tokenizers
from tokenizers import Tokenizer as FastTokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Split

from aha.core.errors import ModelError
from aha.model.chat_template import (
    RenderedText,
    conversation,
    find_template,
    knows_chatml,
)
from aha.model.model_json import read_object
from aha.model.own_words import TASK_TAGS, in_own_words, tags_of

END, PAD = "<|endoftext|>", "<|pad|>"
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
PIECE_TOKENS = 8  # more than the tokens of one character: four at most, one for each byte
PAIRS = tuple(str(number) for number in range(10, 100))
WORDS = (
    "numbers",
    " target",
    " yes",
    " no",
    " need",
    "aim",
    "multiply",
    " times",
    "check",
    "back ",
)

# The split pattern of Qwen2's tokenizer: one digit a piece, words with their leading space.
QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class Tokenizer:
    """`say`, `encode`, `decode` and the ids that generation needs to know.

    `stop` are ids or texts of tokens that end a completion; `settings` is the content of
    tokenizer_config.json, kept as it was read.
    """

    def __init__(
        self,
        fast: FastTokenizer,
        stop: tuple[str | int, ...] = (END,),
        pad: str = PAD,
        settings: dict[str, Any] | None = None,
        template: str | None = None,
    ):
        self.fast, self.settings, self.template = fast, settings, template
        self._alone: dict[int, str] = {}  # the text of single tokens
        ids = (token if isinstance(token, int) else self.id_of(token) for token in stop)
        self.stop_ids = tuple(dict.fromkeys(ids))
        pad_id = fast.token_to_id(pad)
        self.pad_id = self.stop_ids[0] if pad_id is None else pad_id
        # The tokens before every text of pre-training, such as <|begin_of_text|>; mostly none.
        self.prefix = tokens_before_text(fast)

    @property
    def vocab_size(self) -> int:
        return self.fast.get_vocab_size(with_added_tokens=True)

    @property
    def bos_id(self) -> int | None:
        return self.prefix[0] if self.prefix else None

    def id_of(self, token: str) -> int:
        """The id of a token. Raises `ModelError` where the vocabulary lacks it."""
        token_id = self.fast.token_to_id(token)
        if token_id is None:
            raise ModelError(
                f"the tokenizer has no token {token!r}",
                "a tokenizer with that token",
                "use another model folder or template",
            )
        return token_id

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`; text that the vocabulary cannot hold is an error, never dropped.

        The ids begin as the model's texts begin: with its begin-of-text token, if it has one and
        the text does not bring it. What a chat template rendered begins as the template says.
        """
        try:
            ids = self.fast.encode(text, add_special_tokens=False).ids
        except TypeError:  # the library's word for half of a surrogate pair, as in JSON's "\ud800"
            raise cannot_hold(f"half of a character, at place {lone_surrogate(text)}") from None
        if not self.reads_back(ids, text):
            decoded = self.fast.decode(ids, skip_special_tokens=False)
            lost = "".join(sorted({char for char in text if char not in decoded}))
            what = f"characters this tokenizer cannot hold: {lost!r}"
            raise cannot_hold(what if lost else "another order of characters than its tokens")
        has_prefix = isinstance(text, RenderedText) or tuple(ids[: len(self.prefix)]) == self.prefix
        return ids if has_prefix else [*self.prefix, *ids]

    def reads_back(self, ids: Sequence[int], text: str) -> bool:
        """Whether the model, which reads `ids`, is given all of `text`.

        A vocabulary drops what it has no token for without a word; this is what notices it. What
        the tokenizer's own normaliser rewrites is not lost: Qwen's writes e and a combining accent
        as one character (NFC), and the model has never read it in another way.
        """
        # Not `self.decode`, which drops stop tokens: a chat prompt contains some.
        decode = partial(self.fast.decode, skip_special_tokens=False)
        decoded = decode(list(ids))
        # Without spaces: sentencepiece puts one before a text and removes it again.
        if decoded.replace(" ", "") == text.replace(" ", ""):
            return True
        # Both sides: the tokenizer normalises between special tokens, not over them.
        normalise = self.fast.normalizer.normalize_str if self.fast.normalizer else str
        if normalise(decoded).replace(" ", "") == normalise(text).replace(" ", ""):
            return True
        begun = self.prefix and tuple(ids[: len(self.prefix)]) == self.prefix
        return bool(begun) and self.reads_back(ids[len(self.prefix) :], text)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`, tags included, without stop and pad tokens."""
        hidden = {self.pad_id, *self.stop_ids}
        return self.fast.decode([i for i in ids if i not in hidden], skip_special_tokens=False)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The text that each token adds, stop tokens by their names.

        Where a token alone decodes to other text than among its neighbours (a space that
        sentencepiece drops, a character of several tokens), its piece is the growth of the text
        when it is decoded together with a few tokens before it.
        """
        decode = partial(self.fast.decode, skip_special_tokens=False)
        for token in ids:
            if token not in self._alone:
                self._alone[token] = decode([token])
        alone = [self._alone[token] for token in ids]
        if "".join(alone) == decode(list(ids)):
            return alone
        pieces = []
        for end in range(1, len(ids) + 1):
            window = list(ids[max(0, end - PIECE_TOKENS) : end])
            before, after = decode(window[:-1]), decode(window)
            # U+FFFD stands for a character of which only some bytes have come.
            pieces.append(after[len(before.rstrip("\ufffd")) :].rstrip("\ufffd"))
        return pieces

    def say(self, text: str, /, **options: object) -> str:
        """A prompt in the form of this model's training: a conversation in ChatML is rewritten by
        the model's own chat template, any other text stays as it is. `options` are variables of the
        template, such as enable_thinking."""
        settings, id_of = self.settings or {}, self.fast.token_to_id
        return in_own_words(text, self.template, settings, id_of, **options)

    def own_tags(self, text: str) -> tuple[tuple[str, str], ...]:
        """(the model's, the task's) tags of a thought, of a prompt that `say` has framed; empty
        where they are the same ones."""
        if not isinstance(text, RenderedText) or self.template is None:
            return ()
        tags = tags_of(self.template)
        return () if tags == TASK_TAGS else tuple(zip(tags, TASK_TAGS, strict=True))

    @property
    def reads_plain(self) -> bool:
        """Whether it is the tokenizer of our own bases, which have read the template `plain`."""
        return all(self.fast.token_to_id(word) is not None for word in (" target", "back "))

    def converses(self) -> bool:
        """Whether this model was trained on conversations: it has a chat template, or ChatML's
        tokens."""
        return self.template is not None or knows_chatml(self.fast.token_to_id)

    def converse(self, messages: list[dict[str, str]]) -> str:
        """The prompt of a conversation of {role, content}, up to the start of the assistant's turn.
        Raises `ModelError` for a model without conversations, or a template that refuses the roles.
        """
        return conversation(messages, self.template, self.settings or {}, self.fast.token_to_id)

    def save(self, folder: Path) -> None:
        """Write what `load` reads. A tokenizer that was loaded keeps its settings."""
        self.fast.save(str(folder / "tokenizer.json"))
        names = {token: self.fast.id_to_token(token) for token in (*self.stop_ids, self.pad_id)}
        defaults = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": names[self.stop_ids[0]],
            "pad_token": names[self.pad_id],
            "clean_up_tokenization_spaces": False,
        }
        content = json.dumps(self.settings or defaults, indent=2) + "\n"
        (folder / "tokenizer_config.json").write_text(content)
        if self.template and "chat_template" not in (self.settings or {}):
            (folder / "chat_template.jinja").write_text(self.template)

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        """Read tokenizer.json and the files that go with it. A token stops a completion if
        tokenizer_config.json, generation_config.json or config.json names it as eos token."""
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ModelError(
                f"{folder} has no tokenizer.json",
                "the file of the tokenizers library",
                "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER) of transformers "
                "writes it",
            )
        try:
            fast = FastTokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain Exception for a bad file
            raise ModelError(f"{path}: {error}", "a readable tokenizer.json") from error
        # The file may hold what its last user set: a limit would cut prompts without a word.
        fast.no_truncation()
        fast.no_padding()
        names = ("tokenizer_config.json", "generation_config.json", "config.json")
        settings, *others = (
            read_object(folder / name) if (folder / name).is_file() else {} for name in names
        )
        path = folder / names[0]
        first, pad = (_name(settings.get(key), key, path) for key in ("eos_token", "pad_token"))
        if first and fast.token_to_id(first) is None:
            raise ModelError(
                f"{path}: eos_token {first!r}, which tokenizer.json does not have",
                "the token that ends a text",
                "write that one there, or null where generation_config.json names it",
            )
        fast.encode_special_tokens = settings.get("split_special_tokens") is True
        stop: list[str | int] = [first] if first else []
        for name, other in zip(names[1:], others, strict=True):
            stop += _stop_ids(other.get("eos_token_id"), fast, folder / name)
        stop = stop or [END]
        pad = pad or (stop[0] if isinstance(stop[0], str) else fast.id_to_token(stop[0])) or PAD
        return cls(fast, tuple(stop), pad, settings or None, find_template(folder, settings))


def cannot_hold(what: str) -> ModelError:
    """The error for a text that no tokens of this vocabulary make."""
    return ModelError(
        f"text with {what}",
        "text that comes back unchanged, in aha-tiny's case printable ASCII",
        "take them out, or use a model with a larger vocabulary",
    )


def lone_surrogate(text: str) -> int:
    """The place of the first half of a surrogate pair in a text that has one."""
    return next(place for place, char in enumerate(text) if "\ud800" <= char <= "\udfff")


def tokens_before_text(fast: FastTokenizer) -> tuple[int, ...]:
    """The ids that the tokenizer puts before a text. What it puts behind (an end, in BERT's way) is
    left out: a prompt goes on."""
    encoded = fast.encode("a")
    added = encoded.special_tokens_mask
    count = added.index(0) if 0 in added else len(added)
    return tuple(encoded.ids[:count])


def _stop_ids(value: object, fast: FastTokenizer, path: Path) -> list[int]:
    """The ids of an `eos_token_id`, which is a number, a list or null."""
    ids: list[Any] = value if isinstance(value, list) else [] if value is None else [value]
    for token in ids:
        known = type(token) is int and 0 <= token < 2**32  # ids of the Rust library
        if not known or fast.id_to_token(token) is None:
            raise ModelError(
                f"{path}: eos_token_id {token!r}",
                "ids that the tokenizer has",
                "write the id of the token that ends a text",
            )
    return ids


def _name(token: object, key: str, path: Path) -> str | None:
    """A token's text: in JSON a string, an object with `content`, or null."""
    text = token.get("content") if isinstance(token, dict) else token
    if text is None and token is None or isinstance(text, str):
        return text
    raise ModelError(f"{path}: {key} {token!r:.60}", "a token's text, or null", "correct it")


def build_tokenizer() -> Tokenizer:
    """aha-tiny's tokenizer, made from nothing; the same ids on every machine."""
    special = [END, PAD, *TAGS]
    characters = ["\n", *(chr(code) for code in range(32, 127))]
    byte_level = {" ": "Ġ", "\n": "Ċ"}  # how byte-level BPE writes these two
    pieces = special + [byte_level.get(char, char) for char in characters]
    fast = FastTokenizer(BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[]))
    fast.pre_tokenizer = pre_tokenizers.Sequence(
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
    # Only between what is no digit: larger numbers are spelt digit by digit, since carries are
    # harder to learn between pairs of digits.
    fast.add_tokens([AddedToken(pair, normalized=False, single_word=True) for pair in PAIRS])
    return Tokenizer(fast)
