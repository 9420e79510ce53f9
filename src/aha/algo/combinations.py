"""Combinations of algorithm settings that cannot work, each refused with the reason and the fix.

They follow from the facts and the signatures of the chosen algorithms, so that they hold for an
installed package's algorithms too. A setting that the chosen algorithm does not read is refused as
well: changed without an effect, it would pass for a different experiment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aha.algo.advantages import ADVANTAGES
from aha.algo.algorithms import REGISTRIES, Chosen
from aha.algo.correction import DEFAULT
from aha.algo.filters import CURRICULA, OVERLONG, ZERO_VARIANCE
from aha.algo.kl import ESTIMATORS, IN_LOSS, IN_REWARD
from aha.algo.losses import LOSSES
from aha.algo.registry import Algorithm, Registry
from aha.core.config import AlgoSection, RunConfig
from aha.core.errors import ConfigError
from aha.core.section import Section

# In place of "which does not read it".
REASONS = {
    "clip_low": "which does not clip",
    "clip_high": "which does not clip",
    "correction_low": "so without a correction that reads it",
    "correction_high": "so without a correction that reads it",
}


def check_combinations(cfg: RunConfig, chosen: Chosen) -> None:
    """Raise a ConfigError for the first combination that cannot work."""
    check_unread(cfg.algo, chosen)
    check_group(cfg, chosen)
    check_critic(cfg, chosen)
    check_loss(cfg, chosen)
    check_kl(cfg, chosen)
    check_entropy(cfg, chosen)
    check_pool(cfg, chosen)
    check_rewards(cfg, chosen)
    check_overlong(cfg, chosen)
    check_engine(cfg, chosen)


def names(registry: Registry[Any], fits: Callable[[Algorithm[Any]], bool]) -> list[str]:
    """Names of the registered algorithms that `fits` accepts, in the order of registration."""
    return [name for name, algorithm in registry.items() if fits(algorithm)]


def either(values: list[str]) -> str:
    return " or ".join(map(repr, values))


def changed(section: Section, setting: str) -> bool:
    return bool(getattr(section, setting) != type(section).model_fields[setting].default)


def check_unread(algo: AlgoSection, chosen: Chosen) -> None:
    """A changed setting that nothing reads."""
    for kind, registry in REGISTRIES.items():
        algorithm = registry.get(getattr(algo, kind))
        for setting in registry.keywords:
            if setting in type(algo).model_fields and setting not in reads_of(algorithm):
                refuse_unread(algo, setting, kind, registry.readers(setting))
    if not chosen.zero_variance.facts.resamples:
        resampling = names(ZERO_VARIANCE, lambda rule: rule.facts.resamples)
        refuse_unread(algo, "resample_rounds", "zero_variance", resampling)
    if chosen.curriculum is None:
        refuse_unread(algo, "pool", "curriculum", list(CURRICULA))
    if algo.kl == "none":
        for setting in ("kl_estimator", "kl_coef", "reference_reset"):
            refuse_unread(algo, setting, "kl", ["loss", "reward"])


def reads_of(algorithm: Algorithm[Any] | None) -> list[str]:
    return list(algorithm.reads) if algorithm else []


def refuse_unread(algo: AlgoSection, setting: str, kind: str, readers: list[str]) -> None:
    """Raise if a setting was changed, naming the values of `algo.{kind}` that would read it."""
    if changed(algo, setting):
        reason = REASONS.get(setting, "which does not read it")
        raise ConfigError(
            f"algo.{setting} {getattr(algo, setting)} with algo.{kind} {getattr(algo, kind)!r}, "
            f"{reason}",
            f"algo.{kind} {' or '.join(readers)}",
            f"--algo.{kind} {readers[0]}",
        )


def check_group(cfg: RunConfig, chosen: Chosen) -> None:
    algo, G, advantage = cfg.algo, cfg.rollout.group_size, chosen.advantage
    if G == 1 and advantage.facts.group:
        raise ConfigError(
            f"group_size 1 with the advantage {advantage.name!r}, which compares a group",
            "at least 2 completions of each prompt: alone, every advantage is 0",
            "--rollout.group_size 16",
        )
    if algo.pass_k is not None and algo.pass_k >= G:
        raise ConfigError(
            f"algo.pass_k {algo.pass_k} of {G} completions",
            "fewer than the group: with all of it no completion makes a difference",
            f"--rollout.group_size {2 * algo.pass_k}",
        )
    if chosen.zero_variance.facts.drops and not advantage.facts.group:
        keeping = names(ZERO_VARIANCE, lambda rule: not rule.facts.drops)
        raise ConfigError(
            f"zero_variance {algo.zero_variance!r} with {advantage.name!r}, without a group "
            "baseline",
            f"{either(keeping)}: there a group of equal rewards teaches as well",
            f"--algo.zero_variance {keeping[0]}",
        )


def check_critic(cfg: RunConfig, chosen: Chosen) -> None:
    algo, critic, advantage = cfg.algo, cfg.critic, chosen.advantage
    if not advantage.facts.critic:
        for key in type(critic).model_fields:
            if changed(critic, key):
                with_critic = names(ADVANTAGES, lambda other: other.facts.critic)
                raise ConfigError(
                    f"critic.{key} {getattr(critic, key)} with the advantage "
                    f"{advantage.name!r}, which has no critic",
                    f"the advantage {either(with_critic)}",
                    f"--algo.advantage {with_critic[0]}",
                )
        return
    if chosen.overlong.facts.leaves:
        staying = names(OVERLONG, lambda rule: not rule.facts.leaves)
        raise ConfigError(
            f"algo.overlong {algo.overlong!r} with {advantage.name!r}, whose critic learns from "
            "every completion",
            either(staying),
            f"--algo.overlong {staying[0]}",
        )
    if critic.warmup >= max(1, cfg.steps):
        raise ConfigError(
            f"critic.warmup {critic.warmup} of {cfg.steps} steps, so that the policy never learns",
            "fewer than steps",
            f"--steps {critic.warmup + 60}",
        )


def clipping_loss() -> str:
    """The first loss with a ratio and a clip, which fits wherever a loss token by token does."""
    return names(LOSSES, lambda loss: loss.facts.ratio and "clip_low" in loss.reads)[0]


def check_loss(cfg: RunConfig, chosen: Chosen) -> None:
    algo, loss = cfg.algo, chosen.loss
    if algo.updates > cfg.rollout.prompts:
        raise ConfigError(
            f"algo.updates {algo.updates} of {cfg.rollout.prompts} prompts",
            "at least one prompt for each update",
            f"--algo.updates {cfg.rollout.prompts}",
        )
    if algo.updates > 1 and not loss.facts.ratio:
        raise ConfigError(
            f"algo.updates > 1 with the loss {loss.name!r}, which ignores that the policy has "
            "moved",
            "a loss with a ratio",
            f"--algo.loss {clipping_loss()}",
        )
    if loss.facts.aggregation not in (None, algo.aggregation):
        raise ConfigError(
            f"the loss {loss.name!r} with {algo.aggregation!r}, which counts its length once more",
            f"{loss.facts.aggregation!r}",
            f"--algo.aggregation {loss.facts.aggregation}",
        )
    if chosen.correction and loss.facts.ratio:
        without = names(LOSSES, lambda other: not other.facts.ratio)
        raise ConfigError(
            f"algo.correction {algo.correction!r} with the loss {loss.name!r}, whose ratio is "
            "taken against the recorded log-probs already",
            f"the loss {either(without)}: anything else would correct twice",
            f"--algo.loss {without[0]}",
        )


def check_kl(cfg: RunConfig, chosen: Chosen) -> None:
    algo, estimator = cfg.algo, chosen.kl_estimator
    if algo.kl == "reward" and estimator and not estimator.facts.in_reward:
        right = names(ESTIMATORS, lambda other: other.facts.in_reward)
        raise ConfigError(
            f"kl_estimator {estimator.name!r} in the reward",
            f"{either(right)}, with the right gradient there",
            f"--algo.kl_estimator {IN_REWARD}",
        )
    if algo.kl == "loss" and estimator and not estimator.facts.in_loss:
        moving = names(ESTIMATORS, lambda other: other.facts.in_loss)
        raise ConfigError(
            f"kl_estimator {estimator.name!r} in the loss, where it pushes nowhere on average",
            either(moving),
            f"--algo.kl_estimator {IN_LOSS}",
        )


def check_entropy(cfg: RunConfig, chosen: Chosen) -> None:
    algo, control, loss = cfg.algo, chosen.control, chosen.loss
    if control is None:
        return
    role = control.facts.role
    if role == "hold" and algo.updates == 1:
        with_ratio = names(LOSSES, lambda other: other.facts.ratio)
        raise ConfigError(
            f"entropy_control {control.name!r} with one update, which begins where the tokens were "
            "sampled: there is nothing to hold",
            "several updates on each rollout, with a loss that has a ratio",
            f"--algo.updates 8 --algo.loss {with_ratio[0]}",
        )
    if role == "keep" and not loss.facts.separable:
        raise ConfigError(
            f"entropy_control {control.name!r} with the loss {loss.name!r}, which puts the whole "
            "completion's number at each token: to leave out some leaves out no token's gradient",
            "a loss token by token",
            f"--algo.loss {clipping_loss()}",
        )
    if role != "bonus" and (algo.entropy_limit or 0) > 1:
        raise ConfigError(
            f"algo.entropy_limit {algo.entropy_limit:g} with {control.name!r}",
            "a share of the tokens, above 0 and at most 1",
            "leave it out for the paper's",
        )


def check_pool(cfg: RunConfig, chosen: Chosen) -> None:
    algo = cfg.algo
    if chosen.curriculum and algo.pool < cfg.rollout.prompts:
        raise ConfigError(
            f"algo.pool {algo.pool} of {cfg.rollout.prompts} prompts a step",
            "a pool that fills a step",
            f"--algo.pool {32 * cfg.rollout.prompts}",
        )


def check_rewards(cfg: RunConfig, chosen: Chosen) -> None:
    algo, advantage = cfg.algo, chosen.advantage
    if cfg.task.format_reward and advantage.facts.rewards == "binary":
        raise ConfigError(
            f"task.format_reward with the advantage {advantage.name!r}, which takes any reward "
            "above 0.5 for a right answer",
            "rewards of 0 and 1",
            "--task.format_reward 0",
        )
    if advantage.facts.rewards == "any":
        return
    for_any = names(ADVANTAGES, lambda other: other.facts.rewards == "any")
    negative = {"overlong": chosen.overlong.facts.negative, "kl": algo.kl == "reward"}
    for setting in negative:
        if negative[setting]:
            raise ConfigError(
                f"algo.{setting} {getattr(algo, setting)!r}, which makes rewards negative, with "
                f"the advantage {advantage.name!r}",
                "rewards from 0 to 1",
                f"--algo.advantage {for_any[0]}",
            )


def check_overlong(cfg: RunConfig, chosen: Chosen) -> None:
    algo, limit = cfg.algo, cfg.rollout.max_new_tokens
    if "overlong_buffer" not in chosen.overlong.reads:
        return
    if algo.overlong_buffer >= limit:
        raise ConfigError(
            f"algo.overlong_buffer {algo.overlong_buffer} of {limit} tokens",
            "less than rollout.max_new_tokens, and more than 0",
            f"--algo.overlong_buffer {max(1, limit // 5)}",
        )
    if algo.overlong_buffer == 0:
        raise ConfigError(
            f"algo.overlong {algo.overlong!r} without a buffer",
            "the tokens before the limit over which the penalty grows",
            f"--algo.overlong_buffer {max(1, limit // 5)}",
        )


def check_engine(cfg: RunConfig, chosen: Chosen) -> None:
    """vLLM's log-probs taken for those of the trainer."""
    if cfg.rollout.engine == "vllm" and not chosen.loss.facts.ratio and not chosen.correction:
        raise ConfigError(
            "algo.correction 'none' with the engine 'vllm', whose log-probs are not the trainer's",
            "a correction, or a loss with a ratio against the recorded log-probs",
            f"--algo.correction {DEFAULT}",
        )
