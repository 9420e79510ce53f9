"""Every key of a recipe, and what it becomes in veRL 0.9.1; and what no recipe says."""

from collections.abc import Iterable
from typing import Any

from aha.core.config import AlgoSection
from aha.core.errors import ConfigError
from aha.export import verl_methods as methods
from aha.export.verl_keys import (
    CRITIC,
    KEPT,
    MODEL,
    OPTIM,
    ROLLOUT,
    Export,
    Translation,
    Unsaid,
    advantage,
    aggregation,
    arithmetic,
    by,
    correction,
    critic_keys,
    device,
    kept,
    kl,
    kl_estimator,
    lora,
    loss,
    nothing,
    of_critic,
    only,
    optim,
    optimizer_state,
    overlong,
    same,
    task_name,
    updates,
    verifier,
    wording,
    zero_variance,
)
from aha.export.verl_methods import ACTOR, Overrides

VERSION = "0.9.1"
PASS_THROUGH = "{% for m in messages %}{{ m.content }}{% endfor %}"
DATA, ALGORITHM, TRAINER = "data", "algorithm", "trainer"
HERE = "$HERE"  # in an override: the folder of the export, which train.sh puts in

NOT_THERE = "veRL has no such thing"
GRADED_IN_PLACE = "packaged tasks are graded in the reward worker itself"
FILES = "the rows of the parquet files"


def alike(names: Iterable[str]) -> str:
    return f"{', '.join(names)}; others are refused"


