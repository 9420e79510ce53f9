"""Makes a base model in a folder; the same call resumes an interrupted training."""

import dataclasses
import json
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from aha.core.errors import ConfigError, ModelError, RunError
from aha.core.recipe_layers import flattened
from aha.machine.device import PeakMemory, choose_device, device_name, gpu_name, has_cuda
from aha.machine.host import num_cores
from aha.model.folders import base_cost, resolve_model
from aha.model.tokenizer import build_tokenizer
from aha.model.transformer import Transformer
from aha.model.weights import load_weights, save_model
from aha.plan.machines import Cost, money, price_of
from aha.plan.pretrain_estimate import WRITERS, BasePlan
from aha.plan.speed import Card
from aha.pretrain.settings import PretrainJob, with_price
from aha.pretrain.trainer import Pretrainer, PretrainReport
from aha.store.checkpoint import SavedState, checkpoints, newest_whole, save_checkpoint
from aha.store.checksums import write_checksums
from aha.store.durable import disk_errors, replace_folder, to_json, write_text
from aha.store.run_folder import environment
from aha.store.run_lock import RunLock
from aha.train.loop import Interrupt, drive
from aha.train.preflight import machine_row

SAVE_EVERY_S = 120.0
PRINT_EVERY = 50  # updates


@dataclasses.dataclass(frozen=True)
class PretrainMachine:
    """The machine that trains a base: device, number of processes that write documents, price and
    power. `card` is its row of cards.toml, or None without one."""

    device: torch.device
    name: str
    writers: int
    usd_per_hour: float
    watts: float
    card: Card | None

    @classmethod
    def of(
        cls, device: str, writers: int | None, usd_per_hour: float | None, watts: float | None
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
        _, row = machine_row(chosen)
        price, power = price_of(gpu, usd_per_hour, watts)
        card = row and with_price(row, price, power)
        return cls(chosen, device_name(chosen), writers, price, power, card)


class ProgressWatcher:
    """Prints a line every `PRINT_EVERY` updates and saves every `SAVE_EVERY_S` seconds.

    `spent` is the cost before this process, perhaps on another machine; `cost` includes it.
    """

    def __init__(
        self,
        trainer: Pretrainer,
        out: Path,
        machine: PretrainMachine,
        spent: Cost,
        say: Callable[[str], None] = print,
        saved_step: int = -1,
    ):
        self.trainer, self.out, self.machine, self.spent = trainer, out, machine, spent
        self.say = say
        self.started = self.saved = time.perf_counter()
        self.saved_step = saved_step  # the last one that has a checkpoint, -1 for none
        self.losses: list[torch.Tensor] = []

    @property
    def cost(self) -> Cost:
        seconds = time.perf_counter() - self.started
        own = Cost.of(seconds, self.machine.usd_per_hour, self.machine.watts)
        spent = self.spent
        return Cost(spent.seconds + own.seconds, spent.usd + own.usd, spent.kwh + own.kwh)

    def __call__(self, report: PretrainReport) -> None:
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
        if time.perf_counter() - self.saved > SAVE_EVERY_S:
            self.save()

    def save(self) -> None:
        trainer = self.trainer
        if self.saved_step == trainer.step_count:
            return
        state = trainer.state_dict() | {"cost": dataclasses.asdict(self.cost)}
        save_checkpoint(
            self.out / "checkpoints",
            trainer.step_count,
            state,
            lambda folder: save_model(folder, trainer.model, trainer.tokenizer),
            keep_last=2,
        )
        self.saved, self.saved_step = time.perf_counter(), trainer.step_count


def pretrain_base(
    job: PretrainJob, machine: PretrainMachine, say: Callable[[str], None] = print
) -> None:
    """Train until all tokens are read, or until interrupted; `out/model` is written at the end.

    `say` gets each line for the user. Raises ConfigError where `out` was begun with other settings,
    and RunError while another process trains there.
    """
    if job.start and not checkpoints(job.out / "checkpoints"):
        resolve_model(str(job.start))  # before there is a folder
    with disk_errors(f"make {job.out}"):
        job.out.mkdir(parents=True, exist_ok=True)
    lock = RunLock(job.out, say)
    try:
        pretrain_locked(job, machine, say)
    finally:
        lock.release()


def pretrain_locked(job: PretrainJob, machine: PretrainMachine, say: Callable[[str], None]) -> None:
    """`pretrain_base` while the lock of its folder is held."""
    out = job.out
    model, tokenizer = Transformer(job.architecture), build_tokenizer()
    say(json.dumps(job.settings | {"parameters": model.num_parameters()}, indent=2))
    model.initialise(torch.Generator().manual_seed(job.cfg.seed))
    first_environment = keep_settings(out, job.settings)
    saved = newest_whole(out / "checkpoints")
    if saved:
        for _, reason in saved.damaged:
            say(
                f"a damaged checkpoint: {reason}; {saved.path.name} is whole and taken in its place"
            )
        load_weights(model, saved.path)
    elif job.start:
        load_weights(model, resolve_model(str(job.start)))
    plan = job.plan(machine.card, machine.writers) if machine.card else None
    if plan:
        say(
            f"planned on {machine.name}: {plan.tokens_per_s:,.0f} tok/s, "
            f"{plan.cost.seconds / 3600:.2f} hours, {money(plan.cost.usd)}"
        )
    memory = PeakMemory(machine.device)
    model.to(machine.device)
    trainer = Pretrainer(model, tokenizer, job.cfg, machine.writers)
    spent = Cost(0.0, 0.0, 0.0)
    if saved:
        spent = resume(trainer, saved)
        say(f"going on from {saved.path}")
    saved_step = trainer.step_count if saved else -1
    progress = ProgressWatcher(trainer, out, machine, spent, say, saved_step)
    with closing(trainer), Interrupt() as stop:
        drive(trainer.steps(), [progress], stop)
        progress.save()
    if trainer.done:
        # On a CPU the peak is that of the whole process, which the plan does not count.
        facts = facts_of(trainer, progress.cost, machine) | {"peak_bytes": memory.bytes()}
        facts |= {"environment": first_environment, **job.settings} | earlier_facts(job, plan)
        write_base(out / "model", trainer, facts)
        say(f"the model is in {out / 'model'}")


def write_base(folder: Path, trainer: Pretrainer, facts: dict[str, Any]) -> None:
    """The finished base with its facts; an older one stands until the new one is whole."""

    def write(partial: Path) -> None:
        save_model(partial, trainer.model, trainer.tokenizer)
        write_text(partial / "pretraining.json", to_json(facts, indent=2) + "\n")
        write_checksums(partial)

    with disk_errors(f"write {folder}"):
        replace_folder(folder, write)


def resume(trainer: Pretrainer, saved: SavedState) -> Cost:
    """Load the checkpoint into the trainer; returns the cost up to then."""
    state = saved.state
    if "cost" not in state:
        raise ModelError(
            f"{saved.path}, of an older version, which kept no cost",
            "what was spent so far, for the model's card",
            f"the same command with a new folder and --start {saved.path}",
        )
    spent = Cost(**state.pop("cost"))
    trainer.load_state_dict(state)
    return spent


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
    return first["environment"]


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


def facts_of(trainer: Pretrainer, cost: Cost, machine: PretrainMachine) -> dict[str, Any]:
    """Facts for the model card and for every run that starts from this base."""
    return {
        "tokens": trainer.tokens_seen,
        "steps": trainer.step_count,
        "hours": cost.seconds / 3600,
        "cost_usd": cost.usd,
        "kwh": cost.kwh,
        "device": machine.name,
        "writers": machine.writers,
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
