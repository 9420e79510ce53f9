"""Tokenizers in which the same lines have different numbers of tokens."""

from tokenizers.pre_tokenizers import Metaspace, Sequence

from aha.model.tokenizer import Tokenizer, build_tokenizer

from ..tiny import first_edition


def begins_with_a_space() -> Tokenizer:
    """One that puts a token of its own before every text, in sentencepiece's way."""
    tokenizer = build_tokenizer()
    before = Metaspace(replacement="Ġ", prepend_scheme="always", split=False)
    tokenizer.fast.pre_tokenizer = Sequence([before])
    return tokenizer


TOKENIZERS = {"pairs": build_tokenizer(), "digits": first_edition()}
