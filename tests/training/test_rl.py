"""The RL step: what it does in which order, what it learns, and what must not change it."""

from collections import Counter
from itertools import islice

import pytest
import torch

from aha.algo.advantages import ADVANTAGES
from aha.algo.aggregation import AGGREGATIONS
from aha.algo.correction import disagreement
from aha.algo.losses import LOSSES
from aha.batching.batch import pack, pack_parts, totals_of
from aha.core.config import RunConfig
from aha.core.records import Completion, Graded, Problem, Prompt
from aha.model.transformer import Transformer
from aha.rollout.native import NativeEngine
from aha.training.rl import RLTrainer
from aha.training.rollouts import PhaseClock

from ..tiny import TOKENIZER, StartsWith, tiny_config, tiny_transformer

DIGITS = "0123456789"


def config(**sections) -> RunConfig:
    """A small run in float32, so that results can be compared to the last digits."""
    raw = {
        "steps": 30,
        "rollout": {"prompts": 4, "group_size": 8, "max_new_tokens": 12, "dtype": "float32"},
        "optim": {"lr": 1e-3, "warmup": 0, "final_lr": 1.0, "dtype": "float32"},
    }
    for name, section in sections.items():
        raw[name] = raw.get(name, {}) | section if isinstance(section, dict) else section
    return RunConfig.model_validate(raw)


def make(cfg: RunConfig, task=None, policy=None) -> RLTrainer:
    policy = policy or tiny_transformer()
    engine = NativeEngine(policy, TOKENIZER, cfg.rollout.dtype, cfg.rollout.max_rows)
    return RLTrainer(policy, TOKENIZER, task or StartsWith(DIGITS), engine, cfg)


def weights(trainer: RLTrainer) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.policy.state_dict().items()}


def equal(one: dict, other: dict) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


# -- the tape -------------------------------------------------------------------------------


class Tape(list):
    """What was called, in order; the fakes below write on it."""


class TapedTask(StartsWith):
    def __init__(self, tape: Tape):
        super().__init__("a")
        self.tape = tape

    def ask(self, problem: Problem) -> str:
        self.tape.append("ask")
        return super().ask(problem)

    def grade(self, problem: Problem, text: str) -> Graded:
        self.tape.append("grade")
        return super().grade(problem, text)


class TapedTokenizer:
    pad_id, stop_ids = TOKENIZER.pad_id, TOKENIZER.stop_ids

    def __init__(self, tape: Tape):
        self.tape = tape

    def say(self, text: str) -> str:
        return text

    def encode(self, text: str) -> list[int]:
        self.tape.append("encode")
        return TOKENIZER.encode(text)


class TapedEngine:
    """Writes "a" and "b" by turns; every group holds both, so every group teaches."""

    def __init__(self, tape: Tape):
        self.tape = tape

    def generate(self, prompts, sampling):
        self.tape.append("generate")
        return [[self.write(prompt, g) for g in range(sampling.group_size)] for prompt in prompts]

    def write(self, prompt, g: int) -> Completion:
        text = "ab"[g % 2]
        return Completion(prompt, (*TOKENIZER.encode(text), 0), (-1.0, -2.0), text, "stop")

    def load(self, policy: Transformer, version: int) -> None:
        self.tape.append(f"load {version}")

    def release(self) -> None:
        self.tape.append("release")


class TapedDecoder(Transformer):
    tape: Tape

    def token_logprobs(self, *args, **kwargs):
        self.tape.append("log-probs")
        return super().token_logprobs(*args, **kwargs)


def test_the_tape_of_one_step():
    """Two prompts of two completions, one row to a part: the whole way in its order."""
    tape = Tape()
    policy = TapedDecoder(tiny_config()).initialise(torch.Generator().manual_seed(0))
    policy.tape = tape
    weight = policy.model.norm.weight
    weight.register_post_accumulate_grad_hook(lambda unused: tape.append("backward"))
    cfg = config(rollout={"prompts": 2, "group_size": 2}, optim={"micro_batch_tokens": 1})
    trainer = RLTrainer(policy, TapedTokenizer(tape), TapedTask(tape), TapedEngine(tape), cfg)
    trainer.optimizer.adam.register_step_pre_hook(lambda *unused: tape.append("optimiser"))
    report = trainer.step(trainer.problems())
    assert tape == [
        *["ask", "encode"] * 2,
        "generate",
        *["grade"] * 4,
        "release",
        *["log-probs", "backward"] * 4,
        "optimiser",
        "load 1",
    ]
    assert report.version == trainer.version == 1
    assert report.advantages == ((0.5, -0.5), (0.5, -0.5))


