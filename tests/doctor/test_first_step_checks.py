"""The doctor's look at a first step: every planted fault is found, and a healthy step passes."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from aha.algo.advantages import ADVANTAGES
from aha.algo.losses import LOSSES
from aha.core.config import RunConfig
from aha.core.findings import worst_level
from aha.doctor.first_step_checks import check_first_step, checks
from aha.doctor.first_step_trial import Trial, reduced_recipe, run_trial
from aha.model.tokenizer import END
from aha.model.transformer import Transformer
from aha.rollout.native import NativeEngine
from aha.tasks.countdown import Countdown
from aha.train.rl import RLTrainer

from ..tiny import TOKENIZER, StartsWith, tiny_config, tiny_transformer

STOPS = 8.0  # weight of the stop token: most completions end, a few are cut off


def config(**sections) -> RunConfig:
    raw = {
        "steps": 30,
        "rollout": {"prompts": 8, "group_size": 8, "max_new_tokens": 32, "dtype": "float32"},
        "optim": {"lr": 1e-3, "warmup": 0, "dtype": "float32"},
    }
    for name, section in sections.items():
        raw[name] = raw.get(name, {}) | section
    return RunConfig.model_validate(raw)


def stopping(kind: type[Transformer] = Transformer) -> Transformer:
    """The tiny decoder, taught to stop, so that nothing but the planted fault is off."""
    policy = kind(tiny_config(tie_word_embeddings=False))
    policy.load_state_dict(tiny_transformer(tie_word_embeddings=False).state_dict())
    with torch.no_grad():
        # The first feature is large at every position and no layer touches it.
        policy.model.embed_tokens.weight[:, 0] = 10.0
        policy.model.norm.weight[0] = 1.0
        for layer in policy.model.layers:
            layer.self_attn.o_proj.weight[0] = layer.mlp.down_proj.weight[0] = 0.0
        policy.lm_head.weight[:, 0] = 0.0
        policy.lm_head.weight[TOKENIZER.id_of(END), 0] = STOPS / 5.0
    return policy


DIGITS = "0123456789"


def make(cfg=None, task=None, policy=None, engine=NativeEngine, kind=RLTrainer) -> RLTrainer:
    cfg, policy = cfg or config(), policy or stopping()
    task = task or StartsWith(DIGITS)
    return kind(policy, TOKENIZER, task, engine(policy, TOKENIZER, cfg.rollout.dtype), cfg)


def found(trial: Trial) -> dict:
    return {finding.check: finding for finding in check_first_step(trial)}


# -- healthy steps ---------------------------------------------------------------------------

HEALTHY = {
    "plain": {},
    "temperature": {"rollout": {"temperature": 1.2}},
    "a KL in the loss": {"algo": {"kl": "loss", "kl_coef": 0.01, "reference_reset": 1}},
    "a KL in the reward": {"algo": {"kl": "reward", "kl_coef": 0.01}},
    "updates": {"algo": {"loss": "ppo_clip", "updates": 4}},
    "gspo": {"algo": {"loss": "gspo", "aggregation": "sequence_mean", "updates": 2}},
    "no group": {
        "algo": {"advantage": "reinforce_pp"},
        "rollout": {"group_size": 1, "prompts": 64},
    },
    "a critic": {
        "algo": {"advantage": "gae", "loss": "ppo_clip", "updates": 2},
        "critic": {"lr": 1e-3},
        "rollout": {"group_size": 1, "prompts": 64},
    },
    "resample": {"algo": {"zero_variance": "resample"}},
    "masked": {"algo": {"overlong": "mask", "zero_variance": "drop"}},
    "bf16": {"rollout": {"dtype": "bfloat16", "loop": "torch"}, "optim": {"dtype": "bfloat16"}},
}


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_step_raises_no_alarm(name):
    trial = run_trial(make(config(**HEALTHY[name])))
    findings = found(trial)
    assert worst_level(list(findings.values())) == "ok", [
        f for f in findings.values() if f.level != "ok"
    ]
    silent = {"answers"} | (set() if trial.cfg.algo.kl != "none" else {"reference"})
    silent |= {"direction"} if trial.cfg.algo.advantage == "gae" else set()
    assert set(checks) - set(findings) == silent


def test_a_trial_leaves_the_trainer_as_a_step_does():
    tried, plain = make(), make()
    run_trial(tried)
    report = plain.step(plain.problems())
    assert tried.version == tried.engine.version == plain.version == 1
    for one, other in zip(tried.policy.parameters(), plain.policy.parameters(), strict=True):
        assert torch.equal(one, other)
    again = tried.step(tried.problems())
    assert {c.completion.version for group in again.groups for c in group} == {1}
    assert report.version == 1


def test_a_trial_is_small_but_holds_every_update():
    cfg = config(rollout={"prompts": 512, "group_size": 16}, algo={"updates": 64})
    assert reduced_recipe(cfg).rollout.prompts == 64
    assert reduced_recipe(config(rollout={"prompts": 512, "group_size": 16})).rollout.prompts == 16
    assert reduced_recipe(config()) == config()
    assert reduced_recipe(config(critic={"warmup": 9})).critic.warmup == 0


# -- planted faults --------------------------------------------------------------------------


class Stale(NativeEngine):
    def load(self, policy, version):
        if not hasattr(self, "weights"):
            super().load(policy, version)
        self.version = version

    def release(self):
        pass


class Changed(NativeEngine):
    """Tells of its completions what `change` makes of them."""

    def change(self, one):
        return one

    def generate(self, prompts, sampling):
        groups = super().generate(prompts, sampling)
        return [[self.change(one) for one in group] for group in groups]


class OtherTemperature(NativeEngine):
    def generate(self, prompts, sampling):
        return super().generate(prompts, replace(sampling, temperature=0.8))


class OffByOne(Changed):
    def change(self, one):
        return replace(one, logprobs=(one.logprobs[-1], *one.logprobs[:-1]))


class AddsStop(Changed):
    def change(self, one):
        if one.finish == "stop":
            return one
        ended = (*one.tokens, TOKENIZER.stop_ids[0])
        more = {"logprobs": (*one.logprobs, -0.1), "entropies": (*one.entropies, 0.1)}
        return replace(one, tokens=ended, **more)


class ForgetsStop(Changed):
    def change(self, one):
        return replace(one, finish="length")


class CleansText(Changed):
    def change(self, one):
        return replace(one, text=one.text.replace(" ", ""))


class Behind(Changed):
    def change(self, one):
        return replace(one, version=one.version - 1)


class Moody(NativeEngine):
    calls = 0

    def generate(self, prompts, sampling):
        self.calls += 1
        return super().generate(prompts, replace(sampling, seed=sampling.seed + self.calls))


class Dropout(Transformer):
    def hidden_states_before(self, *arguments, **named):
        return F.dropout(super().hidden_states_before(*arguments, **named), 0.1, training=True)


class SeesOthers(Transformer):
    """Surer of itself, the more tokens there are beside."""

    def flat_hidden_states(self, tokens_N, layout, dtype):
        return super().flat_hidden_states(tokens_N, layout, dtype) * (1 + 0.01 * len(tokens_N))


def half_frozen() -> Transformer:
    policy = stopping()
    policy.model.layers[0].mlp.requires_grad_(False)
    return policy


class Drifts(RLTrainer):
    def update(self, share, index=0):
        numbers = super().update(share, index)
        with torch.no_grad():
            self.policy.model.norm.weight *= 1.0001
        return numbers


class OtherReference(RLTrainer):
    def __init__(self, *parts):
        super().__init__(*parts)
        with torch.no_grad():
            self.reference.policy.model.norm.weight *= 1.01


def algo(**values) -> dict:
    return {"cfg": config(algo=values)}


FAULTS = {
    "old weights": ("stale", "fail", {"engine": Stale}),
    "another temperature": ("mismatch", "fail", {"engine": OtherTemperature}),
    "off by one": ("mismatch", "fail", {"engine": OffByOne}),
    "a stop token nobody drew": ("stopping", "fail", {"engine": AddsStop}),
    "an end that is not told": ("stopping", "fail", {"engine": ForgetsStop}),
    "another text": ("text", "fail", {"engine": CleansText}),
    "an old version": ("text", "fail", {"engine": Behind}),
    "luck": ("steady", "warn", {"engine": Moody}),
    "dropout": ("ratio", "fail", {"policy": Dropout}),
    "others are seen": ("packing", "fail", {"policy": SeesOthers}),
    "frozen tensors": ("frozen", "warn", {"policy": half_frozen}),
    "another reference": ("reference", "fail", algo(kl="loss") | {"kind": OtherReference}),
    "moves by itself": ("lr_zero", "fail", {"kind": Drifts}),
    "the wrong sign": ("direction", "fail", algo(loss="wrong_sign")),
    "flat groups are paid": ("advantages", "fail", algo(advantage="pays_all")),
    "no number": ("advantages", "fail", algo(advantage="no_number")),
    "a gradient of NaN": ("gradient", "fail", algo(advantage="no_number")),
    "a loss without gradient": ("gradient", "fail", algo(loss="detached")),
    "lost in rounding": ("moves", "fail", {"cfg": config(optim={"lr": 1e-10})}),
    "a leap": ("moves", "warn", {"cfg": config(optim={"lr": 1.0})}),
    "nothing is right": ("gradient", "fail", {"task": StartsWith(())}),
    "no group teaches": ("informative", "fail", {"task": StartsWith(())}),
    "all is right": ("all_solved", "fail", {"task": StartsWith(("",))}),
    "never stops": ("truncated", "fail", {"policy": tiny_transformer}),
    "never answers": ("answers", "fail", {"task": Countdown((3,))}),
}


@pytest.fixture(scope="module", autouse=True)
def outside():
    """Algorithms as a third party might register them, with faults."""

    @LOSSES("wrong_sign")
    def wrong_sign(logprobs_BT, old_BT, advantages_BT):
        return advantages_BT * logprobs_BT

    @LOSSES("detached")
    def detached(logprobs_BT, old_BT, advantages_BT):
        return (-advantages_BT * logprobs_BT.detach()) + 0.0 * logprobs_BT

    @ADVANTAGES("pays_all")
    def pays_all(rewards_PG):
        return rewards_PG - rewards_PG.mean(1, keepdim=True) + 0.1

    @ADVANTAGES("no_number")
    def no_number(rewards_PG):
        return rewards_PG / rewards_PG

    yield
    for name in ("wrong_sign", "detached"):
        del LOSSES[name]
    for name in ("pays_all", "no_number"):
        del ADVANTAGES[name]


def planted(parts: dict) -> RLTrainer:
    """Decoders are made anew for each fault: a step moves their weights."""
    made = parts.get("policy")
    if made is None:
        return make(**parts)
    kind = isinstance(made, type)
    return make(**parts | {"policy": stopping(made) if kind else made()})


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault):
    check, level, parts = FAULTS[fault]
    finding = found(run_trial(planted(parts)))[check]
    assert finding.level == level and finding.fix, finding


@pytest.mark.parametrize("shift", [-1, 1])
def test_a_mask_that_is_off_by_one_is_found(shift):
    trial = run_trial(make())
    edges = (1, 0) if shift > 0 else (0, 1)  # nothing may come back in at the other end
    parts = [
        replace(part, mask_BT=F.pad(part.mask_BT, edges)[:, edges[1] :][:, : part.mask_BT.shape[1]])
        for part in trial.parts
    ]
    finding = found(replace(trial, parts=parts))["mask"]
    assert finding.level == "fail" and finding.message.startswith("64 completions")


def test_a_mask_that_covers_the_prompts_last_token_is_found():
    trial = run_trial(make())
    part, row = next(
        (part, b)
        for part, rows in zip(trial.parts, trial.rows, strict=True)
        for b, one in enumerate(rows)
        if len(one.completion.prompt.tokens) > part.start
    )
    part.mask_BT[row, 0] = 1.0
    assert found(trial)["mask"].message.startswith("1 completions")


def test_a_mask_without_the_stop_token_is_found():
    trial = run_trial(make())
    for part in trial.parts:
        stop = part.tokens_BT[:, part.start :] == TOKENIZER.stop_ids[0]
        part.mask_BT[stop] = 0.0
    assert found(trial)["mask"].level == "fail"


def test_every_check_has_a_planted_fault():
    assert set(checks) == {check for check, _, _ in FAULTS.values()} & set(checks) | {"mask"}
