"""A model that thinks and closes its thoughts, with a tag that is one token or is spelt.

No random model ever writes `</think>` in three tokens. This one's next token depends mostly on its
last: letters follow letters, and now and then the tag, an answer, and the end. Its layers have
small random weights, so that log-probs depend on everything before: a cache that is wrong shows.
"""

from functools import cache

import torch
from tokenizers import Tokenizer as FastTokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import BPE

from aha.core.records import Problem, Prompt
from aha.model.tokenizer import END, PAD, Tokenizer
from aha.model.transformer import ModelConfig, Transformer

LETTERS = [
    "\n",
    "a",
    "b",
    "c",
    "W",
    " ",
    "<",
    "/",
    "t",
    "h",
    "i",
    "n",
    "k",
    ">",
    "x",
    "s",
    "w",
    "e",
    "r",
]
WIDTH = 64


@cache
def tokenizer(spelt: bool) -> Tokenizer:
    """With `</think>` as one token, or as `</`, `think` and `>`."""
    special = [END, PAD, "<think>", "<answer>", "</answer>", *([] if spelt else ["</think>"])]
    fast = FastTokenizer(BPE(vocab={c: i for i, c in enumerate([*special, *LETTERS])}, merges=[]))
    fast.decoder = Fuse()
    fast.add_special_tokens(special)
    fast.add_tokens(["</", "think", "Wait", ".</", ">\n"] if spelt else ["Wait"])
    return Tokenizer(fast)


@torch.no_grad()
def thinker(spelt: bool, seed: int = 0) -> Transformer:
    """Its weights."""
    words = tokenizer(spelt)
    config = ModelConfig(
        vocab_size=words.vocab_size,
        hidden_size=WIDTH,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=False,
    )
    policy, generator = Transformer(config), torch.Generator().manual_seed(seed)
    for name, parameter in policy.named_parameters():
        centre = 1.0 if name.endswith("norm.weight") else 0.0
        parameter.normal_(centre, 0.05, generator=generator)
    policy.model.embed_tokens.weight.add_(torch.eye(WIDTH)[: words.vocab_size] * 4)
    policy.lm_head.weight.add_(
        follows(words)[:, : words.vocab_size] @ torch.eye(WIDTH)[: words.vocab_size]
    )
    return policy


def follows(words: Tokenizer) -> torch.Tensor:
    """[V, V]: how likely token i is after token j."""
    V = words.vocab_size
    likes_VV = torch.full((V, V), -0.8)  # so that hardly anything else is drawn

    def like(before: str, after: dict[str, float]) -> None:
        for token, strength in after.items():
            likes_VV[words.id_of(token), words.id_of(before)] = strength

    # One unit is 8 nats: the norm makes a vector of length sqrt(64) of every token.
    thought = {"a": 0.7, "b": 0.7, "\n": 0.6}
    tag = (
        {"</": 0.55, ".</": 0.4}
        if words.fast.token_to_id("</think>") is None
        else {"</think>": 0.65}
    )
    for letter in ("a", "b", "\n", "Wait", "<think>"):
        like(letter, thought | tag)
    if words.fast.token_to_id("</think>") is None:
        for half in ("</", ".</"):
            like(half, {"think": 1.0, "a": 0.7})
        like("think", {">": 0.9, ">\n": 0.8, "a": 0.5})
        closes = (">", ">\n")
    else:
        closes = ("</think>",)
    for close in closes:
        like(close, {"<answer>": 1.5})
    like("<answer>", {"c": 1.2})
    like("c", {"</answer>": 1.0, "c": 0.8})
    like("</answer>", {END: 1.5})
    return likes_VV


def prompts(count: int, spelt: bool, end: str = "\n") -> list[Prompt]:
    """Prompts of different lengths that end inside an open thought."""
    words, made = tokenizer(spelt), []
    for number in range(count):
        text = "abc"[number % 3] * (1 + number % 5) + "<think>" + end
        made.append(Prompt(Problem(f"p{number}", "letters", {}), text, tuple(words.encode(text))))
    return made
