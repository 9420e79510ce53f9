"""Names under which other programs log the numbers of a row: those of TRL's GRPOTrainer.

Source: trl/trainer/grpo_trainer.py and docs/source/grpo_trainer.md of TRL 1.16; the prefixes
`train/` and `eval/` are those that the callbacks of transformers add. A number whose definition
differs there has no second name: TRL's `num_tokens` counts prompts too, and its largest ratio is
taken after the bound.
"""

from collections.abc import Mapping

# Of a step: our name, TRL's.
OF_A_STEP = {
    "step": "train/global_step",
    "reward": "train/reward",
    "mean_tokens": "train/completions/mean_length",
    "truncated": "train/completions/clipped_ratio",
    "loss": "train/loss",
    "grad_norm": "train/grad_norm",
    "lr": "train/learning_rate",
    "entropy": "train/entropy",
    "entropy_bonus": "train/entropy_coef",
    "kl": "train/kl",
    "clipped": "train/clip_ratio/region_mean",
    "groups_flat": "train/frac_reward_zero_std",
    "mismatch": "train/sampling/sampling_logp_difference/mean",
}
# Of a validation, without our prefix.
OF_A_VALIDATION = {
    "mean_tokens": "eval/completions/mean_length",
    "truncated": "eval/completions/clipped_ratio",
}


def second_names(numbers: Mapping[str, float], names: Mapping[str, str]) -> dict[str, float]:
    """The numbers that have another name in `names`, under that name."""
    return {other: numbers[name] for name, other in names.items() if name in numbers}
