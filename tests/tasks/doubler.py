"""A function for a worker, with its builder: doubles a number, and adds an offset."""

import os
import time

from aha.core.errors import ConfigError


def build(offset):
    if offset is None:
        raise ConfigError("an offset of None", "a number", "give one")
    if offset < 0:
        os._exit(4)

    def double(value):
        if value == "slow":
            time.sleep(0.3)
        if value == "own process":
            return os.getpid()
        if value == "set":
            return {1, 2}
        if value == "long":
            return "x" * 70_000
        return len(value) if isinstance(value, list) else 2 * value + offset

    return double