def test_the_report_holds_the_whole_way_of_every_completion():
    cfg = config()
    trainer = make(cfg)
    problems = trainer.problems()
    report = trainer.step(problems)
    assert [group[0].completion.prompt.problem for group in report.groups] == problems
    assert {len(group) for group in report.groups} == {8}
    for group, credits in zip(report.groups, report.advantages, strict=True):
        mean = sum(one.reward for one in group) / 8
        assert [one.reward - mean for one in group] == pytest.approx(list(credits))
        assert {one.completion.version for one in group} == {0}
    assert set(report.seconds) == {"rollout", "grade", "train", "publish"}
    assert trainer.step(trainer.problems()).groups[0][0].completion.version == 1


def test_problems_are_a_function_of_seed_and_version():
    one, other = make(config()), make(config(seed=1))
    first = one.problems()
    assert first == one.problems() and len({problem.id for problem in first}) == 4
    assert first != other.problems()
    one.version = 1
    assert first != one.problems()


# -- learning -------------------------------------------------------------------------------


# Every advantage and every loss once; all pairs learn a bandit in tests/algo/test_bandit.py.
GROUPED = [name for name, algorithm in ADVANTAGES.items() if not algorithm.facts.critic]
PAIRS = [(name, "pg") for name in GROUPED] + [("dr_grpo", name) for name in LOSSES]


@pytest.mark.parametrize(("advantage", "loss"), PAIRS)
def test_a_trivial_task_is_learnt_in_thirty_steps(advantage, loss):
    """Right is to begin with a digit: from some twelve per cent to nearly always."""
    cfg = config(
        rollout={"prompts": 4, "group_size": 16, "max_new_tokens": 2},
        optim={"lr": 0.01},
        algo={"advantage": advantage, "loss": loss, "updates": 1 if loss == "pg" else 2},
    )
    trainer = make(cfg)
    rewards = []
    for _ in range(30):
        report = trainer.step(trainer.problems())
        flat = [one.reward for group in report.groups for one in group]
        rewards.append(sum(flat) / len(flat))
    assert rewards[0] < 0.3 and sum(rewards[-3:]) / 3 > 0.9, rewards


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_a_step_makes_what_was_right_likelier(aggregation):
    trainer = make(config(algo={"aggregation": aggregation}, optim={"lr": 1e-4}))
    report = trainer.step(trainer.problems())
    gains = Counter()
    for group, credits in zip(report.groups, report.advantages, strict=True):
        for one, credit in zip(group, credits, strict=True):
            row = torch.tensor([one.completion.prompt.tokens + one.completion.tokens])
            start = len(one.completion.prompt.tokens)
            with torch.no_grad():
                now = trainer.policy.token_logprobs(row, start).sum().item()
            gains[credit > 0] += credit * (now - sum(one.completion.logprobs))
    assert gains[True] + gains[False] > 0


