"""Combinations of algorithm settings that cannot work, each refused with the reason and the fix.

A setting that the chosen method never reads is refused too: changed in silence, it would pass
for a different experiment.
"""

from typing import TYPE_CHECKING

from aha.core.errors import ConfigError

if TYPE_CHECKING:
    from aha.core.config import RunConfig

NO_CLIP = ("pg", "ratio", "sapo", "quadratic")
WHOLE_COMPLETION = ("gspo", "sapo", "gmpo")
NO_GROUP = ("reinforce", "reinforce_pp", "gae")
NEEDS_REWARDS_FROM_0 = ("max_rl", "pass_at_k")
# setting -> the value of another setting without which nothing reads it
READ_BY = {
    "dual_clip": ("loss", ("ppo_clip",)),
    "tau": ("loss", ("quadratic",)),
    "pass_k": ("advantage", ("pass_at_k",)),
    "kl_estimator": ("kl", ("reward", "loss")),
    "kl_coef": ("kl", ("reward", "loss")),
    "reference_reset": ("kl", ("reward", "loss")),
    "resample_rounds": ("zero_variance", ("resample",)),
    "overlong_buffer": ("overlong", ("soft",)),
    "entropy_limit": ("entropy_control", ("adaptive", "clip_cov", "kl_cov", "top_entropy")),
    "pool": ("curriculum", ("no_positive", "pools")),
}


def check_algo(cfg: "RunConfig") -> None:
    """Raise a ConfigError for the first combination that makes no sense."""
    check_unread(cfg)
    check_group(cfg)
    check_critic(cfg)
    check_loss(cfg)
    check_kl(cfg)
    check_entropy(cfg)
    check_pool(cfg)
    check_format(cfg)
    check_rewards(cfg)


def check_unread(cfg: "RunConfig") -> None:
    algo = cfg.algo
    for setting, (other, values) in READ_BY.items():
        changed = getattr(algo, setting) != type(algo).model_fields[setting].default
        if changed and getattr(algo, other) not in values:
            raise ConfigError(
                f"algo.{setting} {getattr(algo, setting)} with algo.{other} "
                f"{getattr(algo, other)!r}, which does not read it",
                f"algo.{other} {' or '.join(values)}",
                f"--algo.{other} {values[-1]}",
            )
    for setting in ("clip_low", "clip_high"):
        if getattr(algo, setting) is not None and algo.loss in NO_CLIP:
            raise ConfigError(
                f"algo.{setting} with the loss {algo.loss!r}, which does not clip",
                "a loss that does",
                "--algo.loss ppo_clip",
            )
    for setting in ("correction_low", "correction_high"):
        if getattr(algo, setting) is not None and algo.correction == "none":
            raise ConfigError(
                f"algo.{setting} without a correction", "a correction", "--algo.correction icepop"
            )


def check_group(cfg: "RunConfig") -> None:
    algo, G = cfg.algo, cfg.rollout.group_size
    if G == 1 and algo.advantage not in NO_GROUP:
        raise ConfigError(
            f"group_size 1 with the advantage {algo.advantage!r}, which compares a group",
            "at least 2 completions of each prompt: alone, every advantage is 0",
            "--rollout.group_size 16",
        )
    if algo.pass_k is not None and algo.pass_k >= G:
        raise ConfigError(
            f"algo.pass_k {algo.pass_k} of {G} completions",
            "fewer than the group: with all of it no completion makes a difference",
            f"--rollout.group_size {2 * algo.pass_k}",
        )
    if algo.zero_variance != "keep" and algo.advantage in NO_GROUP:
        raise ConfigError(
            f"zero_variance {algo.zero_variance!r} with {algo.advantage!r}, without a group "
            "baseline",
            "'keep': there a group of equal rewards teaches as well",
            "--algo.zero_variance keep",
        )


def check_critic(cfg: "RunConfig") -> None:
    algo, critic = cfg.algo, cfg.critic
    if algo.advantage != "gae":
        changed = [
            key
            for key, field in type(critic).model_fields.items()
            if getattr(critic, key) != field.default
        ]
        if changed:
            raise ConfigError(
                f"critic.{changed[0]} {getattr(critic, changed[0])} with the advantage "
                f"{algo.advantage!r}, which has no critic",
                "the advantage of PPO",
                "--algo.advantage gae",
            )
        return
    if algo.overlong == "mask":
        raise ConfigError(
            "algo.overlong 'mask' with 'gae', whose critic learns from every completion",
            "'keep', 'zero' or 'soft'",
            "--algo.overlong zero",
        )
    if critic.warmup >= max(1, cfg.steps):
        raise ConfigError(
            f"critic.warmup {critic.warmup} of {cfg.steps} steps, so that the policy never learns",
            "fewer than steps",
            f"--steps {critic.warmup + 60}",
        )


def check_loss(cfg: "RunConfig") -> None:
    algo = cfg.algo
    if algo.updates > cfg.rollout.prompts:
        raise ConfigError(
            f"algo.updates {algo.updates} of {cfg.rollout.prompts} prompts",
            "at least one prompt for each update",
        )
    if algo.updates > 1 and algo.loss == "pg":
        raise ConfigError(
            "algo.updates > 1 with the loss 'pg', which ignores that the policy has moved",
            "a loss with a ratio",
            "--algo.loss ppo_clip",
        )
    if algo.loss in WHOLE_COMPLETION and algo.aggregation != "sequence_mean":
        raise ConfigError(
            f"the loss {algo.loss!r} with {algo.aggregation!r}, which counts its length once more",
            "'sequence_mean'",
            "--algo.aggregation sequence_mean",
        )
    if algo.correction != "none" and algo.loss != "pg":
        raise ConfigError(
            f"algo.correction {algo.correction!r} with the loss {algo.loss!r}, whose ratio is "
            "taken against the recorded log-probs already",
            "the loss 'pg': anything else would correct twice",
            "--algo.loss pg",
        )


