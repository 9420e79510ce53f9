"""Every number of other trainers in peer_vectors.json: reproduced, or listed with the reason.

Their code was run in float64 on the same inputs; values and gradients are compared at rtol 1e-6
(1e-5 where the peer computes in float32).
"""

import json
from functools import partial
from pathlib import Path

import pytest
import torch

from aha.algo import correction, entropy, filters, kl
from aha.algo.advantages import ADVANTAGES, gae, pass_at_k_pair, returns_to_go, value_loss, whiten
from aha.algo.aggregation import Totals, token_weights
from aha.algo.losses import LOSSES
from aha.model import ops

DATA = json.loads(Path(__file__).with_name("peer_vectors.json").read_text())
VECTORS = {vector["name"]: vector for vector in DATA["vectors"]}
# Those that map rewards [P, G] to advantages [P, G].
GROUPED = {name: a for name, a in ADVANTAGES.items() if not a.facts.critic}


def tensor(value) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def same(found, wanted, rtol=1e-6, atol=5e-8) -> None:
    """atol: verl divides by (L + 1e-8), which our collection measured as 3e-8."""
    found = torch.as_tensor(found, dtype=torch.float64)
    torch.testing.assert_close(found, tensor(wanted), rtol=rtol, atol=atol)


RAW = DATA["inputs"]["loss"]
OLD, NOW, MU, REF, MASK = (
    tensor(RAW[key])
    for key in ("old_log_prob", "log_prob", "rollout_log_prob", "ref_log_prob", "mask")
)
CREDITS = tensor(RAW["adv_per_response"])[:, None] * MASK


# -- advantages -----------------------------------------------------------------------------


def check_advantage(name, vector, rtol=1e-6, **settings):
    inputs = DATA["inputs"]["adv"]
    rewards_PG, lengths_PG = (tensor(inputs[key]).view(4, 4) for key in ("rewards", "lengths"))
    found = ADVANTAGES[name](rewards_PG, lengths_PG=lengths_PG, **settings).flatten()
    expected = vector["expected"]
    if "adv_per_response" in expected:
        return same(found, expected["adv_per_response"], rtol, rtol / 10)
    for credit, length, row in zip(found, inputs["lengths"], expected["adv_tokens"], strict=True):
        same(credit.expand(int(length)), row[: int(length)], rtol, rtol / 10)


def check_singleton(vector):
    """Three completions, of which the first is alone in its group."""
    alone, pair = (ADVANTAGES["rloo"](tensor([rewards])) for rewards in ([1.0], [0.5, 0.0]))
    same(torch.cat([alone, pair], 1)[0], vector["expected"]["adv_per_response"])


def check_singleton_trap(vector):
    """Those peers push a completion without rivals by its raw reward; every one of ours is 0."""
    assert vector["expected"]["adv_per_response"][0] > 0.9
    for name, algorithm in GROUPED.items():
        if name != "reinforce_pp":
            assert algorithm(tensor([[1.0]])).item() == 0.0, name


def check_zero_variance_trap(vector):
    assert vector["expected"]["oat_grpo_eps1e-8"] != 0
    rewards_PG = torch.full((1, 8), 0.1)
    for name, algorithm in GROUPED.items():
        assert torch.equal(algorithm(rewards_PG), torch.zeros(1, 8)), name


def check_whitened_over_tokens_trap(vector):
    """The third group is flat. Whitening over tokens, as theirs does, gives it an advantage."""
    assert vector["expected"]["adv_tokens"][8][0] > 0.01
    rewards_PG = tensor(DATA["inputs"]["adv"]["rewards"]).view(4, 4)
    found = ADVANTAGES["reinforce_pp_baseline"](rewards_PG)
    assert torch.equal(found[2], torch.zeros(4).double())
    centred = ADVANTAGES["dr_grpo"](rewards_PG)
    same(found, (centred / centred.std()).tolist(), rtol=1e-6)


