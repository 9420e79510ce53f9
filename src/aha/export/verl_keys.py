"""The one table of a recipe's keys in veRL 0.9.1: what each becomes there, and what is refused.

A key is said (`same`, `by`), is of no concern to veRL (`nothing`), or is refused unless it has a
value that says nothing there (`only`). Every refusal names a change under which the recipe can be
said.
"""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aha.algo.algorithms import Chosen
from aha.core.config import RunConfig
from aha.export import verl_methods as methods
from aha.export.verl_methods import ACTOR, Overrides
from aha.tasks.tags import THINK_CLOSE, THINK_OPEN

Changes = Mapping[str, Any]

ROLLOUT, MODEL = "actor_rollout_ref.rollout", "actor_rollout_ref.model"
OPTIM, CRITIC = f"{ACTOR}.optim", "critic"
KEPT = ("trainer.max_actor_ckpt_to_keep", "trainer.max_critic_ckpt_to_keep")
TASKS = ("countdown", "multiply", "math")


class Unsaid(Exception):
    """A value that veRL has no words for: what would do, and the changes that make it so. `key` is
    the one at fault, where it is not the one that was asked about."""

    def __init__(self, expected: str, changes: Changes, key: str = ""):
        self.expected, self.changes, self.key = expected, changes, key
        super().__init__(expected)


@dataclass(frozen=True)
class Export:
    """What the overrides are written from. `model` is where veRL finds the weights, `prompt_tokens`
    the length of the longest prompt, `name` that of the run."""

    cfg: RunConfig
    chosen: Chosen
    name: str
    model: str
    prompt_tokens: int
    gpus: int = 2
    nodes: int = 1

    @property
    def row_tokens(self) -> int:
        """The longest prompt with the longest completion: what a micro-batch has to hold."""
        return self.prompt_tokens + self.cfg.rollout.max_new_tokens

    def value_of(self, key: str) -> Any:
        value: Any = self.cfg
        for part in key.split("."):
            value = getattr(value, part)
        return value


Write = Callable[[Export, Any], Overrides]


@dataclass(frozen=True)
class Translation:
    """A key of a recipe: `verl` are the keys that it becomes, `remark` what differs, in words."""

    key: str
    verl: tuple[str, ...]
    remark: str
    write: Write = field(repr=False)


def same(key: str, *targets: str, remark: str = "") -> Translation:
    """The value as it is."""
    return Translation(key, targets, remark, lambda _, value: dict.fromkeys(targets, value))


def by(key: str, verl: str, write: Write, remark: str = "") -> Translation:
    """What `write` makes of the value; it raises `Unsaid` for one that veRL cannot express."""
    return Translation(key, tuple(verl.split()), remark, write)


def nothing(key: str, remark: str) -> Translation:
    """A key that says nothing about veRL's run."""
    return Translation(key, (), remark, lambda *_: {})


def only(key: str, value: Any, remark: str, **changes: Any) -> Translation:
    """Refused for any value but one; `changes` go with the fix, with __ in place of a dot."""
    with_it = {name.replace("__", "."): change for name, change in changes.items()}

    def write(_: Export, got: Any) -> Overrides:
        if got != value:
            raise Unsaid(remark, {key: value, **with_it})
        return {}

    return Translation(key, (), f"refused unless {shown_value(value)}: {remark}", write)


def shown_value(value: Any) -> str:
    return "it is off" if value in ("none", "off", 0, None) else f"it is {value}"


def chosen_from(names: Mapping[str, Any], value: str, what: str, nearest: Changes) -> Any:
    """The entry of a table of methods. Raises `Unsaid` for one that is not in it."""
    if value not in names:
        raise Unsaid(f"{what}: {', '.join(names)}", nearest)
    return names[value]


# -- values that need a few lines -------------------------------------------------------------


def task_name(export: Export, name: str) -> Overrides:
    if name not in TASKS:
        # Options of the one task are none of the other.
        without = {"task.options": "{}"} if export.cfg.task.options else {}
        raise Unsaid(
            f"a packaged task ({', '.join(TASKS)}), whose grader can stand in one file",
            {"task.name": "countdown", **without},
        )
    return {}


def verifier(_: Export, name: str) -> Overrides:
    if name == "math-verify":
        raise Unsaid("a verifier without another package", {"task.verifier": "strict"})
    return {}


def wording(_: Export, options: Mapping[str, Any]) -> Overrides:
    tags = options.get("think_tags")
    if tags is not None and list(tags) != [THINK_OPEN, THINK_CLOSE]:
        own = f'["{THINK_OPEN}","{THINK_CLOSE}"]'
        raise Unsaid(
            "the tags that the reward file reads", {"task.options.think_tags": shlex.quote(own)}
        )
    return {}


