"""Thinking budgets: thoughts within their limits, the same in every loop, and right log-probs."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aha.core.errors import ConfigError, ModelError
from aha.core.records import Completion, Problem, Prompt
from aha.rollout.engine import Sampling
from aha.rollout.forcing import STATES, ForcingTables, ThoughtReader, close_steps, next_state
from aha.rollout.native import NativeEngine
from aha.rollout.thinking_budget import CHAT_LEAD, ThinkingBudget

from ..spelling import prompts, thinker, tokenizer
from ..tiny import needs_compiler

LOOPS = ["torch", "graphs", pytest.param("compiled", marks=needs_compiler)]
LIMIT = 80
TAG = "</think>"


def engine_of(spelt: bool, loop: str = "torch") -> NativeEngine:
    return NativeEngine(thinker(spelt), tokenizer(spelt), "float32", loop=loop)


def written(
    engine, budget: ThinkingBudget | None, count=12, size=4, spelt=False
) -> list[Completion]:
    sampling = Sampling(LIMIT, size, 1.0, 5, budget)
    groups = engine.generate(prompts(count, spelt), sampling)
    return [completion for group in groups for completion in group]


def thoughts(completions: list[Completion], spelt: bool, wait_size: int = 1):
    words = tokenizer(spelt)
    reader = ThoughtReader(words, words.vocab_size)
    return [reader.read(one.tokens, one.forced, wait_size) for one in completions]


@torch.no_grad()
def own_logprobs(policy, completion: Completion) -> torch.Tensor:
    row = torch.tensor([completion.prompt.tokens + completion.tokens])
    start = len(completion.prompt.tokens)
    logits = policy(row)[0, start - 1 : -1]
    return torch.log_softmax(logits, -1).gather(1, row[0, start:, None]).squeeze(1)


# -- the table --------------------------------------------------------------------------------


def test_the_tag_is_followed_character_by_character():
    assert next_state(0, "</") == 2
    assert next_state(2, "think") == 7
    assert next_state(7, ">\n") == STATES
    assert next_state(7, "ing") == 0
    assert next_state(5, ".</th") == 4  # another one begins
    assert next_state(0, "so</think>\n") == STATES


PIECES = ["<", "</", "</think>", "think", "th", "ink", ">", ">\n", ".</", "a", "</t", "i", "nk", ""]


@given(st.lists(st.integers(0, len(PIECES) - 1), max_size=12))
def test_the_table_finds_the_end_where_a_search_in_the_text_does(ids):
    steps, state, text = close_steps(PIECES), 0, ""
    for token in ids:
        state = steps[state, token]
        text += PIECES[token]
        assert (state == STATES) == (TAG in text)
        if state == STATES:
            return


# -- maximum ----------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("spelt", [False, True])
@pytest.mark.parametrize("most", [0, 1, 4, 9])
def test_no_thought_is_longer_than_its_maximum_and_an_answer_follows(loop, spelt, most):
    completions = written(engine_of(spelt, loop), ThinkingBudget(max_tokens=most), spelt=spelt)
    lengths = thoughts(completions, spelt)
    closers = {"budget"} if most < (3 if spelt else 1) else {"model", "budget"}
    assert {length.closed for length in lengths} == closers
    for completion, length in zip(completions, lengths, strict=True):
        assert length.tokens <= most and length.closed != "open"
        if length.closed == "budget":
            assert length.tokens == most or spelt  # a half-spelt tag is completed, not counted
            thought, _, rest = completion.text.partition(TAG)
            assert rest.startswith("\n<answer>")
            # The tag begins a line, if the model had not begun to spell it.
            assert thought == "" or thought.endswith("\n") or (spelt and length.tokens < most)
        else:
            assert completion.forced == ()


@pytest.mark.parametrize("spelt", [False, True])
def test_a_thought_that_ends_by_itself_is_the_one_without_a_budget(spelt):
    engine = engine_of(spelt)
    free = written(engine, None, spelt=spelt)
    limited = written(engine, ThinkingBudget(max_tokens=9), spelt=spelt)
    pairs = list(zip(free, limited, thoughts(free, spelt), strict=True))
    whole = 9 - (3 if spelt else 1)  # a tag that is half spelt at the maximum is completed
    ended = [pair for pair in pairs if pair[2].closed == "model" and pair[2].tokens <= whole]
    assert 5 < len(ended) < len(pairs)
    for one, other, _ in ended:  # the tokens: log-probs round by the number of rows
        assert one.tokens == other.tokens and other.forced == ()
    for one, other, length in pairs:  # and every other one until then
        shared = min(9, length.tokens)
        assert one.tokens[:shared] == other.tokens[:shared]


@pytest.mark.parametrize("end", ["", "\n"])
def test_a_thought_of_no_tokens_is_closed_on_a_line_of_its_own(end):
    (group,) = engine_of(False).generate(
        prompts(1, False, end), Sampling(LIMIT, 1, 1.0, 1, ThinkingBudget(max_tokens=0))
    )
    assert group[0].text.startswith(f"{'' if end else chr(10)}{TAG}\n<answer>c")


def test_the_answer_may_begin_without_a_tag():
    budget = ThinkingBudget(max_tokens=2, answer_lead=CHAT_LEAD)
    texts = [one.text for one in written(engine_of(False), budget)]
    assert any(f"{TAG}\n\n" in text for text in texts)


# -- minimum ----------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("spelt", [False, True])
def test_the_end_is_suppressed_so_many_times(loop, spelt):
    for waits in (1, 3):
        completions = written(engine_of(spelt, loop), ThinkingBudget(waits=waits), spelt=spelt)
        lengths = thoughts(completions, spelt)
        assert {length.closed for length in lengths} <= {"model", "budget"}
        done = [length for length in lengths if length.closed == "model"]
        assert len(done) > 10 and {length.waits for length in done} == {waits}
        for completion, length in zip(completions, lengths, strict=True):
            thought, _, _ = completion.text.partition(TAG)
            assert thought.count("Wait") >= length.waits  # the model writes no other
            assert completion.text.count(TAG) == 1


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("spelt", [False, True])
def test_no_thought_is_shorter_than_its_minimum(loop, spelt):
    budget = ThinkingBudget(min_tokens=12, max_tokens=30)
    lengths = thoughts(written(engine_of(spelt, loop), budget, spelt=spelt), spelt)
    assert all(12 <= length.tokens <= 30 for length in lengths)
    assert len({length.waits for length in lengths}) > 2


def test_both_numbers_hold_together():
    """At most one wait, and none in a thought that is long enough."""
    lengths = thoughts(written(engine_of(False), ThinkingBudget(min_tokens=4, waits=1)), False)
    assert {length.waits for length in lengths} == {0, 1}
    assert all(length.tokens >= 4 for length in lengths if length.waits == 0)


def test_a_stop_token_inside_a_thought_is_suppressed_too():
    policy, words = thinker(False), tokenizer(False)
    with torch.no_grad():
        policy.lm_head.weight[words.id_of("</think>")] -= 4  # it ends thoughts by ending the text
        policy.lm_head.weight[words.stop_ids[0], : words.vocab_size] += 1.3
    engine = NativeEngine(policy, words, "float32", loop="torch")
    assert any(length.closed == "open" for length in thoughts(written(engine, None), False))
    lengths = thoughts(written(engine, ThinkingBudget(min_tokens=10)), False)
    assert all(length.tokens >= 10 for length in lengths)


def test_another_text_may_stand_in_place_of_the_end():
    texts = [
        one.text for one in written(engine_of(False), ThinkingBudget(waits=1, wait_text="We wa"))
    ]
    assert any("We wa" in text for text in texts)


# -- all loops, any batch ---------------------------------------------------------------------

BUDGETS = [ThinkingBudget(max_tokens=6), ThinkingBudget(waits=2), ThinkingBudget(10, 8)]


@needs_compiler
@pytest.mark.parametrize("spelt", [False, True])
@pytest.mark.parametrize("budget", BUDGETS)
def test_c_writes_what_torch_writes(spelt, budget):
    one, other = (
        written(engine_of(spelt, loop), budget, spelt=spelt) for loop in ("torch", "compiled")
    )
    same = [pair for pair in zip(one, other, strict=True) if pair[0].tokens == pair[1].tokens]
    assert len(same) >= len(one) - 1
    for ours, theirs in same:
        assert ours.forced == theirs.forced and ours.finish == theirs.finish
        torch.testing.assert_close(
            torch.tensor(ours.logprobs), torch.tensor(theirs.logprobs), rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("spelt", [False, True])
@pytest.mark.parametrize("budget", BUDGETS)
def test_log_probs_are_the_policys_also_after_tokens_were_taken_back(loop, spelt, budget):
    policy = thinker(spelt)
    engine = NativeEngine(policy, tokenizer(spelt), "float32", loop=loop)
    completions = written(engine, budget, count=6, spelt=spelt)
    assert any(completion.forced for completion in completions)
    for completion in completions:
        recorded, own = torch.tensor(completion.logprobs), own_logprobs(policy, completion)
        drawn = [place for place in range(len(recorded)) if place not in completion.forced]
        torch.testing.assert_close(recorded[drawn], own[drawn], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_thought_does_not_depend_on_its_neighbours(loop):
    engine = engine_of(True, loop)
    engine.max_rows = 8
    few = written(engine, BUDGETS[1], count=5, spelt=True)
    many = written(engine_of(True, loop), BUDGETS[1], count=12, spelt=True)[:20]
    assert [(one.tokens, one.forced) for one in few] == [(one.tokens, one.forced) for one in many]


def test_a_budget_that_never_acts_changes_nothing():
    engine = engine_of(False)
    room = Sampling(150, 4, 1.0, 5)
    free = engine.generate(prompts(6, False), room)
    assert free == engine.generate(prompts(6, False), replace(room, budget=ThinkingBudget(110)))


# -- wrong settings ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_tokens": -1}, "-1"),
        ({"min_tokens": -2}, "-2"),
        ({"waits": -1}, "-1 waits"),
        ({"max_tokens": 5, "min_tokens": 6}, "a minimum of 5"),
        ({"min_tokens": 5, "waits": 0}, "leave the number of waits out"),
        ({"waits": 1, "wait_text": ""}, "wait text"),
        ({"waits": 1, "wait_text": "so\n"}, "wait text"),
        ({"waits": 1, "wait_text": "</think>"}, "wait text"),
    ],
)
def test_budgets_that_contradict_themselves(settings, message):
    with pytest.raises(ConfigError, match=message):
        ThinkingBudget(**settings)


@pytest.mark.parametrize("budget", [ThinkingBudget(60), ThinkingBudget(min_tokens=49)])
def test_a_budget_without_room_for_the_answer_names_the_limit_that_has_it(budget):
    with pytest.raises(ConfigError, match="for the answer") as refused:
        Sampling(LIMIT, budget=budget)
    fixed = int(refused.value.fix.rpartition(" ")[2])
    Sampling(fixed, budget=budget)
    with pytest.raises(ConfigError):
        Sampling(fixed - 1, budget=budget)


def test_a_prompt_without_a_thought_is_refused():
    words = tokenizer(False)
    for text in ("ab", "<think>a</think>\nb"):
        prompt = Prompt(Problem("p", "letters", {}), text, tuple(words.encode(text)))
        with pytest.raises(ConfigError, match="opens no <think>"):
            engine_of(False).generate([prompt], Sampling(LIMIT, budget=BUDGETS[0]))


def test_texts_that_the_vocabulary_lacks_are_refused():
    words = tokenizer(False)
    for budget in (ThinkingBudget(waits=1, wait_text="Zz"), ThinkingBudget(5, answer_lead="Zz")):
        with pytest.raises(ModelError, match="cannot write"):
            ForcingTables.of(words, words.vocab_size, budget, LIMIT)