def check_pass_at_k(vector):
    for right, wanted in vector["expected"].items():
        found = pass_at_k_pair(8, int(right), 4)
        for ours, theirs in zip(found, (wanted["adv_pos"], wanted["adv_neg"]), strict=True):
            if theirs is not None:
                assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-9)


def check_gae(vector):
    inputs, params = DATA["inputs"][vector["inputs"]], vector["params"]
    rewards_BT, values_BT, mask_BT = (
        tensor(inputs[key]) for key in ("token_rewards", "values", "mask")
    )
    if "OpenRLHF" in vector["peer"]:
        rewards_BT, values_BT = rewards_BT * mask_BT, values_BT * mask_BT
    found, returns = gae(rewards_BT, values_BT, mask_BT, params["gamma"], params["lam"])
    expected = vector["expected"]
    raw = expected.get("adv_raw_times_mask") or expected["adv_raw"]
    same(found, (tensor(raw) * mask_BT).tolist())
    same(returns, (tensor(expected["returns"]) * mask_BT).tolist())
    if "adv_whitened" in expected:
        whitened = (tensor(expected["adv_whitened"]) * mask_BT).tolist()
        same(whiten(found, mask_BT), whitened)


def check_returns(vector, equal=True):
    inputs = DATA["inputs"]["multiturn"]
    found = returns_to_go(tensor(inputs["token_rewards"]), tensor(inputs["mask"]))
    assert torch.equal(found, tensor(vector["expected"]["returns"])) == equal


# -- losses ---------------------------------------------------------------------------------


def summed(losses_BT, aggregation, mask_BT=MASK, limit=5):
    rows = int(mask_BT.any(1).sum())
    totals = Totals(rows, int(mask_BT.sum()), limit, {b: int(n) for b, n in enumerate(MASK.sum(1))})
    return (losses_BT * token_weights(mask_BT, aggregation, totals, tuple(range(5)))).sum()


def check_loss(function, aggregation, vector, limit=5, weights=1.0, old=OLD, added=None, **more):
    """The loss and its gradient; `added` is a second term of the per-token loss."""
    function = LOSSES[function] if isinstance(function, str) else function
    logprobs_BT = NOW.clone().requires_grad_()
    losses_BT = function(logprobs_BT, old, CREDITS, mask_BT=MASK, **more) * weights
    if added:
        losses_BT = losses_BT + added(logprobs_BT)
    loss = summed(losses_BT, aggregation, limit=limit)
    loss.backward()
    same(loss.item(), vector["expected"]["loss"])
    same(logprobs_BT.grad * MASK, vector["expected"]["grad_log_prob"])


PPO = partial(check_loss, "ppo_clip")
LOG_RHO = OLD - MU
SEQ_MASK_TIS = correction.geometric(LOG_RHO, MASK, 0.9, 1.1) * LOG_RHO.exp()


def masked_row(aggregation, vector, wrong=False):
    mask_BT = MASK.clone()
    mask_BT[1] = 0
    found = summed(LOSSES["ppo_clip"](NOW, OLD, CREDITS), aggregation, mask_BT).item()
    assert (found == pytest.approx(vector["expected"]["loss"], rel=1e-6)) is not wrong


def check_micro_batches(vector):
    mask_BT = MASK.clone()
    mask_BT[1] = 0
    losses_BT, parts = LOSSES["ppo_clip"](NOW, OLD, CREDITS), vector["params"]["micro_batches"]
    totals = Totals(4, int(mask_BT.sum()), 5)
    found = [
        (losses_BT[rows] * token_weights(mask_BT[rows], "token_mean", totals)).sum().item()
        for rows in parts
    ]
    same(found, vector["expected"]["global_denominator_parts"])
    assert sum(found) == pytest.approx(vector["expected"]["sum_of_parts"], rel=1e-6)
    assert sum(found) != pytest.approx(vector["expected"]["WRONG_mean_of_local_means"], rel=0.1)


