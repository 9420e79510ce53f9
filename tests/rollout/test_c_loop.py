"""The loop in C: the torch loop's completions, bit for bit independent of the batch."""

import os
import signal
import threading
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from aha.core.errors import ConfigError
from aha.core.records import Problem, Prompt
from aha.machine.c_build import NotCompiled, code_or_reason
from aha.model.decode import InferenceWeights
from aha.rollout.c_loop import CompiledLoop, GeneratedRows, pack, unpack
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
from .teacher_forcing import forced

SAMPLING = Sampling(max_new_tokens=60, group_size=6, seed=3)
TYPES = ["float32", pytest.param("bfloat16", marks=needs_bf16)]


@pytest.fixture(autouse=True)
def fresh():
    """`load_code` remembers what it has loaded; the next test may not want it."""
    code_or_reason.cache_clear()
    yield
    code_or_reason.cache_clear()


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
    for whole in (matrix, matrix.bfloat16()):
        assert torch.equal(unpack(pack(whole, 4), 5), whole)


# -- where it cannot be had -----------------------------------------------------------------


def test_without_it_auto_is_torch_and_compiled_is_an_error(monkeypatch):
    monkeypatch.setenv("AHA_C", "0")
    assert NativeEngine(shaped(), TOKENIZER, "float32").compiled is None
    with pytest.raises(ConfigError, match="AHA_C=0; .*fix: --rollout.loop auto"):
        NativeEngine(shaped(), TOKENIZER, "float32", loop="compiled")


def test_a_size_that_no_vector_divides_is_left_to_torch():
    """Four heads of 8."""
    weights = InferenceWeights.of(tiny_transformer(), torch.float32)
    with pytest.raises(NotCompiled, match="16"):
        CompiledLoop(weights)
    assert NativeEngine(tiny_transformer(), TOKENIZER, "float32").compiled is None
    with pytest.raises(ConfigError, match="16 divides; wanted a machine and a model"):
        NativeEngine(tiny_transformer(), TOKENIZER, "float32", loop="compiled")


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


# -- prompts in pieces, threads that share rows ---------------------------------------------

# A token; around a block of keys; around a piece of a prompt; one much longer than the rest.
LENGTHS = (1, 15, 16, 17, 95, 96, 97, 1_150, 3)
HEADS = [
    {"tie_word_embeddings": False},  # biases, four heads on two
    {"model_type": "llama", "num_attention_heads": 3, "num_key_value_heads": 3, "head_dim": 16},
    {"model_type": "llama", "num_attention_heads": 7, "num_key_value_heads": 1, "head_dim": 16},
    {"model_type": "llama", "num_attention_heads": 12, "num_key_value_heads": 1, "head_dim": 32},
    {"model_type": "qwen3", "num_key_value_heads": 2, "head_dim": 48},
]
NEVER: list[int] = []  # no stop tokens


class Stopped(Exception):
    """What a signal's handler raises here."""


def prompts_of(lengths) -> list[Prompt]:
    """Prompts of random tokens, so many each."""
    generator = torch.Generator().manual_seed(5)
    drawn = [torch.randint(5, 100, (length,), generator=generator) for length in lengths]
    return [
        Prompt(Problem(str(place), "none", {}), "", tuple(tokens.tolist()))
        for place, tokens in enumerate(drawn)
    ]


def written(loop: CompiledLoop, prompts, sampling: Sampling, threads: int = 1) -> GeneratedRows:
    """Rows of the loop in C, with seeds that depend on the place in the call alone."""
    seeds = [
        list(range(place * sampling.group_size, (place + 1) * sampling.group_size))
        for place in range(len(prompts))
    ]
    try:
        torch.set_num_threads(threads)
        return loop.generate([prompt.tokens for prompt in prompts], seeds, NEVER, sampling)
    finally:
        torch.set_num_threads(1)


def same_bits(one: GeneratedRows, other: GeneratedRows) -> bool:
    arrays = [field.name for field in fields(GeneratedRows)]
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in arrays)


