"""What the ranks of a run do together, and how the ranks other than 0 come to do it.

Rank 0 carries the run out: it alone decides, prints, and writes the run folder. The others wait for
an order from it, which is a function of their trainer: a step, an evaluation, a comparison of the
weights. Every function here that ends in `_together` sends the order and does the same in rank 0.
In a world of one rank no order is sent.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from aha.core.config import RunConfig
from aha.core.errors import ConfigError, RunStopped
from aha.core.records import Prompt, StepReport
from aha.dist.joined_ranks import JoinedRanks
from aha.dist.local_ranks import LATE_S, LOST_RANK, LocalRanks, check_ranks
from aha.dist.rank_device import SeenGpus, gpu_of
from aha.dist.sharded_tensors import in_shards, own_part
from aha.dist.world import RankLost, World
from aha.eval.suite import EvalReport, evaluate, evaluate_by
from aha.machine.device import peak_bytes
from aha.machine.host import trim_heap
from aha.model.weights import load_policy
from aha.rollout.engine import Sampling
from aha.rollout.shared_rollout import graded_groups
from aha.store.checkpoint import load_state
from aha.store.run_folder import resume_command
from aha.training.builders import make_trainer, open_policy, task_of
from aha.training.loop import QuietInterrupt
from aha.training.preflight import readable_task
from aha.training.rank_log import FOLDER, Note, carry_out, rank_log
from aha.training.rl import RLTrainer
from aha.training.sharded_trainer import enter_shards, load_before_shards

Order = Callable[[RLTrainer], object]
Progress = Callable[[int, int], None]

ON_CPU = "--model.device cpu"
ORDERS = "what rank 0 begins next"


@dataclass(frozen=True)
class RankSetting:
    """What a rank needs to make the trainer that rank 0 has: the resolved recipe, the folder of the
    base (None where it has gone), the checkpoint to go on from, whether it is to be in shards, and
    the kind of device."""

    cfg: RunConfig
    base: Path | None
    checkpoint: Path | None
    in_shards: bool = False
    device: str = "cpu"

    def take_device(self, world: World) -> None:
        """That of rank 0, whatever `auto` would be on this machine; of several GPUs an own one."""
        world.take_device(torch.device(self.device))

    def make_trainer(self, world: World) -> RLTrainer:
        section = self.cfg.model.model_copy(update={"device": self.device})
        cfg = self.cfg.model_copy(update={"model": section})
        # The base as this machine has it: its packages may lie elsewhere.
        model = open_policy(cfg, None if self.base else self.checkpoint, self.in_shards)
        task, _ = readable_task(cfg, task_of(cfg), model)
        trainer = make_trainer(cfg, model, task, world)
        if self.checkpoint:
            load_policy(trainer.policy, self.checkpoint)
            if not self.in_shards:
                state = load_state(self.checkpoint)
                load_before_shards(trainer, state, self.checkpoint)
        return trainer

    def begin(self, trainer: RLTrainer) -> None:
        """In every rank: raises RunStopped unless all have the same weights. Then they are cut into
        shards, where the trainer is to be in shards."""
        compare_weights("the start", trainer)
        if self.in_shards:
            enter_shards(trainer, self.checkpoint)


def check_setting(ranks: int, cfg: RunConfig, shard: str = "auto") -> None:
    """Raise ConfigError for more ranks than the cores, the GPUs or the groups allow, for an engine
    that takes a whole machine, and for an optimiser that cannot be cut into shards.

    Reads no model, so it is the first check of a run.
    """
    joined = JoinedRanks.current is not None
    if not joined:
        # "auto" may be a GPU, of which more is known when the model is.
        named = cfg.model.device.replace("auto", "cpu")
        check_ranks(ranks, torch.device(named), ON_CPU)
    check_groups(ranks, cfg, joined, shard)


def check_groups(
    ranks: int, cfg: RunConfig, launched: bool = False, shard: str | None = "auto"
) -> None:
    """Raise ConfigError for more ranks than groups, for an engine that takes a whole machine, and
    for an optimiser that cannot be cut into shards. `launched`: another program starts the ranks.
    """
    groups = cfg.rollout.prompts
    if ranks > groups:
        fewer = f"{groups} processes in the launcher" if launched else f"--ranks {groups}"
        raise ConfigError(
            f"{ranks} ranks for {groups} groups a step (rollout.prompts)",
            "at most one rank for each group",
            f"{fewer}, or --rollout.prompts {ranks}",
        )
    if ranks > 1 and cfg.rollout.engine != "native":
        raise ConfigError(
            f"--ranks {ranks} with --rollout.engine {cfg.rollout.engine}",
            "the engine native, of which every rank has one",
            "--ranks 1, or --rollout.engine native",
        )
    # Of "8bit" a scale belongs to 256 numbers, which a cut would part; "cpu" keeps weights of its
    # own.
    if ranks > 1 and shard == "on" and cfg.optim.state != "device":
        raise ConfigError(
            f"--shard on with --optim.state {cfg.optim.state}",
            "an optimiser whose state is cut as the weights are",
            "--optim.state device, or --shard off",
        )


def refuse_shards_of_one(shard: str | None, ranks: int) -> None:
    """Raise ConfigError where `--shard on` was typed for one rank, which would have all shards. A
    run that was begun in shards goes on with one rank without it."""
    if shard == "on" and ranks == 1:
        raise ConfigError("--shard on with one rank", "at least two", "--ranks 2 --shard on")


def ranks_of_run(
    ranks: int, device: torch.device, run: Path, grade_s: float
) -> LocalRanks | JoinedRanks:
    """The ranks of the run in the folder `run`: those that this process has joined, or else ranks
    that are not started yet. A rank may wait for one grade for `grade_s` seconds. Raises
    ConfigError for a number that cannot work on this machine."""
    if joined := JoinedRanks.current:
        assert ranks == joined.size, "the command takes the number of its launcher"
        if device.type == "cpu" or ranks == 1:
            check_ranks(joined.place.local_size, device, ON_CPU)
        else:
            gpu_of(joined.place.local, SeenGpus.here(device), ON_CPU)
        joined.late_s = LATE_S + grade_s
        joined.again = f"the same launcher again, with `{resume_command(run)}`"
        return joined
    check_ranks(ranks, device, ON_CPU)
    again = f"{resume_command(run)}; with --ranks 1 if it comes again"
    return LocalRanks(ranks, partial(take_part, run / FOLDER), LATE_S + grade_s, again)


# -- the ranks other than 0 ------------------------------------------------------------------------


def take_part(logs: Path, world: World) -> None:
    """The life of such a rank: it makes its trainer, and carries out the orders of rank 0. Its log
    is in the folder `logs`."""
    with QuietInterrupt() as stop:
        world.requests = {"stop": stop}
        setting: RankSetting = world.broadcast(NO_SETTING, 0, "the start")
        setting.take_device(world)
        with rank_log(logs, world) as note:  # rank 0 has made the run folder by now
            trainer = setting.make_trainer(world)
            setting.begin(trainer)
            note(f"begins after step {trainer.version}")
            try:
                obey(trainer, note)
            except RunStopped as fault:
                if all_ranks_have(fault, trainer):
                    note(f"a fault that all ranks have: {fault}")
                    with suppress(RankLost):  # rank 0 asks for nothing, and ends
                        obey(trainer, note)
                raise


def obey(trainer: RLTrainer, note: Note) -> None:
    """Carry out what rank 0 sends, until it says that there is no more."""
    while order := trainer.world.broadcast(NO_ORDER, 0, ORDERS):
        carry_out(order, trainer, note)


def all_ranks_have(fault: BaseException, trainer: RLTrainer) -> bool:
    """Whether a fault has ended an order of models in shards in every rank, so that all of them can
    save what was before it: one of numbers that all ranks have, found before a weight changed. Also
    of one that rank 0 has noticed between two orders, for which the others wait."""
    known = isinstance(fault, RunStopped) and fault.check != LOST_RANK
    return known and trainer.world.in_shards and not trainer.mid_step


NO_ORDER: Order | None = None
NO_SETTING = RankSetting(RunConfig(), None, None)


def make_step(trainer: RLTrainer) -> StepReport:
    report = trainer.step(trainer.problems())
    trim_heap()
    return report


def take_test(
    prompts: list[Prompt],
    sampling: Sampling,
    max_grade_errors: float,
    trainer: RLTrainer,
    progress: Progress | None = None,
) -> EvalReport:
    rollout = partial(graded_groups, trainer.world, trainer.engine, trainer.task)
    return evaluate_by(rollout, prompts, sampling, progress, max_grade_errors=max_grade_errors)


def compare_weights(place: str, trainer: RLTrainer) -> None:
    optimizers = trainer.optimizers
    weights = (weight for optimizer in optimizers for weight in optimizer.parameters)
    trainer.world.check_equal((one for one in weights if not in_shards(one)), place)


def weights_are_numbers(trainer: RLTrainer) -> bool:
    """Of the policy, in all ranks where it is in shards."""
    own = all(bool(own_part(w).isfinite().all()) for w in trainer.policy.trainable())
    if not trainer.world.in_shards:
        return own
    return all(trainer.world.gather(own, "the look at the weights"))


def reload_engine(trainer: RLTrainer) -> None:
    trainer.engine.release()
    trainer.publish()


def tell_peak(trainer: RLTrainer) -> list[int]:
    return trainer.world.gather(peak_bytes(trainer.device), "the peak of memory")


# -- rank 0 ----------------------------------------------------------------------------------------


def begin_together(
    trainer: RLTrainer, base: Path | None, checkpoint: Path | None, in_shards: bool = False
) -> None:
    """The others make the trainer that rank 0 has, from the base or from a checkpoint.

    Raises RunStopped unless all then have the same weights.
    """
    setting = RankSetting(trainer.cfg, base, checkpoint, in_shards, trainer.device.type)
    trainer.world.broadcast(setting, 0, "the start")
    setting.take_device(trainer.world)
    setting.begin(trainer)


def end_together(trainer: RLTrainer) -> None:
    """There is no more to do: the others end."""
    trainer.world.broadcast(NO_ORDER, 0, ORDERS)


def steps_together(trainer: RLTrainer) -> Iterator[StepReport]:
    """The steps that are left, one report each."""
    while not trainer.finished:
        trainer.world.broadcast(make_step, 0, ORDERS)
        yield make_step(trainer)


def evaluate_together(
    trainer: RLTrainer,
    prompts: list[Prompt],
    sampling: Sampling,
    progress: Progress | None = None,
) -> EvalReport:
    """`evaluate` of the trainer's present version, by its recipe's limit of failed grades."""
    test = partial(take_test, prompts, sampling, trainer.cfg.task.max_grade_errors)
    trainer.world.broadcast(test, 0, ORDERS)
    return test(trainer, progress)


def evaluate_alone(
    trainer: RLTrainer,
    prompts: list[Prompt],
    sampling: Sampling,
    progress: Progress | None = None,
) -> EvalReport:
    """The same by rank 0 alone, whose engine may have other weights than the others' have."""
    limit = trainer.cfg.task.max_grade_errors
    shared = (trainer.engine, trainer.task, prompts, sampling, progress)
    return evaluate(*shared, max_grade_errors=limit)


def reload_together(trainer: RLTrainer) -> None:
    """The engines of all ranks take the present weights, whatever they had."""
    trainer.world.broadcast(reload_engine, 0, ORDERS)
    reload_engine(trainer)


def compare_together(trainer: RLTrainer, place: str) -> None:
    """Raise RunStopped unless all ranks have the same weights."""
    trainer.world.broadcast(partial(compare_weights, place), 0, ORDERS)
    compare_weights(place, trainer)


def weights_are_numbers_together(trainer: RLTrainer) -> bool:
    """The same; of models that are whole rank 0 looks alone, as the others may be gone."""
    if trainer.world.in_shards:
        trainer.world.broadcast(weights_are_numbers, 0, ORDERS)
    return weights_are_numbers(trainer)


def peak_together(trainer: RLTrainer, own: int) -> int:
    """The peaks of all ranks' memory together, in bytes; `own` is that of rank 0."""
    trainer.world.broadcast(tell_peak, 0, ORDERS)
    return own + sum(tell_peak(trainer)[1:])
