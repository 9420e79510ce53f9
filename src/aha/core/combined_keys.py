"""Keys of a recipe that cannot work together, whatever the algorithms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aha.core.errors import ConfigError, UnreadSetting, shown
from aha.core.section import MILLION

if TYPE_CHECKING:
    from aha.core.config import RunConfig


def check(cfg: RunConfig) -> None:
    """Refuse combinations that cannot work whatever the algorithms, with the reason."""
    check_rollout(cfg)
    check_task(cfg)
    check_kept(cfg)
    if cfg.model.lora_alpha is not None and not cfg.model.lora_rank:
        raise UnreadSetting(
            f"model.lora_alpha {cfg.model.lora_alpha} without adapters",
            "a rank for them",
            "--model.lora_rank 16",
            key="model.lora_alpha",
        )
    if cfg.optim.state == "cpu" and cfg.model.lora_rank:
        raise ConfigError(
            "optim.state 'cpu' with adapters, whose state is small",
            "'device'",
            "--optim.state device",
        )


def check_kept(cfg: RunConfig) -> None:
    """A step without a checkpoint cannot be kept."""
    every = cfg.checkpoint_every
    newest, *regular = cfg.keep_last
    if not regular:
        return
    got = f"keep_last [{newest}, {regular[0]}] with checkpoint_every {every}"
    expected = "every so many steps of those that have a checkpoint"
    if not every:
        raise UnreadSetting(got, expected, f"--checkpoint_every {regular[0]}", key="keep_last")
    if regular[0] % every:
        near = max(1, round(regular[0] / every)) * every
        raise ConfigError(got, expected, f"--keep_last '[{newest}, {near}]'")


def check_rollout(cfg: RunConfig) -> None:
    rollout = cfg.rollout
    expected, limit = rollout.expected_tokens, rollout.max_new_tokens
    if expected > limit:
        raise ConfigError(
            f"rollout.expected_tokens {expected:g} of at most {limit}",
            "the mean length of completions, or 0 where it is not known",
            "--rollout.expected_tokens 0",
        )
    completions = rollout.prompts * rollout.group_size
    if completions > MILLION:
        fits = MILLION // rollout.prompts
        raise ConfigError(
            f"rollout.prompts {rollout.prompts:,} times rollout.group_size {rollout.group_size:,}",
            f"at most {MILLION:,} completions in a step",
            f"--rollout.group_size {fits}" if fits > 1 else f"--rollout.prompts {MILLION // 16}",
        )
    default = type(rollout).model_fields["memory_share"].default
    if rollout.engine == "native" and rollout.memory_share != default:
        raise UnreadSetting(
            f"rollout.memory_share {rollout.memory_share} with the native engine, which does "
            "not read it",
            "the engine that does",
            "--rollout.engine vllm",
            key="rollout.memory_share",
        )
    if rollout.engine == "vllm" and rollout.loop != "auto":
        raise UnreadSetting(
            f"rollout.loop {rollout.loop!r} with the engine 'vllm', which has its own",
            "'auto'",
            "--rollout.loop auto",
            key="rollout.loop",
        )


def check_task(cfg: RunConfig) -> None:
    task = cfg.task
    if not task.numbers or not all(2 <= n <= 6 for n in task.numbers):
        raise ConfigError(
            f"task.numbers {shown(list(task.numbers))}",
            "sizes from 2 to 6",
            "--task.numbers '[3, 4]'",
        )
    if task.format_reward and task.verifier == "tinyzero":
        raise ConfigError(
            "task.format_reward with the verifier 'tinyzero', which pays 0.1 for a form already",
            "one reward for the form",
            "--task.verifier strict",
        )
