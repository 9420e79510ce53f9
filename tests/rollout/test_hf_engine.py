"""Generation through `transformers`: the promises of the native engine, on models it is not for."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2LMHeadModel

from aha.core.errors import ConfigError
from aha.model.hf_policy import HfPolicy
from aha.rollout.engine import Sampling
from aha.rollout.hf_engine import HfCache, HfEngine
from aha.rollout.native import NativeEngine, open_engine
from aha.rollout.thinking_budget import ThinkingBudget

from ..strangers import STRANGERS, load_stranger, stranger
from ..tiny import TOKENIZER, ask, some_prompts, tiny_transformer
from .versions import before_still_and_after

SAMPLING = Sampling(24, 3, 0.7, seed=11)


@pytest.fixture(scope="module", params=STRANGERS)
def kind(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def policy(kind) -> HfPolicy:
    return HfPolicy(stranger(kind))


@pytest.fixture(scope="module")
def engine(policy) -> HfEngine:
    return open_engine(policy, TOKENIZER, "float32")


@pytest.fixture(scope="module")
def prompts():
    found = some_prompts(8)
    assert len({len(prompt.tokens) for prompt in found}) > 2, "nothing would be padded"
    return found


@pytest.fixture(scope="module")
def groups(engine, prompts):
    return engine.generate(prompts, SAMPLING)


def flat(groups) -> list:
    return [completion for group in groups for completion in group]


def tokens_of(groups) -> list:
    return [[completion.tokens for completion in group] for group in groups]


@torch.no_grad()
def forced(policy, completion, temperature: float) -> torch.Tensor:
    """By the training pass, the row alone."""
    row = torch.tensor([completion.prompt.tokens + completion.tokens])
    start = len(completion.prompt.tokens)
    return policy.token_logprobs(row, start, temperature=temperature)[0]


def test_recorded_logprobs_are_those_of_the_training_pass_at_the_temperature(policy, groups):
    for one in flat(groups):
        recorded = torch.tensor(one.logprobs)
        torch.testing.assert_close(recorded, forced(policy, one, 0.7), rtol=1e-4, atol=1e-4)
        assert len(one.entropies) == len(one.tokens)


def test_a_completion_does_not_depend_on_its_company(engine, policy, prompts, groups):
    assert len({one.tokens for one in flat(groups)}) > 20, "a model that says one thing"
    for place in (0, 5):
        assert tokens_of(engine.generate([prompts[place]], SAMPLING)) == [tokens_of(groups)[place]]
    # Six rows at once: the others wait for the last of them.
    few = HfEngine(policy, TOKENIZER, "float32", max_rows=6)
    found = few.generate(prompts, SAMPLING)
    assert tokens_of(found) == tokens_of(groups)
    for one, other in zip(flat(found), flat(groups), strict=True):
        np.testing.assert_allclose(one.logprobs, other.logprobs, rtol=1e-4, atol=1e-4)


def test_finish_says_how_a_completion_ended(groups, kind):
    stops = TOKENIZER.stop_ids
    ends = {one.finish for one in flat(groups)}
    # This random gemma2 happens never to stop.
    assert ends == ({"length"} if kind == "gemma2" else {"stop", "length"})
    for one in flat(groups):
        assert (one.tokens[-1] in stops) == (one.finish == "stop")
        assert not set(one.tokens[:-1]) & set(stops)
        assert one.finish == "stop" or len(one.tokens) == 24


def test_greedy_is_what_transformers_generates(kind, tmp_path):
    model = load_stranger(tmp_path, kind)
    oracle = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    prompts = [ask(3, 7, 25, target=82), ask(3, 7, 25, 49, target=82)]
    groups = open_engine(model.policy, TOKENIZER, "float32").generate(prompts, Sampling(20, 1, 0))
    for prompt, (ours,) in zip(prompts, groups, strict=True):
        given = torch.tensor([prompt.tokens])
        theirs = oracle.generate(
            given, attention_mask=torch.ones_like(given), do_sample=False, max_new_tokens=20
        )
        assert tuple(theirs[0, len(prompt.tokens) :].tolist()) == ours.tokens


class Deaf(GPT2LMHeadModel):
    """Listens to no mask and asks for no positions: padding shows in all it says."""

    def forward(self, input_ids, attention_mask=None, past_key_values=None, use_cache=None):
        return super().forward(input_ids, past_key_values=past_key_values, use_cache=use_cache)


def test_a_model_whose_padding_shows_gets_prompts_of_one_length_at_a_time(prompts):
    net = stranger("gpt2")
    net.__class__ = Deaf
    policy = HfPolicy(net)
    engine = HfEngine(policy, TOKENIZER, "float32")
    assert not engine.pads and HfEngine(HfPolicy(stranger("gpt2")), TOKENIZER, "float32").pads
    for one in flat(engine.generate(prompts, SAMPLING)):
        recorded = torch.tensor(one.logprobs)
        torch.testing.assert_close(recorded, forced(policy, one, 0.7), rtol=1e-4, atol=1e-4)


def test_new_weights_come_with_load_and_not_before():
    policy, prompt = HfPolicy(stranger("gpt2")), ask(3, 7, 25, target=82)
    engine = HfEngine(policy, TOKENIZER, "float32")
    before, still, after = before_still_and_after(engine, policy, prompt)
    assert before == still and (still.version, after.version) == (0, 7)
    recorded = torch.tensor(after.logprobs)
    torch.testing.assert_close(recorded, forced(policy, after, 1.0), rtol=1e-4, atol=1e-4)


def test_it_can_be_watched_and_streamed(engine, prompts, groups):
    *_, rows = engine.watch(prompts[:3], SAMPLING)
    found = [[engine.completed(row) for row in group] for group in rows]
    assert tokens_of(found) == tokens_of(groups)[:3]
    assert "".join(engine.stream(prompts[1], SAMPLING)) == groups[1][0].text


def test_bf16_is_near(kind, prompts):
    policy = HfPolicy(stranger(kind, std=0.1))
    engine = HfEngine(policy, TOKENIZER, "bfloat16")
    gaps = [
        (torch.tensor(one.logprobs) - forced(policy, one, 0.7)).abs().mean()
        for one in flat(engine.generate(prompts[:3], SAMPLING))
    ]
    assert 0 < np.mean(gaps) < 0.05
    # The rotary tables stay as they were: only parameters are narrow.
    kept = {t.dtype for t in engine.weights.net.buffers() if t.is_floating_point()}
    assert kept <= {torch.float32}


def test_each_policy_gets_its_engine_and_the_loop_in_c_is_not_theirs(policy):
    assert type(open_engine(tiny_transformer(), TOKENIZER)) is NativeEngine
    with pytest.raises(ConfigError, match="'compiled' with .*--rollout.loop auto"):
        open_engine(policy, TOKENIZER, loop="compiled")


# -- thinking budgets -------------------------------------------------------------------------


def test_a_thought_is_closed_at_its_maximum(engine, policy, prompts):
    sampling = Sampling(38, 2, 1.0, seed=3, budget=ThinkingBudget(6))
    completions = flat(engine.generate(prompts[:3], sampling))
    assert any(completion.forced for completion in completions)
    for completion in completions:
        _, tag, rest = completion.text.partition("</think>")
        if not tag:  # a random model may end by itself
            assert len(completion.tokens) <= 6
            continue
        assert not completion.forced or rest.startswith("\n<answer>")
        drawn = [p for p in range(len(completion.tokens)) if p not in completion.forced]
        texts = (TOKENIZER.decode(completion.tokens[: p + 1]) for p in drawn)
        assert sum("</think>" not in text for text in texts) <= 6
        own = forced(policy, completion, 1.0)[drawn]
        recorded = torch.tensor(completion.logprobs)[drawn]
        torch.testing.assert_close(recorded, own, rtol=1e-3, atol=1e-3)


def test_what_was_taken_back_is_masked():
    """A cache of `transformers` has one length for all rows: positions stay, and are not read."""
    mask = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]])
    cache = HfCache(torch.zeros_like(mask), mask)
    cache.rewind(0, torch.tensor([1, 2]))
    assert cache.mask.tolist() == [[0, 1, 1, 0], [1, 1, 0, 0]]
    assert cache.lengths.tolist() == [2, 2]
    cache.append(torch.tensor([5, 6]))
    assert cache.mask[:, -1].tolist() == [1, 1]
