"""Makes a base model in a folder; the same call resumes an interrupted training."""

import dataclasses
import json
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import torch

from aha.core.errors import ConfigError, ModelError, RunError
from aha.core.recipe_layers import flattened
from aha.core.sizes import GB
from aha.dist.local_ranks import LocalRanks, choose_ranks
from aha.dist.world import World
from aha.machine.device import (
    PeakMemory,
    choose_device,
    device_name,
    gpu_name,
    has_cuda,
    num_threads,
)
from aha.machine.host import num_cores
from aha.model.architecture import ModelConfig
from aha.model.config_keys import WHOLE
from aha.model.folders import base_cost, resolve_model
from aha.model.model_json import read_object
from aha.model.tokenizer import build_tokenizer
from aha.model.transformer import Transformer
from aha.model.weights import load_weights, save_model
from aha.plan.machines import Cost, money, price_of
from aha.plan.pretrain_estimate import WRITERS, BasePlan
from aha.pretrain.settings import PretrainJob, with_price
from aha.pretrain.trainer import Pretrainer
from aha.store.checkpoint import checkpoints, load_state, newest_whole, save_checkpoint
from aha.store.checksums import write_checksums
from aha.store.durable import disk_errors, replace_folder, to_json, write_text
from aha.store.run_folder import environment
from aha.store.run_lock import RunLock
from aha.training.loop import Interrupt, QuietInterrupt, drive
from aha.training.next_tokens import NextTokenReport
from aha.training.preflight import machine_here

SAVE_EVERY_S = 120.0
PRINT_EVERY = 50  # updates


@dataclasses.dataclass(frozen=True)
class PretrainMachine:
    """The machine that trains a base: device, number of processes that write documents, price and
    power. `ranks` is the number of processes that train, None for as many as suit the model."""

    device: torch.device
    name: str
    writers: int
    usd_per_hour: float
    watts: float
    ranks: int | None = 1

    @classmethod
    def of(
        cls,
        device: str,
        writers: int | None,
        usd_per_hour: float | None,
        watts: float | None,
        ranks: int | None = 1,
    ) -> "PretrainMachine":
        """The machine with this `device`; "auto" is a CUDA GPU if there is one, whatever the size
        of the model, because nothing is generated. Apple's GPU has not been tested with bf16 and
        Muon."""
        if device == "auto":
            device = "cuda" if has_cuda() else "cpu"
        chosen = choose_device(
            device, 0, "device"
        )  # by its name, so the number of parameters does not matter
        gpu = gpu_name(chosen)
        if writers is None:
            writers = min(WRITERS, max(1, (num_cores() or 1) - 1)) if gpu else 0
        price, power = price_of(gpu, usd_per_hour, watts)
        return cls(chosen, device_name(chosen), writers, price, power, ranks)


class ProgressWatcher:
    """Prints a line every `PRINT_EVERY` updates and saves every `SAVE_EVERY_S` seconds.

    `spent` is the cost before this process, perhaps on another machine; `cost` includes it. `ranks`
    are the numbers of ranks that have trained, in their order, this one last. All ranks save
    together, when rank 0 says so, and compare their weights; rank 0 writes.
    """

    def __init__(
        self,
        trainer: Pretrainer,
        out: Path,
        machine: PretrainMachine,
        spent: Cost,
        say: Callable[[str], None] = print,
        saved_step: int = -1,
        ranks: Sequence[int] = (1,),
    ):
        self.trainer, self.out, self.machine, self.spent = trainer, out, machine, spent
        self.say, self.ranks = say, list(ranks)
        self.started = self.saved = time.perf_counter()
        self.saved_step = saved_step  # the last one that has a checkpoint, -1 for none
        self.losses: list[torch.Tensor] = []

    @property
    def cost(self) -> Cost:
        seconds = time.perf_counter() - self.started
        own = Cost.of(seconds, self.machine.usd_per_hour, self.machine.watts)
        spent = self.spent
        return Cost(spent.seconds + own.seconds, spent.usd + own.usd, spent.kwh + own.kwh)

    def __call__(self, report: NextTokenReport) -> None:
        self.losses.append(report.loss)
        if report.step % PRINT_EVERY == 0:
            loss = torch.stack(self.losses).mean().item()  # the only place that waits for a GPU
            speed = report.tokens_seen / self.cost.seconds
            left = (self.trainer.cfg.tokens - report.tokens_seen) / speed
            self.say(
                f"{report.step:>6}  loss {loss:.4f}  {report.tokens_seen / 1e6:7.2f} M tokens  "
                f"{speed:6.0f} tok/s  left {left / 60:.1f} min"
            )
            self.losses = []
        if self.trainer.world.should("save"):
            self.save()

    def is_due(self) -> bool:
        """Whether it is time for a checkpoint, by the clock of rank 0."""
        return self.trainer.world.rank == 0 and time.perf_counter() - self.saved > SAVE_EVERY_S

    def save(self) -> None:
        trainer = self.trainer
        if self.saved_step == trainer.step_count:
            return
        place = f"the checkpoint after update {trainer.step_count}"
        trainer.world.check_equal(trainer.parameters, place)
        if trainer.world.rank == 0:
            progress = {"cost": dataclasses.asdict(self.cost), "ranks": self.ranks}
            save_checkpoint(
                self.out / "checkpoints",
                trainer.step_count,
                trainer.state_dict() | progress,
                lambda folder: save_model(folder, trainer.model, trainer.tokenizer),
                keep_last=2,
            )
        self.saved, self.saved_step = time.perf_counter(), trainer.step_count


