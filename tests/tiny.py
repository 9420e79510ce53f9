"""A decoder of some ten thousand weights for the tests of every room.

Its weights are random and large, so that what it writes is far from uniform: a test of sampling
or of a gradient would pass by luck on a freshly initialised decoder, whose logits are all alike.
"""

import json
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer as FastTokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer

from aha.core.records import Graded, Problem, Prompt
from aha.machine.c_build import COMPILERS, code_or_reason, find_compiler
from aha.machine.device import has_native_bf16
from aha.model import fused
from aha.model.tokenizer import PAIRS, WORDS, Tokenizer, build_tokenizer
from aha.model.transformer import ModelConfig, Transformer
from aha.model.weights import save_model
from aha.tasks.countdown import Countdown, as_problem, puzzle_line, puzzles
from aha.tasks.tags import plain_frame

# Two promises of the engine's loop in C can only be held where it can be built: users without a
# compiler get the torch loop, whose tests need nothing. CI has both.
needs_compiler = pytest.mark.skipif(
    find_compiler() is None,
    reason=f"the loop in C is built on the machine, and this one has none of {COMPILERS}",
)
needs_bf16 = pytest.mark.skipif(
    not has_native_bf16(), reason="the loop in C computes bf16 with an instruction this CPU lacks"
)

# The C code as processors with narrower vectors have it, on this one.
needs_x86 = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="the flags are those of x86"
)
IN_C = [
    pytest.param("", marks=needs_compiler, id="c"),
    *(
        pytest.param(flag, marks=[needs_compiler, needs_x86], id=f"c {flag}")
        for flag in ("-mno-avx512f", "-mno-avx")
    ),
]

# One thread: the sums of a matrix product depend on how many threads share it, and a test may
# then differ from one machine to the next.
torch.set_num_threads(1)


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


# A token a character, but for words and tags: what a toy task counts can be seen.
TOKENIZER = first_edition()


@contextmanager
def computed_by(flags: str | None) -> Iterator[None]:
    """The C code, compiled with these flags; None: torch in its place."""
    remembered = (code_or_reason, fused.libraries, fused.c_function)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AHA_CFLAGS", flags or "")
        if flags is None:
            patch.setenv("AHA_C", "0")
        for each in remembered:
            each.cache_clear()
        assert (fused.libraries(False) is None) == (flags is None)
        yield
    for each in remembered:
        each.cache_clear()


def tiny_config(**changes) -> ModelConfig:
    """Two layers of width 32: four query heads on two key-value heads."""
    settings = {
        "vocab_size": TOKENIZER.vocab_size,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 160,
    }
    return ModelConfig(**(settings | changes))


@torch.no_grad()
def tiny_transformer(seed: int = 0, std: float = 0.3, **changes) -> Transformer:
    """Every weight is drawn, biases and norms too: zeros and ones would hide a wrong sum."""
    policy, generator = Transformer(tiny_config(**changes)), torch.Generator().manual_seed(seed)
    for name, parameter in policy.named_parameters():
        centre = 1.0 if name.endswith("norm.weight") else 0.0
        parameter.normal_(centre, std, generator=generator)
    return policy


def tiny_folder(folder: Path, **changes) -> Path:
    """A model folder in the Hugging Face layout."""
    save_model(folder, tiny_transformer(**changes), TOKENIZER)
    return folder


@torch.no_grad()
def answering_folder(folder: Path) -> Path:
    """A model that likes answer tags: a third of its completions of 16 tokens hold a block.

    No random model ever solves a puzzle, but TinyZero's verifier pays 0.1 for any block: with it
    a run on this model has something to learn at every step.
    """
    policy = tiny_transformer(tie_word_embeddings=False)
    # The first feature is large at every position and no layer touches it ...
    policy.model.embed_tokens.weight[:, 0] = 10.0
    policy.model.norm.weight[0] = 1.0
    for layer in policy.model.layers:
        layer.self_attn.o_proj.weight[0] = layer.mlp.down_proj.weight[0] = 0.0
    # ... and it speaks for the tags.
    for tag in ("<answer>", "</answer>"):
        policy.lm_head.weight[TOKENIZER.id_of(tag), 0] = 3.1
    save_model(folder, policy, TOKENIZER)
    return folder


