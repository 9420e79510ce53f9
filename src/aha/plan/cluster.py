"""What several ranks would make of a plan: a small simulation of steps, from one rank's figures.

A step is over when its last rank is. So its time is not that of one rank over their number: a rank
with a long completion, or on a slower machine, keeps the others waiting, and what the ranks tell
each other takes time as well. The steps of one rank are simulated in the same way, and their ratio
is applied to the plan. Nothing here was compared with a GPU; what `Cluster.assumed` says is printed
with the figures.
"""

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from statistics import fmean

from aha.core.errors import ConfigError
from aha.core.seeds import seed_for
from aha.core.sizes import GB, ONE_THREAD_MODEL, RANK_GROUPS
from aha.plan.estimate import CPU_THREADS, Plan, trained_parameters, update_seconds, usable_bytes
from aha.plan.machines import Cost
from aha.plan.shard_memory import plan_in_shards
from aha.plan.speed import (
    TAIL,
    Card,
    Generation,
    Lengths,
    Training,
    Workload,
    computed_share,
    work_of,
)

STEPS = 20  # simulated
SPEED_SPREAD = 0.05  # of a rank's speed from step to step: standard deviation of its logarithm
ROW_BYTES = 30.0  # of a token of a completion, as the ranks send it to each other
LINK = 10.0  # GB/s between the GPUs of one machine
# Of the demo on two cores: the simulation alone says 1.05 and 1.12 of the time of one rank for two
# and four, and .86 and .90 were measured (results/bench/ranks.jsonl).
ONE_THREAD_GAIN = 1.22
CPU_LINK = 2.0  # GB/s between processes of one machine
NETWORK_GBIT = 10.0  # Gbit/s between machines
LATENCY_S = {True: 50e-6, False: 200e-6}  # of one message, by whether all ranks are on one machine
# Of the lengths: a factor of the prompt times a factor of the completion, each a gamma variable of
# this shape. Together they have the second moment `TAIL` of the plan.
GAMMA = 1 / (math.sqrt(TAIL) - 1)
RankWork = list[list[tuple[Generation, Training]]]  # by step and rank


@dataclass(frozen=True)
class Cluster:
    """`nodes` machines with `gpus` ranks each; a rank has a card of its own, or on a CPU its share
    of the cores. `network` Gbit/s between machines. `in_shards`: a rank has its part of the models
    alone, which changes no time here."""

    gpus: int = 1
    nodes: int = 1
    network: float = NETWORK_GBIT
    in_shards: bool = False

    @property
    def shards(self) -> int:
        """Of how many ranks' shards a model is made."""
        return self.ranks if self.in_shards else 1

    @property
    def ranks(self) -> int:
        return self.gpus * self.nodes

    def cards(self, on_cpu: bool) -> int:
        """How many machines of the table it is: a GPU for each rank, or a CPU for several."""
        return self.nodes if on_cpu else self.ranks

    def card_of_rank(self, card: Card, parameters: int) -> Card:
        """A rank's part of a machine, for a model with so many parameters."""
        if not card.cpu:
            return card
        one_thread = self.gpus > 1 and parameters < ONE_THREAD_MODEL
        share = (ONE_THREAD_GAIN if one_thread else 1.0) / self.gpus
        return replace(card, tflops=share * card.tflops, bandwidth=share * card.bandwidth)

    def rate(self, card: Card) -> float:
        """Bytes/s of the slowest connection on the way around all ranks."""
        inside = CPU_LINK if card.cpu else LINK
        return min(inside, self.network / 8) * GB if self.nodes > 1 else inside * GB

    @property
    def latency_s(self) -> float:
        return LATENCY_S[self.nodes == 1]

    def check(self, prompts: int) -> None:
        """Raise ConfigError for more ranks than groups, which a run would refuse."""
        if self.ranks > prompts:
            raise ConfigError(
                f"{self.ranks} ranks for {prompts} groups a step (rollout.prompts)",
                "at most one rank for each group",
                f"--rollout.prompts {self.ranks}, or fewer --gpus",
            )

    def assumed(self) -> list[str]:
        """What the figures stand on, in words."""
        return [
            "GB: of a rank with all weights, and of one with `--shard on`; the times are those of "
            "whole models, as what shards tell each other is not simulated",
            f"lengths of completions spread by {100 * math.sqrt(TAIL - 1):.0f} %, half of it from "
            "prompt to prompt, up to the limit",
            "groups are shared by number, training rows by tokens; a group waits for free rows",
            f"a rank's speed varies by {100 * SPEED_SPREAD:.0f} % from step to step, and the last "
            "rank ends the step",
            f"{LINK:.0f} GB/s between GPUs and {CPU_LINK:.0f} GB/s between processes of a machine, "
            f"{self.network:g} Gbit/s between machines; gradients in float32, twice around a ring",
            "CPU rows: the ranks of a machine share its cores; with fewer than "
            f"{ONE_THREAD_MODEL / 1e6:.0f} M parameters one thread each makes them "
            f"{ONE_THREAD_GAIN:g} times as fast, as measured on one machine with two cores",
            "GPU rows: no run of this program on several GPUs has been measured",
        ]