def check_kl(cfg: "RunConfig") -> None:
    algo = cfg.algo
    if algo.kl == "reward" and algo.kl_estimator not in (None, "k1"):
        raise ConfigError(
            f"kl_estimator {algo.kl_estimator!r} in the reward",
            "k1, the only one with the right gradient there",
            "--algo.kl_estimator k1",
        )
    if algo.kl == "loss" and algo.kl_estimator == "k1":
        raise ConfigError(
            "kl_estimator 'k1' in the loss, where it pushes nowhere on average",
            "k2 or k3+ (or k3, as GRPO was published)",
            "--algo.kl_estimator k3+",
        )


def check_entropy(cfg: "RunConfig") -> None:
    algo = cfg.algo
    if algo.entropy_control == "kl_cov" and algo.updates == 1:
        raise ConfigError(
            "entropy_control 'kl_cov' with one update, which begins where the tokens were drawn: "
            "there is nothing to hold",
            "several updates on each rollout, with a loss that has a ratio",
            "--algo.updates 8 --algo.loss ratio",
        )
    if algo.entropy_control in ("clip_cov", "top_entropy") and algo.loss == "gmpo":
        raise ConfigError(
            f"entropy_control {algo.entropy_control!r} with the loss 'gmpo', which puts the whole "
            "completion's number at each token: to leave out some leaves out no token's gradient",
            "a loss token by token",
            "--algo.loss ppo_clip",
        )
    if algo.entropy_control not in ("none", "adaptive") and (algo.entropy_limit or 0) > 1:
        raise ConfigError(
            f"algo.entropy_limit {algo.entropy_limit:g} with {algo.entropy_control!r}",
            "a share of the tokens, above 0 and at most 1",
            "leave it out for the paper's",
        )


def check_pool(cfg: "RunConfig") -> None:
    algo = cfg.algo
    if algo.curriculum != "off" and algo.pool < cfg.rollout.prompts:
        raise ConfigError(
            f"algo.pool {algo.pool} of {cfg.rollout.prompts} prompts a step",
            "a pool that fills a step",
            f"--algo.pool {32 * cfg.rollout.prompts}",
        )


def check_format(cfg: "RunConfig") -> None:
    task, algo = cfg.task, cfg.algo
    if task.format_reward and task.verifier == "tinyzero":
        raise ConfigError(
            "task.format_reward with the verifier 'tinyzero', which pays 0.1 for a form already",
            "one reward for the form",
            "--task.verifier strict",
        )
    if task.format_reward and algo.advantage == "pass_at_k":
        raise ConfigError(
            "task.format_reward with the advantage 'pass_at_k', which takes any reward above 0.5 "
            "for a right answer",
            "rewards of 0 and 1",
            "--task.format_reward 0",
        )


def check_rewards(cfg: "RunConfig") -> None:
    algo = cfg.algo
    if algo.advantage in NEEDS_REWARDS_FROM_0:
        for setting, value in (("overlong", "soft"), ("kl", "reward")):
            if getattr(algo, setting) == value:
                raise ConfigError(
                    f"algo.{setting} {value!r}, which makes rewards negative, with the advantage "
                    f"{algo.advantage!r}",
                    "rewards from 0 to 1",
                    "--algo.advantage dr_grpo",
                )
    if algo.overlong == "soft" and algo.overlong_buffer >= cfg.rollout.max_new_tokens:
        raise ConfigError(
            f"algo.overlong_buffer {algo.overlong_buffer} of {cfg.rollout.max_new_tokens} tokens",
            "less than rollout.max_new_tokens, and more than 0",
        )
    if algo.overlong == "soft" and algo.overlong_buffer == 0:
        raise ConfigError(
            "algo.overlong 'soft' without a buffer",
            "the tokens before the limit over which the penalty grows",
            f"--algo.overlong_buffer {max(1, cfg.rollout.max_new_tokens // 5)}",
        )


def check_engine(cfg: "RunConfig") -> None:
    """vLLM's settings without vLLM, ours with it, and vLLM's log-probs taken for ours."""
    rollout, algo = cfg.rollout, cfg.algo
    if rollout.engine == "native":
        if rollout.memory_share != type(rollout).model_fields["memory_share"].default:
            raise ConfigError(
                f"rollout.memory_share {rollout.memory_share} with the native engine, which does "
                "not read it",
                "the engine that does",
                "--rollout.engine vllm",
            )
        return
    if rollout.loop != "auto":
        raise ConfigError(
            f"rollout.loop {rollout.loop!r} with the engine 'vllm', which has its own",
            "'auto'",
            "--rollout.loop auto",
        )
    if algo.loss == "pg" and algo.correction == "none":
        raise ConfigError(
            "algo.correction 'none' with the engine 'vllm', whose log-probs are not the trainer's",
            "a correction, or a loss with a ratio against the recorded log-probs",
            "--algo.correction token_tis",
        )