def check_on_policy(vector):
    def gradient(name, aggregation):
        logprobs_BT = OLD.clone().requires_grad_()
        losses_BT = LOSSES[name](logprobs_BT, OLD, CREDITS, mask_BT=MASK)
        summed(losses_BT, aggregation).backward()
        return logprobs_BT.grad

    ours = {"pg": "pg", "ppo": "ppo_clip", "cispo": "cispo", "dppo_tv": "dppo_tv"}
    for theirs, name in ours.items():
        same(gradient(name, "token_mean"), vector["expected"][theirs])
    for theirs, name in {"pg_seqmean": "pg", "gspo": "gspo"}.items():
        same(gradient(name, "sequence_mean"), vector["expected"][theirs])


def check_value(vector):
    inputs = DATA["inputs"]["value"]
    values, old, returns, mask = (
        tensor(inputs[key]) for key in ("vpreds", "old_values", "returns", "mask")
    )
    losses = value_loss(values, old, returns, vector["params"]["cliprange_value"])
    assert (losses * mask).sum().item() / mask.sum().item() == pytest.approx(
        vector["expected"]["loss"], rel=1e-6
    )


# -- KL, correction, entropy, filters --------------------------------------------------------


def check_kl(name, vector):
    logprobs_BT = NOW.clone().requires_grad_()
    kl_BT = kl.ESTIMATORS[name](logprobs_BT, REF)
    summed(kl_BT, "token_mean").backward()
    same(kl_BT * MASK, vector["expected"]["kl_tokens_times_mask"])
    same(logprobs_BT.grad, vector["expected"]["grad_log_prob"])


def check_kl_in_reward(vector):
    found = kl.kl_in_reward(torch.zeros_like(OLD), OLD, REF, MASK, vector["params"]["kl_coef"])
    same(found, vector["expected"]["token_rewards_times_mask"])


def check_kl_gradients(vector):
    """In the loss, k1 pushes nowhere and k3 follows the other KL; the rest are right."""
    inputs, expected = DATA["inputs"]["kl_categorical"], vector["expected"]
    reference = torch.log_softmax(tensor(inputs["ref_logits"]), -1)

    def gradient(term) -> torch.Tensor:
        logits = tensor(inputs["policy_logits"]).requires_grad_()
        logprobs = torch.log_softmax(logits, -1)
        term(logprobs, logprobs.exp().detach()).backward()
        return logits.grad

    def in_loss(name):
        return gradient(lambda now, chance: (chance * kl.ESTIMATORS[name](now, reference)).sum())

    def in_reward(now, chance):
        zeros, ones = torch.zeros_like(now), torch.ones_like(now)
        credit = kl.kl_in_reward(zeros, now, reference, ones, 1.0)
        return -(chance * credit * now).sum()

    for name in ("k1", "k2", "k3"):
        same(in_loss(name), expected[f"{name}_in_loss"], atol=1e-8)
    same(gradient(in_reward), expected["k1_in_reward"])
    same(in_loss("k3+"), expected["true_reverse_KL_pi_ref"])
    # Tokens of another policy: each counts by that policy's chance, and the ratio makes up for it.
    other = torch.log_softmax(tensor(inputs["policy_logits"]).flip(-1), -1)
    for old in (torch.log_softmax(tensor(inputs["policy_logits"]), -1), other):

        def off_policy(now, unused, old=old):
            return (old.exp() * kl.k3_off_policy(now, reference, old)).sum()

        same(gradient(off_policy), expected["true_reverse_KL_pi_ref"])
    same(in_loss("k3"), expected["true_forward_KL_ref_pi"])


def check_weights(name, low, high, vector, normalise=False):
    expected = vector["expected"]
    found = correction.CORRECTIONS[name](LOG_RHO, MASK, low, high)
    if normalise:
        found = correction.normalised(found, MASK)
    if "weights" in expected:
        same(found, expected["weights"])
    else:
        assert torch.equal((found != 0).double(), tensor(expected["mask"]))
    seen = correction.disagreement(LOG_RHO, MASK)
    assert seen["kl"] == pytest.approx(expected["kl"], rel=1e-6)
    assert seen["k3"] == pytest.approx(expected["k3_kl"], rel=1e-6)
    assert seen["chi2"] == pytest.approx(expected["chi2_token"], rel=1e-6)