@dataclass(frozen=True)
class StepTimes:
    """Mean seconds of a step: the last rank's `rollout`, the exchange of completions (`gather`),
    the last rank's `train`, the sum of the gradients (`all_reduce`), the `update`. `waiting`: the
    mean share of its rollout and training that a rank waits for the last one."""

    rollout: float
    gather: float
    train: float
    all_reduce: float
    update: float
    waiting: float

    @property
    def seconds(self) -> float:
        return self.rollout + self.gather + self.train + self.all_reduce + self.update


@dataclass(frozen=True)
class ClusterPlan:
    """A plan on a cluster. `speedup` over one rank on the same card, or over one rank with all
    cores of the machine; `times` is the plan with the times and the cost of the whole cluster.

    `whole` bytes of a rank with all weights, `in_shards` of one with its part of them, None for an
    optimiser that cannot be cut; `room` for a rank.
    """

    step: StepTimes
    speedup: float
    times: Plan
    whole: float
    in_shards: float | None
    room: float

    @property
    def hours(self) -> float:
        return self.times.cost.seconds / 3600

    @property
    def usd(self) -> float:
        return self.times.cost.usd

    @property
    def fits(self) -> str:
        """ "whole", "in shards" where that alone does, or "no": the rule of `--shard auto`."""
        if self.whole <= self.room:
            return "whole"
        return "in shards" if (self.in_shards or math.inf) <= self.room else "no"


def plan_on(
    load: Workload,
    card: Card,
    plan: Plan,
    mean: float,
    cluster: Cluster,
    work: Mapping[int, RankWork] | None = None,
) -> ClusterPlan:
    """The plan of one rank on this card, carried out by all ranks of a cluster.

    `mean` tokens of a completion, those of the plan; `work` of one rank and of the cluster's, by
    their number, where it is known. Raises ConfigError as `Cluster.check` does.
    """
    cluster.check(load.cfg.rollout.prompts)
    known = work or work_of_ranks(load, mean, cluster)
    alone = simulate(load, card, mean, Cluster(1), known[1])
    step = simulate(load, card, mean, cluster, known[cluster.ranks])
    speedup = alone.seconds / step.seconds
    # A test or validation is a rollout without a gradient.
    rollouts = (alone.rollout + alone.gather) / (step.rollout + step.gather)
    times = replace(
        plan,
        rollout_s=plan.rollout_s / speedup,
        train_s=plan.train_s / speedup,
        validation_s=plan.validation_s / rollouts,
        tests_s=plan.tests_s / rollouts,
    )
    cards, seconds = cluster.cards(card.cpu), times.training_s + times.tests_s
    cost = Cost.of(seconds, cards * card.usd_per_hour, cards * card.watts)
    times = replace(times, cost=cost)
    cut = load.cfg.optim.state == "device" and cluster.ranks > 1
    part = plan_in_shards(load, plan, cluster.ranks).peak if cut else None
    room = usable_bytes(card) / (cluster.gpus if card.cpu else 1)  # CPU ranks share one memory
    return ClusterPlan(step, speedup, times, plan.peak, part, room)


