"""The recipe of a run: frozen, checked, and saved with the run.

Precedence: defaults here < recipe (TOML) < `--section.key value`. An unknown key is an error that
names the nearest known one.
"""

import difflib
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aha.core.combinations import check_algo, check_engine
from aha.core.errors import ConfigError


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelSection(Section):
    path: str = "aha-tiny"  # a packaged model's name, a model folder, or a name on the hub
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"  # auto: a GPU for all but tiny models
    lora_rank: int = Field(0, ge=0)  # of the adapters that train in place of the weights; 0 = none
    lora_alpha: float | None = Field(None, gt=0.0)  # strength alpha / rank; None: twice the rank


class TaskSection(Section):
    name: str = "countdown"  # multiply, math, gym:NAME, my_task.py, or an installed task
    numbers: tuple[int, ...] = (3,)  # countdown: sizes of the puzzles, drawn evenly
    template: Literal["plain", "r1", "instruct"] = "plain"
    data: str | None = None  # JSON lines or Parquet; countdown draws puzzles without
    verifier: Literal["strict", "tinyzero", "math-verify"] = "strict"
    format_reward: float = Field(0.0, ge=0.0, le=1.0)  # for R1's form to the letter, right or not
    options: dict[str, Any] = {}  # what only this task knows, as in options.digits = [2, 3]
    grade_seconds: float = Field(5.0, gt=0.0)  # for one verdict of a task from outside

    def settings(self) -> dict[str, Any]:
        """What the task's constructor is called with: the keys that were changed, and the options.

        An unchanged key is left out, because many tasks read none of them.
        """
        keys = ("numbers", "template", "data", "verifier", "format_reward")
        fields = type(self).model_fields
        changed = {key: getattr(self, key) for key in keys}
        return {k: v for k, v in changed.items() if v != fields[k].default} | self.options


class RolloutSection(Section):
    prompts: int = Field(32, ge=1)  # P, problems of a step
    group_size: int = Field(16, ge=1)  # G, completions of each
    max_new_tokens: int = Field(320, ge=1)
    expected_tokens: float = Field(0.0, ge=0.0)  # plan: mean of a run as measured; 0 = not known
    temperature: float = Field(1.0, gt=0.0, le=10.0)
    max_rows: int = Field(512, ge=1)  # rows generated side by side; bounds the cache
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: bf16 where hardware has it
    # auto: in C on a CPU with a compiler, CUDA graphs on a GPU
    loop: Literal["auto", "compiled", "graphs", "torch"] = "auto"
    engine: Literal["native", "vllm"] = "native"  # vllm: a GPU, and the extra [vllm]
    memory_share: float = Field(0.4, gt=0.0, lt=1.0)  # vllm: of the GPU, while it generates


class AlgoSection(Section):
    advantage: str = "dr_grpo"
    loss: str = "pg"
    aggregation: Literal[
        "token_mean", "sequence_mean", "sequence_sum", "sequence_total", "prompt_mean"
    ] = "token_mean"
    clip_low: float | None = Field(None, ge=0.0)  # of losses that clip; None: as in its paper
    clip_high: float | None = Field(None, ge=0.0)
    dual_clip: float | None = Field(None, gt=1.0)  # ppo_clip: bound of a bad token's ratio
    tau: float | None = Field(None, ge=0.0)  # quadratic: strength of the square
    pass_k: int | None = Field(None, ge=1)  # pass_at_k: completions of which one must be right
    updates: int = Field(1, ge=1)  # optimiser steps on each rollout; 1 is on-policy
    kl: Literal["none", "reward", "loss"] = "none"  # where the way from the reference is paid
    # None: k1 in the reward, k3+ in the loss
    kl_estimator: Literal["k1", "k2", "k3", "k3+", "k3_off_policy"] | None = None
    kl_coef: float = Field(0.001, ge=0.0)
    reference_reset: int = Field(0, ge=0)  # steps until the reference becomes the policy; 0 = never
    entropy_coef: float = Field(0.0, ge=0.0)  # bonus; 0 = none; adaptive: that of the first step
    entropy_control: Literal["none", "kl_cov", "clip_cov", "top_entropy", "adaptive"] = "none"
    entropy_limit: float | None = Field(None, gt=0.0)  # its share of tokens; adaptive: nats to keep
    correction: Literal[
        *("none", "token_tis", "sequence_tis", "icepop", "sequence_mis", "geometric"),
        "k3_rejection",
    ] = "none"  # of the engine's log-probs against the trainer's
    correction_low: float | None = Field(None, ge=0.0)  # bounds; None: the method's own
    correction_high: float | None = Field(None, ge=0.0)
    overlong: Literal["keep", "zero", "mask", "soft"] = "keep"  # of completions that were cut off
    overlong_buffer: int = Field(0, ge=0)  # soft: tokens before the limit with a growing penalty
    zero_variance: Literal["keep", "drop", "resample"] = "keep"  # of groups that teach nothing
    resample_rounds: int = Field(3, ge=1)  # resample: rollouts of a step at most
    curriculum: Literal["off", "pools", "no_positive"] = "off"  # problems again, by solve rate
    pool: int = Field(1024, ge=1)  # curriculum: problems kept in mind


