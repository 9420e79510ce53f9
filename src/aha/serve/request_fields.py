"""The fields of a request to OpenAI's interface: which are allowed, and the settings they give.

A feature that this engine does not have is an error that names the field, unless the field has the
value that switches the feature off.
"""

import secrets
from dataclasses import dataclass
from typing import Any

from aha.core.errors import AhaError
from aha.core.records import Prompt
from aha.rollout.engine import Sampling
from aha.serve.open_models import OpenModel

MAX_COMPLETIONS = 128  # of one request
DEFAULT_TOKENS = 1024
MAX_STOPS, MAX_STOP_CHARS = 4, 256

SUPPORTED = {"model", "stream", "stream_options", "stop", "temperature", "n", "seed"}
SUPPORTED |= {"max_tokens", "max_completion_tokens"}
# For the caller's own records; no result depends on them.
IGNORED = {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"}
# Features that this engine lacks, with the values that switch them off; null always does.
NEUTRAL: dict[str, tuple[object, ...]] = {
    "top_p": (1, 1.0),
    "presence_penalty": (0, 0.0),
    "frequency_penalty": (0, 0.0),
    "logprobs": (False,),
    "top_logprobs": (),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "logit_bias": ({},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "functions": ([],),
    "function_call": ("none",),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "reasoning_effort": (),
}


class RequestError(AhaError):
    """The request is invalid or cannot be answered.

    `param` is the field that is wrong, `status` the HTTP status, `code` OpenAI's name of the error.
    """

    def __init__(
        self,
        got: str,
        wanted: str = "",
        fix: str = "",
        *,
        param: str | None = None,
        status: int = 400,
        code: str | None = None,
    ):
        super().__init__(got, wanted, fix)
        self.param, self.status, self.code = param, status, code


@dataclass(frozen=True, slots=True)
class RequestSettings:
    """The settings of a valid request: sampling, stop texts, and whether it is streamed."""

    sampling: Sampling
    stop: tuple[str, ...]
    stream: bool
    with_usage: bool  # a streamed response ends with a chunk about the usage


def check_fields(body: dict[str, Any], content: str) -> None:
    """Raise RequestError for a field that is not supported. `content`: "messages" or "prompt"."""
    for key, value in body.items():
        if key in SUPPORTED or key in IGNORED or key == content or value is None:
            continue
        if key not in NEUTRAL:
            raise RequestError(
                f"the field {key!r}", f"{content}, {', '.join(sorted(SUPPORTED))}", "", param=key
            )
        if not any(value == off and type(value) is type(off) for off in NEUTRAL[key]):
            raise RequestError(
                f"{key} {short(value)}, which this engine does not do",
                " or ".join(["no such field", *map(short, NEUTRAL[key])]),
                "leave it out",
                param=key,
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
    temperature = body.get("temperature")
    if temperature is not None and type(temperature) not in (int, float):
        raise RequestError(
            f"temperature {short(temperature)}", "a number from 0 to 10", param="temperature"
        )
    random_seed = secrets.randbits(31)
    seed = whole_number(body, "seed", random_seed, -(2**63), 2**63 - 1)
    limit = token_limit(body, prompts, model.positions)
    try:
        sampling = Sampling(limit, n, 1.0 if temperature is None else float(temperature), seed)
    except AhaError as error:
        raise RequestError(error.got, error.wanted, error.fix, param="temperature") from error
    options = body.get("stream_options") or {}
    if not isinstance(options, dict) or set(options) - {"include_usage", "include_obfuscation"}:
        raise RequestError(
            f"stream_options {short(options)}", '{"include_usage": true}', param="stream_options"
        )
    stream = flag(body, "stream")
    return RequestSettings(
        sampling, stop_texts(body.get("stop")), stream, flag(options, "include_usage")
    )


def token_limit(body: dict[str, Any], prompts: list[Prompt], positions: int) -> int:
    """The largest number of tokens of a completion.

    Without a field that says it: all positions after the longest prompt, at most DEFAULT_TOKENS.
    Raises RequestError where prompt and completion exceed the model's positions.
    """
    longest = max(len(prompt.tokens) for prompt in prompts)
    positions_left = positions - longest
    param = "max_tokens" if body.get("max_completion_tokens") is None else "max_completion_tokens"
    limit = whole_number(body, param, max(1, min(positions_left, DEFAULT_TOKENS)), 1, 10**9)
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
    if type(value) is not int or not low <= value <= high:
        raise RequestError(
            f"{key} {short(value)}", f"a whole number from {low} to {high}", param=key
        )
    return value


def flag(body: dict[str, Any], key: str) -> bool:
    """A field with true or false; false where it is missing. Raises RequestError."""
    value = body.get(key)
    if value is not None and type(value) is not bool:
        raise RequestError(f"{key} {short(value)}", "true or false", param=key)
    return bool(value)


def short(value: object) -> str:
    """A value for an error message, at most 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