def kept(_: Export, checkpoints: Sequence[int]) -> Overrides:
    newest, *regular = checkpoints
    if regular:
        raise Unsaid("the newest checkpoints, of which alone veRL keeps any", {"keep_last": newest})
    return dict.fromkeys(KEPT, newest)


def arithmetic(export: Export, dtype: str) -> Overrides:
    if dtype == "float32":
        raise Unsaid("bfloat16, the arithmetic of veRL's FSDP", {"optim.dtype": "auto"})
    places = [f"{ACTOR}.fsdp_config", *critic_keys(export, "fsdp")]
    return {f"{place}.dtype": "bfloat16" for place in places}


def loss(export: Export, name: str) -> Overrides:
    table: Overrides = chosen_from(
        methods.LOSSES, name, "a loss that veRL computes alike", {"algo.loss": "ppo_clip"}
    )
    chosen, algo = export.chosen.loss, export.cfg.algo
    overrides = dict(table)
    for setting, target in methods.LOSS_NUMBERS.items():
        number = chosen.value_of(setting, algo) if setting in chosen.reads else None
        if number is not None:
            overrides[target] = number
    if name == "quadratic" and overrides[methods.LOSS_NUMBERS["tau"]] <= 0:
        raise Unsaid("a weight above 0", {"algo.tau": 0.1}, "algo.tau")
    if export.cfg.rollout.engine == "vllm" and chosen.facts.ratio:
        back = {"rollout.engine": "native", "rollout.memory_share": 0.4}
        raise Unsaid(
            "log-probs of the trainer for the loss's ratio: veRL computes them again, and does not "
            "take those of vLLM",
            back,
            "rollout.engine",
        )
    return overrides


def advantage(_: Export, name: str) -> Overrides:
    nearest = methods.NEAREST_ADVANTAGE.get(name, "grpo")
    changes: dict[str, Any] = {"algo.advantage": nearest}
    if name == "pass_at_k":
        changes["algo.pass_k"] = None
    table: Overrides = chosen_from(
        methods.ADVANTAGES, name, "an advantage that veRL computes alike", changes
    )
    return table


def aggregation(export: Export, name: str) -> Overrides:
    key, factor = f"{ACTOR}.loss_agg_mode", f"{ACTOR}.loss_scale_factor"
    mode = chosen_from(
        methods.AGGREGATIONS, name, "an aggregation of veRL", {"algo.aggregation": "token_mean"}
    )
    # Without the factor veRL divides by the longest completion of the micro-batch.
    scaled = {factor: export.cfg.rollout.max_new_tokens} if name == "sequence_sum" else {}
    return {key: mode, **scaled}


def kl(export: Export, place: str) -> Overrides:
    in_loss, in_reward = f"{ACTOR}.use_kl_loss", "algorithm.use_kl_in_reward"
    overrides: Overrides = {in_loss: place == "loss", in_reward: place == "reward"}
    if place == "none":
        return overrides
    coef = export.cfg.algo.kl_coef
    if place == "reward":
        # Without `use_kl_in_reward` the coefficient would say nothing, and veRL would not tell.
        return overrides | {"algorithm.kl_penalty": "kl", "algorithm.kl_ctrl.kl_coef": coef}
    return overrides | {f"{ACTOR}.kl_loss_coef": coef}


def kl_estimator(export: Export, _: Any) -> Overrides:
    estimator = export.chosen.kl_estimator
    if export.cfg.algo.kl != "loss" or estimator is None:
        return {}  # in the reward it is k1 on both sides
    kind = chosen_from(
        methods.KL_IN_LOSS,
        estimator.name,
        "an estimator of veRL, whose k3 is at most 10",
        {"algo.kl_estimator": "k3_clamped"},
    )
    return {f"{ACTOR}.kl_loss_type": kind}


def correction(export: Export, name: str) -> Overrides:
    if name == "none":
        return {}
    key = "algorithm.rollout_correction.rollout_is"
    level = chosen_from(
        methods.CORRECTIONS,
        name,
        "weights of veRL; its masks take rows out of the denominators as well",
        {"algo.correction": "token_tis", "algo.correction_low": None, "algo.correction_high": None},
    )
    chosen = export.chosen.correction
    assert chosen is not None, "a correction with a name"
    low, high = (chosen.value_of(f"correction_{end}", export.cfg.algo) for end in ("low", "high"))
    if name == "icepop":
        limit: Any = f"{low}_{high}"
        if low <= 0:
            raise Unsaid("a limit above 0", {"algo.correction_low": None}, "algo.correction_low")
    elif low:
        unset = {"algo.correction_low": None}
        raise Unsaid("weights without a lower limit", unset, "algo.correction_low")
    else:
        limit = high
    return {key: level, f"{key}_threshold": limit}