def check_temperature(vector):
    inputs, temperature = DATA["inputs"]["logits"], vector["params"].get("temperature", 1.0)
    logits = tensor(inputs["logits"]) / temperature
    same(entropy.token_entropy(logits), vector["expected"]["entropy"])
    if "logp" in vector["expected"]:
        found = ops.token_logprobs(logits.float(), torch.tensor(inputs["ids"]))
        same(found, vector["expected"]["logp"], rtol=1e-5)


def over_own_tokens(function, *tensors, mask_BT=MASK, **settings):
    """[B, T] of what `function` says about the tokens of the mask, taken together."""
    own_BT = mask_BT.bool()
    found_BT = torch.zeros_like(mask_BT)
    found_BT[own_BT] = function(*(values_BT[own_BT] for values_BT in tensors), **settings)
    return found_BT


def check_top_entropy(vector):
    inputs = DATA["inputs"]["entropy80_20"]
    entropies_BT, mask_BT = tensor(inputs["entropies"]), tensor(inputs["mask"])
    found = over_own_tokens(entropy.top_entropy, entropies_BT, mask_BT=mask_BT, share=0.2)
    same(found, vector["expected"]["keep"])


def check_soft_overlong(vector):
    inputs = DATA["inputs"]["overlong"]
    found = filters.soft_overlong(tensor(inputs["lengths"]), inputs["L_max"], inputs["L_cache"])
    same(found, vector["expected"]["penalty"])


def adv(name, **settings):
    return partial(check_advantage, name, **settings)


def weigh(name, low, high, **settings):
    return partial(check_weights, name, low, high, **settings)


