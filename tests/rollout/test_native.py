"""The native engine: recorded log-probs, independence of the batch, ends, order and limits."""

from collections import Counter

import numpy as np
import pytest
import torch
from tokenizers import AddedToken
from tokenizers import Tokenizer as FastTokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoModelForCausalLM

from aha.core.errors import ConfigError
from aha.core.records import Completion, Prompt
from aha.machine.device import compute_dtype
from aha.model.decode import InferenceWeights
from aha.model.tokenizer import Tokenizer
from aha.rollout.engine import Sampling
from aha.rollout.native import NativeEngine

from ..tiny import (
    TOKENIZER,
    ask,
    needs_bf16,
    needs_compiler,
    some_prompts,
    tiny_folder,
    tiny_transformer,
)
from .teacher_forcing import forced
from .versions import before_still_and_after

STOP = TOKENIZER.stop_ids[0]
SAMPLING = Sampling(max_new_tokens=40, group_size=4, seed=11)
WIDTH = {"hidden_size": 64}  # four heads of 16: the loop in C wants sizes that 16 divides


@pytest.fixture(scope="module")
def policy():
    return tiny_transformer(std=0.25, **WIDTH)


@pytest.fixture(
    scope="module", params=["torch", "graphs", pytest.param("compiled", marks=needs_compiler)]
)
def loop(request) -> str:
    """All loops of the engine hold the same promises."""
    return request.param


@pytest.fixture
def engine(policy, loop) -> NativeEngine:
    return NativeEngine(policy, TOKENIZER, "float32", loop=loop)


@pytest.fixture(scope="module")
def prompts() -> list[Prompt]:
    return some_prompts(40)


@pytest.fixture(scope="module")
def groups(policy, prompts, loop) -> list[list[Completion]]:
    """Forty prompts with four completions each, all side by side."""
    return NativeEngine(policy, TOKENIZER, "float32", loop=loop).generate(prompts, SAMPLING)


def flat(groups) -> list[Completion]:
    return [completion for group in groups for completion in group]


def tokens_of(groups) -> list[list[tuple[int, ...]]]:
    return [[completion.tokens for completion in group] for group in groups]


# -- log-probs ------------------------------------------------------------------------------


