"""Sizes that one room computes with and another counts with, so that neither keeps a copy."""

GB = 1e9  # bytes, as the makers of memory count
LOGITS_CHUNK = 2**25  # logits that exist at a time when log-probs are computed: 128 MiB in float32
NEWTON_SCHULZ_ROUNDS = 5  # of an update by Muon
TINY_POSITIONS = 1280  # of a base that is made from nothing
