"""`aha pretrain`: make a base model from nothing, in a folder that can be resumed."""

import dataclasses
import json
import time
from pathlib import Path

import torch

from aha.core.errors import ConfigError
from aha.model.tokenizer import build_tokenizer
from aha.model.transformer import Decoder, ModelConfig
from aha.model.weights import load_weights, save_model
from aha.plan.cost import MACHINES, Cost
from aha.store.checkpoint import checkpoints, load_state, save_checkpoint
from aha.store.run import environment
from aha.tasks.mix import TraceMix
from aha.train.loop import Interrupt, drive
from aha.train.pretrain import PretrainConfig, Pretrainer, PretrainReport

SAVE_EVERY = 500  # updates
TELL_EVERY = 50


def parse_mix(text: str) -> TraceMix:
    """ "backtrack=0,search=0.2" on top of the defaults."""
    known = {field.name: field.type for field in dataclasses.fields(TraceMix)}
    changes = {}
    for pair in filter(None, text.split(",")):
        name, equals, value = pair.partition("=")
        if name not in known or name == "numbers" or not equals:
            raise ConfigError(f"mix {pair!r}", f"rate=value with one of {', '.join(known)}")
        try:
            changes[name] = int(value) if known[name] is int else float(value)
        except ValueError:
            raise ConfigError(f"mix {pair!r}", "a number") from None
    return dataclasses.replace(TraceMix(), **changes)


class Progress:
    """Prints a line every so many updates and saves now and then."""

    def __init__(self, trainer: Pretrainer, out: Path, started: float, before_s: float):
        self.trainer, self.out = trainer, out
        self.started, self.before_s = started, before_s
        self.losses: list[float] = []

    @property
    def elapsed_s(self) -> float:
        return self.before_s + time.perf_counter() - self.started

    def __call__(self, report: PretrainReport) -> None:
        self.losses.append(report.loss)
        if report.step % TELL_EVERY == 0:
            speed = report.seen / self.elapsed_s
            left = (self.trainer.cfg.tokens - report.seen) / speed
            loss = sum(self.losses) / len(self.losses)
            print(
                f"{report.step:>6}  loss {loss:.4f}  {report.seen / 1e6:7.2f} M tokens  "
                f"{speed:6.0f} tok/s  left {left / 60:.1f} min",
                flush=True,
            )
            self.losses = []
        if report.step % SAVE_EVERY == 0:
            self.save()

    def save(self) -> None:
        trainer = self.trainer
        state = trainer.state_dict() | {"elapsed_s": self.elapsed_s}
        save_checkpoint(
            self.out / "checkpoints",
            trainer.step_count,
            state,
            lambda folder: save_model(folder, trainer.decoder, trainer.tokenizer),
            keep_last=2,
        )


def make_config(tokens: int, seed: int, mix: str, lr: float | None) -> PretrainConfig:
    cfg = PretrainConfig(tokens=tokens, seed=seed, mix=parse_mix(mix))
    return cfg if lr is None else dataclasses.replace(cfg, lr=lr)


def pretrain_base(
    out: Path, cfg: PretrainConfig, shape: dict[str, int], start: Path | None, dry_run: bool
) -> None:
    """Train to the end, or to the next stop; `out/model` appears when all tokens are read."""
    tokenizer = build_tokenizer()
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=shape["hidden"],
        intermediate_size=shape["mlp"],
        num_hidden_layers=shape["layers"],
    )
    decoder = Decoder(config)
    settings = {
        "model": config.to_hf(),
        "pretraining": dataclasses.asdict(cfg),
        "start": start and str(start),
    }
    print(json.dumps(settings | {"parameters": decoder.num_parameters()}, indent=2))
    if dry_run:
        return
    began_in = keep_settings(out, settings)
    decoder.initialise(torch.Generator().manual_seed(cfg.seed))
    if start is not None:
        load_weights(decoder, start)
    trainer, before_s = Pretrainer(decoder, tokenizer, cfg), 0.0
    saved = checkpoints(out / "checkpoints")
    if saved:
        load_weights(decoder, saved[-1])
        state = load_state(saved[-1])
        before_s = state.pop("elapsed_s")
        trainer.load_state_dict(state)
        print(f"going on from {saved[-1]}")
    progress = Progress(trainer, out, time.perf_counter(), before_s)
    with Interrupt() as stop:
        drive(trainer.steps(), [progress], stop)
    progress.save()
    if trainer.done:
        save_model(out / "model", decoder, tokenizer)
        write_facts(
            out / "model" / "pretraining.json", trainer, progress.elapsed_s, settings, began_in
        )
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
            f"aha pretrain {out}-2",
        )
    return began["environment"]


def flat(settings: dict, prefix: str = "") -> dict:
    found = {}
    for key, value in settings.items():
        inner = isinstance(value, dict)
        found |= flat(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return found


def write_facts(
    path: Path, trainer: Pretrainer, seconds: float, settings: dict, began_in: dict
) -> None:
    """What the model card and every run that starts from this base will quote."""
    cost = Cost.of(seconds, *MACHINES["cloud-2vcpu"])
    facts = {
        "tokens": trainer.seen,
        "steps": trainer.step_count,
        "hours": seconds / 3600,
        "cost_usd": cost.usd,
        "kwh": cost.kwh,
        "environment": began_in,
        **settings,
    }
    path.write_text(json.dumps(facts, indent=2) + "\n")