def write_recipe(path: Path, model: Path | str = "base", **changes) -> Path:
    """A recipe of seconds on an `answering_folder`; `changes` of its keys, sections as dicts."""
    recipe = {
        "checkpoint_every": 0,
        "model": {"path": str(model), "device": "cpu"},
        "task": {"verifier": "tinyzero"},
        "rollout": {"prompts": 2, "group_size": 6, "max_new_tokens": 16, "dtype": "float32"},
        "optim": {"lr": 1e-3, "dtype": "float32"},
        "eval": {"every": 0, "final": 4},
    }
    for name, value in changes.items():
        recipe[name] = recipe.get(name, {}) | value if isinstance(value, dict) else value
    sections = {name: value for name, value in recipe.items() if isinstance(value, dict)}
    lines = [f"{key} = {json.dumps(recipe[key])}" for key in recipe.keys() - sections]
    for name, section in sections.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in section.items())]
    path.write_text("\n".join(lines) + "\n")
    return path


LEARNT = "Reach 82  with 3, 7 and 25: 25*3+7 = 82, and don't forget it.\n<think>\nIt's  1234567!"
TURNS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def foreign_tokenizer(template: str | None = TURNS, begins: bool = False) -> Tokenizer:
    """One of SmolLM2's kind, with some merges: digits alone, then GPT-2's rule. It has every byte
    and none of the words of our bases; `begins`: with a token before every text."""
    fast = FastTokenizer(BPE())
    fast.pre_tokenizer = Sequence([Digits(individual_digits=True), ByteLevel(False)])
    fast.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=296,
        initial_alphabet=ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        show_progress=False,
    )
    fast.train_from_iterator([LEARNT] * 3, trainer)
    if begins:
        fast.post_processor = TemplateProcessing("<|im_start|> $A", None, [("<|im_start|>", 1)])
    return Tokenizer(fast, stop=("<|im_end|>",), pad="<|im_end|>", template=template)


def foreign_folder(folder: Path, template: str | None = TURNS) -> Path:
    """A model that nobody here has made: with a chat template, and a vocabulary of its own."""
    policy = tiny_transformer(model_type="llama", vocab_size=300, max_position_embeddings=1_024)
    save_model(folder, policy, foreign_tokenizer(template))
    return folder


def ask(*numbers: int, target: int) -> Prompt:
    return Prompt.of(as_problem(numbers, target), Countdown((len(numbers),)), TOKENIZER)


def some_prompts(count: int) -> list[Prompt]:
    """Different puzzles of three and of four numbers, so that prompts differ in length."""
    drawn = puzzles("train", 7, (3, 4))
    return [
        ask(*numbers, target=target) for numbers, target, _ in (next(drawn) for _ in range(count))
    ]


class StartsWith:
    """A task as a third party might write it: right is what begins with one of these characters."""

    name = "starts-with"

    def __init__(self, characters: str, right: float = 1, wrong: float = 0):
        self.characters, self.rewards = tuple(characters), {True: right, False: wrong}

    def problems(self, split: str, seed: int) -> Iterator[Problem]:
        for numbers, target, _ in puzzles(split, seed, (3,)):
            yield as_problem(numbers, target)

    def ask(self, problem: Problem) -> str:
        return plain_frame(puzzle_line(problem.given["numbers"], problem.given["target"]))

    def grade(self, problem: Problem, text: str) -> Graded:
        correct = text.startswith(self.characters)
        return Graded(self.rewards[correct], correct, f"begins with {text[:1]!r}")


class OnApple(torch.Tensor):
    """A tensor as one on an Apple GPU, which has no float64."""

    def double(self):
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype")

    def cpu(self):
        return self.as_subclass(torch.Tensor)