def no_line(line: str) -> None:
    """In place of `print` in a rank other than 0."""


def pretrain_base(
    job: PretrainJob,
    machine: PretrainMachine,
    say: Callable[[str], None] = print,
    on_share: Callable[[float], None] | None = None,
) -> int | None:
    """Train until all tokens are read, or until interrupted; `out/model` is written at the end.

    Returns the number of the signal that has stopped it, None where it is done.
    `say` gets each line for the user, `on_share` the share that is done. Raises ConfigError where
    `out` was begun with other settings and for a number of ranks that cannot work, RunError while
    another process trains there, and RunStopped where a rank is lost.
    """
    ranks = choose_ranks(machine.ranks, machine.device, job.shape.parameters, job.most_ranks)
    if job.start and not checkpoints(job.out / "checkpoints"):
        check_start(job)  # before there is a folder
    with disk_errors(f"make {job.out}"):
        job.out.mkdir(parents=True, exist_ok=True)
    lock = RunLock(job.out, say)
    try:
        return pretrain_locked(job, dataclasses.replace(machine, ranks=ranks), say, on_share)
    finally:
        lock.release()


def check_start(job: PretrainJob) -> None:
    """Raise an error unless there is a model of the job's sizes to start from.

    aha-tiny's first edition had another vocabulary, so a base of before does not fit.
    """
    folder = resolve_model(str(job.start))
    if not (folder / "config.json").is_file():
        return  # the error of who reads the weights says more
    theirs = ModelConfig.from_hf(read_object(folder / "config.json"))
    for name in WHOLE:
        own, other = getattr(job.architecture, name), getattr(theirs, name)
        if own != other and name != "max_position_embeddings":
            raise ConfigError(
                f"--start {job.start}, a model with {name} {other}",
                f"{name} {own}, as in the model to make",
                "start from a base of this shape and version, or leave out --start",
            )


def pretrain_locked(
    job: PretrainJob,
    machine: PretrainMachine,
    say: Callable[[str], None],
    on_share: Callable[[float], None] | None,
) -> int | None:
    """`pretrain_base` while the lock of its folder is held."""
    ranks = machine.ranks or 1
    say(json.dumps(job.settings | {"parameters": job.shape.parameters}, indent=2))
    first_environment = keep_settings(job.out, job.settings)
    saved = newest_whole(job.out / "checkpoints")
    if saved:
        for _, reason in saved.damaged:
            say(f"a damaged checkpoint: {reason}; {saved.path.name} is whole and taken instead")
    plan, planned_as = plan_here(job, machine)
    if plan:
        one = " in one process" if ranks > 1 else ""
        say(
            f"planned on {machine.name} as {planned_as}{one}: {plan.tokens_per_s:,.0f} tok/s, "
            f"{plan.cost.seconds / 3600:.2f} hours, {money(plan.cost.usd)}, "
            f"{plan.peak / GB:.1f} GB"
        )
    if ranks > 1:
        say(f"{ranks} ranks share the rows of each update")
    facts = {"environment": first_environment, **job.settings} | earlier_facts(job, plan)
    checkpoint = saved.path if saved else None
    del saved  # each rank reads the checkpoint itself: these tensors would be kept to the end
    shared = (job, machine, checkpoint, facts)
    with LocalRanks(ranks, partial(train_rank, *shared, no_line, None)) as world:
        return train_rank(*shared, say, on_share, world)


def plan_here(job: PretrainJob, machine: PretrainMachine) -> tuple[BasePlan | None, str]:
    """(the plan of this machine, the row of the table that it was made with, in words); no plan
    without a row."""
    ranks = machine.ranks or 1
    name, row = machine_here(machine.device, job.shape.parameters, ranks)
    if row is None:
        return None, name
    card = with_price(row, machine.usd_per_hour, machine.watts)
    return job.plan(card, machine.writers, ranks), name


