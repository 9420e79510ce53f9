"""Our algorithms in veRL's keys: those of which veRL 0.9.1 computes the same numbers.

A test computes both sides. What is not here, veRL computes otherwise or not at all: an advantage
whitened over tokens in place of completions, a loss that is averaged within a micro-batch.
"""

from collections.abc import Mapping
from typing import Any

from aha.algo.losses import MAX_DPPO_RATIO

Overrides = dict[str, Any]

ACTOR = "actor_rollout_ref.actor"
LOSS = f"{ACTOR}.policy_loss.loss_mode"
LOW, HIGH, DUAL = f"{ACTOR}.clip_ratio_low", f"{ACTOR}.clip_ratio_high", f"{ACTOR}.clip_ratio_c"
NO_LIMIT = 1e9  # above e^20, the largest ratio that either program forms

ADVANTAGE, BY_DEVIATION = "algorithm.adv_estimator", "algorithm.norm_adv_by_std_in_grpo"
ADVANTAGES: Mapping[str, Overrides] = {
    "dr_grpo": {ADVANTAGE: "grpo", BY_DEVIATION: False},
    "grpo": {ADVANTAGE: "grpo", BY_DEVIATION: True},
    "rloo": {ADVANTAGE: "rloo"},
    "opo": {ADVANTAGE: "opo"},
    "reinforce_pp": {ADVANTAGE: "reinforce_plus_plus"},
    "gae": {ADVANTAGE: "gae"},
}
# The nearest one for each of the others.
NEAREST_ADVANTAGE = {"reinforce": "reinforce_pp", "reinforce_pp_baseline": "rloo"}

# What a loss is called there. Clip ranges and the weight `tau` are added by `loss_overrides`.
LOSSES: Mapping[str, Overrides] = {
    "pg": {LOSS: "gpg"},
    "ratio": {LOSS: "vanilla", LOW: 1.0, HIGH: NO_LIMIT, DUAL: NO_LIMIT},
    "ppo_clip": {LOSS: "vanilla", DUAL: NO_LIMIT},
    "gspo": {LOSS: "gspo"},
    "cispo": {LOSS: "cispo"},
    "sapo": {LOSS: "sapo", f"{ACTOR}.tau_pos": 1.0, f"{ACTOR}.tau_neg": 1.05},
    "dppo_tv": {LOSS: "dppo_tv", DUAL: MAX_DPPO_RATIO},
    "dppo_kl": {LOSS: "dppo_kl", DUAL: MAX_DPPO_RATIO},
    "quadratic": {LOSS: "dro"},
}
# The key that takes each number of a loss.
LOSS_NUMBERS = {
    "clip_low": LOW,
    "clip_high": HIGH,
    "dual_clip": DUAL,
    "tau": f"{ACTOR}.policy_loss.dro_beta",
}

AGGREGATIONS = {
    "token_mean": "token-mean",
    "sequence_mean": "seq-mean-token-mean",
    "sequence_total": "seq-mean-token-sum",
    "sequence_sum": "seq-mean-token-sum-norm",
}
KL_IN_LOSS = {"k2": "k2", "k3+": "k3+", "k3_clamped": "low_var_kl"}
CORRECTIONS = {"token_tis": "token", "sequence_tis": "sequence", "icepop": "token"}
# The share of the penalty for long completions in veRL's reward manager `dapo`.
OVERLONG = {"soft": 1.0, "soft_half": 0.5}
# What has to differ within a group that is kept.
ZERO_VARIANCE = {"resample": "acc", "resample_by_reward": "reward"}
