"""Seeds with names: the same number on every machine and in every version."""

import hashlib


def seed_for(*names: object) -> int:
    """A 63-bit seed from any names, for example `seed_for(run_seed, "rollout", step, problem.id)`.

    Never Python's `hash()`, which is salted per process, and never a global generator, whose
    state would depend on what ran before.
    """
    text = "\x1f".join(str(name) for name in names)
    digest = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
