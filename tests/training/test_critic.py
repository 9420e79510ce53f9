"""PPO's critic: what it says before it learns, that it learns, and that nothing else changes it."""

import pytest
import torch

from aha.core.config import RunConfig
from aha.model.transformer import Transformer
from aha.rollout.native import NativeEngine
from aha.training.critic import ValueModel
from aha.training.rl import RLTrainer
from aha.training.rollouts import PhaseClock

from ..tiny import TOKENIZER, StartsWith, tiny_config, tiny_transformer

DIGITS = "0123456789"


def config(**sections) -> RunConfig:
    raw = {
        "steps": 40,
        "rollout": {"prompts": 24, "group_size": 1, "max_new_tokens": 6, "dtype": "float32"},
        "algo": {"advantage": "gae", "loss": "ppo_clip"},
        "critic": {"lr": 3e-3},
        "optim": {"lr": 1e-3, "warmup": 0, "final_lr": 1.0, "dtype": "float32"},
    }
    for name, section in sections.items():
        raw[name] = raw[name] | section if isinstance(section, dict) else section
    return RunConfig.model_validate(raw)


def make(cfg: RunConfig | None = None, task=None, policy=None) -> RLTrainer:
    cfg, policy = cfg or config(), policy or tiny_transformer()
    engine = NativeEngine(policy, TOKENIZER, "float32", cfg.rollout.max_rows)
    return RLTrainer(policy, TOKENIZER, task or StartsWith(DIGITS), engine, cfg)


def weights(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in module.state_dict().values()])


def rollout(trainer: RLTrainer):
    return trainer.rollout.collect(trainer.problems(), trainer.seeds, PhaseClock()).groups


def judge(trainer: RLTrainer, graded):
    return trainer.advantages.estimate(graded, trainer.rollout.scores(graded))


@torch.no_grad()
def speak(trainer: RLTrainer) -> None:
    """A head that says something, which the zeros of its start do not."""
    generator = torch.Generator().manual_seed(5)
    trainer.advantages.model.head.weight.normal_(0.0, 0.3, generator=generator)
    trainer.advantages.model.head.bias.fill_(0.2)


# -- the value model ------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
def test_a_value_is_read_before_its_token_and_starts_at_0(tied):
    policy = tiny_transformer(tie_word_embeddings=tied)
    model = ValueModel(policy)
    generator = torch.Generator().manual_seed(1)
    tokens_BT = torch.randint(3, 60, (2, 9), generator=generator)
    assert torch.equal(model(tokens_BT, 4, torch.float32), torch.zeros(2, 5))
    with torch.no_grad():
        model.head.weight.normal_(generator=generator)
    values_BT = model(tokens_BT, 4, torch.float32)
    changed_BT = tokens_BT.clone()
    changed_BT[:, 6] += 1  # column 2: nothing up to it may know, what follows must
    gaps_BT = (model(changed_BT, 4, torch.float32) - values_BT).abs()
    assert gaps_BT[:, :3].max() == 0 and gaps_BT[:, 3:].min() > 1e-6
    # One position: the final norm, its weight, the head.
    hidden_BTC = policy.hidden_states(tokens_BT)[:, 3] * policy.model.norm.weight
    by_hand = (hidden_BTC * model.head.weight[0]).sum(-1)
    torch.testing.assert_close(values_BT[:, 0], by_hand, rtol=1e-4, atol=1e-5)


def test_the_critic_is_a_model_of_its_own():
    trainer = make()
    ours = {id(parameter) for parameter in trainer.policy.parameters()}
    assert not ours & {id(parameter) for parameter in trainer.advantages.model.parameters()}
    before = weights(trainer.policy)
    graded = rollout(trainer)
    trainer.advantages.learn(judge(trainer, graded), lambda unused: 1e-2)
    assert torch.equal(weights(trainer.policy), before)


# -- what it says ---------------------------------------------------------------------------


