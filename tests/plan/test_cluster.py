"""The simulation of several ranks: what must hold whatever is assumed."""

import dataclasses
from random import Random

import pytest

from aha.algo.algorithms import method_of
from aha.core.config import RunConfig
from aha.core.errors import ConfigError
from aha.plan.cluster import (
    ONE_THREAD_GAIN,
    STEPS,
    Cluster,
    drawn_lengths,
    exchange_seconds,
    passes_of,
    plan_on,
    simulate,
    training_of_rank,
)
from aha.plan.estimate import estimate, trained_parameters
from aha.plan.machines import load_cards
from aha.plan.shapes import shape_of
from aha.plan.speed import Lengths, Workload, generation_of, training_of

CARDS = load_cards()[1]
CPU, GPU = CARDS["cpu-2-cores"], CARDS["h100-80gb"]


def load(prompts: int = 16, group_size: int = 8, **algo: object) -> Workload:
    raw = RunConfig().model_dump()
    raw["rollout"] |= {"prompts": prompts, "group_size": group_size, "expected_tokens": 0.0}
    raw["algo"] |= algo
    cfg = RunConfig.model_validate(raw)
    return Workload(cfg, method_of(cfg), shape_of(cfg.model.path))


def lengths_of(work: Workload) -> Lengths:
    return Lengths.of(work.cfg)


def test_lengths_have_the_mean_of_the_plan_and_stay_below_the_limit():
    work = load()
    for mean in (20.0, lengths_of(work).limit / 2, 0.95 * lengths_of(work).limit):
        lengths = Lengths.of(work.cfg, mean)
        groups = drawn_lengths(work, lengths, Random(3))
        flat = [length for group in groups for length in group]
        assert len(groups) == 16 and all(len(group) == 8 for group in groups)
        assert sum(flat) / len(flat) == pytest.approx(mean, rel=1e-6)
        assert 1 <= min(flat) and max(flat) <= lengths.limit


def test_a_group_waits_until_all_its_rows_are_free():
    assert passes_of([[3.0, 5.0]], 8) == 5.0
    # Two rows: the second group begins when both rows of the first are free.
    assert passes_of([[3.0, 5.0], [1.0, 2.0]], 2) == 7.0
    assert passes_of([[3.0, 5.0], [1.0, 2.0]], 4) == 5.0
    # Three rows: one is free at once, the other when the shorter completion has ended.
    assert passes_of([[3.0, 5.0], [4.0, 1.0]], 3) == 7.0


def test_one_rank_trains_and_generates_the_tokens_of_the_plan():
    work = load()
    lengths = lengths_of(work)
    groups = drawn_lengths(work, lengths, Random(0))
    ours = training_of_rank(work, lengths, groups, 0, 1)
    theirs = training_of(work, lengths)
    assert ours.tokens == pytest.approx(theirs.tokens) and ours.work == theirs.work
    assert sum(map(sum, groups)) == pytest.approx(generation_of(work, lengths).tokens)


def test_the_rows_of_all_ranks_are_the_rows_of_the_step():
    work = load()
    lengths = lengths_of(work)
    groups = drawn_lengths(work, lengths, Random(0))
    whole = training_of_rank(work, lengths, groups, 0, 1).tokens
    parts = [training_of_rank(work, lengths, groups, rank, 3).tokens for rank in range(3)]
    # A prompt at a cut is computed twice, and nothing else is.
    assert whole <= sum(parts) <= whole + 2 * lengths.prompt
    longest = max(length for group in groups for length in group)
    assert max(parts) <= whole / 3 + longest + lengths.prompt


@pytest.mark.parametrize("card", [CPU, GPU])
def test_one_rank_is_the_plan_itself(card):
    work = load()
    mean = lengths_of(work).mean
    plan = estimate(work, card, mean)
    alone = plan_on(work, card, plan, mean, Cluster(1))
    assert alone.speedup == 1.0 and alone.step.waiting == 0.0
    assert (alone.step.gather, alone.step.all_reduce) == (0.0, 0.0)
    assert alone.hours == pytest.approx(plan.cost.seconds / 3600)
    assert alone.usd == pytest.approx(plan.cost.usd)


def test_more_gpus_are_never_more_than_so_many_times_as_fast_and_cost_more():
    work, before, costs = load(prompts=512), 1.0, []  # fewer wait for the layers of one fill
    mean = lengths_of(work).mean
    big = dataclasses.replace(work, shape=shape_of("Qwen/Qwen2.5-1.5B"))
    plan = estimate(big, GPU, mean)
    for gpus in (2, 4, 8):
        row = plan_on(big, GPU, plan, mean, Cluster(gpus))
        assert before < row.speedup < gpus
        assert row.usd == pytest.approx(row.hours * gpus * GPU.usd_per_hour)
        before = row.speedup
        costs.append(row.usd)
    assert costs == sorted(costs)


def test_a_rank_waits_less_where_it_has_more_groups():
    few = simulate(load(prompts=8), GPU, 100.0, Cluster(8))
    many = simulate(load(prompts=256), GPU, 100.0, Cluster(8))
    assert few.waiting > many.waiting > 0


def test_gradients_travel_almost_twice_around_the_ring():
    work = load(updates=1)
    weights = trained_parameters(work.cfg, work.shape)
    _, inside = exchange_seconds(work, GPU, 100.0, Cluster(4))
    # 2 * 3/4 of 4 bytes a weight at 10 GB/s, and 6 messages of 50 microseconds
    assert inside == pytest.approx(1.5 * 4 * weights / 10e9 + 6 * 50e-6)
    _, between = exchange_seconds(work, GPU, 100.0, Cluster(2, 2, network=10.0))
    assert between == pytest.approx(1.5 * 4 * weights / 1.25e9 + 6 * 200e-6)
    _, twice = exchange_seconds(load(updates=2), GPU, 100.0, Cluster(4))
    assert twice == pytest.approx(2 * inside)


def test_ranks_of_a_cpu_share_its_cores():
    work = load(prompts=64)
    mean = lengths_of(work).mean
    plan = estimate(work, CPU, mean)
    two = plan_on(work, CPU, plan, mean, Cluster(2))
    assert 1.0 < two.speedup < ONE_THREAD_GAIN
    large = dataclasses.replace(work, shape=shape_of("Qwen/Qwen2.5-1.5B"))
    assert 0.7 < plan_on(large, CPU, plan, mean, Cluster(2)).speedup < 1.0
    assert two.usd == pytest.approx(two.hours * CPU.usd_per_hour)  # one machine


def test_the_same_figures_every_time():
    work = load()
    assert simulate(work, GPU, 50.0, Cluster(2)) == simulate(work, GPU, 50.0, Cluster(2))
    assert STEPS >= 20


def test_more_ranks_than_groups_are_refused_and_the_fix_works():
    work = load(prompts=4)
    plan = estimate(work, GPU)
    with pytest.raises(ConfigError, match="8 ranks for 4 groups") as refused:
        plan_on(work, GPU, plan, 50.0, Cluster(4, 2))
    assert "--rollout.prompts 8" in refused.value.fix
    wider = load(prompts=8)
    plan_on(wider, GPU, estimate(wider, GPU), 50.0, Cluster(4, 2))