def test_recorded_logprobs_are_those_of_the_training_pass(policy, groups):
    for completion in flat(groups):
        recorded = torch.tensor(completion.logprobs)
        torch.testing.assert_close(recorded, forced(policy, completion), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("temperature", [0.7, 1.3])
def test_recorded_logprobs_are_those_of_the_tempered_distribution(
    policy, engine, prompts, temperature
):
    sampling = Sampling(30, 2, temperature, 5)
    for completion in flat(engine.generate(prompts[:8], sampling)):
        wanted = forced(policy, completion, temperature)
        recorded = torch.tensor(completion.logprobs)
        torch.testing.assert_close(recorded, wanted, rtol=1e-5, atol=1e-5)


def test_greedy_takes_the_likeliest_token_and_records_it_at_temperature_1(policy, engine, prompts):
    for completion in flat(engine.generate(prompts[:4], Sampling(20, 1, 0.0))):
        row = torch.tensor([completion.prompt.tokens + completion.tokens])
        with torch.no_grad():
            logits = policy(row)[0, len(completion.prompt.tokens) - 1 : -1]
        assert logits.argmax(-1).tolist() == list(completion.tokens)
        recorded = torch.tensor(completion.logprobs)
        torch.testing.assert_close(recorded, forced(policy, completion), rtol=1e-5, atol=1e-5)


def test_greedy_completions_of_a_group_are_alike(engine):
    (group,) = engine.generate([ask(3, 7, 25, target=82)], Sampling(20, 3, 0.0))
    assert len({completion.tokens for completion in group}) == 1


def test_greedy_is_what_transformers_generates(tmp_path, engine):
    oracle = AutoModelForCausalLM.from_pretrained(tiny_folder(tmp_path, std=0.25, **WIDTH))
    prompt = ask(3, 7, 25, target=82)
    ((ours,),) = engine.generate([prompt], Sampling(30, 1, 0.0))
    given = torch.tensor([prompt.tokens])
    theirs = oracle.generate(
        given, attention_mask=torch.ones_like(given), do_sample=False, max_new_tokens=30
    )
    assert tuple(theirs[0, len(prompt.tokens) :].tolist()) == ours.tokens


# -- a completion does not depend on its batch ----------------------------------------------


def test_a_completion_is_the_same_alone_and_among_forty_prompts(engine, prompts, groups):
    for place in (0, 7, 39):
        (group,) = engine.generate([prompts[place]], SAMPLING)
        assert [c.tokens for c in group] == [c.tokens for c in groups[place]]


def test_a_completion_is_the_same_in_a_smaller_group(engine, prompts, groups):
    (group,) = engine.generate([prompts[3]], Sampling(40, 1, seed=11))
    assert group[0].tokens == groups[3][0].tokens


@pytest.mark.parametrize("max_rows", [1, 4, 12, 32, 100])
def test_a_completion_is_the_same_when_rows_have_to_wait(policy, prompts, groups, max_rows):
    """Few rows: groups wait, gaps are closed and refilled, again and again."""
    engine = NativeEngine(policy, TOKENIZER, "float32", max_rows, "torch")
    found = engine.generate(prompts, SAMPLING)
    assert tokens_of(found) == tokens_of(groups)
    for one, other in zip(flat(found), flat(groups), strict=True):
        # The sums of a product depend on how many rows it has, in the sixth digit.
        np.testing.assert_allclose(one.logprobs, other.logprobs, rtol=1e-4, atol=1e-4)


def test_a_completion_is_the_same_in_any_order(engine, prompts, groups):
    found = engine.generate(prompts[::-1], SAMPLING)
    assert tokens_of(found)[::-1] == tokens_of(groups)


def test_a_shorter_limit_cuts_the_same_completion(engine, prompts, groups):
    found = engine.generate(prompts[:10], Sampling(15, 4, seed=11))
    for short, long in zip(flat(found), flat(groups[:10]), strict=True):
        assert short.tokens == long.tokens[:15]


def test_the_seed_and_the_place_in_the_group_decide(engine, prompts, groups):
    again = engine.generate(prompts[:3], SAMPLING)
    other = engine.generate(prompts[:3], Sampling(40, 4, seed=12))
    assert tokens_of(again) == tokens_of(groups[:3])
    assert not set(sum(tokens_of(again), [])) & set(sum(tokens_of(other), []))
    assert all(len(set(group)) == 4 for group in tokens_of(again))


def test_a_prompt_asked_twice_draws_anew(engine):
    prompt = ask(3, 7, 25, target=82)
    first, second = engine.generate([prompt, prompt], SAMPLING)
    assert not {c.tokens for c in first} & {c.tokens for c in second}


# -- ends, order, text ----------------------------------------------------------------------


def test_finish_says_how_a_completion_ended(groups):
    ends = Counter(completion.finish for completion in flat(groups))
    assert ends["stop"] > 10 and ends["length"] > 10, "the tiny model no longer ends both ways"
    for completion in flat(groups):
        stops = [place for place, token in enumerate(completion.tokens) if token == STOP]
        if completion.finish == "stop":
            assert stops == [len(completion.tokens) - 1]
        else:
            assert not stops and len(completion.tokens) == 40


def test_a_stop_token_at_the_very_limit_is_a_stop(engine, prompts, groups):
    ended = next(c for c in flat(groups) if c.finish == "stop" and len(c.tokens) > 1)
    place = flat(groups).index(ended)
    sampling = Sampling(len(ended.tokens), 4, seed=11)
    (group,) = engine.generate([prompts[place // 4]], sampling)
    assert group[place % 4].tokens == ended.tokens and group[place % 4].finish == "stop"


def test_the_stop_token_is_trained_and_not_read(groups):
    ended = next(c for c in flat(groups) if c.finish == "stop")
    assert ended.tokens[-1] == STOP and "endoftext" not in ended.text
    assert ended.text == TOKENIZER.decode(ended.tokens[:-1])


def test_groups_come_in_the_order_of_the_prompts(prompts, groups):
    assert [[c.prompt for c in group] for group in groups] == [[p] * 4 for p in prompts]


def test_stream_is_generate_piece_by_piece(engine, prompts, groups):
    for place in (0, 1, 2):
        pieces = list(engine.stream(prompts[place], SAMPLING))
        assert "".join(pieces) == groups[place][0].text
        assert max(map(len, pieces)) < 12, "a piece is more than a token"


def test_watch_is_generate_token_by_token(prompts):
    """More rows than the cache holds, so that some wait and gaps are closed on the way."""
    engine = NativeEngine(tiny_transformer(), TOKENIZER, "float32", max_rows=6, loop="torch")
    prompts, lengths = prompts[:4], []
    for rows in engine.watch(prompts, SAMPLING):
        flat = [row for group in rows for row in group]
        assert all(len(row.tokens) == len(row.logprobs) for row in flat)
        lengths.append([len(row.tokens) for row in flat])
    assert all(row.ended for row in flat)
    found = [[engine.completed(row) for row in group] for group in rows]
    assert found == engine.generate(prompts, SAMPLING)
    for before, after in zip(lengths, lengths[1:], strict=False):
        assert all(0 <= b - a <= 1 for a, b in zip(before, after, strict=True))


def test_stream_keeps_characters_of_several_tokens_whole():
    """A byte-level vocabulary in which every accented letter takes two tokens."""
    alphabet = sorted(ByteLevel.alphabet())
    fast = FastTokenizer(BPE(vocab={piece: i for i, piece in enumerate(alphabet)}, merges=[]))
    fast.pre_tokenizer, fast.decoder = ByteLevel(False), ByteLevelDecoder()
    fast.add_special_tokens([AddedToken("<s>")])
    tokenizer = Tokenizer(fast, ("<s>",))
    policy = tiny_transformer(vocab_size=tokenizer.vocab_size)
    engine, prompt = NativeEngine(policy, tokenizer, "float32"), ask(3, 7, 25, target=82)
    prompt = Prompt(prompt.problem, "é", tuple(tokenizer.encode("é")))
    written = ""
    for seed in range(8):  # at temperature 3 the bytes come up nearly evenly
        ((wanted,),) = engine.generate([prompt], Sampling(60, 1, 3.0, seed))
        pieces = list(engine.stream(prompt, Sampling(60, 1, 3.0, seed)))
        assert "".join(pieces) == wanted.text
        written += wanted.text
    assert any("\x7f" < char < "\ufffd" for char in written), "no character of several tokens"


def test_no_prompts_no_completions(engine):
    assert engine.generate([], SAMPLING) == []


# -- limits and versions --------------------------------------------------------------------


def test_more_tokens_than_positions_is_an_error_that_says_how_many_fit(engine):
    prompt = ask(3, 7, 25, target=82)
    room = 160 - len(prompt.tokens)
    with pytest.raises(ConfigError, match=f"--rollout.max_new_tokens {room}"):
        engine.generate([prompt], Sampling(room + 1))
    ((completion,),) = engine.generate([prompt], Sampling(room, seed=3))
    assert len(completion.tokens) <= room


def test_the_last_position_of_the_context_can_be_used(loop):
    """Where a model never stops, every position is filled, and each log-prob is right."""
    endless = tiny_transformer(std=0.25, tie_word_embeddings=False, **WIDTH)
    with torch.no_grad():
        endless.lm_head.weight *= 3
        endless.lm_head.weight[STOP] = 0.0
    prompt = ask(3, 7, 25, target=82)
    engine = NativeEngine(endless, TOKENIZER, "float32", loop=loop)
    sampling = Sampling(160 - len(prompt.tokens), seed=4)
    ((completion,),) = engine.generate([prompt], sampling)
    assert len(prompt.tokens) + len(completion.tokens) == 160
    wanted = forced(endless, completion)
    torch.testing.assert_close(torch.tensor(completion.logprobs), wanted, rtol=1e-4, atol=1e-4)


def test_completions_carry_the_version_of_their_weights(loop):
    policy, prompt = tiny_transformer(std=0.25, **WIDTH), ask(3, 7, 25, target=82)
    engine = NativeEngine(policy, TOKENIZER, "float32", loop=loop)
    before, still, after = before_still_and_after(engine, policy, prompt)
    assert (before.version, still.version, after.version) == (0, 0, 7)
    assert before == still and after.tokens != before.tokens
    torch.testing.assert_close(
        torch.tensor(after.logprobs), forced(policy, after), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(
    "loop", ["torch", "graphs", pytest.param("compiled", marks=[needs_compiler, needs_bf16])]
)
def test_bf16_writes_whole_completions_near_float32(policy, prompts, loop):
    engine = NativeEngine(policy, TOKENIZER, "bfloat16", loop=loop)
    gaps = []
    for completion in flat(engine.generate(prompts[:4], SAMPLING)):
        gaps += (torch.tensor(completion.logprobs) - forced(policy, completion)).abs().tolist()
    assert np.mean(gaps) < 0.1


def test_a_new_version_is_made_when_the_old_one_has_gone(policy, monkeypatch):
    """A resumed run loads twice without a `release` between: it must fit where the first did."""
    engine, held = NativeEngine(policy, TOKENIZER, "float32", loop="torch"), []
    plain = InferenceWeights.of
    monkeypatch.setattr(
        InferenceWeights, "of", lambda *given: held.append(engine.weights) or plain(*given)
    )
    engine.load(policy, 1)
    assert held == [None] and engine.weights is not None and engine.version == 1


def test_dtype_auto_is_one_that_the_hardware_multiplies(monkeypatch):
    cpu = torch.device("cpu")
    assert compute_dtype("float32", cpu) == torch.float32
    assert compute_dtype("bfloat16", cpu) == torch.bfloat16
    assert compute_dtype("auto", cpu) in (torch.float32, torch.bfloat16)
    cuda = torch.device("cuda")
    for capability, wanted in (((7, 5), torch.float32), ((8, 9), torch.bfloat16)):  # T4, RTX 4060
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, c=capability: c)
        assert compute_dtype("auto", cuda) == wanted
        assert compute_dtype("bfloat16", cuda) == torch.bfloat16
    assert compute_dtype("auto", torch.device("mps")) == torch.float32
