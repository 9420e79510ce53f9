"""The fields of a request to OpenAI's interface: which are allowed, and the settings they give.

A feature that this engine does not have is an error that names the field, unless the field has the
value that switches the feature off.
"""

import secrets
from dataclasses import dataclass
from functools import partial
from typing import Any

from aha.core.records import Prompt
from aha.rollout.engine import MIN_TEMPERATURE, Sampling
from aha.rollout.thinking_budget import (
    ANSWER_ROOM,
    ThinkingBudget,
    check_thought_is_open,
    lead_for,
)
from aha.serve.open_models import OpenModel
from aha.serve.request_body import RequestError, short, with_request_error
from aha.tasks.tags import ANSWER_OPEN

MAX_COMPLETIONS = 128  # of one request
DEFAULT_TOKENS = 1024
MAX_STOPS, MAX_STOP_CHARS = 4, 256

SUPPORTED = {"model", "stream", "stream_options", "stop", "temperature", "n", "seed"}
SUPPORTED |= {"max_tokens", "max_completion_tokens", "max_thinking_tokens"}
# For the caller's own records, or how a server works; no result depends on them.
IGNORED = {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"}
IGNORED |= {"prompt_cache_retention", "cache_prompt", "cache_salt", "id_slot", "slot_id"}
IGNORED |= {"request_id", "priority", "keep_alive"}
# Settings of features that NEUTRAL switches off: without the feature they have no effect.
IGNORED |= {"xtc_threshold", "dry_base", "dry_allowed_length", "dry_penalty_last_n"}
IGNORED |= {"dry_sequence_breakers", "dynatemp_exponent", "repeat_last_n"}
IGNORED |= {"mirostat_tau", "mirostat_eta", "min_keep"}
# Features that this engine lacks, with the values that switch them off. Null, [] and {} do too.
NEUTRAL: dict[str, tuple[object, ...]] = {
    # which tokens may be drawn
    "top_p": (1,),
    "top_k": (-1, 0),
    "min_p": (0,),
    "typical_p": (1,),
    "tfs_z": (1,),
    "xtc_probability": (0,),
    "mirostat": (0,),
    "dynatemp_range": (0,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "repeat_penalty": (1,),
    "length_penalty": (1,),
    "dry_multiplier": (0,),
    "logit_bias": (),
    "bad_words": (),
    "allowed_token_ids": (),
    # where a completion ends
    "stop_token_ids": (),
    "min_tokens": (0,),
    "ignore_eos": (False,),
    "include_stop_str_in_output": (False,),
    # what is generated
    "best_of": (1,),
    "use_beam_search": (False,),
    "tools": (),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "functions": (),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "reasoning_effort": ("medium",),
    "verbosity": ("medium",),
    # what is in the answer
    "logprobs": (False,),
    "top_logprobs": (0,),
    "prompt_logprobs": (),
    "echo": (False,),
    "suffix": ("",),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "return_tokens_as_token_ids": (False,),
    "return_token_ids": (False,),
    "return_progress": (False,),
    "timings_per_token": (False,),
    "reasoning_format": ("none", "auto"),
    # what the model reads
    "chat_template": (),
    "chat_template_kwargs": (),
    "documents": (),
    "add_generation_prompt": (True,),
    "continue_final_message": (False,),
}
# Of one message, what is for the caller's own records.
IGNORED_IN_MESSAGE = {"id", "timestamp", "created", "created_at", "metadata", "status"}


@dataclass(frozen=True, slots=True)
class RequestSettings:
    """The settings of a valid request: sampling, stop texts, and whether it is streamed."""

    sampling: Sampling
    stop: tuple[str, ...]
    stream: bool
    with_usage: bool  # a streamed response ends with a chunk about the usage


def asks_for_nothing(value: object, neutral: tuple[object, ...] = ()) -> bool:
    """Whether a value is null, an empty list or object, or one of `neutral`."""
    if value is None or (isinstance(value, list | dict) and not value):
        return True
    if isinstance(value, dict):  # clients write out what is unset
        value = {key: inner for key, inner in value.items() if inner is not None}
    # True == 1 in Python, not in a request.
    return any(value == off and isinstance(value, bool) == isinstance(off, bool) for off in neutral)


def check_fields(body: dict[str, Any], content: str) -> None:
    """Raise RequestError for a field that is not supported. `content`: "messages" or "prompt"."""
    for key, value in body.items():
        neutral = NEUTRAL.get(key, ())
        if key == "best_of":
            neutral = (body.get("n") or 1,)  # all that are generated are returned
        if key in SUPPORTED or key in IGNORED or key == content or asks_for_nothing(value, neutral):
            continue
        if key not in NEUTRAL:
            supported = ", ".join(sorted(SUPPORTED))
            raise RequestError(f"the field {short(key)}", f"{content}, {supported}", param=key[:60])
        raise RequestError(
            f"{key} {short(value)}, which this engine does not do",
            " or ".join(["no such field", *map(short, NEUTRAL[key])]),
            "leave it out",
            param=key,
        )


def check_message(message: dict[str, Any], place: int) -> None:
    """Raise RequestError for a part of a message that the model would not get to read."""
    for key, value in message.items():
        if (
            key in ("role", "content")
            or key in IGNORED_IN_MESSAGE
            or asks_for_nothing(value, ("",))
        ):
            continue
        raise RequestError(
            f"messages[{place}].{key[:40]} {short(value)}, for which the prompt has no place",
            "role and content",
            "leave it out",
            param="messages",
        )


def read_settings(body: dict[str, Any], prompts: list[Prompt], model: OpenModel) -> RequestSettings:
    """The settings of a request with these prompts. Raises RequestError for an invalid field."""
    n = whole_number(body, "n", 1, 1, MAX_COMPLETIONS)
    if n * len(prompts) > MAX_COMPLETIONS:
        raise RequestError(
            f"{len(prompts)} prompts with {n} completions each",
            f"at most {MAX_COMPLETIONS} completions in one request",
            "ask in parts",
            param="n",
        )
    random_seed = secrets.randbits(31)
    seed = whole_number(body, "seed", random_seed, -(2**63), 2**63 - 1)
    thinking = body.get("max_thinking_tokens")
    most = None if thinking is None else whole_number(body, "max_thinking_tokens", 0, 0, 10**9)
    limit = token_limit(body, prompts, model.positions, most or 0)
    budget = None if most is None else thinking_budget(most, limit, prompts, model)
    sampling = Sampling(limit, n, temperature_of(body), seed, budget)
    options = body.get("stream_options") or {}
    unknown = [
        key
        for key, value in (options.items() if isinstance(options, dict) else [("", options)])
        if key not in ("include_usage", "include_obfuscation")
        and not asks_for_nothing(value, (False,))
    ]
    if unknown:
        raise RequestError(
            f"stream_options {short(options)}", '{"include_usage": true}', param="stream_options"
        )
    stream = flag(body, "stream")
    return RequestSettings(
        sampling,
        stop_texts(body.get("stop")),
        stream,
        flag(options, "include_usage", "stream_options"),
    )


def thinking_budget(
    most: int, limit: int, prompts: list[Prompt], model: OpenModel
) -> ThinkingBudget:
    """The budget for thoughts of at most `most` tokens in completions of `limit`.

    Raises RequestError where the answer has no room, or a prompt opens no thought.
    """
    if most + ANSWER_ROOM > limit:
        raise RequestError(
            f"max_thinking_tokens {most} in a completion of at most {limit} tokens",
            f"at least {ANSWER_ROOM} tokens for the answer",
            f"max_thinking_tokens {limit - ANSWER_ROOM}"
            if limit >= ANSWER_ROOM
            else f"max_tokens {most + ANSWER_ROOM}",
            param="max_thinking_tokens",
        )
    texts = [prompt.text for prompt in prompts]
    for text in texts:
        with_request_error("max_thinking_tokens", partial(check_thought_is_open, text))
    lead = lead_for(texts, model.tokenizer.fast.token_to_id(ANSWER_OPEN) is not None)
    return ThinkingBudget(most, answer_lead=lead)


def temperature_of(body: dict[str, Any]) -> float:
    """The temperature, 1 unless given. Raises RequestError."""
    value = body.get("temperature")
    if value is None:
        return 1.0
    if type(value) not in (int, float) or not 0 <= value <= 10:
        raise RequestError(
            f"temperature {short(value)}", "a number from 0 to 10", param="temperature"
        )
    if 0 < value < MIN_TEMPERATURE:
        raise RequestError(
            f"temperature {short(value)}, too small to divide by",
            f"at least {MIN_TEMPERATURE}, or 0 for the most likely token",
            "temperature 0",
            param="temperature",
        )
    return float(value)


def token_limit(
    body: dict[str, Any], prompts: list[Prompt], positions: int, thinking: int = 0
) -> int:
    """The largest number of tokens of a completion.

    Without a field that says it: all positions after the longest prompt, at most DEFAULT_TOKENS
    and those of a thinking budget.
    Raises RequestError where prompt and completion exceed the model's positions.
    """
    longest = max(len(prompt.tokens) for prompt in prompts)
    positions_left = positions - longest
    # -1 is no limit for llama.cpp, LM Studio and their clients.
    names = ("max_completion_tokens", "max_tokens")
    given = [key for key in names if body.get(key) not in (None, -1)]
    default = max(1, min(positions_left, DEFAULT_TOKENS + thinking))
    limits = [whole_number(body, key, default, 1, 10**9) for key in given]
    if len(set(limits)) > 1:
        raise RequestError(
            f"max_tokens {limits[1]} beside max_completion_tokens {limits[0]}",
            "one of them, or the same value",
            "leave out max_tokens, the older name",
            param="max_tokens",
        )
    param = given[0] if given else "max_tokens"
    limit = limits[0] if limits else default
    if limit > positions_left:
        raise RequestError(
            f"{param} {limit} after a prompt of {longest} tokens",
            f"at most the model's {positions} positions together",
            f"{param} {positions_left}" if positions_left > 0 else "a shorter prompt",
            param=param,
            code="context_length_exceeded",
        )
    return limit


def stop_texts(given: object) -> tuple[str, ...]:
    """The texts before which a completion ends, from the field `stop`. Raises RequestError."""
    texts = [given] if isinstance(given, str) else [] if given is None else given
    if (
        not isinstance(texts, list)
        or len(texts) > MAX_STOPS
        or not all(isinstance(text, str) and 0 < len(text) <= MAX_STOP_CHARS for text in texts)
    ):
        raise RequestError(
            f"stop {short(given)}",
            f"a text or up to {MAX_STOPS} of them, none empty or over {MAX_STOP_CHARS} characters",
            param="stop",
        )
    return tuple(texts)


def whole_number(body: dict[str, Any], key: str, default: int, low: int, high: int) -> int:
    """A field with a whole number from `low` to `high`. Raises RequestError."""
    value = body.get(key)
    if value is None:
        return default
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int or not low <= value <= high:
        raise RequestError(
            f"{key} {short(value)}", f"a whole number from {low} to {high}", param=key
        )
    return value


def flag(body: dict[str, Any], key: str, param: str = "") -> bool:
    """A field with true or false; false where it is missing. Raises RequestError.

    `param` is the field of the request, where `key` is a part of it.
    """
    value = body.get(key)
    if value is not None and type(value) is not bool:
        raise RequestError(f"{key} {short(value)}", "true or false", param=param or key)
    return bool(value)