DUAL3 = {"dual_clip": 3.0}
HELD = over_own_tokens(entropy.kl_cov, NOW, CREDITS, share=0.2)
KEPT = over_own_tokens(entropy.clip_cov, NOW, CREDITS, share=1.0, bounds=(0.1, 5.0))
CHECKS = {
    "adv/grpo_group_std": adv("grpo"),
    "adv/dr_grpo_no_std": adv("dr_grpo"),
    "adv/grpo_vectorized": adv("grpo", rtol=1e-5),
    "adv/rloo": adv("rloo"),
    "adv/reinforce_pp": adv("reinforce_pp"),
    "adv/reinforce_pp_baseline": check_whitened_over_tokens_trap,
    "adv/opo_length_weighted_baseline": adv("opo"),
    "adv_singleton/grpo": check_singleton_trap,
    "adv_singleton/rloo": check_singleton_trap,
    "adv_singleton/rloo_vectorized": check_singleton,
    "adv/trl_scale_rewards_group": adv("grpo", eps=1e-4),
    "adv/trl_scale_rewards_batch": adv("lite_ppo"),
    "adv/trl_scale_rewards_none": adv("dr_grpo"),
    "adv/openrlhf_rloo": adv("rloo"),
    "adv/openrlhf_dr_grpo": adv("dr_grpo"),
    "adv/openrlhf_group_norm": adv("grpo", eps=1e-9),
    "adv/oat_grpo": adv("grpo", eps=1e-8),
    "adv/oat_drgrpo": adv("dr_grpo"),
    "adv/fp32_zero_variance_TRAP": check_zero_variance_trap,
    "adv/max_rl": adv("max_rl", rtol=1e-5),
    "adv/prime_grpo": adv("dr_grpo", rtol=1e-5),
    "adv/passk_analytic_n8_k4": check_pass_at_k,
    "adv/gae_g1.0_l1.0": check_gae,
    "adv/gae_g0.99_l0.95": check_gae,
    "adv/gae_openrlhf": check_gae,
    "adv/reinforce_pp_multiturn_fixed": check_returns,
    "adv/reinforce_pp_multiturn_BUGGY": partial(check_returns, equal=False),
    "loss/ppo_clip0.2_dualclip3_token-mean": partial(PPO, "token_mean", **DUAL3),
    "loss/ppo_clip0.2_dualclip3_seq-mean-token-sum": partial(PPO, "sequence_total", **DUAL3),
    "loss/ppo_clip0.2_dualclip3_seq-mean-token-mean": partial(PPO, "sequence_mean", **DUAL3),
    "loss/ppo_clip0.2_dualclip3_seq-mean-token-sum-norm": partial(PPO, "sequence_sum", **DUAL3),
    "loss/ppo_clip0.2_no_dualclip_token-mean": partial(PPO, "token_mean"),
    "loss/dapo_clip_higher_0.2_0.28_c10_token-mean": partial(
        PPO, "token_mean", clip_high=0.28, dual_clip=10.0
    ),
    "loss/dr_grpo_seq-mean-token-sum-norm_scale8": partial(PPO, "sequence_sum", limit=8),
    "loss/gspo_3e-4_4e-4": partial(check_loss, "gspo", "sequence_mean"),
    "loss/cispo_verl_clip_1-0.2_1+0.28": partial(
        check_loss, "cispo", "token_mean", clip_low=0.2, clip_high=0.28
    ),
    "loss/cispo_verl_nolow_1+4": partial(check_loss, "cispo", "token_mean"),
    "loss/sapo_1.0_1.05": partial(check_loss, "sapo", "sequence_mean"),
    "loss/gmpo_0.4": partial(check_loss, "gmpo", "sequence_mean"),
    "loss/dppo_tv_0.1": partial(check_loss, "dppo_tv", "token_mean", clip_low=0.1, clip_high=0.1),
    "loss/dppo_kl_0.02": partial(
        check_loss, "dppo_kl", "token_mean", clip_low=0.02, clip_high=0.02
    ),
    "loss/dro_beta0.5": partial(check_loss, "quadratic", "token_mean", tau=0.5),
    "loss/kl_cov_ratio0.2_coef1": partial(
        check_loss, "ratio", "token_mean", added=lambda now: entropy.held(now, OLD, HELD)
    ),
    "loss/clip_cov_all": partial(PPO, "token_mean", weights=KEPT, clip_low=1.0, clip_high=1.0),
    "loss/gpg_reinforce_token-mean": partial(check_loss, "pg", "token_mean"),
    "agg/masked_row_token-mean": partial(masked_row, "token_mean"),
    "agg/microbatch_invariance": check_micro_batches,
    "agg/masked_row_seq-mean-token-sum": partial(masked_row, "sequence_total"),
    "agg/masked_row_seq-mean-token-mean": partial(masked_row, "sequence_mean"),
    "agg/masked_row_seq-mean-token-sum-norm": partial(masked_row, "sequence_sum"),
    "agg/jan2026_verl_seq-mean-token-sum-norm_BUGGY": partial(
        masked_row, "sequence_sum", wrong=True
    ),
    "loss/trl_grpo": partial(PPO, "sequence_mean"),
    "loss/trl_bnpo": partial(PPO, "token_mean"),
    "loss/trl_dapo": partial(PPO, "token_mean", clip_high=0.28),
    "loss/trl_dr_grpo_L8": partial(PPO, "sequence_sum", limit=8),
    "loss/trl_dapo_delta4_two_sided": partial(PPO, "token_mean", dual_clip=4.0),
    "loss/trl_gspo": partial(check_loss, "gspo", "sequence_mean"),
    "loss/trl_cispo_eps5": partial(check_loss, "cispo", "token_mean"),
    "loss/trl_sapo": partial(check_loss, "sapo", "sequence_mean"),
    "loss/trl_grpo_beta0.04_k3": partial(
        PPO, "sequence_mean", added=lambda now: 0.04 * kl.k3(now, REF)
    ),
    "loss/trl_grpo_beta0.04_k3_biascorr": partial(
        PPO, "sequence_mean", added=lambda now: 0.04 * kl.k3_off_policy(now, REF, OLD)
    ),
    "loss/openrlhf_ppo_dualclip3": partial(PPO, "token_mean", **DUAL3),
    "loss/openrlhf_ppo_seq_level": partial(PPO, "sequence_mean", clip_high=0.28),
    "loss/openrlhf_gspo": partial(check_loss, "gspo", "sequence_mean"),
    "loss/openrlhf_tis_0.5_2": partial(
        PPO, "token_mean", weights=correction.token_tis(LOG_RHO, MASK, 0.5, 2.0)
    ),
    "loss/openrlhf_icepop_0.5_2": partial(
        PPO, "token_mean", weights=correction.icepop(LOG_RHO, MASK, 0.5, 2.0)
    ),
    "loss/openrlhf_seq-mask-tis_0.9_1.1": partial(PPO, "token_mean", weights=SEQ_MASK_TIS),
    "kl/k1": partial(check_kl, "k1"),
    "kl/k2": partial(check_kl, "k2"),
    "kl/k3": partial(check_kl, "k3"),
    "kl/k3+": partial(check_kl, "k3+"),
    "kl/in_reward": check_kl_in_reward,
    "kl/expected_gradient": check_kl_gradients,
    "loss/onpolicy_gradient_equivalence": check_on_policy,
    "value/clip0.2": check_value,
    "rollout_corr/tis_token_2": weigh("token_tis", 0.0, 2.0),
    "rollout_corr/tis_seq_2": weigh("sequence_tis", 0.0, 2.0),
    "rollout_corr/icepop_token_0.5_5": weigh("icepop", 0.5, 5.0),
    "rollout_corr/tis_token_2_batchnorm": weigh("token_tis", 0.0, 2.0, normalise=True),
    "rollout_corr/seq_mis_0.5_2": weigh("sequence_mis", 0.5, 2.0),
    "rollout_corr/geo_rs_0.99_1.01": weigh("geometric", 0.99, 1.01),
    "rollout_corr/k3_rs_0.01": weigh("k3_rejection", 0.0, 0.01),
    "rollout_corr/token_k1_0.6_1.6": weigh("icepop", 0.6, 1.6),
    "loss/ppo_clip0.2_token_tis2": partial(
        PPO, "token_mean", weights=correction.token_tis(LOG_RHO, MASK, 0.0, 2.0)
    ),
    "logprob/temperature_1.0": check_temperature,
    "logprob/temperature_0.7": check_temperature,
    "entropy/verl": check_temperature,
    "mask/top_entropy_quantile_0.2": check_top_entropy,
    "reward/soft_overlong_trl": check_soft_overlong,
    "reward/soft_overlong_openrlhf": check_soft_overlong,
}

