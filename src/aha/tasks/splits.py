"""The split of a problem: a function of the problem alone, so that splits cannot overlap.

Tasks outside this package import this module: its name and those of its functions stay.
"""

import hashlib

from aha.core.errors import ConfigError

SPLITS = ("train", "validation", "test")


def hash_percent(key: str) -> int:
    """0..99, even over keys, the same on every machine."""
    digest = hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=4).digest()
    return int.from_bytes(digest, "big") % 100


def split_by_hash(key: str, percent: int) -> str:
    """The split of a key: `percent` of all keys are test, as many validation, the rest train."""
    bucket = hash_percent(key)
    return "test" if bucket < percent else "validation" if bucket < 2 * percent else "train"


def check_split(split: str) -> None:
    """Raises `ConfigError` for a name that is no split."""
    if split not in SPLITS:
        raise ConfigError(f"split {split!r}", f"one of {', '.join(SPLITS)}")