def ranks_of_cpu(load: Workload, card: Card, cores: int = CPU_THREADS) -> int:
    """As many ranks as a run takes by itself (`--ranks auto`) on a CPU with so many cores; 1 on a
    GPU. Whether the memory is enough for them is not looked at."""
    small = card.cpu and load.shape.parameters < ONE_THREAD_MODEL
    if not small or load.cfg.rollout.engine != "native":
        return 1
    return max(1, min(cores, load.cfg.rollout.prompts // RANK_GROUPS))


def work_of_ranks(load: Workload, mean: float, cluster: Cluster) -> dict[int, RankWork]:
    """The work of one rank alone, and of those of a cluster. It is the same on every card."""
    lengths = load.lengths(mean)
    drawn = lengths_of_steps(load, lengths)  # which takes longer than all else
    return {ranks: rank_work(load, lengths, drawn, ranks) for ranks in (1, cluster.ranks)}


def lengths_of_steps(load: Workload, lengths: Lengths) -> list[list[list[float]]]:
    """Lengths of the completions of steps, by group: the same whatever the number of ranks."""
    seeds = (seed_for(0, "plan", step) for step in range(STEPS))
    return [drawn_lengths(load, lengths, Random(seed)) for seed in seeds]


def rank_work(
    load: Workload, lengths: Lengths, drawn: Sequence[list[list[float]]], ranks: int
) -> RankWork:
    """What each of so many ranks does in steps with these lengths of completions."""
    return [
        [
            (
                generation_of_rank(load, lengths, groups[rank::ranks]),
                training_of_rank(load, lengths, groups, rank, ranks),
            )
            for rank in range(ranks)
        ]
        for groups in drawn
    ]


def simulate(
    load: Workload, card: Card, mean: float, cluster: Cluster, work: RankWork | None = None
) -> StepTimes:
    """Steps of a recipe on a cluster, whose ranks do this `work`."""
    own, ranks, rows = cluster.card_of_rank(card, load.shape.parameters), cluster.ranks, []
    for step, parts in enumerate(work or work_of_ranks(load, mean, cluster)[ranks]):
        speeds = Random(seed_for(1, "plan", step))
        rollout, train = [], []
        for generation, training in parts:
            slow = math.exp(speeds.gauss(0.0, SPEED_SPREAD)) if ranks > 1 else 1.0
            rollout.append(slow * generation.seconds(load.shape, own))
            train.append(slow * training.seconds(load.shape, own))
        mean_s = fmean(rollout) + fmean(train)
        rows.append((max(rollout), max(train), 1 - mean_s / (max(rollout) + max(train))))
    rollout_s, train_s, waiting = map(fmean, zip(*rows, strict=True))
    gather_s, reduce_s = exchange_seconds(load, card, mean, cluster)
    update_s = update_seconds(load, own)
    return StepTimes(rollout_s, gather_s, train_s, reduce_s, update_s, waiting)


def exchange_seconds(
    load: Workload, card: Card, mean: float, cluster: Cluster
) -> tuple[float, float]:
    """(seconds to send all completions to all ranks, to add up the gradients) of a step."""
    ranks, rate = cluster.ranks, cluster.rate(card)
    if ranks == 1:
        return 0.0, 0.0
    rollout, messages = load.cfg.rollout, math.ceil(math.log2(ranks)) * cluster.latency_s
    tokens = rollout.prompts * rollout.group_size * mean
    gather_s = 2 * ranks * messages + ROW_BYTES * tokens / rate
    updates, weights = (
        load.cfg.algo.updates,
        load.decoders * trained_parameters(load.cfg, load.shape),
    )
    ring = 2 * (ranks - 1) / ranks * 4.0 * weights / rate
    return gather_s, updates * (ring + 2 * (ranks - 1) * cluster.latency_s)


def drawn_lengths(load: Workload, lengths: Lengths, rng: Random) -> list[list[float]]:
    """Lengths of the completions of a step by group, with the mean of the plan."""
    rollout, method = load.cfg.rollout, load.method
    prompts = (2 if method.resamples else 1) * rollout.prompts
    groups = []
    for _ in range(prompts):
        factor = rng.gammavariate(GAMMA, 1 / GAMMA)
        members = (rng.gammavariate(GAMMA, 1 / GAMMA) for _ in range(rollout.group_size))
        groups.append([factor * member for member in members])
    scale = scale_for(groups, lengths)
    return [[cut(lengths, scale * length) for length in group] for group in groups]


def cut(lengths: Lengths, length: float) -> float:
    return min(lengths.limit, max(1.0, length))


def scale_for(groups: Sequence[Sequence[float]], lengths: Lengths) -> float:
    """The factor that gives cut lengths the mean of the plan, found by halving an interval."""
    flat, low, high = [length for group in groups for length in group], 0.0, 1e3 * lengths.limit
    for _ in range(60):
        middle = (low + high) / 2
        short = fmean(cut(lengths, middle * length) for length in flat) < lengths.mean
        low, high = (middle, high) if short else (low, middle)
    return high


def generation_of_rank(
    load: Workload, lengths: Lengths, groups: Sequence[Sequence[float]]
) -> Generation:
    """The rank's rollout: a pass over the weights for each token of the longest row, and again for
    groups that had to wait for free rows."""
    tokens = sum(map(sum, groups))
    context = lengths.prompt + lengths.weighted / 2
    passes = passes_of(groups, load.cfg.rollout.max_rows)
    return Generation(tokens, context, passes, len(groups) * lengths.prompt)


def passes_of(groups: Sequence[Sequence[float]], max_rows: int) -> float:
    """Passes until the last group has ended. A group begins when all its rows are free."""
    free: list[float] = [0.0] * max_rows
    for group in groups:
        start = 0.0
        for _ in group[:max_rows]:
            start = max(start, heapq.heappop(free))
        for length in group[:max_rows]:
            heapq.heappush(free, start + length)
    return max(free)


def training_of_rank(
    load: Workload, lengths: Lengths, groups: Sequence[Sequence[float]], rank: int, ranks: int
) -> Training:
    """The rank's part of the rows: a run of them with its share of the tokens, to the half of a
    row at each end. A prompt is computed by each rank that has rows of it."""
    counted = groups[: load.cfg.rollout.prompts]
    rows = [(length, place) for place, group in enumerate(counted) for length in group]
    whole, before = sum(length for length, _ in rows), 0.0
    own: list[tuple[float, int]] = []
    for row in rows:
        if min(ranks - 1, int((before + row[0] / 2) * ranks / whole)) == rank:
            own.append(row)
        before += row[0]
    share = computed_share(load)
    prompts = len({place for _, place in own})
    tokens = share * (sum(length for length, _ in own) + prompts * lengths.prompt)
    parts = math.ceil(tokens / load.cfg.optim.micro_batch_tokens)
    return Training(tokens, lengths.prompt + lengths.weighted, parts, work_of(load))
