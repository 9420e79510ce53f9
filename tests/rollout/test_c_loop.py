"""The loop in C: the torch loop's completions, bit for bit independent of the batch."""

from dataclasses import replace

import pytest
import torch

from aha.core.errors import ConfigError
from aha.machine.c_build import NotCompiled, load_code
from aha.model.decode import InferenceWeights
from aha.rollout.c_loop import CompiledLoop, pack
from aha.rollout.engine import Sampling
from aha.rollout.native import NativeEngine

from ..tiny import (
    IN_C,
    TOKENIZER,
    computed_by,
    needs_bf16,
    needs_compiler,
    some_prompts,
    tiny_transformer,
)

SAMPLING = Sampling(max_new_tokens=60, group_size=6, seed=3)
TYPES = ["float32", pytest.param("bfloat16", marks=needs_bf16)]


@pytest.fixture(autouse=True)
def fresh():
    """`load_code` remembers what it has loaded; the next test may not want it."""
    load_code.cache_clear()
    yield
    load_code.cache_clear()


def shaped(**changes):
    return tiny_transformer(std=0.25, **({"hidden_size": 64} | changes))


def flat(groups):
    return [completion for group in groups for completion in group]


SHAPES = [
    {},
    {"num_attention_heads": 2, "num_key_value_heads": 2},  # heads of 32, none shared
    {"num_attention_heads": 4, "num_key_value_heads": 1},
    {"intermediate_size": 80, "num_hidden_layers": 3, "tie_word_embeddings": False},
    {"vocab_size": 131},  # no multiple of a vector
]


@pytest.mark.parametrize("flags", IN_C)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("temperature", [1.0, 0.6, 0.0])
def test_it_writes_what_the_torch_loop_writes(flags, shape, temperature):
    with computed_by(flags):
        check_against_torch(shape, temperature)


def check_against_torch(shape: dict, temperature: float) -> None:
    policy, prompts = shaped(**shape), some_prompts(12)
    sampling = replace(SAMPLING, temperature=temperature)
    torch_loop, in_c = (
        flat(NativeEngine(policy, TOKENIZER, "float32", loop=loop).generate(prompts, sampling))
        for loop in ("torch", "compiled")
    )
    same = [pair for pair in zip(torch_loop, in_c, strict=True) if pair[0].tokens == pair[1].tokens]
    # Their sums differ in the sixth digit: now and then a number drawn falls between two edges.
    assert len(same) >= len(torch_loop) - 1
    for one, other in same:
        assert one.finish == other.finish and one.text == other.text
        for said in ("logprobs", "entropies"):
            theirs, ours = torch.tensor(getattr(one, said)), torch.tensor(getattr(other, said))
            assert len(theirs) == len(one.tokens)
            torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)


@needs_compiler
@pytest.mark.parametrize("dtype", TYPES)
def test_not_one_bit_depends_on_the_batch_or_the_threads(dtype):
    """The torch loop promises this of tokens in float32; here it holds for every log-prob."""
    engine, prompts = NativeEngine(shaped(), TOKENIZER, dtype, loop="compiled"), some_prompts(30)
    among = engine.generate(prompts, SAMPLING)
    alone = [engine.generate([prompt], SAMPLING)[0] for prompt in prompts[:6]]
    assert alone == among[:6]
    try:
        torch.set_num_threads(3)
        assert engine.generate(prompts, SAMPLING) == among
    finally:
        torch.set_num_threads(1)


def test_pack_puts_a_tile_of_outputs_side_by_side():
    matrix = torch.arange(5.0 * 4).view(5, 4)  # N = 5, K = 4; tiles of 4, the second mostly empty
    packed = pack(matrix, 4)
    assert packed.shape == (2, 4, 4)
    assert packed[0, 1].tolist() == matrix[:4, 1].tolist()
    assert packed[1, 2].tolist() == [matrix[4, 2], 0, 0, 0]
    pairs = pack(matrix.bfloat16(), 4)
    assert pairs[0, 1, 3].tolist() == [matrix[3, 2], matrix[3, 3]]


# -- where it cannot be had -----------------------------------------------------------------


def test_without_it_auto_is_torch_and_compiled_is_an_error(monkeypatch):
    monkeypatch.setenv("AHA_C", "0")
    assert NativeEngine(shaped(), TOKENIZER, "float32").compiled is None
    with pytest.raises(ConfigError, match="AHA_C=0"):
        NativeEngine(shaped(), TOKENIZER, "float32", loop="compiled")


def test_a_size_that_no_vector_divides_is_left_to_torch():
    """Four heads of 8."""
    weights = InferenceWeights.of(tiny_transformer(), torch.float32)
    with pytest.raises(NotCompiled, match="16"):
        CompiledLoop(weights)
    assert NativeEngine(tiny_transformer(), TOKENIZER, "float32").compiled is None


@needs_compiler
def test_prompts_of_all_lengths_have_room_of_their_own():
    """One prompt of a thousand tokens among short ones: each row is what it is alone, and calls of
    few rows give what one call of all gives."""
    policy = shaped(max_position_embeddings=1_200)
    short = some_prompts(30)
    problem = replace(short[0].problem, id="long")  # an id gives the seeds
    tokens = short[0].tokens * (1_000 // len(short[0].tokens))
    long = replace(short[0], problem=problem, tokens=tokens)
    prompts, sampling = [*short[:9], long, *short[9:]], replace(SAMPLING, group_size=2)
    together = NativeEngine(policy, TOKENIZER, "float32", loop="compiled")
    few = NativeEngine(policy, TOKENIZER, "float32", max_rows=7, loop="compiled")
    whole = [c.tokens for c in flat(together.generate(prompts, sampling))]
    assert [c.tokens for c in flat(few.generate(prompts, sampling))] == whole
    alone = together.generate([long], sampling)
    assert [c.tokens for c in flat(alone)] == whole[18:20]