@needs_compiler
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", HEADS)
def test_a_team_of_threads_computes_the_bits_of_one(shape, dtype):
    """Three threads that share all rows, and three with rows of their own."""
    policy = shaped(max_position_embeddings=1_200, **shape)
    weights, prompts = InferenceWeights.of(policy, getattr(torch, dtype)), prompts_of(LENGTHS)
    sampling = Sampling(max_new_tokens=20, group_size=4, seed=0)
    alone = written(CompiledLoop(weights), prompts, sampling)
    for one_team in (0, 2**60):
        loop = CompiledLoop(weights, one_team)
        assert loop.in_one_team == (one_team == 0)
        assert same_bits(written(loop, prompts, sampling, threads=3), alone)


@needs_compiler
@pytest.mark.parametrize("shape", HEADS)
def test_prompts_of_all_lengths_are_read_as_the_training_pass_reads_them(shape):
    policy = shaped(max_position_embeddings=1_200, **shape)
    engine = NativeEngine(policy, TOKENIZER, "float32", loop="compiled")
    sampling = Sampling(max_new_tokens=5, group_size=2, seed=3)
    for completion in flat(engine.generate(prompts_of(LENGTHS), sampling)):
        recorded = torch.tensor(completion.logprobs)
        torch.testing.assert_close(recorded, forced(policy, completion), rtol=1e-4, atol=1e-4)


@needs_compiler
@pytest.mark.parametrize("dtype", TYPES)
def test_a_token_gives_the_same_bits_in_a_prompt_as_when_it_was_drawn(dtype):
    """A prompt is read 96 tokens at a time, a row token by token."""
    loop = CompiledLoop(InferenceWeights.of(shaped(), getattr(torch, dtype)))
    (prompt,) = prompts_of([30])
    greedy = Sampling(max_new_tokens=60, group_size=1, temperature=0.0)
    first = written(loop, [prompt], greedy)
    longer = replace(prompt, tokens=prompt.tokens + tuple(first.tokens[0, :41].tolist()))
    second = written(loop, [longer], replace(greedy, max_new_tokens=19))
    assert first.counts == 60 and second.counts == 19
    assert np.array_equal(second.tokens[0], first.tokens[0, 41:])
    assert np.array_equal(second.logprobs[0], first.logprobs[0, 41:])


@needs_compiler
def test_the_engine_streams_with_the_weights_that_were_packed():
    engine = NativeEngine(shaped(), TOKENIZER, "float32", loop="compiled")
    (prompt,) = some_prompts(1)
    text = "".join(engine.stream(prompt, SAMPLING))
    torch_engine = NativeEngine(shaped(), TOKENIZER, "float32", loop="torch")
    assert text == "".join(torch_engine.stream(prompt, SAMPLING))
    for name in ("embedding", "lm_head", "cos", "sin"):
        ours, theirs = getattr(engine.unpacked, name), getattr(torch_engine.weights, name)
        assert torch.equal(ours, theirs)


@needs_compiler
@pytest.mark.parametrize("tokens", [(30_000, 1), (1, 30_000)], ids=["a prompt", "a row"])
@pytest.mark.parametrize("one_team", [0, 2**60])
def test_a_signal_ends_the_call_in_the_middle(tokens, one_team):
    """Reading such a prompt, or generating such a row, would take minutes."""
    length, new = tokens
    policy = shaped(max_position_embeddings=30_001, num_hidden_layers=8)
    loop = CompiledLoop(InferenceWeights.of(policy, torch.float32), one_team)

    def stop(*unused):
        raise Stopped

    before = signal.signal(signal.SIGUSR1, stop)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGUSR1))
    try:
        timer.start()
        with pytest.raises(Stopped):
            written(loop, prompts_of([length] * 2), Sampling(new, 1), threads=2)
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, before)
    left = [thread for thread in threading.enumerate() if thread.name == "aha_generate"]
    for thread in left:
        thread.join(5.0)
    assert not any(thread.is_alive() for thread in left)
