"""The fields that clients send: what asks for nothing is taken, all else is refused by its name."""

from types import SimpleNamespace

import pytest

from aha.core.records import Problem, Prompt
from aha.serve.request_body import RequestError
from aha.serve.request_fields import DEFAULT_TOKENS, check_fields, check_message, read_settings

PROMPTS = [Prompt(Problem("text", "text", {}), "abc", (1, 2, 3))]
MODEL = SimpleNamespace(positions=2_000)


def settings(**fields):
    check_fields({"messages": "...", **fields}, "messages")
    return read_settings(fields, PROMPTS, MODEL)


NOTHING = [
    *({"top_p": 1}, {"top_p": 1.0}, {"top_k": -1}, {"top_k": 0}, {"min_p": 0}, {"min_p": 0.0}),
    *({"repetition_penalty": 1}, {"repetition_penalty": 1.0}, {"repeat_penalty": 1.0}),
    *({"frequency_penalty": 0}, {"presence_penalty": 0.0}, {"presence_penalty": -0.0}),
    *({"typical_p": 1.0}, {"mirostat": 0, "mirostat_tau": 5.0, "mirostat_eta": 0.1}),
    {"dry_multiplier": 0, "dry_base": 1.75, "dry_allowed_length": 2, "dry_penalty_last_n": -1},
    {"xtc_probability": 0, "xtc_threshold": 0.1, "dynatemp_range": 0, "dynatemp_exponent": 1},
    *({"logit_bias": {}}, {"logit_bias": None}, {"bad_words": []}, {"stop": []}, {"stop": None}),
    *({"tools": []}, {"tools": None, "tool_choice": "auto"}, {"tool_choice": "none"}),
    *({"functions": [], "function_call": "none"}, {"parallel_tool_calls": False}),
    *({"response_format": {"type": "text"}}, {"response_format": {"type": "text", "x": None}}),
    *({"logprobs": False}, {"logprobs": None, "top_logprobs": 0}, {"echo": False}, {"suffix": ""}),
    *({"best_of": 1}, {"best_of": 2, "n": 2}, {"use_beam_search": False}, {"n": None}),
    *({"stream": None}, {"stream_options": None}, {"stream_options": {}}, {"stream": False}),
    {"stream_options": {"include_usage": False, "continuous_usage_stats": False}},
    {"stream": True, "stream_options": {"include_usage": True, "include_obfuscation": False}},
    *({"user": "u"}, {"metadata": {"a": "b"}}, {"store": True}, {"service_tier": "auto"}),
    *({"cache_prompt": True}, {"keep_alive": "5m"}, {"priority": 3}, {"id_slot": -1}),
    *({"reasoning_effort": "medium"}, {"verbosity": "medium"}, {"modalities": ["text"]}),
    *({"skip_special_tokens": True}, {"add_generation_prompt": True}, {"chat_template_kwargs": {}}),
    *({"temperature": None}, {"seed": None}, {"max_tokens": None}, {"max_tokens": -1}),
    *({"max_completion_tokens": -1}, {"grammar": None}, {"anything": []}, {"anything": {}}),
]


@pytest.mark.parametrize("fields", NOTHING, ids=str)
def test_what_asks_for_nothing_is_taken(fields):
    made = settings(**fields)
    assert made.sampling.temperature == 1.0 and made.sampling.max_new_tokens == DEFAULT_TOKENS


MEANINGFUL = [
    *({"top_p": 0.95}, {"top_p": True}, {"top_k": 40}, {"top_k": 1}, {"min_p": 0.05}),
    *({"repetition_penalty": 1.1}, {"frequency_penalty": 0.1}, {"presence_penalty": False}),
    *({"logit_bias": {"1": -100}}, {"tools": [{}]}, {"tools": "x"}, {"tool_choice": "required"}),
    *({"functions": [{}]}, {"response_format": {"type": "json_object"}}, {"suffix": "x"}),
    {"response_format": {"type": "text", "schema": {"a": 1}}},
    *({"logprobs": True}, {"logprobs": 0}, {"logprobs": 1}, {"top_logprobs": 3}, {"echo": True}),
    *({"best_of": 2}, {"best_of": 1, "n": 2}, {"modalities": ["text", "audio"]}),
    *({"reasoning_effort": "low"}, {"reasoning_effort": "none"}, {"verbosity": "high"}),
    *({"chat_template_kwargs": {"enable_thinking": False}}, {"chat_template": "x"}),
    *({"ignore_eos": True}, {"min_tokens": 5}, {"skip_special_tokens": False}, {"mirostat": 2}),
    *({"grammar": "x"}, {"guided_json": {"a": 1}}, {"temprature": 0.5}, {"grammar": False}),
]


@pytest.mark.parametrize("fields", MEANINGFUL, ids=str)
def test_what_this_engine_does_not_do_is_refused_by_name(fields):
    with pytest.raises(RequestError) as caught:
        settings(**fields)
    assert caught.value.param in fields and caught.value.param in str(caught.value)