class CriticSection(Section):
    """The value model of PPO, which the advantage "gae" asks for."""

    lr: float = Field(1e-5, ge=0.0)  # goes down as optim.lr does
    warmup: int = Field(0, ge=0)  # first steps, in which only the critic learns
    clip: float = Field(0.5, gt=0.0)  # of a value's way from what it was at the rollout
    gamma: float = Field(1.0, gt=0.0, le=1.0)  # discount by token
    lam: float = Field(1.0, ge=0.0, le=1.0)  # GAE: 1 trusts what was paid, 0 the critic


class OptimSection(Section):
    lr: float = Field(3e-4, ge=0.0)
    final_lr: float = Field(0.1, ge=0.0, le=1.0)  # share of lr left at the last step; 1 = constant
    warmup: int = Field(5, ge=0)  # steps
    beta1: float = Field(0.9, ge=0.0, lt=1.0)
    beta2: float = Field(0.95, ge=0.0, lt=1.0)
    weight_decay: float = Field(0.0, ge=0.0)
    grad_clip: float = Field(1.0, gt=0.0)
    micro_batch_tokens: int = Field(16_384, ge=1)  # computed at once: a prompt once for its group
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # arithmetic; weights stay float32
    # Adam's moments; cpu: with gradients and float32 weights in the machine's memory; 8bit: the
    # extra [8bit]
    state: Literal["device", "cpu", "8bit"] = "device"
    recompute: bool = False  # activations again in the backward pass: a third slower, less memory


class EvalSection(Section):
    every: int = Field(10, ge=0)  # steps between looks at the validation split; 0 = never
    problems: int = Field(200, ge=1)  # of each such look
    final: int = Field(1000, ge=0)  # test problems before and after; 0 = leave it out
    seed: int = 0  # of the problems; the same before and after


class RunConfig(Section):
    """Everything that decides a run's result."""

    seed: int = 0
    steps: int = Field(60, ge=0)
    tokens: int = Field(0, ge=0)  # completion tokens after which training stops; 0 = steps alone
    checkpoint_every: int = Field(20, ge=0)  # steps; 0 = only at the end
    keep_last: int = Field(2, ge=1)  # checkpoints
    show_every: int = Field(10, ge=0)  # steps between printed completions; 0 = never
    token_groups: int = Field(1, ge=0)  # groups of a step that are kept token by token; 0 = none
    usd_per_hour: float | None = Field(None, ge=0.0)  # of the machine; None: as plan/cards.toml
    watts: float | None = Field(None, ge=0.0)  # its power under load; None: the same
    model: ModelSection = ModelSection()
    task: TaskSection = TaskSection()
    rollout: RolloutSection = RolloutSection()
    algo: AlgoSection = AlgoSection()
    critic: CriticSection = CriticSection()
    optim: OptimSection = OptimSection()
    eval: EvalSection = EvalSection()


# Known elsewhere, left out here on purpose: what is wanted instead, and the fix.
TRUNCATED = (
    "all tokens: recorded log-probs of a cut distribution are not those that are trained",
    "leave it out; --rollout.temperature 0.9 makes rare tokens rarer, and is trained as such",
)
LEFT_OUT = {"top_k": TRUNCATED, "top_p": TRUNCATED, "min_p": TRUNCATED}


def load_config(recipe: Path | None, overrides: dict[str, Any] | None = None) -> RunConfig:
    """A checked config from a recipe file and dotted overrides `{"optim.lr": "3e-4"}`."""
    raw = read_toml(recipe) if recipe else {}
    forget_other_task(raw, (overrides or {}).get("task.name"))
    forget_other_length(raw, overrides or {})
    for key, value in (overrides or {}).items():
        set_dotted(raw, key, value)
    correct_strangers(raw)
    where = f"{recipe}: " if recipe else ""
    try:
        cfg = RunConfig.model_validate(raw)
    except ValidationError as error:
        raise explain(error, where) from None
    check(cfg)
    return cfg


