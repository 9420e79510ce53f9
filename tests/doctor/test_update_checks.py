"""The doctor's look at the first update: faults in the loss are found, packaged methods pass."""

from dataclasses import replace

import pytest

from aha.algo.recipe import load_recipe
from aha.api.recipe_names import find_recipe, packaged_recipes
from aha.batching.batch import pack_parts, totals_of
from aha.core.config import RunConfig
from aha.core.findings import worst_level
from aha.doctor.first_step_checks import check_first_step
from aha.doctor.first_step_trial import run_trial
from aha.training.rl import RLTrainer

from .test_first_step_checks import ShiftsTargets, config, make


def found(trainer: RLTrainer) -> dict:
    return {finding.check: finding for finding in check_first_step(run_trial(trainer))}


class WithoutStop(RLTrainer):
    """The last token of each row is not in the loss."""

    def __init__(self, *parts):
        super().__init__(*parts)
        backward = self.objective.backward

        def masked(batch, totals):
            mask_BT = batch.mask_BT.clone()
            for row in mask_BT:
                row[row.nonzero().max()] = 0.0
            return backward(replace(batch, mask_BT=mask_BT), totals)

        self.objective.backward = masked


class WithoutFirst(RLTrainer):
    """The mask begins one token late."""

    def __init__(self, *parts):
        super().__init__(*parts)
        backward = self.objective.backward

        def masked(batch, totals):
            mask_BT = batch.mask_BT * batch.mask_BT.roll(1, dims=1)
            return backward(replace(batch, mask_BT=mask_BT), totals)

        self.objective.backward = masked


class DividesEachPart(RLTrainer):
    """A denominator for each micro-batch."""

    def __init__(self, *parts):
        super().__init__(*parts)
        objective = self.objective
        accumulate = objective.accumulate_gradient

        def divided(rows, totals, pad_id, tokens):
            sums = accumulate([], None, pad_id, tokens)
            for batch in pack_parts(rows, pad_id, tokens):
                own = [row for row in rows if id(row.graded.completion.prompt) in batch.prompt_keys]
                sums += objective.backward(batch, totals_of(own[: len(batch.tokens_BT)], 32))
            return sums

        objective.accumulate_gradient = divided


class DropsARow(RLTrainer):
    def update(self, share, index=0):
        rows = [group[1:] for group in share.rows]
        return super().update(replace(share, rows=rows, counted_PG=share.counted_PG[:, 1:]), index)


FAULTS = {
    "the stop token is not in the loss": ("loss_tokens", WithoutStop, "last token"),
    "the first token is not in the loss": ("loss_tokens", WithoutFirst, "not in the loss"),
    "targets off by one": ("loss_tokens", ShiftsTargets, "not their own"),
    "a row is left out": ("loss_tokens", DropsARow, "left out"),
    "a denominator for each micro-batch": ("micro_batches", DividesEachPart, "differ"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault):
    check, kind, words = FAULTS[fault]
    finding = found(make(kind=kind))[check]
    assert finding.level == "fail" and finding.fix and words in finding.message, finding


def reduced(name: str) -> RunConfig:
    """A packaged recipe's method, on the tiny policy and in float32."""
    cfg = load_recipe(find_recipe(name))
    group = min(8, cfg.rollout.group_size)
    rollout = {"group_size": group, "prompts": max(48 // group, cfg.algo.updates)}
    rollout["max_new_tokens"] = 16
    critic = cfg.critic.model_dump() | {"warmup": 0}
    algo = cfg.algo.model_dump() | {"overlong_buffer": min(8, cfg.algo.overlong_buffer)}
    return config(algo=algo, rollout=rollout, critic=critic, optim={"lr": 1e-4})


# One recipe for each method: several differ in their base alone.
METHODS = {str(reduced(name).algo) + str(reduced(name).critic): name for name in packaged_recipes()}


@pytest.mark.parametrize("name", sorted(METHODS.values()))
def test_no_packaged_method_raises_an_alarm(name):
    """Nor is one left out: each says something about the tokens of its loss, but where a control
    leaves tokens out on purpose."""
    cfg = reduced(name)
    findings = found(make(cfg))
    assert [f for f in findings.values() if f.level != "ok" and f.check != "truncated"] == []
    keeps = cfg.algo.entropy_control in ("top_entropy", "clip_cov")
    assert ("loss_tokens" in findings) != keeps and "micro_batches" in findings


@pytest.mark.parametrize("name", ["top_entropy", "clip_cov"])
def test_a_control_that_leaves_tokens_out_is_looked_at_all_the_same(name):
    findings = found(make(reduced(name), kind=ShiftsTargets))
    assert findings["mismatch"].level == "fail"


def test_the_worst_level_of_a_healthy_update_is_ok():
    assert worst_level(list(found(make()).values())) == "ok"
