"""The doctor's look at a first step: every planted fault is found, and a healthy step passes."""

import copy
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from aha.algo.advantages import ADVANTAGES
from aha.algo.losses import LOSSES
from aha.core.config import RunConfig
from aha.core.findings import worst_level
from aha.core.records import Completion
from aha.doctor import first_step_checks, update_checks
from aha.doctor.first_step_checks import check_first_step, try_first_step
from aha.doctor.first_step_trial import Trial, compare_weights, reduced_recipe, run_trial
from aha.model.lora import adapter_of, add_lora
from aha.model.tokenizer import END
from aha.model.transformer import Transformer
from aha.rollout.native import NativeEngine
from aha.tasks.countdown import Countdown
from aha.training.rl import RLTrainer

from ..tiny import TOKENIZER, OnApple, StartsWith, tiny_config, tiny_transformer

CHECKS = first_step_checks.checks | update_checks.checks
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
    assert set(CHECKS) - set(findings) == silent


def test_a_healthy_step_of_adapters_raises_no_alarm():
    """The frozen weights stay as they are, and so do the As in the first step."""
    policy = stopping()
    add_lora(policy, 2, 4.0, seed=0)
    trial = run_trial(make(config(optim={"lr": 1e-2}), policy=policy))
    assert worst_level(list(found(trial).values())) == "ok", found(trial)
    assert trial.weight_change.share > 0.9 and trial.weight_change.unchanged == ()


def test_an_adapter_that_does_not_move_is_told():
    policy = stopping()
    add_lora(policy, 2, 4.0, seed=0)
    before = copy.deepcopy(policy)
    with torch.no_grad():
        for layer in policy.model.layers:
            for name, B in adapter_of(layer).B.items():
                B += 0.0 if name == "o_proj" else 1.0
    unchanged = compare_weights(before, policy).unchanged
    assert len(unchanged) == len(policy.model.layers)
    assert all(name.endswith("lora.B.o_proj") for name in unchanged)
    again = compare_weights(policy, copy.deepcopy(policy)).unchanged  # by now the As can change
    assert any(name.endswith("lora.A.q_proj") for name in again)


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


class OwnDraws(NativeEngine):
    """Draws by a rule of its own, and records what the policy says."""

    policy: Transformer

    def load(self, policy, version):
        super().load(policy, version)
        self.policy = policy

    def rule(self, logits_BV, tokens_BT, start):
        """The logits that are drawn from; own tokens begin at `start`."""
        return logits_BV

    @torch.no_grad()
    def generate(self, prompts, sampling):
        groups: dict[int, list] = {}
        for length in {len(prompt.tokens) for prompt in prompts}:
            alike = [place for place, prompt in enumerate(prompts) if len(prompt.tokens) == length]
            rows = self.draw([prompts[place] for place in alike], sampling)
            groups |= dict(zip(alike, rows, strict=True))
        return [groups[place] for place in range(len(prompts))]

    def draw(self, prompts, sampling):
        """Groups of prompts of one length."""
        generator = torch.Generator().manual_seed(sampling.seed % 2**31)
        G, start = sampling.group_size, len(prompts[0].tokens)
        tokens_BT = torch.tensor([prompt.tokens for prompt in prompts for _ in range(G)])
        for _ in range(sampling.max_new_tokens):
            padded_BT = F.pad(tokens_BT, (0, 1))
            logits_BV = self.policy.logits(padded_BT, tokens_BT.shape[1])[:, 0]
            logits_BV = self.rule(logits_BV / sampling.temperature, tokens_BT, start)
            drawn_B1 = logits_BV.softmax(-1).multinomial(1, generator=generator)
            tokens_BT = torch.cat([tokens_BT, drawn_B1], 1)
        inputs = (tokens_BT, start, torch.float32, sampling.temperature)
        scores = self.policy.logprobs_and_entropy(*inputs, entropy=True)
        rows = zip(tokens_BT[:, start:].tolist(), *(each.tolist() for each in scores), strict=True)
        return [[self.completion(prompt, *next(rows)) for _ in range(G)] for prompt in prompts]

    def completion(self, prompt, tokens, logprobs, entropies):
        stop = TOKENIZER.stop_ids[0]
        end = tokens.index(stop) + 1 if stop in tokens else len(tokens)
        columns = (tuple(column[:end]) for column in (tokens, logprobs, entropies))
        own, probs, uncertain = columns
        finish = "stop" if stop in own else "length"
        text = TOKENIZER.decode(own)
        return Completion(prompt, own, probs, text, finish, self.version, uncertain)


class Greedier(OwnDraws):
    def rule(self, logits_BV, tokens_BT, start):
        return logits_BV / 0.85


class TopP(OwnDraws):
    def rule(self, logits_BV, tokens_BT, start):
        ordered, order = logits_BV.softmax(-1).sort(descending=True)
        rest = ordered.cumsum(-1) - ordered > 0.9
        return logits_BV.masked_fill(torch.zeros_like(rest).scatter(1, order, rest), -torch.inf)


