"""Tokenizers in which the same lines have different numbers of tokens."""

from tokenizers import Tokenizer as FastTokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import Metaspace, Sequence

from aha.model.tokenizer import PAIRS, WORDS, Tokenizer, build_tokenizer


def first_edition(characters: str = "") -> Tokenizer:
    """aha-tiny's vocabulary of the first edition: each digit is a token. With `characters`: these
    alone, and no words."""
    built = build_tokenizer().fast
    kept = {
        token: place
        for token, place in built.get_vocab(with_added_tokens=not characters).items()
        if token not in PAIRS
        and token not in WORDS
        and (not characters or token in characters or len(token) > 1)
    }
    fast = FastTokenizer(BPE(vocab=kept, merges=[]))
    fast.pre_tokenizer, fast.decoder = built.pre_tokenizer, built.decoder
    fast.add_special_tokens([token for token in kept if token.startswith("<") and len(token) > 1])
    if not characters:
        fast.add_tokens(list(WORDS))
    return Tokenizer(fast)


def begins_with_a_space() -> Tokenizer:
    """One that puts a token of its own before every text, in sentencepiece's way."""
    tokenizer = build_tokenizer()
    before = Metaspace(replacement="Ġ", prepend_scheme="always", split=False)
    tokenizer.fast.pre_tokenizer = Sequence([before])
    return tokenizer


TOKENIZERS = {"pairs": build_tokenizer(), "digits": first_edition()}
