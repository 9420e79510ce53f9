"""Numbers from the fields of an address."""

import math
from typing import overload


@overload
def whole_number(text: str | None, default: int) -> int: ...
@overload
def whole_number(text: str | None, default: None) -> int | None: ...
def whole_number(text: str | None, default: int | None) -> int | None:
    """A number from an address; the default for any other text."""
    if text is None or not (text.isascii() and text.isdigit() and len(text) < 10):
        return default
    return int(text)


def finite_number(text: str | None) -> float | None:
    """A finite number from an address; None for any other text."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