def test_without_knowledge_each_token_gets_the_whole_reward():
    """V = 0 and gamma = lam = 1: the return is the reward everywhere, the advantage its distance
    from the mean over tokens in deviations."""
    trainer = make()
    graded = rollout(trainer)
    judged = judge(trainer, graded)
    scores = trainer.rollout.scores(graded)
    rewards_PG, sizes_PG = scores.rewards_PG, scores.lengths_PG
    assert 0 < rewards_PG.mean() < 1 and len(set(sizes_PG.flatten().tolist())) > 1
    mask_PGT = judged.mask_PGT
    assert torch.equal(mask_PGT.sum(2), sizes_PG)
    assert torch.equal(judged.returns_PGT, rewards_PG[:, :, None] * mask_PGT)
    by_token = torch.repeat_interleave(rewards_PG.flatten(), sizes_PG.flatten().long())
    wanted = (by_token - by_token.mean()) / by_token.std()
    found = torch.cat(judged.by_completion(judged.advantages_PGT))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_the_kl_is_paid_at_each_token_and_seen_by_those_before_it():
    trainer = make(config(algo={"kl": "reward", "kl_coef": 0.5}))
    with torch.no_grad():
        for parameter in trainer.policy.parameters():
            parameter.mul_(0.97)
    trainer.engine.load(trainer.policy, 0)
    graded = rollout(trainer)
    judged = judge(trainer, graded)
    group = graded[max(range(24), key=lambda p: len(graded[p][0].completion.tokens))]
    place = graded.index(group)
    one = group[0]
    prompt, own = one.completion.prompt.tokens, one.completion.tokens
    tokens_BT = torch.tensor([prompt + own])
    ref = trainer.reference.policy.token_logprobs(tokens_BT, len(prompt))[0]
    prices = 0.5 * (torch.tensor(one.completion.logprobs) - ref)
    assert prices.abs().max() > 0.01
    wanted = torch.tensor([one.reward - prices[t:].sum() for t in range(len(own))])
    torch.testing.assert_close(
        judged.by_completion(judged.returns_PGT)[place], wanted, rtol=1e-3, atol=1e-4
    )


def test_values_lower_the_advantage_and_lam_decides_whom_to_trust():
    """lam = 0: one step ahead, d = r + V' - V; the return is then r + V'."""
    trainer = make(config(critic={"lam": 0.0}))
    speak(trainer)
    graded = rollout(trainer)
    judged = judge(trainer, graded)
    rewards = trainer.rollout.scores(graded).rewards_PG.flatten()
    rows = zip(
        judged.by_completion(judged.values_PGT),
        judged.by_completion(judged.returns_PGT),
        rewards,
        strict=True,
    )
    for values, returns, reward in rows:
        torch.testing.assert_close(returns[:-1], values[1:], rtol=1e-5, atol=1e-6)
        assert returns[-1] == reward


@pytest.mark.parametrize("reward", [0.0, 0.1, 1.0])
def test_equal_rewards_and_no_knowledge_push_nowhere(reward):
    """In float32 a mean of equal tenths is one unit off, and whitening would blow that up."""
    trainer = make(task=StartsWith("", right=reward))
    judged = judge(trainer, rollout(trainer))
    assert judged.advantages_PGT.abs().max() < 1e-6


def test_the_size_of_the_parts_changes_neither_judgement_nor_update():
    found = []
    for size in (1, 70, 100_000):
        trainer = make(config(optim={"micro_batch_tokens": size}))
        speak(trainer)
        graded = rollout(trainer)
        judged = judge(trainer, graded)
        before = weights(trainer.advantages.model)
        numbers = trainer.advantages.learn(judged, lambda unused: 1e-3)
        found.append((judged, numbers, weights(trainer.advantages.model) - before))
    for judged, numbers, moved in found[1:]:
        torch.testing.assert_close(judged.values_PGT, found[0][0].values_PGT, rtol=1e-4, atol=1e-5)
        assert numbers == pytest.approx(found[0][1], rel=1e-3, abs=1e-5)
        # Adam divides by the size of a gradient: one that is nearly 0 may come out either way.
        assert ((moved - found[0][2]).abs() > 1e-5).float().mean() < 1e-2


# -- what it learns -------------------------------------------------------------------------