class LikesRepeats(OwnDraws):
    bonus = 2.0

    def rule(self, logits_BV, tokens_BT, start):
        used = torch.zeros_like(logits_BV).scatter(1, tokens_BT[:, start:], 1.0)
        return logits_BV + self.bonus * used


class AvoidsRepeats(LikesRepeats):
    bonus = -3.0


class Twice(NativeEngine):
    """The seeds of a group's second half are those of the first."""

    def generate(self, prompts, sampling):
        groups = super().generate(prompts, sampling)
        half = sampling.group_size // 2
        return [group[:half] + group[: sampling.group_size - half] for group in groups]


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


class ForgetsTemperature(RLTrainer):
    def __init__(self, *parts):
        super().__init__(*parts)
        self.objective.temperature = 1.0


class ShiftsTargets(RLTrainer):
    def __init__(self, *parts):
        super().__init__(*parts)
        forward = self.objective.forward

        def shifted(batch):
            scored = forward(batch)
            return replace(scored, logprobs_BT=scored.logprobs_BT.roll(1, dims=1))

        self.objective.forward = shifted


class ReferenceIsPolicy(RLTrainer):
    def __init__(self, *parts):
        super().__init__(*parts)
        self.reference.policy = self.policy


def undrawn(engine) -> dict:
    """With a policy that does not stop: a rule shows in the number of tokens."""
    cfg = config(rollout={"max_new_tokens": 32})
    return {"engine": engine, "policy": tiny_transformer, "cfg": cfg}


def algo(**values) -> dict:
    return {"cfg": config(algo=values)}


FAULTS = {
    "old weights": ("stale", "fail", {"engine": Stale}),
    "another temperature": ("recomputed", "fail", {"engine": OtherTemperature}),
    "off by one": ("recomputed", "fail", {"engine": OffByOne}),
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
    "another temperature in the trainer": (
        "mismatch",
        "fail",
        {"cfg": config(rollout={"temperature": 1.3}), "kind": ForgetsTemperature},
    ),
    "targets off by one in the trainer": ("mismatch", "fail", {"kind": ShiftsTargets}),
    "the reference is the policy": (
        "reference",
        "fail",
        algo(kl="loss") | {"kind": ReferenceIsPolicy},
    ),
    "a lower temperature that is not recorded": ("drawing", "fail", undrawn(Greedier)),
    "top-p that is not recorded": ("drawing", "fail", undrawn(TopP)),
    "a bonus on repetition that is not recorded": ("drawing", "fail", undrawn(LikesRepeats)),
    "a penalty on repetition that is not recorded": (
        "drawing",
        "fail",
        undrawn(AvoidsRepeats),
    ),
    "each completion twice": ("duplicates", "fail", {"engine": Twice}),
    "a loss without gradient": ("gradient", "fail", algo(loss="detached")),
    "lost in rounding": ("moves", "fail", {"cfg": config(optim={"lr": 1e-10})}),
    "a leap": ("moves", "warn", {"cfg": config(optim={"lr": 1.0})}),
    "nothing is right": ("gradient", "fail", {"task": StartsWith(())}),
    "no group teaches": ("informative", "fail", {"task": StartsWith(())}),
    "all is right": ("all_solved", "fail", {"task": StartsWith(("",))}),
    "never stops": ("truncated", "fail", {"policy": tiny_transformer}),
    "never answers": ("answers", "fail", {"task": Countdown((3,))}),
    "never solves": ("base_solves", "fail", {"task": StartsWith("\0")}),
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


def test_own_draws_by_the_policys_rule_are_no_fault():
    """What the planted engines are compared with: the same loop without a rule."""
    assert found(run_trial(planted(undrawn(OwnDraws))))["drawing"].level == "ok"


def test_a_step_that_a_number_ends_is_one_failure():
    findings = try_first_step(make(config(algo={"advantage": "no_number"})))
    assert [(f.check, f.level) for f in findings] == [("advantage", "fail")]


def test_a_weak_gap_of_the_trainer_is_told_with_both_numbers():
    trial = run_trial(make())
    row = trial.row | {"mismatch": 0.5}
    finding = found(replace(trial, row=row))["mismatch"]
    assert "0.5" in finding.message and "computed again" in finding.message
    del row["mismatch"]
    assert "mismatch" not in found(replace(trial, row=row))


def test_every_check_has_a_planted_fault():
    planted_here = {check for check, _, _ in FAULTS.values()} & set(CHECKS)
    # Those of the update are planted in test_update_checks.
    assert set(CHECKS) == planted_here | {"mask", "loss_tokens", "micro_batches"}


def test_weights_on_an_apple_gpu_are_compared_on_the_cpu():
    """From (3, 4) to (3, 9): one of two has changed, by 5 over a norm of 5."""

    class Weights:
        def __init__(self, *numbers: float):
            self.weight = torch.tensor(numbers).as_subclass(OnApple)

        def named_parameters(self):
            yield "weight", self.weight

    change = compare_weights(Weights(3.0, 4.0), Weights(3.0, 9.0))
    assert (change.share, change.size) == (0.5, 1.0)
