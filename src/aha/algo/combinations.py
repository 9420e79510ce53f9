"""Combinations of algorithm settings that cannot work, each refused with the reason and the fix.

They follow from the facts and the signatures of the chosen algorithms, so that they hold for an
installed package's algorithms too. A setting that the chosen algorithm does not read is refused as
well: changed without an effect, it would pass for a different experiment.

Each check yields a `Clash`; which of its ways out works is found out by `aha.algo.fixes`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from aha.algo.advantages import ADVANTAGES
from aha.algo.algorithms import REGISTRIES, Chosen, chosen_of
from aha.algo.correction import CORRECTIONS, DEFAULT
from aha.algo.entropy import needs_entropies
from aha.algo.filters import CURRICULA, OVERLONG, ZERO_VARIANCE
from aha.algo.fixes import Changed, Changes, Clash, fix_of
from aha.algo.kl import ESTIMATORS, IN_LOSS, IN_REWARD
from aha.algo.losses import LOSSES
from aha.algo.registry import Algorithm, Registry
from aha.core.config import AlgoSection, RunConfig
from aha.core.engines import ENGINES
from aha.core.errors import ConfigError
from aha.core.section import Section

# In place of "which does not read it".
REASONS = {
    "clip_low": "which does not clip",
    "clip_high": "which does not clip",
    "correction_low": "so without a correction that reads it",
    "correction_high": "so without a correction that reads it",
}
UNREAD_WITHOUT_KL = ("kl_estimator", "kl_coef", "reference_reset")


def check_combinations(
    cfg: RunConfig, with_changes: Changed, prices: Mapping[str, int] | None = None
) -> None:
    """Raise a ConfigError for the first combination that cannot work. `with_changes` makes other
    recipes of this one, to find a fix that works; `prices` are those of `fix_of`."""
    for clash in clashes_of(cfg):
        fix = fix_of(clash, clashes_of, with_changes, prices)
        raise ConfigError(clash.got, clash.expected, fix)


def clashes_of(cfg: RunConfig) -> Iterator[Clash]:
    """All combinations of a recipe that cannot work. Raises ConfigError for an unknown name."""
    chosen = chosen_of(cfg.algo)
    for check in CHECKS:
        yield from check(cfg, chosen)


def names(registry: Registry[Any], fits: Callable[[Algorithm[Any]], bool]) -> list[str]:
    """Names of the registered algorithms that `fits` accepts, in the order of registration."""
    return [name for name, algorithm in registry.items() if fits(algorithm)]


def either(values: list[str]) -> str:
    return " or ".join(map(repr, values))


def each(key: str, values: list[str]) -> tuple[Changes, ...]:
    """One way out for each value of a key."""
    return tuple({key: value} for value in values)


def default_of(section: Section, setting: str) -> Any:
    return type(section).model_fields[setting].default


def changed(section: Section, setting: str) -> bool:
    return bool(getattr(section, setting) != default_of(section, setting))


def check_unread(cfg: RunConfig, chosen: Chosen) -> Iterator[Clash]:
    """A changed setting that nothing reads."""
    algo = cfg.algo
    for kind, registry in REGISTRIES.items():
        algorithm = (
            chosen.kl_estimator if kind == "kl_estimator" else registry.get(getattr(algo, kind))
        )
        for setting in registry.keywords:
            if kind == "kl_estimator" and algo.kl == "none":
                continue  # below: it is the place of the KL that is missing
            if setting in type(algo).model_fields and setting not in reads_of(algorithm):
                yield from unread(algo, setting, kind, registry.readers(setting))
    if not chosen.zero_variance.facts.resamples:
        resampling = names(ZERO_VARIANCE, lambda rule: rule.facts.resamples)
        yield from unread(algo, "resample_rounds", "zero_variance", resampling)
    if chosen.curriculum is None:
        yield from unread(algo, "pool", "curriculum", list(CURRICULA))
    if algo.kl == "none":
        for setting in UNREAD_WITHOUT_KL:
            yield from unread(algo, setting, "kl", ["loss", "reward"])


def reads_of(algorithm: Algorithm[Any] | None) -> list[str]:
    return list(algorithm.reads) if algorithm else []


def unread(algo: AlgoSection, setting: str, kind: str, readers: list[str]) -> Iterator[Clash]:
    """A clash if a setting was changed, with the values of `algo.{kind}` that would read it."""
    if changed(algo, setting):
        reason = REASONS.get(setting, "which does not read it")
        yield Clash(
            f"algo.{setting} {getattr(algo, setting)} with algo.{kind} {getattr(algo, kind)!r}, "
            f"{reason}",
            f"algo.{kind} {' or '.join(readers)}",
            (*each(f"algo.{kind}", readers), {f"algo.{setting}": default_of(algo, setting)}),
            unread=f"algo.{setting}",
        )


def check_group(cfg: RunConfig, chosen: Chosen) -> Iterator[Clash]:
    algo, G, advantage = cfg.algo, cfg.rollout.group_size, chosen.advantage
    if G == 1 and advantage.facts.group:
        without = names(ADVANTAGES, lambda other: not other.facts.group)
        yield Clash(
            f"group_size 1 with the advantage {advantage.name!r}, which compares a group",
            "at least 2 completions of each prompt: alone, every advantage is 0",
            ({"rollout.group_size": 16}, *each("algo.advantage", without)),
        )
    k = advantage.value_of("pass_k", algo) if "pass_k" in advantage.reads else None
    if k is not None and k >= G:
        yield Clash(
            f"algo.pass_k {k} of {G} completions",
            "fewer than the group: with all of it no completion makes a difference",
            ({"rollout.group_size": 2 * k}, {"algo.pass_k": max(1, G // 2)}),
        )
    if chosen.zero_variance.facts.drops and not advantage.facts.group:
        keeping = names(ZERO_VARIANCE, lambda rule: not rule.facts.drops)
        yield Clash(
            f"zero_variance {algo.zero_variance!r} with {advantage.name!r}, without a group "
            "baseline",
            f"{either(keeping)}: there a group of equal rewards teaches as well",
            each("algo.zero_variance", keeping),
        )


def check_critic(cfg: RunConfig, chosen: Chosen) -> Iterator[Clash]:
    algo, critic, advantage = cfg.algo, cfg.critic, chosen.advantage
    if not advantage.facts.critic:
        with_critic = names(ADVANTAGES, lambda other: other.facts.critic)
        for key in type(critic).model_fields:
            if changed(critic, key):
                yield Clash(
                    f"critic.{key} {getattr(critic, key)} with the advantage "
                    f"{advantage.name!r}, which has no critic",
                    f"the advantage {either(with_critic)}",
                    (
                        *each("algo.advantage", with_critic),
                        {f"critic.{key}": default_of(critic, key)},
                    ),
                    unread=f"critic.{key}",
                )
        return
    if chosen.overlong.facts.leaves:
        staying = names(OVERLONG, lambda rule: not rule.facts.leaves)
        yield Clash(
            f"algo.overlong {algo.overlong!r} with {advantage.name!r}, whose critic learns from "
            "every completion",
            either(staying),
            each("algo.overlong", staying),
        )
    if critic.warmup >= max(1, cfg.steps):
        yield Clash(
            f"critic.warmup {critic.warmup} of {cfg.steps} steps, so that the policy never learns",
            "fewer than steps",
            ({"steps": critic.warmup + 60}, {"critic.warmup": max(0, cfg.steps // 2)}),
        )


def clipping_losses() -> list[str]:
    """The losses with a ratio and a clip, the first of which fits wherever a loss token by token
    does."""
    return names(LOSSES, lambda loss: loss.facts.ratio and "clip_low" in loss.reads)


def check_loss(cfg: RunConfig, chosen: Chosen) -> Iterator[Clash]:
    algo, loss = cfg.algo, chosen.loss
    if algo.updates > cfg.rollout.prompts:
        yield Clash(
            f"algo.updates {algo.updates} of {cfg.rollout.prompts} prompts",
            "at least one prompt for each update",
            ({"algo.updates": cfg.rollout.prompts}, {"rollout.prompts": algo.updates}),
        )
    if algo.updates > 1 and not loss.facts.ratio:
        yield Clash(
            f"algo.updates > 1 with the loss {loss.name!r}, which ignores that the policy has "
            "moved",
            "a loss with a ratio",
            (*each("algo.loss", clipping_losses()), {"algo.updates": 1}),
        )
    if loss.facts.aggregation not in (None, algo.aggregation):
        yield Clash(
            f"the loss {loss.name!r} with {algo.aggregation!r}, which counts its length once more",
            f"{loss.facts.aggregation!r}",
            ({"algo.aggregation": loss.facts.aggregation},),
        )
    if chosen.correction and loss.facts.ratio:
        without = names(LOSSES, lambda other: not other.facts.ratio)
        yield Clash(
            f"algo.correction {algo.correction!r} with the loss {loss.name!r}, whose ratio is "
            "taken against the recorded log-probs already",
            f"algo.correction {CORRECTIONS.absent!r}, or the loss {either(without)}: anything else "
            "would correct twice",
            ({"algo.correction": CORRECTIONS.absent}, *each("algo.loss", without)),
        )


def check_correction(cfg: RunConfig, chosen: Chosen) -> Iterator[Clash]:
    correction, bounds = chosen.correction, ("correction_low", "correction_high")
    if correction is None or not all(bound in correction.reads for bound in bounds):
        return
    low, high = (correction.value_of(bound, cfg.algo) for bound in bounds)
    if low > high:
        yield Clash(
            f"algo.correction_low {low:g} above algo.correction_high {high:g}",
            "limits with weights between them",
            tuple({f"algo.{bound}": None} for bound in bounds if changed(cfg.algo, bound)),
        )


def check_kl(cfg: RunConfig, chosen: Chosen) -> Iterator[Clash]:
    algo, estimator = cfg.algo, chosen.kl_estimator
    if algo.kl == "reward" and estimator and not estimator.facts.in_reward:
        right = names(ESTIMATORS, lambda other: other.facts.in_reward)
        yield Clash(
            f"kl_estimator {estimator.name!r} in the reward",
            f"{either(right)}, with the right gradient there",
            each("algo.kl_estimator", [IN_REWARD]),
        )
    if algo.kl == "loss" and estimator and not estimator.facts.in_loss:
        moving = names(ESTIMATORS, lambda other: other.facts.in_loss)
        yield Clash(
            f"kl_estimator {estimator.name!r} in the loss, where it pushes nowhere on average",
            either(moving),
            each("algo.kl_estimator", [IN_LOSS]),
        )


def check_entropy(cfg: RunConfig, chosen: Chosen) -> Iterator[Clash]:
    algo, control, loss = cfg.algo, chosen.control, chosen.loss
    if control is None:
        return
    role = control.facts.role
    if role == "hold" and algo.updates == 1:
        with_ratio = names(LOSSES, lambda other: other.facts.ratio)
        yield Clash(
            f"entropy_control {control.name!r} with one update, which begins where the tokens were "
            "sampled: there is nothing to hold",
            "several updates on each rollout, with a loss that has a ratio",
            ({"algo.updates": 8}, {"algo.updates": 8, "algo.loss": with_ratio[0]}),
        )
    if role == "keep" and not loss.facts.separable:
        yield Clash(
            f"entropy_control {control.name!r} with the loss {loss.name!r}, which puts the whole "
            "completion's number at each token: to leave out some leaves out no token's gradient",
            "a loss token by token",
            each("algo.loss", clipping_losses()),
        )
    if role != "bonus" and (algo.entropy_limit or 0) > 1:
        yield Clash(
            f"algo.entropy_limit {algo.entropy_limit:g} with {control.name!r}",
            "a share of the tokens, above 0 and at most 1; none: the paper's",
            ({"algo.entropy_limit": None},),
        )


def check_pool(cfg: RunConfig, chosen: Chosen) -> Iterator[Clash]:
    algo = cfg.algo
    if chosen.curriculum and algo.pool < cfg.rollout.prompts:
        yield Clash(
            f"algo.pool {algo.pool} of {cfg.rollout.prompts} prompts a step",
            "a pool that fills a step",
            ({"algo.pool": 32 * cfg.rollout.prompts},),
        )


def check_rewards(cfg: RunConfig, chosen: Chosen) -> Iterator[Clash]:
    """An advantage that counts successes sees no other reward."""
    algo, advantage = cfg.algo, chosen.advantage
    if advantage.facts.rewards == "any":
        return
    for_any = each("algo.advantage", names(ADVANTAGES, lambda other: other.facts.rewards == "any"))
    if cfg.task.format_reward:
        yield Clash(
            f"task.format_reward {cfg.task.format_reward:g} with the advantage "
            f"{advantage.name!r}, which counts right answers alone",
            "no reward for the form, or an advantage that compares rewards",
            ({"task.format_reward": 0}, *for_any),
        )
    negative = {"overlong": chosen.overlong.facts.negative, "kl": algo.kl == "reward"}
    for setting in negative:
        if negative[setting]:
            yield Clash(
                f"algo.{setting} {getattr(algo, setting)!r}, which makes rewards negative, with "
                f"the advantage {advantage.name!r}",
                "1 for right and 0 for wrong, or an advantage that compares rewards",
                (*for_any, {f"algo.{setting}": default_of(algo, setting)}),
            )


def check_overlong(cfg: RunConfig, chosen: Chosen) -> Iterator[Clash]:
    algo, limit = cfg.algo, cfg.rollout.max_new_tokens
    if "overlong_buffer" not in chosen.overlong.reads:
        return
    ways: tuple[Changes, ...] = ({"algo.overlong": "keep"},)
    if limit > 1:
        ways = ({"algo.overlong_buffer": max(1, limit // 5)}, *ways)
    if algo.overlong_buffer >= limit:
        yield Clash(
            f"algo.overlong_buffer {algo.overlong_buffer} of {limit} tokens",
            "less than rollout.max_new_tokens, and more than 0",
            ways,
        )
    elif algo.overlong_buffer == 0:
        yield Clash(
            f"algo.overlong {algo.overlong!r} without a buffer",
            "the last tokens before the limit, which the rule is about",
            ways,
        )


def check_engine(cfg: RunConfig, chosen: Chosen) -> Iterator[Clash]:
    """What the method needs of the engine that generates."""
    engine, rollout = cfg.rollout.engine, cfg.rollout
    facts, loss = ENGINES[engine], chosen.loss
    # An engine that is left takes with it the setting that it alone reads.
    share = {"rollout.memory_share": default_of(rollout, "memory_share")}
    if not facts.entropies and needs_entropies(chosen.control):
        others = [name for name, other in ENGINES.items() if other.entropies]
        leaving = each("rollout.engine", others)
        yield Clash(
            f"entropy_control {cfg.algo.entropy_control!r} with the engine {engine!r}, which "
            "records no entropies",
            f"the engine {either(others)}",
            (*leaving, *({**way, **share} for way in leaving), {"algo.entropy_control": "none"}),
        )
    if not facts.exact and not loss.facts.ratio and not chosen.correction:
        yield Clash(
            f"algo.correction 'none' with the engine {engine!r}, whose log-probs are not the "
            "trainer's",
            "a correction, or a loss with a ratio against the recorded log-probs",
            ({"algo.correction": DEFAULT}, *each("algo.loss", clipping_losses())),
        )


CHECKS: tuple[Callable[[RunConfig, Chosen], Iterator[Clash]], ...] = (
    check_unread,
    check_group,
    check_critic,
    check_loss,
    check_correction,
    check_kl,
    check_entropy,
    check_pool,
    check_rewards,
    check_overlong,
    check_engine,
)