def test_the_critic_learns_what_the_policy_gets():
    trainer = make(config(critic={"lr": 1e-2}))
    graded = rollout(trainer)
    numbers = [
        trainer.advantages.learn(judge(trainer, graded), lambda unused, rate=rate: rate)
        for rate in [3e-3] + [1e-2] * 24
    ]
    assert numbers[0]["explained"] == pytest.approx(0.0, abs=1e-6)
    assert numbers[-1]["value_loss"] < 0.5 * numbers[0]["value_loss"]
    assert numbers[-1]["explained"] > 0.5
    # 0.5 R^2 over tokens: values start at 0.
    judged = judge(make(), graded)
    squares = torch.cat(judged.by_completion(judged.returns_PGT)).square()
    assert numbers[0]["value_loss"] == pytest.approx(0.5 * squares.mean().item(), rel=1e-4)


def test_in_the_warm_up_only_the_critic_learns():
    trainer = make(config(critic={"warmup": 2}))
    policy, critic = weights(trainer.policy), weights(trainer.advantages.model)
    for version in (1, 2):
        report = trainer.step(trainer.problems())
        assert report.version == trainer.engine.version == version
        assert torch.equal(weights(trainer.policy), policy)
        assert not torch.equal(weights(trainer.advantages.model), critic)
        assert "loss" not in report.numbers and report.numbers["value_grad_norm"] > 0
    report = trainer.step(trainer.problems())
    assert not torch.equal(weights(trainer.policy), policy)
    assert report.numbers["grad_norm"] > 0


def test_ppo_learns():
    """Twice the share of right completions, from one completion a problem and two updates."""
    trainer = make(config(algo={"updates": 2}, rollout={"prompts": 48}, critic={"warmup": 2}))
    rates = []
    for _ in range(30):
        report = trainer.step(trainer.problems())
        rates.append(sum(group[0].correct for group in report.groups) / 48)
    assert sum(rates[-5:]) > 2 * sum(rates[:5]) and sum(rates[-5:]) / 5 > 0.8


def test_several_updates_deal_prompts_and_judgement_into_the_same_shares():
    trainer = make(config(algo={"updates": 2}))
    seen, gaps = [], []
    update = trainer.update

    def watch(share, index):
        rows = share.counted_rows()
        sizes = [len(row.graded.completion.tokens) for row in rows]
        seen.append((len(share.rows), sizes == [len(row.advantages_T) for row in rows]))
        numbers = update(share, index)
        gaps.append(numbers["mismatch"])
        return numbers

    trainer.update = watch
    trainer.step(trainer.problems())
    assert seen == [(12, True), (12, True)]
    assert gaps[1] > 1e-6 > gaps[0]  # the second share meets a policy that has moved


# -- state ----------------------------------------------------------------------------------


def test_state_restores_the_very_next_step(tmp_path):
    """In the middle of everything: critic, its optimiser, the reference, the tokens spent."""
    cfg = config(algo={"updates": 2, "kl": "reward"}, critic={"warmup": 1}, tokens=10_000)
    trainer = make(cfg)
    for _ in range(3):
        trainer.step(trainer.problems())
    torch.save(trainer.state_dict(), tmp_path / "state.pt")
    policy = Transformer(tiny_config())
    policy.load_state_dict({k: v.clone() for k, v in trainer.policy.state_dict().items()})
    again = make(cfg, policy=policy)
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert again.tokens == trainer.tokens > 0
    for _ in range(2):
        ours, theirs = (one.step(one.problems()) for one in (trainer, again))
        assert ours.groups == theirs.groups and ours.numbers == theirs.numbers
    assert torch.equal(weights(trainer.advantages.model), weights(again.advantages.model))
    assert torch.equal(weights(trainer.policy), weights(again.policy))


def test_forgetting_the_critic_would_be_noticed():
    """The test above compares something: another critic leads to another step."""
    trainer, other = make(), make()
    speak(other)
    for one in (trainer, other):
        one.step(one.problems())
    assert not torch.equal(weights(trainer.policy), weights(other.policy))


def test_the_report_tells_what_each_token_got():
    trainer = make(config(critic={"warmup": 1}))
    report = trainer.step(trainer.problems())
    assert [len(group) for group in report.token_advantages] == [
        len(group) for group in report.groups
    ]
    for group, credits, means in zip(
        report.groups, report.token_advantages, report.advantages, strict=True
    ):
        for one, credit, mean in zip(group, credits, means, strict=True):
            assert len(credit) == len(one.completion.tokens)
            assert sum(credit) / len(credit) == pytest.approx(mean, abs=1e-5)