def train_rank(
    job: PretrainJob,
    machine: PretrainMachine,
    checkpoint: Path | None,
    facts: dict[str, Any],
    say: Callable[[str], None],
    on_share: Callable[[float], None] | None,
    world: World,
) -> int | None:
    """The training as one rank sees it, from a checkpoint if there is one. All ranks do this; rank
    0 alone writes: checkpoints, and at the end the base, with `facts` on its card. Returns as
    `pretrain_base` does."""
    world.take_device(machine.device)
    model = Transformer(job.architecture)
    model.initialise(torch.Generator().manual_seed(job.cfg.seed))
    if checkpoint:
        load_weights(model, checkpoint)
    elif job.start:
        load_weights(model, resolve_model(str(job.start)))
    memory = PeakMemory(machine.device)
    model.to(machine.device)
    trainer = Pretrainer(model, build_tokenizer(), job.cfg, machine.writers, world)
    spent, ranks = Cost(0.0, 0.0, 0.0), list[int]()
    if checkpoint:
        spent, ranks = resume(trainer, checkpoint)
        say(f"going on from {checkpoint}")
    if not trainer.done and ranks[-1:] != [world.size]:
        ranks = [*ranks, world.size]
    saved_step = trainer.step_count if checkpoint else -1
    progress = ProgressWatcher(trainer, job.out, machine, spent, say, saved_step, ranks)
    watchers: list[Callable[[NextTokenReport], None]] = [progress]
    if on_share:
        watchers.append(lambda report: on_share(report.tokens_seen / job.cfg.tokens))
    world.check_equal(trainer.parameters, "the start")
    with closing(trainer), Interrupt() if world.rank == 0 else QuietInterrupt() as stop:
        world.requests = {"stop": stop, "save": progress.is_due}
        drive(trainer.steps(), watchers, lambda: world.should("stop"))
        progress.save()
    if trainer.done:
        peak = sum(world.gather(memory.bytes(), "the end"))
        if world.rank == 0:
            known = {"peak_bytes": peak} if peak else {}  # 0: nobody says it
            write_base(job.out / "model", trainer, facts_of(progress) | known | facts)
            say(f"the model is in {job.out / 'model'}")
        return None
    # Without a signal of its own, rank 0 was stopped by another rank that was asked to end.
    return stop.signal or signal.SIGTERM


def write_base(folder: Path, trainer: Pretrainer, facts: dict[str, Any]) -> None:
    """The finished base with its facts; an older one stands until the new one is whole."""

    def write(partial: Path) -> None:
        save_model(partial, trainer.model, trainer.tokenizer)
        write_text(partial / "pretraining.json", to_json(facts, indent=2) + "\n")
        write_checksums(partial)

    with disk_errors(f"write {folder}"):
        replace_folder(folder, write)


def resume(trainer: Pretrainer, checkpoint: Path) -> tuple[Cost, list[int]]:
    """Load the checkpoint into the trainer; returns the cost up to then, and the numbers of ranks
    that have trained."""
    state = load_state(checkpoint)
    if "cost" not in state:
        raise ModelError(
            f"{checkpoint}, of an older version, which kept no cost",
            "what was spent so far, for the model's card",
            f"the same command with a new folder and --start {checkpoint}",
        )
    spent, ranks = Cost(**state.pop("cost")), state.pop("ranks", [1])
    trainer.load_state_dict(state)
    return spent, ranks


def keep_settings(out: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Write the settings into a new folder, or raise ConfigError where it was begun with others.

    Returns the environment of the first process: the commit at the end may be another one.
    """
    path = out / "settings.json"
    if not path.is_file():
        out.mkdir(parents=True, exist_ok=True)
        first_settings = {"settings": settings, "environment": environment()}
        write_text(path, to_json(first_settings, indent=2) + "\n")
    first = read_settings(path)
    now, then = flattened(json.loads(json.dumps(settings))), flattened(first["settings"])
    changed = sorted(key for key in now.keys() | then.keys() if now.get(key) != then.get(key))
    if changed:
        key = changed[0]
        raise ConfigError(
            f"{key} {now.get(key)} in {out}, which began with {then.get(key)}",
            "the settings of before, or a new folder",
            f"the same command with another folder, such as {out}-2",
        )
    before: dict[str, Any] = first["environment"]
    return before


def read_settings(path: Path) -> dict[str, Any]:
    """The settings and the environment that a base was begun with."""
    try:
        first: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        assert isinstance(first["settings"], dict) and isinstance(first["environment"], dict)
        return first
    except (OSError, ValueError, LookupError, TypeError, AssertionError) as error:
        raise RunError(
            f"{path} is damaged: {error!r}",
            "the settings that the base was begun with",
            f"rm {path}, if this command has the same ones",
        ) from None


def facts_of(progress: ProgressWatcher) -> dict[str, Any]:
    """Facts for the model card and for every run that starts from this base."""
    trainer, cost, machine = progress.trainer, progress.cost, progress.machine
    return {
        "tokens": trainer.tokens_seen,
        "steps": trainer.step_count,
        "hours": cost.seconds / 3600,
        "cost_usd": cost.usd,
        "kwh": cost.kwh,
        "device": machine.name,
        "writers": machine.writers,
        # The order of sums, and with it the last bits, depends on both.
        "ranks": progress.ranks,
        "threads": num_threads(),
        "computed_in": str(trainer.dtype).removeprefix("torch."),
    }


def earlier_facts(job: PretrainJob, plan: BasePlan | None) -> dict[str, Any]:
    """Facts from before the training: the cost of the model that it started from, and the plan."""
    facts: dict[str, Any] = {}
    if job.start:
        facts["start_cost"] = base_cost(resolve_model(str(job.start)))
    if plan:
        facts["planned"] = dataclasses.asdict(plan.cost) | {"peak_bytes": plan.peak}
    return facts