TABLE: tuple[Translation, ...] = (
    # -- the run
    by(
        "seed",
        f"{DATA}.seed {ROLLOUT}.seed {ACTOR}.data_loader_seed",
        lambda _, value: dict.fromkeys(
            (f"{DATA}.seed", f"{ROLLOUT}.seed", f"{ACTOR}.data_loader_seed"), value % 2**31
        ),
        "the prompts are those of a run here, the tokens are drawn by vLLM",
    ),
    by(
        "steps",
        f"{TRAINER}.total_training_steps {TRAINER}.total_epochs",
        lambda _, value: {f"{TRAINER}.total_training_steps": value, f"{TRAINER}.total_epochs": 1},
        "train.parquet has the prompts of all steps in order, so that one pass is the run",
    ),
    only("tokens", 0, "veRL counts steps alone"),
    by(
        "checkpoint_every",
        f"{TRAINER}.save_freq",
        lambda e, value: {f"{TRAINER}.save_freq": value or e.cfg.steps},
    ),
    by("keep_last", " ".join(KEPT), kept, "refused for [N, M]: veRL keeps the newest alone"),
    nothing("show_every", "all completions are in the folders rollouts and validations"),
    nothing("token_groups", "veRL records no tokens one by one"),
    nothing("usd_per_hour", "for the plan here"),
    nothing("watts", "for the plan here"),
    # -- the model
    by(
        "model.path",
        f"{MODEL}.path {CRITIC}.model.path",
        lambda e, _: dict.fromkeys([f"{MODEL}.path", *critic_keys(e, "model.path")], e.model),
    ),
    by("model.device", "", device, "refused for cpu and mps: veRL trains on GPUs alone"),
    by("model.lora_rank", f"{MODEL}.lora_rank {CRITIC}.model.lora_rank", lora),
    by("model.lora_alpha", f"{MODEL}.lora_alpha {CRITIC}.model.lora_alpha", lambda *_: {}),
    # -- the task
    by("task.name", "", task_name, f"{FILES}, and reward.py; refused for a task of your own"),
    nothing("task.numbers", FILES),
    nothing("task.template", f"{FILES}: the whole text of a prompt, which nothing wraps again"),
    nothing("task.data", FILES),
    nothing("task.test_data", FILES),
    nothing("task.bad_rows", FILES),
    by("task.verifier", "", verifier, "reward.py; refused for math-verify, another package"),
    nothing("task.format_reward", "reward.py"),
    by("task.options", "", wording, f"{FILES}; refused for think_tags, which reward.py lacks"),
    nothing("task.grade_seconds", GRADED_IN_PLACE),
    nothing("task.grade_memory_gb", GRADED_IN_PLACE),
    nothing("task.max_grade_errors", GRADED_IN_PLACE),
    # -- generation
    same("rollout.prompts", f"{DATA}.train_batch_size"),
    same("rollout.group_size", f"{ROLLOUT}.n"),
    same("rollout.max_new_tokens", f"{DATA}.max_response_length"),
    nothing("rollout.expected_tokens", "for the plan here"),
    same(
        "rollout.temperature",
        f"{ROLLOUT}.temperature",
        f"{ROLLOUT}.val_kwargs.temperature",
        remark="validation draws one completion of each problem, as here",
    ),
    by(
        "rollout.max_rows",
        f"{ROLLOUT}.max_num_seqs {ROLLOUT}.max_num_batched_tokens",
        lambda _, value: {
            f"{ROLLOUT}.max_num_seqs": value,
            f"{ROLLOUT}.max_num_batched_tokens": max(8192, value),
        },
        "of one vLLM, which takes no fewer tokens at once than rows",
    ),
    by(
        "rollout.dtype",
        f"{ROLLOUT}.dtype",
        lambda _, value: {f"{ROLLOUT}.dtype": "bfloat16" if value == "auto" else value},
    ),
    nothing("rollout.loop", "vLLM has its own"),
    by(
        "rollout.engine",
        f"{ROLLOUT}.name",
        lambda *_: {f"{ROLLOUT}.name": "vllm"},
        "always vLLM. Refused is vllm with a loss that takes a ratio: see algo.loss",
    ),
    same("rollout.memory_share", f"{ROLLOUT}.gpu_memory_utilization"),
    # -- the method
    by(
        "algo.advantage",
        f"{ALGORITHM}.adv_estimator {ALGORITHM}.norm_adv_by_std_in_grpo",
        advantage,
        alike(methods.ADVANTAGES),
    ),
    by(
        "algo.loss",
        f"{ACTOR}.policy_loss.loss_mode",
        loss,
        f"{alike(methods.LOSSES)}. A ratio is taken against log-probs that veRL's trainer computes "
        "after the rollout",
    ),
    by(
        "algo.aggregation",
        f"{ACTOR}.loss_agg_mode {ACTOR}.loss_scale_factor",
        aggregation,
        alike(methods.AGGREGATIONS),
    ),
    by("algo.clip_low", f"{ACTOR}.clip_ratio_low", lambda *_: {}, "the paper's value where unset"),
    by("algo.clip_high", f"{ACTOR}.clip_ratio_high", lambda *_: {}, "the same"),
    by(
        "algo.dual_clip", f"{ACTOR}.clip_ratio_c", lambda *_: {}, "1e9 where unset: veRL's own is 3"
    ),
    by("algo.tau", f"{ACTOR}.policy_loss.dro_beta", lambda *_: {}),
    nothing("algo.pass_k", "read by pass_at_k alone, which is refused"),
    by("algo.updates", f"{ACTOR}.ppo_mini_batch_size", updates, "prompts of one update"),
    by("algo.kl", f"{ACTOR}.use_kl_loss {ALGORITHM}.use_kl_in_reward", kl),
    by(
        "algo.kl_estimator",
        f"{ACTOR}.kl_loss_type {ALGORITHM}.kl_penalty",
        kl_estimator,
        f"in the loss {alike(methods.KL_IN_LOSS)}; in the reward it is k1",
    ),
    by("algo.kl_coef", f"{ACTOR}.kl_loss_coef {ALGORITHM}.kl_ctrl.kl_coef", lambda *_: {}),
    only("algo.reference_reset", 0, "veRL keeps its reference for the whole run"),
    same("algo.entropy_coef", f"{ACTOR}.entropy_coeff"),
    only(
        "algo.entropy_control",
        "none",
        "veRL has none that looks at a whole update",
        algo__entropy_limit=None,
    ),
    nothing("algo.entropy_limit", "read by an entropy control alone"),
    by(
        "algo.correction",
        f"{ALGORITHM}.rollout_correction.rollout_is",
        correction,
        f"{alike(methods.CORRECTIONS)}. Of the log-probs before the first update",
    ),
    by(
        "algo.correction_low", f"{ALGORITHM}.rollout_correction.rollout_is_threshold", lambda *_: {}
    ),
    by(
        "algo.correction_high",
        f"{ALGORITHM}.rollout_correction.rollout_is_threshold",
        lambda *_: {},
    ),
    by(
        "algo.overlong",
        "reward.reward_manager.name +reward.reward_kwargs",
        overlong,
        alike(["keep", *methods.OVERLONG]),
    ),
    by("algo.overlong_buffer", "+reward.reward_kwargs.overlong_buffer_cfg.len", lambda *_: {}),
    by(
        "algo.zero_variance",
        f"{ALGORITHM}.filter_groups.enable {ALGORITHM}.filter_groups.metric",
        zero_variance,
        alike(["keep", *methods.ZERO_VARIANCE]),
    ),
    nothing("algo.resample_rounds", "veRL draws until the batch is full, without a limit"),
    # Without a curriculum a recipe that sets its pool is refused.
    only("algo.curriculum", "off", NOT_THERE, algo__pool=AlgoSection.model_fields["pool"].default),
    nothing("algo.pool", "read by a curriculum alone"),
    # -- the critic
    by("critic.lr", f"{CRITIC}.optim.lr", of_critic(f"{CRITIC}.optim.lr")),
    by(
        "critic.warmup",
        f"{TRAINER}.critic_warmup",
        lambda e, value: of_critic(f"{TRAINER}.critic_warmup")(e, value + 1 if value else 0),
        "one more there: veRL's first step is step 1, and the policy learns from that step on",
    ),
    by("critic.clip", f"{CRITIC}.cliprange_value", of_critic(f"{CRITIC}.cliprange_value")),
    by("critic.gamma", f"{ALGORITHM}.gamma", of_critic(f"{ALGORITHM}.gamma")),
    by("critic.lam", f"{ALGORITHM}.lam", of_critic(f"{ALGORITHM}.lam")),
    # -- the optimiser
    same("optim.lr", f"{OPTIM}.lr"),
    only("optim.final_lr", 1.0, "veRL's rate is constant or falls as a cosine"),
    by(
        "optim.warmup",
        f"{OPTIM}.lr_warmup_steps {CRITIC}.optim.lr_warmup_steps",
        lambda e, value: optim("lr_warmup_steps")(e, value + 1 if value else -1),
        "the rate rises as here, one step later: veRL's first step has rate 0",
    ),
    by(
        "optim.beta1",
        f"{OPTIM}.betas {CRITIC}.optim.betas",
        lambda e, value: optim("betas")(e, [value, e.cfg.optim.beta2]),
    ),
    by("optim.beta2", f"{OPTIM}.betas {CRITIC}.optim.betas", lambda *_: {}),
    by(
        "optim.weight_decay",
        f"{OPTIM}.weight_decay {CRITIC}.optim.weight_decay",
        optim("weight_decay"),
    ),
    by("optim.grad_clip", f"{OPTIM}.clip_grad {CRITIC}.optim.clip_grad", optim("clip_grad")),
    by(
        "optim.micro_batch_tokens",
        f"{ACTOR}.ppo_max_token_len_per_gpu {CRITIC}.ppo_max_token_len_per_gpu",
        lambda e, value: dict.fromkeys(
            [f"{ACTOR}.ppo_max_token_len_per_gpu", *critic_keys(e, "ppo_max_token_len_per_gpu")],
            max(value, e.row_tokens),
        ),
        "for each GPU, at least one row of full length; a prompt counts for each completion",
    ),
    by(
        "optim.dtype",
        f"{ACTOR}.fsdp_config.dtype {CRITIC}.fsdp.dtype",
        arithmetic,
        "bfloat16, with weights in float32. Refused for float32, which veRL's FSDP does not take",
    ),
    by(
        "optim.state",
        f"{ACTOR}.fsdp_config.optimizer_offload {ACTOR}.fsdp_config.offload_policy",
        optimizer_state,
        "device: on the GPU for the update, in the machine's memory while vLLM generates",
    ),
    by(
        "optim.recompute",
        f"{MODEL}.enable_gradient_checkpointing {CRITIC}.model.enable_gradient_checkpointing",
        lambda e, value: dict.fromkeys(
            [f"{MODEL}.enable_gradient_checkpointing"]
            + critic_keys(e, "model.enable_gradient_checkpointing"),
            value,
        ),
    ),
    # -- evaluation
    by(
        "eval.every",
        f"{TRAINER}.test_freq {TRAINER}.val_before_train",
        lambda _, value: {
            f"{TRAINER}.test_freq": value or -1,
            f"{TRAINER}.val_before_train": value > 0,
        },
    ),
    nothing("eval.problems", "the rows of validation.parquet"),
    nothing("eval.final", "the rows of test.parquet, for the model that comes out"),
    nothing("eval.seed", "of the rows of both"),
)


