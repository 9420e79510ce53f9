"""The pool of problems that a curriculum keeps in mind: who is asked, who leaves, what resumes."""

from collections import Counter
from itertools import islice

import pytest
import torch

from aha.core.config import RunConfig
from aha.core.records import Completion, Graded, Problem, Prompt
from aha.model.transformer import Transformer
from aha.rollout.native import NativeEngine
from aha.training.problem_pool import ProblemPool
from aha.training.rl import RLTrainer
from aha.training.rollouts import FreshProblems

from ..tiny import TOKENIZER, StartsWith, tiny_config, tiny_transformer

DIGITS = "0123456789"


def numbered(count: int):
    return iter([Problem(str(place), "made up", {}) for place in range(count)])


def group(problem: str, right: int, of: int = 4) -> list[Graded]:
    prompt = Prompt(Problem(problem, "made up", {}), "", (1,))
    one = Completion(prompt, (2,), (-1.0,), "", "stop")
    return [Graded(float(g < right), g < right, "", completion=one) for g in range(of)]


def ids(problems: list[Problem]) -> list[str]:
    return [problem.id for problem in problems]


# -- drawing --------------------------------------------------------------------------------


def test_a_pool_is_met_evenly_before_anything_is_known():
    pool = ProblemPool("pools", 6, numbered(100))
    met = Counter(name for seed in range(600) for name in ids(pool.draw(3, seed)))
    assert set(met) == set("012345")
    # each is one of three out of six: 300 of 600, with a deviation of 12
    assert all(abs(count - 300) < 5 * 12 for count in met.values())


def test_a_draw_is_a_function_of_its_seed_and_has_no_problem_twice():
    pool = ProblemPool("pools", 8, numbered(100))
    one = pool.draw(5, 7)
    assert one == pool.draw(5, 7) != pool.draw(5, 8)
    assert len({*ids(one)}) == 5
    # A further rollout of the same step goes on where the first ended, and then from the start.
    further = pool.draw(5, 7, rollout_round=1)
    assert not {*ids(one)} & {*ids(further[:3])} and further[3:] == one[:2]


def test_what_is_half_solved_is_asked_five_times_as_often():
    """Weights 1 and .2; one problem of two a step: 5/6 of the draws."""
    pool = ProblemPool("pools", 2, numbered(2))
    pool.draw(2, 0)
    pool.record([group("0", 2), group("1", 4)])
    assert pool.weights() == [1.0, 0.2]
    met = Counter(ids(pool.draw(1, seed))[0] for seed in range(1200))
    assert abs(met["0"] - 1000) < 5 * (1200 * 5 / 36) ** 0.5


def test_the_rate_is_that_of_the_last_time():
    pool = ProblemPool("pools", 1, numbered(1))
    pool.draw(1, 0)
    pool.record([group("0", 0)])
    pool.record([group("0", 3)])
    pool.record([group("stranger", 3)])
    assert pool.rates == [0.75]


def test_what_is_solved_leaves_and_a_new_problem_comes():
    pool = ProblemPool("no_positive", 3, numbered(100))
    assert {*ids(pool.draw(3, 0))} == {"0", "1", "2"}
    pool.record([group("0", 4), group("1", 3), group("2", 0)])
    assert pool.num_open == 2
    for seed in range(20):
        assert {*ids(pool.draw(3, seed))} == {"1", "2", "3"}


def test_a_file_that_is_used_up_still_fills_a_step():
    """The least solved of those that left come back, because nothing else is there."""
    pool = ProblemPool("no_positive", 8, numbered(3))
    pool.draw(3, 0)
    pool.record([group("0", 10, 10), group("1", 9, 10), group("2", 5, 10)])
    assert pool.num_open == 1
    assert ids(pool.draw(2, 0)) == ["2", "1"] and ids(pool.draw(9, 0)) == ["2", "1", "0"]
    assert ProblemPool("pools", 8, numbered(0)).draw(4, 0) == []