def overlong(export: Export, name: str) -> Overrides:
    if name == "keep":
        return {}
    factor = chosen_from(
        methods.OVERLONG,
        name,
        "keep, or a penalty of veRL's reward manager, which does not know how a completion ended: "
        "keep",
        {"algo.overlong": "keep", "algo.overlong_buffer": 0},
    )
    buffer = "+reward.reward_kwargs.overlong_buffer_cfg"
    return {
        "reward.reward_manager.name": "dapo",
        "+reward.reward_kwargs.max_resp_len": export.cfg.rollout.max_new_tokens,
        f"{buffer}.enable": True,
        f"{buffer}.len": export.cfg.algo.overlong_buffer,
        f"{buffer}.penalty_factor": factor,
        f"{buffer}.log": True,
    }


def zero_variance(_: Export, name: str) -> Overrides:
    if name == "keep":
        return {}
    metric = chosen_from(
        methods.ZERO_VARIANCE,
        name,
        "keep, or groups that are drawn again: veRL drops none without another in its place: keep",
        {"algo.zero_variance": "keep"},
    )
    return {"algorithm.filter_groups.enable": True, "algorithm.filter_groups.metric": metric}


def updates(export: Export, number: int) -> Overrides:
    prompts, group = export.cfg.rollout.prompts, export.cfg.rollout.group_size
    devices = export.gpus * export.nodes

    def fits(count: int) -> bool:
        return prompts % count == 0 and prompts // count * group % devices == 0

    if not fits(number):
        fitting = [count for count in range(1, prompts + 1) if fits(count)]
        if not fitting:
            raise Unsaid(
                f"completions that {devices} GPUs can share evenly",
                {"rollout.prompts": -(-prompts // devices) * devices, "algo.updates": 1},
            )
        nearest = min(fitting, key=lambda count: abs(count - number))
        expected = f"updates of equal numbers of prompts, which {devices} GPUs can share evenly"
        raise Unsaid(expected, {"algo.updates": nearest})
    return {f"{ACTOR}.ppo_mini_batch_size": prompts // number}


def lora(export: Export, rank: int) -> Overrides:
    if not rank:
        return {}
    alpha = export.cfg.model.lora_alpha or 2.0 * rank
    if alpha != int(alpha):
        rounded = {"model.lora_alpha": float(round(alpha))}
        raise Unsaid("a whole number", rounded, "model.lora_alpha")
    models = [MODEL, *([f"{CRITIC}.model"] if export.chosen.advantage.facts.critic else [])]
    overrides: Overrides = {}
    for model in models:
        overrides |= {f"{model}.lora_rank": rank, f"{model}.lora_alpha": int(alpha)}
        overrides[f"{model}.target_modules"] = "all-linear"
    # vLLM has to read the base itself: what is synchronised are the adapters.
    return overrides | {f"{ROLLOUT}.load_format": "safetensors"}


def device(_: Export, name: str) -> Overrides:
    if name not in ("auto", "cuda"):
        raise Unsaid("a GPU: veRL does not train on anything else", {"model.device": "auto"})
    return {}


def optimizer_state(export: Export, where: str) -> Overrides:
    places = [f"{ACTOR}.fsdp_config", *critic_keys(export, "fsdp")]
    if where == "cpu":
        return {f"{place}.offload_policy": True for place in places}
    overrides: Overrides = {f"{place}.optimizer_offload": True for place in places}
    if where == "8bit":
        for optimizer in (OPTIM, *critic_keys(export, "optim")):
            overrides[f"{optimizer}.optimizer"] = "AdamW8bit"
            overrides[f"{optimizer}.optimizer_impl"] = "bitsandbytes.optim"
    return overrides


def critic_keys(export: Export, *names: str) -> list[str]:
    """Keys of the critic, for a recipe that has one."""
    critic = export.chosen.advantage.facts.critic
    return [f"{CRITIC}.{name}" for name in names] if critic else []


def optim(name: str) -> Write:
    """The same key of the policy's and of the critic's optimiser."""

    def write(export: Export, value: Any) -> Overrides:
        return dict.fromkeys([f"{OPTIM}.{name}", *critic_keys(export, f"optim.{name}")], value)

    return write


def of_critic(target: str) -> Write:
    """A key of a critic, which nothing reads in a recipe without one."""

    def write(export: Export, value: Any) -> Overrides:
        return {target: value} if export.chosen.advantage.facts.critic else {}

    return write
