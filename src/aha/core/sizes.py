"""Sizes that one room computes with and another counts with, so that neither keeps a copy."""

GB = 1e9  # bytes, as the makers of memory count
LOGITS_CHUNK = 2**25  # logits that exist at a time when log-probs are computed: 128 MiB in float32
NEWTON_SCHULZ_ROUNDS = 5  # of an update by Muon
# Parameters below which a rank with one thread for each core is faster than one rank with all of
# them. A step of 4 million took .96 of the time, one of 20 million 1.08: results/bench/ranks.jsonl.
ONE_THREAD_MODEL = 10_000_000
RANK_GROUPS = 4  # of a step, at least, for each rank: with fewer they are hard to share evenly
TINY_POSITIONS = 1280  # of a base that is made from nothing
