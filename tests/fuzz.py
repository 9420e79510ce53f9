"""How much the tests marked `fuzz` try."""

import os

SHARE = float(os.environ.get("FUZZ_SHARE", "1"))


def tries(whole: int) -> int:
    """The number of tries: `whole`, or the share of it that FUZZ_SHARE names. FUZZ_SHARE=0.1 is a
    look in a tenth of the time, and 10 looks further."""
    return max(1, round(whole * SHARE))