@pytest.mark.parametrize("reward", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("loss", [name for name in LOSSES if not LOSSES[name].facts.every_row])
def test_groups_of_equal_rewards_change_no_parameter(reward, loss):
    """Not even by the optimiser's momentum, which earlier steps have filled, or by decay.

    A loss with a term of its own (quadratic) computes every row, so that the optimiser does step.
    """
    cfg = config(algo={"loss": loss}, optim={"weight_decay": 0.1})
    trainer = make(cfg)
    trainer.step(trainer.problems())
    trainer.rollout.task = StartsWith("", right=reward)
    before = weights(trainer)
    report = trainer.step(trainer.problems())
    assert equal(before, weights(trainer))
    assert report.numbers["informative"] == 0.0 and report.numbers["grad_norm"] == 0.0
    assert not any(any(credits) for credits in report.advantages)


def test_whole_numbers_are_rewards_too():
    """Another's task may pay 1 and 0 in place of 1.0 and 0.0, to all of a step alike."""
    report = make(config(), StartsWith("", right=1)).step(make(config()).problems())
    assert report.numbers["informative"] == 0.0


def test_training_ends_its_completions_early_where_the_recipe_says_so():
    early = {"overlong": "early", "overlong_buffer": 5, "aggregation": "sequence_sum"}
    trainer = make(cfg := config(algo=early), StartsWith(""))
    assert cfg.training_limit == 7 and config().training_limit == 12
    report = trainer.step(trainer.problems())
    lengths = [len(graded.completion.tokens) for group in report.groups for graded in group]
    assert max(lengths) == 7  # of a random model's, some come to the limit
    # The same step as with that limit for the tests too, the denominator of the loss included.
    short = make(config(algo={"aggregation": "sequence_sum"}, rollout={"max_new_tokens": 7}))
    other = short.step(short.problems())
    trainer = make(cfg)
    same = trainer.step(trainer.problems())
    assert same.numbers["loss"] == other.numbers["loss"]
    assert same.numbers["grad_norm"] == other.numbers["grad_norm"] > 0


# -- what must not matter -------------------------------------------------------------------


def rollout(trainer: RLTrainer):
    """The estimate of a rollout, without an update."""
    prompts = [Prompt.of(p, trainer.task, TOKENIZER) for p in trainer.problems()]
    groups = trainer.engine.generate(prompts, trainer.rollout.sampling(trainer.seeds))
    graded = [[Graded.of(one, trainer.task) for one in group] for group in groups]
    scores = trainer.rollout.scores(graded)
    advantages_PG = ADVANTAGES["dr_grpo"](scores.rewards_PG)
    return trainer.advantages.estimate_from(graded, scores, advantages_PG)


@pytest.mark.parametrize("loss", ["pg", "ppo_clip", "gspo"])
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_the_size_of_the_parts_does_not_change_the_gradient(aggregation, loss):
    gradients, losses = [], []
    for size in (1, 70, 100_000):
        algo = {"aggregation": aggregation, "loss": loss}
        trainer = make(config(algo=algo, optim={"micro_batch_tokens": size}))
        rows = rollout(trainer).counted_rows()
        totals = totals_of(rows, 12)
        parts = pack_parts(rows, TOKENIZER.pad_id, size)
        losses.append(sum(trainer.objective.backward(part, totals)[0].item() for part in parts))
        gradients.append([p.grad.clone() for p in trainer.policy.parameters()])
    assert losses[1:] == pytest.approx(losses[:1] * 2, abs=1e-5)
    for other in gradients[1:]:
        for ours, theirs in zip(gradients[0], other, strict=True):
            scale = ours.abs().max().clamp(min=1e-6)
            torch.testing.assert_close(ours / scale, theirs / scale, rtol=1e-4, atol=1e-5)


def test_the_size_of_the_parts_does_not_change_the_update():
    found = []
    for size in (1, 70, 100_000):
        trainer = make(config(optim={"micro_batch_tokens": size}))
        before = weights(trainer)
        numbers = [trainer.step(trainer.problems()).numbers for _ in range(2)]
        after = weights(trainer)
        found.append(({name: after[name] - before[name] for name in before}, numbers))
    for moved, numbers in found[1:]:
        for ours, theirs in zip(found[0][1], numbers, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-5)
        # Adam divides by the size of a gradient: one that is nearly 0 may come out either way.
        gaps = torch.cat([(moved[name] - found[0][0][name]).abs().flatten() for name in moved])
        assert (gaps > 1e-5).float().mean() < 1e-3


def test_rows_without_credit_count_in_the_denominator():
    """They are not computed, but leaving them out of the totals would enlarge the step."""
    trainer = make(config())
    graded = trainer.rollout.collect(trainer.problems(), trainer.seeds, PhaseClock()).groups
    scores = trainer.rollout.scores(graded)
    advantages_PG = ADVANTAGES["dr_grpo"](scores.rewards_PG)
    advantages_PG[2:] = 0.0
    halved = trainer.update(trainer.advantages.estimate_from(graded, scores, advantages_PG))["loss"]
    first, other = graded[:2], make(config())
    few = other.advantages.estimate_from(first, other.rollout.scores(first), advantages_PG[:2])
    alone = other.update(few)["loss"]
    tokens = [
        sum(len(one.completion.tokens) for g in part for one in g) for part in (graded, first)
    ]
    assert halved == pytest.approx(alone * tokens[1] / tokens[0], rel=1e-4)


def test_training_and_generation_agree_on_the_log_probs():
    """The first update of a rollout: what was recorded is what the training pass computes."""
    for temperature in (1.0, 0.7):
        trainer = make(config(rollout={"temperature": temperature}))
        report = trainer.step(trainer.problems())
        assert report.numbers["mismatch"] < 1e-5


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_on_the_first_update_every_ratio_is_1_and_none_is_clipped(temperature):
    """Not on average: at every single token."""
    trainer = make(config(rollout={"temperature": temperature}))
    part = pack(rollout(trainer).counted_rows(), TOKENIZER.pad_id)
    logprobs_BT = trainer.objective.forward(part).logprobs_BT.detach()
    log_rho_BT = (logprobs_BT - part.old_logprobs_BT) * part.mask_BT
    assert log_rho_BT.abs().max() < 1e-4
    seen = disagreement(log_rho_BT, part.mask_BT)
    assert seen["k3"] < 1e-8 and seen["ess"] == pytest.approx(1, abs=1e-6)


def test_clipping_is_idle_on_the_first_update():
    one, other = (make(config(algo={"loss": loss})) for loss in ("pg", "ppo_clip"))
    one.step(one.problems()), other.step(other.problems())
    for name, tensor in weights(one).items():
        gaps = (tensor - weights(other)[name]).abs()
        assert (gaps > 1e-5).float().mean() < 1e-2


# -- updates, schedule, state ---------------------------------------------------------------


def test_several_updates_deal_the_groups_into_shares():
    cfg = config(algo={"loss": "ppo_clip", "updates": 2})
    trainer = make(cfg)
    seen, gaps = [], []
    update = trainer.update

    def watch(share, index):
        seen.append((len(share.rows), len(share.advantages_PG), index))
        numbers = update(share, index)
        gaps.append(numbers["mismatch"])
        return numbers

    trainer.update = watch
    report = trainer.step(trainer.problems())
    assert seen == [(2, 2, 0), (2, 2, 1)] and report.version == 1
    # The second share is trained by weights that have moved, which is no gap of the engine.
    assert gaps[1] > 1e-5 > gaps[0] == report.numbers["mismatch"]


def test_the_learning_rate_by_hand():
    # warm-up 4: shares 1/5, 2/5, 3/5, 4/5, then 1; decay from 1 at step 0 to 0.1 at step 10
    cfg = config(steps=11, optim={"lr": 1.0, "warmup": 4, "final_lr": 0.1})
    trainer = make(cfg)
    found = []
    for version in range(11):
        trainer.version = version
        found.append(trainer.learning_rate(1.0))
    wanted = [min(1, (v + 1) / 5) * (1 - v / 10 * 0.9) for v in range(11)]
    assert found == pytest.approx(wanted)
    assert found[0] == pytest.approx(0.2) and found[-1] == pytest.approx(0.1)


def test_a_constant_rate_is_constant_and_one_step_is_no_division_by_zero():
    assert make(config()).learning_rate(0.5) == 0.5
    assert make(config(steps=1, optim={"final_lr": 0.1})).learning_rate(0.5) == 0.5


def test_the_gradient_is_clipped():
    """A norm far above the limit still moves no weight by more than Adam's first step, and the
    reported norm is the one before clipping."""
    trainer = make(config(optim={"grad_clip": 1e-6}))
    report = trainer.step(trainer.problems())
    assert report.numbers["grad_norm"] > 1e-3


def test_state_restores_the_very_next_step(tmp_path):
    """Three steps, a copy of everything, two more steps on each: the same to the last bit."""
    trainer = make(config())
    for _ in range(3):
        trainer.step(trainer.problems())
    torch.save(trainer.state_dict(), tmp_path / "state.pt")
    saved = weights(trainer)
    policy = Transformer(tiny_config())
    policy.load_state_dict(saved)
    again = make(config(), policy=policy)
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert again.version == again.engine.version == 3
    for _ in range(2):
        ours, theirs = (one.step(one.problems()) for one in (trainer, again))
        assert ours.groups == theirs.groups and ours.numbers == theirs.numbers
    assert equal(weights(trainer), weights(again))


def test_two_runs_of_one_seed_are_the_same_and_of_another_are_not():
    def run(seed: int) -> dict:
        trainer = make(config(seed=seed))
        for _ in range(3):
            trainer.step(trainer.problems())
        return weights(trainer)

    assert equal(run(0), run(0)) and not equal(run(0), run(1))


def test_problems_can_run_out_without_a_crash():
    class Few(StartsWith):
        def problems(self, split, seed):
            return islice(super().problems(split, seed), 2)

    trainer = make(config(), Few(DIGITS))
    assert len(trainer.step(trainer.problems()).groups) == 2


# -- a budget of tokens ---------------------------------------------------------------------


def test_tokens_are_counted_and_end_the_run():
    trainer = make(config(tokens=900))
    counted, before = 0, []
    while not trainer.finished:
        before.append(trainer.tokens)
        report = trainer.step(trainer.problems())
        counted += sum(len(one.completion.tokens) for group in report.groups for one in group)
        assert trainer.tokens == counted == report.numbers["generated"]
    assert before[-1] < 900 <= trainer.tokens and trainer.version < 30
    assert make(config(steps=0)).finished and not make(config()).finished


def test_a_rollout_that_is_thrown_away_is_counted_too():
    trainer = make(config(algo={"zero_variance": "resample"}), StartsWith("", right=1))
    report = trainer.step(trainer.problems())
    kept = sum(len(one.completion.tokens) for group in report.groups for one in group)
    assert report.numbers["asked"] == 3.0 and trainer.tokens > 2 * kept


def test_with_a_budget_the_rate_falls_with_the_tokens():
    # halfway from 1 to 0.1 is 0.55
    trainer = make(config(tokens=1000, optim={"lr": 1.0, "final_lr": 0.1}))
    trainer.tokens = 500
    assert trainer.learning_rate(1.0) == pytest.approx(0.55)
    trainer.version = 29  # all steps done, whatever is left of the tokens
    assert trainer.learning_rate(1.0) == pytest.approx(0.1)
