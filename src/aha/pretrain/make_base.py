"""`aha pretrain`: make a base model from nothing, in a folder that can be resumed."""

import dataclasses
import json
import time
from contextlib import closing
from pathlib import Path

import torch

from aha.core.errors import ConfigError, ModelError
from aha.machine.device import PeakMemory, choose_device, device_name, gpu_name, has_cuda
from aha.machine.host import num_cores
from aha.model.folders import base_cost, resolve_model
from aha.model.tokenizer import build_tokenizer
from aha.model.transformer import Transformer
from aha.model.weights import load_weights, save_model
from aha.plan.cost import Cost, money
from aha.plan.machines import price_of
from aha.plan.pretrain_estimate import WRITERS
from aha.plan.speed import Card
from aha.pretrain.settings import Order, priced
from aha.pretrain.trainer import Pretrainer, PretrainReport
from aha.store.checkpoint import checkpoints, load_state, save_checkpoint
from aha.store.run_folder import environment
from aha.train.loop import Interrupt, drive
from aha.train.preflight import machine_row

SAVE_EVERY_S = 120.0
TELL_EVERY = 50  # updates


@dataclasses.dataclass(frozen=True)
class Machine:
    """Where a base is computed, with how many processes that write for it, and what an hour of it
    costs; `card` is its row of cards.toml, or None where it has none."""

    device: torch.device
    name: str
    writers: int
    usd_per_hour: float
    watts: float
    card: Card | None

    @classmethod
    def of(
        cls, device: str, writers: int | None, usd_per_hour: float | None, watts: float | None
    ) -> "Machine":
        """A CUDA GPU where there is one, unless `device` says otherwise: nothing is generated here,
        so the CPU serves no model quicker. Apple's has not been tried with bf16 and Muon."""
        if device == "auto":
            device = "cuda" if has_cuda() else "cpu"
        found = choose_device(device, 0, "device")  # named by now: the size does not matter
        gpu = gpu_name(found)
        if writers is None:
            writers = min(WRITERS, max(1, (num_cores() or 1) - 1)) if gpu else 0
        _, row = machine_row(found)
        price, power = price_of(gpu, usd_per_hour, watts)
        card = row and priced(row, price, power)
        return cls(found, device_name(found), writers, price, power, card)


class Progress:
    """Prints a line every so many updates and saves now and then. What was spent before a pause,
    perhaps on another machine, is carried along."""

    def __init__(self, trainer: Pretrainer, out: Path, machine: Machine, before: Cost):
        self.trainer, self.out, self.machine, self.before = trainer, out, machine, before
        self.started = self.saved = time.perf_counter()
        self.losses: list[torch.Tensor] = []

    @property
    def cost(self) -> Cost:
        seconds = time.perf_counter() - self.started
        own = Cost.of(seconds, self.machine.usd_per_hour, self.machine.watts)
        before = self.before
        return Cost(before.seconds + own.seconds, before.usd + own.usd, before.kwh + own.kwh)

    def __call__(self, report: PretrainReport) -> None:
        self.losses.append(report.loss)
        if report.step % TELL_EVERY == 0:
            loss = torch.stack(self.losses).mean().item()  # a GPU is waited for here alone
            speed = report.seen / self.cost.seconds
            left = (self.trainer.cfg.tokens - report.seen) / speed
            print(
                f"{report.step:>6}  loss {loss:.4f}  {report.seen / 1e6:7.2f} M tokens  "
                f"{speed:6.0f} tok/s  left {left / 60:.1f} min",
                flush=True,
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


def pretrain_base(order: Order, machine: Machine) -> None:
    """Train to the end, or to the next stop; `out/model` appears when all tokens are read."""
    out = order.out
    model, tokenizer = Transformer(order.config), build_tokenizer()
    print(json.dumps(order.settings | {"parameters": model.num_parameters()}, indent=2))
    model.initialise(torch.Generator().manual_seed(order.cfg.seed))
    saved = checkpoints(out / "checkpoints")
    if order.start and not saved:
        load_weights(model, resolve_model(str(order.start)))
    began_in = keep_settings(out, order.settings)
    plan = machine.card and order.plan(machine.card, machine.writers)
    if plan:
        print(
            f"planned on {machine.name}: {plan.tokens_per_s:,.0f} tok/s, "
            f"{plan.cost.seconds / 3600:.2f} hours, {money(plan.cost.usd)}"
        )
    if saved:
        load_weights(model, saved[-1])
    memory = PeakMemory(machine.device)
    model.to(machine.device)
    trainer = Pretrainer(model, tokenizer, order.cfg, machine.writers)
    before = Cost(0.0, 0.0, 0.0)
    if saved:
        state = load_state(saved[-1])
        if "cost" not in state:
            raise ModelError(
                f"{saved[-1]}, of an older version, which kept no cost",
                "what was spent so far, for the model's card",
                f"the same command with a new folder and --start {saved[-1]}",
            )
        before = Cost(**state.pop("cost"))
        trainer.load_state_dict(state)
        print(f"going on from {saved[-1]}")
    progress = Progress(trainer, out, machine, before)
    with closing(trainer), Interrupt() as stop:
        drive(trainer.steps(), [progress], stop)
    progress.save()
    if trainer.done:
        save_model(out / "model", model, tokenizer)
        # On a CPU that of the whole process, which the plan does not count.
        facts = facts_of(trainer, progress.cost, machine) | {"peak_bytes": memory.bytes()}
        facts |= {"environment": began_in, **order.settings}
        if order.start:
            facts["start_cost"] = base_cost(resolve_model(str(order.start)))
        if plan:
            facts["planned"] = dataclasses.asdict(plan.cost) | {"peak_bytes": plan.peak}
        path = out / "model" / "pretraining.json"
        path.write_text(json.dumps(facts, indent=2) + "\n")
        print(f"the model is in {out / 'model'}")


def keep_settings(out: Path, settings: dict) -> dict:
    """Write them beside the checkpoints, or refuse to go on with others than a run began with.

    Returns the environment it began in: the commit at the end may be another one.
    """
    path = out / "settings.json"
    if not path.is_file():
        out.mkdir(parents=True, exist_ok=True)
        began = {"settings": settings, "environment": environment()}
        path.write_text(json.dumps(began, indent=2) + "\n")
    began = json.loads(path.read_text())
    now, then = flat(json.loads(json.dumps(settings))), flat(began["settings"])
    changed = sorted(key for key in now.keys() | then.keys() if now.get(key) != then.get(key))
    if changed:
        key = changed[0]
        raise ConfigError(
            f"{key} {now.get(key)} in {out}, which began with {then.get(key)}",
            "the settings of before, or a new folder",
            f"the same command with another folder, such as {out}-2",
        )
    return began["environment"]


def flat(settings: dict, prefix: str = "") -> dict:
    found = {}
    for key, value in settings.items():
        inner = isinstance(value, dict)
        found |= flat(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return found


def facts_of(trainer: Pretrainer, cost: Cost, machine: Machine) -> dict:
    """What the model card and every run that starts from this base will quote."""
    return {
        "tokens": trainer.seen,
        "steps": trainer.step_count,
        "hours": cost.seconds / 3600,
        "cost_usd": cost.usd,
        "kwh": cost.kwh,
        "device": machine.name,
        "writers": machine.writers,
        "computed_in": str(trainer.dtype).removeprefix("torch."),
    }