def test_a_pool_comes_back_from_its_rates():
    pool, again = (ProblemPool("no_positive", 3, numbered(100)) for _ in range(2))
    for step in range(4):
        pool.record([group(name, 4 - step) for name in ids(pool.draw(2, step))])
    again.load_state_dict(pool.state_dict())
    assert again.rates == pool.rates and again.pool == pool.pool
    for step in range(4, 8):
        ours, theirs = pool.draw(2, step), again.draw(2, step)
        assert ours == theirs
        for one in (pool, again):
            one.record([group(name, 4) for name in ids(ours)])


# -- in training ----------------------------------------------------------------------------


def make(task=None, policy=None, **algo) -> RLTrainer:
    raw = {
        "steps": 30,
        "rollout": {"prompts": 4, "group_size": 8, "max_new_tokens": 6, "dtype": "float32"},
        "optim": {"lr": 3e-3, "warmup": 0, "dtype": "float32"},
        "algo": {"curriculum": "no_positive", "pool": 6} | algo,
    }
    cfg, policy = RunConfig.model_validate(raw), policy or tiny_transformer()
    engine = NativeEngine(policy, TOKENIZER, "float32")
    return RLTrainer(policy, TOKENIZER, task or StartsWith(DIGITS), engine, cfg)


class Right(StartsWith):
    """Whatever is written is right."""

    def grade(self, problem: Problem, text: str) -> Graded:
        return Graded(1.0, True, "")


def test_a_run_asks_its_pool_again_and_tells_what_is_left_of_it():
    trainer = make(curriculum="pools")
    reports = [trainer.step(trainer.problems()) for _ in range(4)]
    asked = Counter(g[0].completion.prompt.problem.id for r in reports for g in r.groups)
    assert len(asked) == 6 and sum(asked.values()) == 16
    assert all(report.numbers["pool_open"] == 6.0 for report in reports)


def test_solved_problems_are_not_asked_again():
    """Everything is right, so that every problem leaves after the first time."""
    trainer = make(Right(""))
    asked = []
    for _ in range(4):
        report = trainer.step(trainer.problems())
        asked += [g[0].completion.prompt.problem.id for g in report.groups]
        assert report.numbers["pool_open"] == 2.0  # of six, before the next ones come
    assert len({*asked}) == 16


def test_every_rollout_of_a_step_is_remembered():
    """Resampling throws groups away; that they were all solved is known all the same."""
    trainer = make(Right(""), zero_variance="resample", pool=12)
    report = trainer.step(trainer.problems())
    assert report.numbers["asked"] == 3.0 and report.numbers["pool_open"] == 0.0
    assert trainer.source.rates == [1.0] * 12


def test_a_task_with_few_problems_is_no_larger_pool():
    class Few(StartsWith):
        def problems(self, split, seed):
            return islice(super().problems(split, 3), 2)

    trainer = make(Few(DIGITS))
    assert len(trainer.step(trainer.problems()).groups) == 2


@pytest.mark.parametrize("curriculum", ["pools", "no_positive"])
def test_the_next_step_of_a_resumed_run_is_the_same_to_the_last_bit(curriculum, tmp_path):
    trainer = make(curriculum=curriculum)
    for _ in range(3):
        trainer.step(trainer.problems())
    torch.save(trainer.state_dict(), tmp_path / "state.pt")
    policy = Transformer(tiny_config())
    policy.load_state_dict(trainer.policy.state_dict())
    again = make(policy=policy, curriculum=curriculum)
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for _ in range(3):
        ours, theirs = (one.step(one.problems()) for one in (trainer, again))
        assert ours.groups == theirs.groups and ours.numbers == theirs.numbers
    assert trainer.source.rates == again.source.rates
    assert any(rate is not None for rate in again.source.rates)


def test_without_a_curriculum_nothing_is_kept():
    trainer = make(curriculum="off", pool=1024)
    assert isinstance(trainer.source, FreshProblems) and "curriculum" not in trainer.state_dict()
    assert "pool_open" not in trainer.step(trainer.problems()).numbers
