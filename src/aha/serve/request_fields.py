"""What a request of OpenAI's interface may hold, and what comes of it.

Nothing is dropped in silence: what this engine cannot do is refused by name, unless it is asked for
with the value that means nothing.
"""

import secrets
from dataclasses import dataclass

from aha.core.errors import AhaError
from aha.core.records import Prompt
from aha.rollout.engine import Sampling
from aha.serve.open_models import OpenModel

MOST_ROWS = 128  # completions of one request
USUAL_TOKENS = 1024
MOST_STOPS, LONGEST_STOP = 4, 256

READ = {"model", "stream", "stream_options", "stop", "temperature", "n", "seed"}
READ |= {"max_tokens", "max_completion_tokens"}
# Of the caller's own use; nothing here depends on them.
SILENT = {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"}
# What cannot be done, with the values that ask for nothing. null always does.
NEUTRAL: dict[str, tuple] = {
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
    """A request that makes no sense here: `param` is the field, `status` the HTTP status."""

    def __init__(
        self, got: str, wanted: str = "", fix: str = "", *, param: str | None = None, **how
    ):
        super().__init__(got, wanted, fix)
        self.param, self.status = param, how.get("status", 400)
        self.code = how.get("code")


@dataclass(frozen=True, slots=True)
class RequestSettings:
    """A request that makes sense: how many completions, how, and how they are handed over."""

    sampling: Sampling
    stop: tuple[str, ...]
    stream: bool
    with_usage: bool  # a last chunk with the usage


def check_fields(body: dict, content: str) -> None:
    """Refuse fields that nothing here reads. `content` is "messages" or "prompt"."""
    for key, value in body.items():
        if key in READ or key in SILENT or key == content or value is None:
            continue
        if key not in NEUTRAL:
            raise RequestError(
                f"the field {key!r}", f"{content}, {', '.join(sorted(READ))}", "", param=key
            )
        if not any(value == one and type(value) is type(one) for one in NEUTRAL[key]):
            raise RequestError(
                f"{key} {short(value)}, which this engine does not do",
                " or ".join(["no such field", *map(short, NEUTRAL[key])]),
                "leave it out",
                param=key,
            )


def read_settings(body: dict, prompts: list[Prompt], opened: OpenModel) -> RequestSettings:
    """The settings of a request whose prompts are known. Raises `Refused`."""
    n = whole(body, "n", 1, 1, MOST_ROWS)
    if n * len(prompts) > MOST_ROWS:
        raise RequestError(
            f"{len(prompts)} prompts with {n} completions each",
            f"at most {MOST_ROWS} completions in one request",
            "ask in parts",
            param="n",
        )
    temperature = body.get("temperature")
    if temperature is not None and type(temperature) not in (int, float):
        raise RequestError(
            f"temperature {short(temperature)}", "a number from 0 to 10", param="temperature"
        )
    drawn = secrets.randbits(31)
    seed = whole(body, "seed", drawn, -(2**63), 2**63 - 1)
    most = most_tokens(body, prompts, opened.positions)
    try:
        sampling = Sampling(most, n, 1.0 if temperature is None else float(temperature), seed)
    except AhaError as error:
        raise RequestError(error.got, error.wanted, error.fix, param="temperature") from error
    options = body.get("stream_options") or {}
    if not isinstance(options, dict) or set(options) - {"include_usage", "include_obfuscation"}:
        raise RequestError(
            f"stream_options {short(options)}", '{"include_usage": true}', param="stream_options"
        )
    stream = flag(body, "stream")
    return RequestSettings(
        sampling, stops(body.get("stop")), stream, flag(options, "include_usage")
    )


def most_tokens(body: dict, prompts: list[Prompt], positions: int) -> int:
    """The longest completion: as asked, else what the model has room for, at most 1024."""
    longest = max(len(prompt.tokens) for prompt in prompts)
    room = positions - longest
    param = "max_tokens" if body.get("max_completion_tokens") is None else "max_completion_tokens"
    asked = whole(body, param, max(1, min(room, USUAL_TOKENS)), 1, 10**9)
    if asked > room:
        raise RequestError(
            f"{param} {asked} after a prompt of {longest} tokens",
            f"at most the model's {positions} positions together",
            f"{param} {room}" if room > 0 else "a shorter prompt",
            param=param,
            code="context_length_exceeded",
        )
    return asked


def stops(given: object) -> tuple[str, ...]:
    """The texts before which a completion ends."""
    found = [given] if isinstance(given, str) else [] if given is None else given
    usable = isinstance(found, list) and len(found) <= MOST_STOPS
    if not usable or not all(isinstance(s, str) and 0 < len(s) <= LONGEST_STOP for s in found):
        raise RequestError(
            f"stop {short(given)}",
            f"a text or up to {MOST_STOPS} of them, none empty or over {LONGEST_STOP} characters",
            param="stop",
        )
    return tuple(found)


def whole(body: dict, key: str, default: int, low: int, high: int) -> int:
    value = body.get(key)
    if value is None:
        return default
    if type(value) is not int or not low <= value <= high:
        raise RequestError(
            f"{key} {short(value)}", f"a whole number from {low} to {high}", param=key
        )
    return value


def flag(body: dict, key: str) -> bool:
    value = body.get(key)
    if value is not None and type(value) is not bool:
        raise RequestError(f"{key} {short(value)}", "true or false", param=key)
    return bool(value)


def short(value: object) -> str:
    """A value as it may stand in an error."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