def forget_other_task(raw: dict[str, Any], name: str | None) -> None:
    """A recipe's settings of its own task say nothing about another that is put in its place."""
    section = raw.get("task", {})
    if name is None or not isinstance(section, dict):
        return
    if name != section.get("name", TaskSection.model_fields["name"].default):
        shared = ("template", "grade_seconds")
        raw["task"] = {key: section[key] for key in shared if key in section}


def forget_other_length(raw: dict[str, Any], overrides: dict[str, Any]) -> None:
    """How long completions were was measured with the recipe's own base, task and limit."""
    section = raw.get("rollout", {})
    keys = [key.replace("-", "_") for key in overrides]
    other = any(k.startswith(("task.", "model.path", "rollout.max_new_tokens")) for k in keys)
    if other and isinstance(section, dict):
        raw["rollout"] = {k: v for k, v in section.items() if k != "expected_tokens"}


def correct_strangers(raw: dict[str, Any]) -> None:
    """What vLLM draws is corrected unless the recipe says otherwise: its log-probs are not ours."""
    rollout, algo = raw.get("rollout"), raw.get("algo", {})
    if not isinstance(rollout, dict) or not isinstance(algo, dict):
        return
    if rollout.get("engine") == "vllm" and algo.get("loss", "pg") == "pg":
        raw["algo"] = {"correction": "token_tis"} | algo


def read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", "a recipe file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}", "a TOML file") from None


def set_dotted(raw: dict[str, Any], key: str, value: Any) -> None:
    *sections, name = key.replace("-", "_").split(".")
    for section in sections:
        raw = raw.setdefault(section, {})
        if not isinstance(raw, dict):
            raise ConfigError(f"--{key}: {section!r} is a value", "a section")
    raw[name] = value


def known_keys(model: type[BaseModel] = RunConfig, prefix: str = "") -> list[str]:
    """All keys of a recipe, dotted."""
    keys = []
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            keys += known_keys(inner, f"{prefix}{name}.")
        else:
            keys.append(f"{prefix}{name}")
    return keys


def explain(error: ValidationError, where: str) -> ConfigError:
    """Pydantic's first complaint in our words: got / wanted / fix."""
    first = error.errors()[0]
    # A wrong element of a list is reported as key.0: the key is what the user wrote.
    key = ".".join(str(part) for part in first["loc"] if not isinstance(part, int))
    name = key.split(".")[-1]
    if first["type"] == "extra_forbidden" and name in LEFT_OUT:
        return ConfigError(f"{where}{key} {first['input']!r}", *LEFT_OUT[name])
    if first["type"] == "extra_forbidden":
        keys = known_keys()
        near = difflib.get_close_matches(key, keys, 1, 0.5) or difflib.get_close_matches(
            name, [k.split(".")[-1] for k in keys], 1, 0.5
        )
        hint = f"did you mean {near[0]!r}?" if near else "see `aha config show`"
        return ConfigError(f"{where}unknown key {key!r}", "a known key", hint)
    wanted = first["msg"][0].lower() + first["msg"][1:]
    return ConfigError(f"{where}{key} = {first['input']!r}", wanted)


def check(cfg: RunConfig) -> None:
    """Refuse combinations that cannot work, with the reason."""
    check_algo(cfg)
    check_engine(cfg)
    expected, limit = cfg.rollout.expected_tokens, cfg.rollout.max_new_tokens
    if expected > limit:
        raise ConfigError(
            f"rollout.expected_tokens {expected:g} of at most {limit}",
            "the mean length of completions, or 0 where it is not known",
            "--rollout.expected_tokens 0",
        )
    if cfg.model.lora_alpha is not None and not cfg.model.lora_rank:
        raise ConfigError(
            f"model.lora_alpha {cfg.model.lora_alpha} without adapters",
            "a rank for them",
            "--model.lora_rank 16",
        )
    if cfg.optim.state == "cpu" and cfg.model.lora_rank:
        raise ConfigError(
            "optim.state 'cpu' beside adapters, whose state is small",
            "'device'",
            "--optim.state device",
        )
    if not cfg.task.numbers or not all(2 <= n <= 6 for n in cfg.task.numbers):
        raise ConfigError(f"task.numbers {list(cfg.task.numbers)}", "sizes from 2 to 6")
