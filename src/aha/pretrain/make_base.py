"""Makes a base model in a folder; the same call resumes an interrupted training."""

import dataclasses
import json
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from aha.core.errors import ConfigError, ModelError
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
from aha.store.checkpoint import checkpoints, load_state, save_checkpoint
from aha.store.run_folder import environment
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
    ):
        self.trainer, self.out, self.machine, self.spent = trainer, out, machine, spent
        self.say = say
        self.started = self.saved = time.perf_counter()
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
        state = trainer.state_dict() | {"cost": dataclasses.asdict(self.cost)}
        save_checkpoint(
            self.out / "checkpoints",
            trainer.step_count,
            state,
            lambda folder: save_model(folder, trainer.model, trainer.tokenizer),
            keep_last=2,
        )
        self.saved = time.perf_counter()


def pretrain_base(
    job: PretrainJob, machine: PretrainMachine, say: Callable[[str], None] = print
) -> None:
    """Train until all tokens are read, or until interrupted; `out/model` is written at the end.

    `say` gets each line for the user. Raises ConfigError where `out` was begun with other settings.
    """
    out = job.out
    model, tokenizer = Transformer(job.architecture), build_tokenizer()
    say(json.dumps(job.settings | {"parameters": model.num_parameters()}, indent=2))
    model.initialise(torch.Generator().manual_seed(job.cfg.seed))
    saved = checkpoints(out / "checkpoints")
    if job.start and not saved:
        load_weights(model, resolve_model(str(job.start)))
    first_environment = keep_settings(out, job.settings)
    plan = job.plan(machine.card, machine.writers) if machine.card else None
    if plan:
        say(
            f"planned on {machine.name}: {plan.tokens_per_s:,.0f} tok/s, "
            f"{plan.cost.seconds / 3600:.2f} hours, {money(plan.cost.usd)}"
        )
    if saved:
        load_weights(model, saved[-1])
    memory = PeakMemory(machine.device)
    model.to(machine.device)
    trainer = Pretrainer(model, tokenizer, job.cfg, machine.writers)
    spent = Cost(0.0, 0.0, 0.0)
    if saved:
        spent = resume(trainer, saved[-1])
        say(f"going on from {saved[-1]}")
    progress = ProgressWatcher(trainer, out, machine, spent, say)
    with closing(trainer), Interrupt() as stop:
        drive(trainer.steps(), [progress], stop)
    progress.save()
    if trainer.done:
        save_model(out / "model", model, tokenizer)
        # On a CPU the peak is that of the whole process, which the plan does not count.
        facts = facts_of(trainer, progress.cost, machine) | {"peak_bytes": memory.bytes()}
        facts |= {"environment": first_environment, **job.settings} | earlier_facts(job, plan)
        path = out / "model" / "pretraining.json"
        path.write_text(json.dumps(facts, indent=2) + "\n")
        say(f"the model is in {out / 'model'}")


def resume(trainer: Pretrainer, checkpoint: Path) -> Cost:
    """Load the checkpoint into the trainer; returns the cost up to then."""
    state = load_state(checkpoint)
    if "cost" not in state:
        raise ModelError(
            f"{checkpoint}, of an older version, which kept no cost",
            "what was spent so far, for the model's card",
            f"the same command with a new folder and --start {checkpoint}",
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
        text = json.dumps({"settings": settings, "environment": environment()}, indent=2)
        path.write_text(text + "\n")
    first: dict[str, dict[str, Any]] = json.loads(path.read_text())
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


def flattened(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"mix": {"search": 0.3}} as {"mix.search": 0.3}."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        flat |= flattened(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat


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