def set_for_all(export: Export) -> Overrides:
    """What veRL has to be told whatever the recipe says."""
    overrides: Overrides = {
        f"{DATA}.train_files": f"{HERE}/train.parquet",
        f"{DATA}.val_files": f"{HERE}/validation.parquet",
        f"{DATA}.shuffle": False,
        f"{DATA}.max_prompt_length": export.prompt_tokens,
        # Nothing is longer, so nothing is dropped; veRL's own filter would drop without a word.
        f"{DATA}.filter_overlong_prompts": False,
        f"{DATA}.truncation": "error",
        # veRL wraps every prompt in the tokenizer's chat template, that of a base model too.
        f"{MODEL}.custom_chat_template": PASS_THROUGH,
        f"{MODEL}.use_remove_padding": True,
        f"{ACTOR}.strategy": "fsdp2",
        f"{ACTOR}.use_dynamic_bsz": True,
        f"{ROLLOUT}.tensor_model_parallel_size": 1,
        f"{ROLLOUT}.val_kwargs.do_sample": True,
        f"{ROLLOUT}.val_kwargs.n": 1,
        "reward.custom_reward_function.path": f"{HERE}/reward.py",
        "reward.custom_reward_function.name": "compute_score",
        f"{TRAINER}.n_gpus_per_node": export.gpus,
        f"{TRAINER}.nnodes": export.nodes,
        f"{TRAINER}.logger": ["console", "file"],
        f"{TRAINER}.project_name": "aha",
        f"{TRAINER}.experiment_name": export.name,
        f"{TRAINER}.default_local_dir": f"{HERE}/checkpoints",
        f"{TRAINER}.rollout_data_dir": f"{HERE}/rollouts",
        f"{TRAINER}.validation_data_dir": f"{HERE}/validations",
        f"{TRAINER}.resume_mode": "auto",
    }
    if export.cfg.algo.kl != "none":
        overrides["actor_rollout_ref.ref.fsdp_config.param_offload"] = True
    if export.chosen.advantage.facts.critic:
        # The critic's loss is a mean over tokens here, whatever the policy's is.
        overrides |= {f"{CRITIC}.strategy": "fsdp2", f"{CRITIC}.loss_agg_mode": "token-mean"}
    return overrides