@pytest.mark.parametrize(
    "fields, limit",
    [
        ({"max_tokens": 5}, 5),
        ({"max_tokens": 5.0}, 5),
        ({"max_completion_tokens": 7}, 7),
        ({"max_tokens": 7, "max_completion_tokens": 7}, 7),
        ({"max_tokens": 7, "max_completion_tokens": None}, 7),
        ({"max_tokens": -1, "max_completion_tokens": 7}, 7),
    ],
)
def test_the_limit_has_two_names(fields, limit):
    assert settings(**fields).sampling.max_new_tokens == limit


@pytest.mark.parametrize(
    "fields",
    [
        *({"max_tokens": value} for value in (0, -2, 1.5, "5", True, [5], 10**400, 1e300, 1_998)),
        *({"seed": value} for value in (2**64, 1.5, "1", True, 10**400)),
        *({"n": value} for value in (0, -1, 129, 1.5, True, 10**400)),
        *({"temperature": value} for value in (-1, 10.1, 10**400, "1", True, [], 5e-324, 1e-30)),
        *(
            {"stop": value}
            for value in ("", [""], [None], 5, {"a": 1}, ["a"] * 5, ["x" * 257], [[]])
        ),
        *({"stream": value} for value in ("yes", 1, [])),
        *({"stream_options": value} for value in ("x", 5, {"x": 1}, {"include_usage": "yes"})),
        {"stream_options": {"continuous_usage_stats": True}},
        {"max_tokens": 5, "max_completion_tokens": 6},
    ],
    ids=lambda fields: str(fields)[:50],
)
def test_values_out_of_range_are_refused_by_name(fields):
    with pytest.raises(RequestError) as caught:
        settings(**fields)
    assert caught.value.param in fields and caught.value.status == 400


@pytest.mark.parametrize("temperature", [0, 0.0, 1e-9, 1e-20, 2, 10])
def test_temperatures(temperature):
    assert settings(temperature=temperature).sampling.temperature == temperature


@pytest.mark.parametrize(
    "more",
    [
        *({"id": 7}, {"timestamp": 1.5}, {"tool_calls": None}, {"tool_calls": []}, {"audio": None}),
        *({"refusal": None}, {"annotations": []}, {"name": None}, {"name": ""}),
    ],
    ids=str,
)
def test_what_a_message_brings_for_the_callers_own_records_is_taken(more):
    check_message({"role": "user", "content": "x", **more}, 0)


@pytest.mark.parametrize(
    "more",
    [
        *({"tool_calls": [{"id": "1"}]}, {"function_call": {"name": "f"}}, {"audio": {"id": 1}}),
        *({"name": "bob"}, {"reasoning_content": "hm"}, {"prefix": True}, {"images": ["..."]}),
    ],
    ids=str,
)
def test_what_the_model_would_not_get_to_read_is_refused_by_name(more):
    with pytest.raises(RequestError, match=rf"messages\[2\].{next(iter(more))}"):
        check_message({"role": "user", "content": "x", **more}, 2)


# -- thinking budgets -------------------------------------------------------------------------

OPEN = [Prompt(Problem("text", "text", {}), "abc <think>", (1, 2, 3))]


def budget(prompts=OPEN, token=None, **fields):
    check_fields({"messages": "...", **fields}, "messages")
    fast = SimpleNamespace(token_to_id=lambda text: token)
    model = SimpleNamespace(positions=2_000, tokenizer=SimpleNamespace(fast=fast))
    return read_settings(fields, prompts, model).sampling


def test_a_thinking_budget_becomes_one_of_the_engine():
    made = budget(max_thinking_tokens=50, max_tokens=100)
    assert (made.budget.max_tokens, made.budget.answer_lead) == (50, "\n\n")
    assert made.budget.waits is made.budget.min_tokens is None
    assert budget(max_thinking_tokens=0, max_tokens=100).budget.max_tokens == 0
    assert budget(max_tokens=100).budget is None is budget(max_thinking_tokens=None).budget
    assert budget(max_thinking_tokens=50, token=4).budget.answer_lead == "\n<answer>"


def test_without_max_tokens_the_answer_keeps_its_room():
    assert budget(max_thinking_tokens=900).max_new_tokens == DEFAULT_TOKENS + 900
    assert budget(max_thinking_tokens=1_500).max_new_tokens == 2_000 - 3


@pytest.mark.parametrize("value", [-1, "5", 1.5, True, 10**10])
def test_what_is_no_number_of_thinking_tokens_is_refused(value):
    with pytest.raises(RequestError) as caught:
        budget(max_thinking_tokens=value)
    assert caught.value.param == "max_thinking_tokens"


def test_a_budget_without_room_for_the_answer_names_the_largest_one_that_has_it():
    with pytest.raises(RequestError, match="max_thinking_tokens 68") as caught:
        budget(max_thinking_tokens=69, max_tokens=100)
    assert caught.value.param == "max_thinking_tokens"
    assert budget(max_thinking_tokens=68, max_tokens=100).budget.max_tokens == 68
    with pytest.raises(RequestError, match="max_tokens 42"):
        budget(max_thinking_tokens=10, max_tokens=20)


def test_a_prompt_that_opens_no_thought_gets_no_budget():
    with pytest.raises(RequestError, match="opens no <think>") as caught:
        budget(PROMPTS, max_thinking_tokens=9)
    assert caught.value.param == "max_thinking_tokens"
