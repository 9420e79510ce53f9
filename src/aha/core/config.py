"""The recipe of a run: frozen, checked, and saved with the run.

Precedence: defaults here < recipe (TOML) < `--section.key value`. An unknown key is an error that
names the nearest known one.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from aha.core.combined_keys import check
from aha.core.section import (
    BILLION,
    MILLION,
    KeptCheckpoints,
    Section,
    explain,
    is_json,
    key_of,
)

EARLY = "early"  # the `algo.overlong` that ends training's completions before the limit of tests


class ModelSection(Section):
    """The model that is trained."""

    path: str = Field("aha-tiny", description="Packaged model, model folder, run, or hub name.")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="auto: a GPU, except for models below 5 million parameters."
    )
    lora_rank: int = Field(
        0,
        ge=0,
        le=65_536,
        description="Rank of LoRA adapters that train instead of the weights; 0 = off.",
    )
    lora_alpha: float | None = Field(
        None, gt=0.0, le=MILLION, description="LoRA scale is alpha / rank; none: twice the rank."
    )


# Keys of [task] that the task's constructor takes; the others are about the grading's process.
TASK_SETTINGS = (
    "numbers",
    "template",
    "data",
    "test_data",
    "bad_rows",
    "verifier",
    "format_reward",
)


class TaskSection(Section):
    """The task: its problems, prompts and rewards."""

    name: str = Field(
        "countdown",
        description="countdown, curated, calculate, multiply, ladder, math, gym:NAME, a Python "
        "file, or an installed task.",
    )
    numbers: tuple[int, ...] = Field(
        (3,), description="countdown: how many numbers a puzzle has, 2 to 6; drawn evenly."
    )
    template: Literal["plain", "r1", "instruct"] = Field(
        "plain", description="Form of the prompt; r1 and instruct are for pretrained models."
    )
    data: str | None = Field(
        None, description="Problems as JSON lines or Parquet; none: the task generates them."
    )
    test_data: str | None = Field(
        None, description="File of test problems, all of them; none: data is parted by a hash."
    )
    bad_rows: Literal["refuse", "drop"] = Field(
        "refuse", description="Rule for rows of data that cannot be used; drop counts them."
    )
    verifier: Literal["strict", "tinyzero", "math-verify"] = Field(
        "strict",
        description="Grades answers; tinyzero: TinyZero's reward; math-verify: its library.",
    )
    format_reward: float = Field(
        0.0, ge=0.0, le=1.0, description="Reward for R1's exact format, right or wrong; 0 = off."
    )
    options: dict[str, Any] = Field(
        {},
        description="Settings that only this task has, as in --task.options.digits '[2, 3]'; and "
        "for every task system, lead_in, template_args, think_tags: the words of its prompts.",
    )

    grade_seconds: float = Field(
        5.0,
        gt=0.0,
        le=86_400.0,
        description="Time limit in seconds to grade a completion of an outside task.",
    )
    grade_memory_gb: float = Field(
        4.0,
        gt=0.0,
        le=MILLION,
        description="Memory limit of the process that grades an outside task; on Linux.",
    )
    max_grade_errors: float = Field(
        0.5,
        ge=0.0,
        le=1.0,
        description="Largest share of a step's grades that may fail; above it the run stops; 1 = "
        "off.",
    )

    @field_validator("options")
    @classmethod
    def as_json_has_them(cls, options: dict[str, Any]) -> dict[str, Any]:
        """The run keeps its config as JSON, and a resumed one reads it from there."""
        if not is_json(options):
            raise PydanticCustomError("json", "texts, finite numbers, true, false, lists, tables")
        return options

    def settings(self) -> dict[str, Any]:
        """The keyword arguments of the task's constructor: changed keys and the options.

        An unchanged key is left out, because many tasks read none of them.
        """
        fields = type(self).model_fields
        changed = {key: getattr(self, key) for key in TASK_SETTINGS}
        return {k: v for k, v in changed.items() if v != fields[k].default} | self.options

    def anywhere(self) -> "TaskSection":
        """The same with absolute paths to its files, so that a run can be used from any folder."""
        keys = ["data", "test_data", *(["name"] if self.name.endswith(".py") else [])]
        paths = {key: getattr(self, key) for key in keys}
        return self.model_copy(
            update={key: str(Path(path).absolute()) for key, path in paths.items() if path}
        )


class RolloutSection(Section):
    """Generation of completions."""

    prompts: int = Field(32, ge=1, le=MILLION, description="Problems in one step (P).")
    group_size: int = Field(16, ge=1, le=MILLION, description="Completions of each problem (G).")
    max_new_tokens: int = Field(320, ge=1, le=MILLION, description="Token limit of a completion.")
    expected_tokens: float = Field(
        0.0, ge=0.0, description="Measured mean tokens of a completion, for the plan; 0 = unknown."
    )
    temperature: float = Field(
        1.0, ge=0.001, le=10.0, description="Sampling temperature; training uses the same one."
    )
    max_rows: int = Field(
        512,
        ge=1,
        le=MILLION,
        description="Completions generated at the same time; limits the KV cache.",
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Arithmetic; auto: bfloat16 where the hardware multiplies it."
    )
    loop: Literal["auto", "compiled", "graphs", "torch"] = Field(
        "auto", description="auto: C on a CPU with a compiler, CUDA graphs on a GPU, else torch."
    )
    engine: Literal["native", "vllm"] = Field(
        "native", description="vllm needs a CUDA GPU and the extra [vllm]."
    )
    memory_share: float = Field(
        0.4, gt=0.0, lt=1.0, description="vllm: its share of GPU memory while it generates."
    )


class AlgoSection(Section):
    """The learning algorithm (docs/papers.md).

    Keys without a list of choices here take the name of a registered algorithm: the registries of
    `aha.algo.algorithms` have them, those of installed packages too.
    """

    advantage: str = Field("dr_grpo", description="How rewards become advantages.")
    loss: str = Field("pg", description="Loss of the policy.")
    aggregation: str = Field(
        "token_mean", description="How losses of tokens become the loss of a batch."
    )
    clip_low: float | None = Field(
        None, ge=0.0, description="Lower clip range of the ratio; none: the paper's value."
    )
    clip_high: float | None = Field(
        None, ge=0.0, description="Upper clip range of the ratio; none: the paper's value."
    )
    dual_clip: float | None = Field(
        None, gt=1.0, description="Ratio limit where the advantage is negative; none: no limit."
    )
    tau: float | None = Field(
        None, ge=0.0, description="Weight of a loss's second term; none: the paper's value."
    )
    pass_k: int | None = Field(
        None,
        ge=1,
        description="Completions of which one must be right (k); none: the paper's value.",
    )
    updates: int = Field(1, ge=1, description="Optimiser steps on each rollout; 1 is on-policy.")
    kl: Literal["none", "reward", "loss"] = Field(
        "none", description="Where the KL to the reference is subtracted."
    )
    kl_estimator: str | None = Field(
        None, description="Estimator of the KL; none: the right one for its place."
    )
    kl_coef: float = Field(0.001, ge=0.0, description="Weight of the KL.")
    reference_reset: int = Field(
        0, ge=0, description="Steps after which the reference becomes the policy; 0 = never."
    )
    entropy_coef: float = Field(
        0.0, ge=0.0, description="Weight of the entropy bonus; 0 = off. A control may change it."
    )
    entropy_control: str = Field(
        "none", description="Method that keeps the entropy up, or learns from its peaks."
    )
    entropy_limit: float | None = Field(
        None, gt=0.0, description="Its share of the tokens, or the entropy that it keeps, in nats."
    )
    correction: str = Field(
        "none", description="Corrects engine log-probs that differ from the trainer's."
    )
    correction_low: float | None = Field(
        None, ge=0.0, description="Lower limit of the weights; none: the method's default."
    )
    correction_high: float | None = Field(
        None, ge=0.0, description="Upper limit of the weights; none: the method's default."
    )
    overlong: str = Field("keep", description="Rule for truncated and for long completions.")
    overlong_buffer: int = Field(
        0,
        ge=0,
        description="Last tokens before the limit: with a growing penalty, or for tests alone.",
    )
    zero_variance: str = Field("keep", description="Rule for groups whose rewards are all equal.")
    resample_rounds: int = Field(
        3, ge=1, le=1_000, description="Most rollouts in one step, where prompts are drawn again."
    )
    curriculum: str = Field(
        "off", description="Draws problems from a pool again, by their solve rate."
    )
    pool: int = Field(1024, ge=1, le=MILLION, description="curriculum: problems in the pool.")


class CriticSection(Section):
    """The value model of PPO; only an advantage with a critic reads it."""

    lr: float = Field(1e-5, ge=0.0, le=1e3, description="Learning rate; same schedule as optim.lr.")
    warmup: int = Field(
        0, ge=0, le=BILLION, description="First steps, in which only the critic learns."
    )
    clip: float = Field(
        0.5, gt=0.0, description="Limit of a value's change from its value at the rollout."
    )
    gamma: float = Field(1.0, gt=0.0, le=1.0, description="Discount per token.")
    lam: float = Field(
        1.0, ge=0.0, le=1.0, description="GAE's lambda: 1 uses the rewards alone, 0 the critic."
    )


class OptimSection(Section):
    """The optimiser, AdamW, and the memory of training."""

    lr: float = Field(3e-4, ge=0.0, le=1e3, description="Learning rate after the warm-up.")
    final_lr: float = Field(
        0.1, ge=0.0, le=1.0, description="Share of lr at the last step, linear; 1 = constant."
    )
    warmup: int = Field(5, ge=0, le=BILLION, description="Steps over which lr rises to its value.")
    beta1: float = Field(0.9, ge=0.0, lt=1.0, description="Decay of the mean of gradients.")
    beta2: float = Field(0.95, ge=0.0, lt=1.0, description="Decay of the mean of their squares.")
    weight_decay: float = Field(0.0, ge=0.0, le=1e3, description="Decoupled weight decay; 0 = off.")
    grad_clip: float = Field(1.0, gt=0.0, description="Largest norm of the gradient.")
    micro_batch_tokens: int = Field(
        16_384,
        ge=1,
        le=BILLION,
        description="Tokens computed at a time; a group's prompt counts once.",
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Arithmetic; the weights that train stay float32."
    )
    state: Literal["device", "cpu", "8bit"] = Field(
        "device",
        description="Where Adam's moments are; cpu: gradients and float32 weights too, in the "
        "machine's memory; 8bit needs the extra [8bit].",
    )
    recompute: bool = Field(
        False, description="Compute activations again for gradients: a third slower, less memory."
    )


class EvalSection(Section):
    """Held-out evaluation, before, during and after training."""

    every: int = Field(10, ge=0, le=BILLION, description="Steps between validations; 0 = never.")
    problems: int = Field(200, ge=1, le=MILLION, description="Problems of each validation.")
    final: int = Field(
        1000, ge=0, le=MILLION, description="Test problems, before and after; 0 = no tests."
    )
    seed: int = Field(0, description="Seed of the problems; the same before and after.")


class RunConfig(Section):
    """Everything that decides a run's result."""

    seed: int = Field(0, description="Seed of every random draw of the run.")
    steps: int = Field(60, ge=0, le=BILLION, description="Training steps.")
    tokens: int = Field(
        0, ge=0, description="Stop after so many completion tokens; 0 = steps alone decide."
    )
    checkpoint_every: int = Field(
        20, ge=0, le=BILLION, description="Steps between checkpoints; 0 = only at the end."
    )
    keep_last: KeptCheckpoints = Field(
        (2,), description="Newest checkpoints that are kept; [N, M] keeps every Mth step as well."
    )
    show_every: int = Field(
        10, ge=0, le=BILLION, description="Steps between printed completions; 0 = never."
    )
    token_groups: int = Field(
        1, ge=0, le=MILLION, description="Groups of a step recorded token by token; 0 = none."
    )
    usd_per_hour: float | None = Field(
        None, ge=0.0, le=BILLION, description="Price of the machine; none: from plan/cards.toml."
    )
    watts: float | None = Field(
        None, ge=0.0, le=BILLION, description="Its power under load; none: from plan/cards.toml."
    )
    model: ModelSection = ModelSection()
    task: TaskSection = TaskSection()
    rollout: RolloutSection = RolloutSection()
    algo: AlgoSection = AlgoSection()
    critic: CriticSection = CriticSection()
    optim: OptimSection = OptimSection()
    eval: EvalSection = EvalSection()

    @property
    def training_limit(self) -> int:
        """Token limit of the completions that are trained on."""
        return training_limit(self.rollout, self.algo)


def training_limit(rollout: RolloutSection, algo: AlgoSection) -> int:
    """Token limit of the completions that are trained on; that of tests is
    `rollout.max_new_tokens`."""
    early = algo.overlong_buffer if algo.overlong == EARLY else 0
    return rollout.max_new_tokens - early


def validated(
    raw: dict[str, Any], where: str = "", overrides: dict[str, Any] | None = None
) -> RunConfig:
    """The config of raw settings, as far as it can be checked without the algorithms.

    `where`: the file that they are from, for the error; the `overrides` among them are not. Raises
    ConfigError for an unknown key, a value of the wrong kind, and a combination that cannot work.
    """
    try:
        cfg = RunConfig.model_validate(raw)
    except ValidationError as error:
        typed = {key.replace("-", "_") for key in overrides or {}}
        raise explain(error, "" if key_of(error) in typed else where, known_keys()) from None
    check(cfg)
    return cfg


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
