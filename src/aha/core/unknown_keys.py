"""Errors for keys that no recipe has: with the nearest key, or the reason why there is none."""

import difflib
from typing import Any

from aha.core.errors import ConfigError, shown

LONGEST = 100  # characters of a key that are compared and shown

# Settings of other programs, left out here on purpose: what is wanted instead, and the fix.
NO_CUT_DISTRIBUTION = (
    "all tokens: recorded log-probs of a cut distribution are not those that are trained",
    "leave it out; --rollout.temperature 0.9 makes rare tokens rarer, and is trained as such",
)
LEFT_OUT = dict.fromkeys(("top_k", "top_p", "min_p"), NO_CUT_DISTRIBUTION)


def unknown_key(key: str, value: Any, known: list[str], where: str = "") -> ConfigError:
    """The error for a key that no recipe has: with the nearest key, or with the reason why it was
    left out on purpose."""
    name = key.split(".")[-1]
    if name in LEFT_OUT:
        return ConfigError(f"{where}{key[:LONGEST]} {shown(value)}", *LEFT_OUT[name])
    key = key[:LONGEST]
    near = " or ".join(map(repr, nearest_keys(key, known)))
    hint = f"did you mean {near}?" if near else "see `aha config show`"
    return ConfigError(f"{where}unknown key {key!r}", "a known key", hint)


def nearest_keys(key: str, known: list[str]) -> list[str]:
    """The known key most like `key`; for a name without its section, every key of that name."""
    same_name = [other for other in known if other.split(".")[-1] == key]
    if same_name:
        return sorted(same_name, key=len)
    near = difflib.get_close_matches(key, known, 1, 0.5)
    if near:
        return near
    names = {other.split(".")[-1]: other for other in reversed(known)}
    near = difflib.get_close_matches(key.split(".")[-1], names, 1, 0.5)
    return [names[name] for name in near]
