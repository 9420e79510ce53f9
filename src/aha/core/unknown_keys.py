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

# Names of the same setting in TRL, veRL, transformers and PEFT, without their section.
NAMES_OF_OTHERS = {
    "beta": "algo.kl_coef",
    "kl_loss_coef": "algo.kl_coef",
    "epsilon": "algo.clip_low",
    "epsilon_high": "algo.clip_high",
    "clip_ratio": "algo.clip_low",
    "loss_type": "algo.loss",
    "adv_estimator": "algo.advantage",
    "scale_rewards": "algo.advantage",
    "num_iterations": "algo.updates",
    "ppo_epochs": "algo.updates",
    "entropy_coeff": "algo.entropy_coef",
    "num_generations": "rollout.group_size",
    "train_batch_size": "rollout.prompts",
    "per_device_train_batch_size": "rollout.prompts",
    "max_completion_length": "rollout.max_new_tokens",
    "max_response_length": "rollout.max_new_tokens",
    "use_vllm": "rollout.engine",
    "vllm_gpu_memory_utilization": "rollout.memory_share",
    "gpu_memory_utilization": "rollout.memory_share",
    "learning_rate": "optim.lr",
    "max_grad_norm": "optim.grad_clip",
    "warmup_steps": "optim.warmup",
    "lr_warmup_steps": "optim.warmup",
    "adam_beta1": "optim.beta1",
    "adam_beta2": "optim.beta2",
    "bf16": "optim.dtype",
    "gradient_checkpointing": "optim.recompute",
    "ppo_max_token_len_per_gpu": "optim.micro_batch_tokens",
    "max_steps": "steps",
    "total_training_steps": "steps",
    "save_steps": "checkpoint_every",
    "save_freq": "checkpoint_every",
    "save_total_limit": "keep_last",
    "eval_steps": "eval.every",
    "test_freq": "eval.every",
    "model_name_or_path": "model.path",
    "lora_r": "model.lora_rank",
    "dataset_name": "task.data",
    "train_files": "task.data",
    "val_files": "task.test_data",
}


def unknown_key(key: str, value: Any, known: list[str], where: str = "") -> ConfigError:
    """The error for a key that no recipe has: with the nearest key, or with the reason why it was
    left out on purpose."""
    if reason := reason_left_out(key):
        return ConfigError(f"{where}{key[:LONGEST]} {shown(value)}", *reason)
    key = key[:LONGEST]
    near = " or ".join(map(repr, nearest_keys(key, known)))
    hint = f"did you mean {near}?" if near else "see `aha config show`"
    return ConfigError(f"{where}unknown key {key!r}", "a known key", hint)


def reason_left_out(key: str) -> tuple[str, str] | None:
    """(what is wanted instead, the fix) for a setting that was left out on purpose, else None."""
    return LEFT_OUT.get(key.split(".")[-1])


def nearest_keys(key: str, known: list[str]) -> list[str]:
    """The known key most like `key`: that of another trainer's name for it; for a name without
    its section, every key of that name."""
    section, _, name = key.rpartition(".")
    if same := NAMES_OF_OTHERS.get(name):
        own = f"{section}.{same.split('.')[-1]}"  # critic.learning_rate is critic.lr
        if own in known:
            return [own]
        beside = [other for other in known if section and other.startswith(f"{section}.")]
        # optim.beta is a beta of the optimiser, and not the KL's.
        return difflib.get_close_matches(key, beside, 1, 0.9) or [same]
    # veRL has sections in sections: what they are called here, the last name alone says.
    name = name if "." in section else key
    same_name = [other for other in known if other.split(".")[-1] == name]
    if same_name:
        return sorted(same_name, key=len)
    near = difflib.get_close_matches(key, known, 1, 0.5)
    if near:
        return near
    names = {other.split(".")[-1]: other for other in reversed(known)}
    near = difflib.get_close_matches(key.split(".")[-1], names, 1, 0.5)
    return [names[name] for name in near]