def overrides_of(export: Export) -> Overrides:
    """All overrides of an export by veRL's keys.

    Raises `ConfigError` that names every setting that veRL cannot express, with what it would take
    and the options that change all of them.
    """
    overrides = set_for_all(export)
    got, expected, changes = [], [], dict[str, Any]()
    for entry in TABLE:
        try:
            overrides |= entry.write(export, export.value_of(entry.key))
        except Unsaid as reason:
            key = reason.key or entry.key
            got.append(f"{key} {export.value_of(key)}")
            expected.append(f"{key}: {reason.expected}")
            changes |= reason.changes
    if got:
        raise ConfigError(
            f"{', '.join(got)}: veRL {VERSION} cannot express this",
            "; ".join(expected),
            " ".join(f"--{key} {option(change)}" for key, change in changes.items()),
        )
    return overrides


def option(value: Any) -> str:
    """A value as an option has it."""
    return "none" if value is None else str(value)


def as_hydra(key: str, value: Any) -> str:
    """An override as veRL's command line reads it."""
    if isinstance(value, list | tuple):
        return f"{key}=[{','.join(map(str, value))}]"
    if isinstance(value, str) and not value.replace("_", "").replace("-", "").isalnum():
        quoted = value.replace("'", "\\'")
        return f"{key}='{quoted}'"
    return f"{key}={value}"


def table_rows() -> list[tuple[str, str, str]]:
    """The table for the page: our key, veRL's keys, and what differs."""
    return [(entry.key, ", ".join(entry.verl), entry.remark) for entry in TABLE]