TOKEN_WHITENING = "whitens a group baseline over tokens with N, which pushes flat groups"
NOT_OURS = {
    "adv/grpo_passk_top2gap": "credit to the best completion alone: a tie is broken by order",
    "adv/gpg": "dr_grpo times a constant of the batch, which the learning rate does as well",
    "adv/openrlhf_reinforce_baseline": TOKEN_WHITENING,
    "adv/openrlhf_reinforce": "reinforce_pp with N in place of N - 1",
    "adv/grpozero_population_std": "grpo with G in place of G - 1, a constant factor",
    "loss/trl_vespo": "not built: no evidence yet that it does what the others do not",
    "loss/trl_luspo": "not built: gspo times the length, which long completions dominate",
    "loss/trl_grpo_opsm_0.05": "not built: the step is on-policy, so nothing is stale by design",
    "loss/prime_default_dppo_tv_kl": "dppo_tv and quadratic in one; asynchronous training only",
    "kl/abs": "|k1| estimates no KL: neither its value nor its gradient is one",
    "rollout_corr/seq_max_k2_0.3": "not built: a maximum over tokens rejects by length",
    "reward/tinyzero_countdown_cases": "tests/tasks/test_tinyzero_compat.py has them",
}


def test_every_vector_is_reproduced_or_has_a_reason():
    assert len(VECTORS) == len(DATA["vectors"])
    assert set(CHECKS) | set(NOT_OURS) == set(VECTORS)
    assert not set(CHECKS) & set(NOT_OURS)


@pytest.mark.parametrize("name", CHECKS)
def test_the_numbers_of_other_trainers(name):
    CHECKS[name](VECTORS[name])
