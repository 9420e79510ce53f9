"""A two-armed bandit: every pair of an advantage and a loss finds the better arm.

One prompt of one token; the policy is a pair of logits, the chances 1/2 to begin with. Half the
groups of a step see one kind of draw, half another, so that every estimator has something to
compare; the draws are exact shares, not chances, so that nothing here is luck.
"""

import pytest
import torch

from aha.algo import kl
from aha.algo.advantages import ADVANTAGES
from aha.algo.losses import LOSSES

G = 16
REFERENCE, ONES = torch.full((2 * G, 1), 0.5).log(), torch.ones(2 * G, 1)


def draws(chance: float) -> torch.Tensor:
    """[2, G]: arms drawn with this chance of the better one, at least one of each in a group."""
    rights = [min(G - 1, max(1, round(chance * G) + extra)) for extra in (-1, 1)]
    return torch.tensor([[1] * n + [0] * (G - n) for n in rights])


def learn(advantage: str, loss: str, steps: int, added=None, price=0.0, lr=0.5) -> float:
    """The chance of the better arm after some steps of two updates each."""
    logits = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.SGD([logits], lr=lr)
    for _ in range(steps):
        arms_PG = draws(torch.softmax(logits, 0)[1].item())
        old_BT = torch.log_softmax(logits, 0).detach()[arms_PG.view(-1, 1)]
        paid_BT = kl.kl_in_reward(arms_PG.float().view(-1, 1), old_BT, REFERENCE, ONES, price)
        credits_BT = ADVANTAGES[advantage](paid_BT.view(2, G), k=2).view(-1, 1)
        for _ in range(1 if loss == "pg" else 2):
            now_BT = torch.log_softmax(logits, 0)[arms_PG.view(-1, 1)]
            mask_BT = torch.ones_like(now_BT)
            losses_BT = LOSSES[loss](now_BT, old_BT, credits_BT, mask_BT=mask_BT)
            if added:
                losses_BT = losses_BT + added(now_BT)
            optimizer.zero_grad()
            losses_BT.mean().backward()
            optimizer.step()
    return torch.softmax(logits, 0)[1].item()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    "advantage", [name for name, each in ADVANTAGES.items() if not each.facts.critic]
)
def test_the_better_arm_is_found(advantage, loss):
    assert learn(advantage, loss, 0) == 0.5
    # pass@k has nothing more to gain once k - 1 of the group are all that is wrong.
    assert learn(advantage, loss, 150) > (0.85 if advantage == "pass_at_k" else 0.95)


@pytest.mark.parametrize("name", ["k2", "k3+", "k3_off_policy", "in the reward"])
def test_a_strong_kl_holds_the_policy_at_the_reference(name):
    """The pull p(1-p) of the reward and the coef p(1-p) logit of the KL meet at logit 1/coef:
    with 30 that is a chance of 0.508."""
    if name == "in the reward":
        held = learn("dr_grpo", "pg", 100, price=30.0, lr=0.02)
    else:

        def added(now_BT):
            old = {"old_logprobs_BT": now_BT.detach()}
            return 30 * kl.ESTIMATORS[name](now_BT, REFERENCE, **old)

        held = learn("dr_grpo", "pg", 100, added, lr=0.02)
    assert 0.5 < held < 0.51
