"""Resuming a run that was stopped: what is missing in its folder, what has changed, what is kept.

`Experiment.resume` calls these in turn. The lock of the run is held meanwhile.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from aha.algo.recipe import begun, check_recipe, without_leftovers
from aha.core.config import RunConfig
from aha.core.errors import AhaError, ConfigError, RunError
from aha.core.findings import Finding
from aha.core.recipe_layers import set_dotted
from aha.model.folders import resolve_model
from aha.store.checkpoint import SavedState, newest_whole, no_checkpoint
from aha.store.run_folder import Run, environment, read_rows, truncate_after
from aha.training.fingerprints import NAME as FINGERPRINTS
from aha.training.fingerprints import Difference, Fingerprints, check_differences, differences
from aha.training.joint_work import refuse_shards_of_one

Say = Callable[[str], None]
OF_A_STEP = re.compile(r"(?:step|eval)_(\d+)\.jsonl")


def mend_folder(run: Run, say: Say) -> None:
    """Make again what a copy of the folder may have lost: git and zip keep no empty folders."""
    for folder in (run.completions, run.checkpoints):
        if not folder.is_dir():
            folder.mkdir()
            say(f"{folder} was missing and is made again")
    if run.read_or_none("environment.json") is None:
        say(f"{run.path / 'environment.json'} was missing or damaged: it has today's machine now")
        run.write("environment.json", environment())


def stored_fingerprints(run: Run, say: Say) -> dict[str, Any]:
    """The fingerprints that the run has kept; {} where it has none, which is said."""
    stored = run.read_or_none(FINGERPRINTS)
    if stored is None:
        state = "is damaged" if (run.path / FINGERPRINTS).exists() else "is not there"
        say(
            f"{run.path / FINGERPRINTS} {state}: nothing tells whether base, data or recipe have "
            "changed since the run began; from now on it is kept"
        )
    return stored or {}


def stored_ranks(stored: Mapping[str, Any]) -> int:
    """The number of ranks that the run had last; runs of older versions had one."""
    ranks = stored.get("ranks", 1)
    return ranks if type(ranks) is int and ranks > 0 else 1


def chosen_shard(shard: str | None, ranks: int, stored: Mapping[str, Any]) -> str:
    """What `--shard` says now, or what it said when the run was begun or last resumed; "auto" of
    older versions. Raises ConfigError as `refuse_shards_of_one` does."""
    refuse_shards_of_one(shard, ranks)
    before = stored.get("shard")
    return shard or (before if before in ("on", "off") else "auto")


def config_of(
    run: Run, stored: Mapping[str, Any], changes: Mapping[str, Any], say: Say
) -> RunConfig:
    """The run's config with the user's changes over it. Raises `RunError` for a damaged one."""
    path = run.path / "config.json"
    try:
        raw = run.read("config.json")
    except RunError:
        raw = stored.get("recipe") or {}
        if not raw:
            raise
        say(f"{path} was damaged: it is written again from {FINGERPRINTS}")
        run.write("config.json", raw)
    before, raw = raw, json.loads(json.dumps(raw))
    for key, value in changes.items():
        set_dotted(raw, key, value)
    try:
        raw = without_leftovers(raw, before, changes)
        cfg = begun(raw, "" if changes else f"{path}: ")
        if changes:
            check_recipe(cfg, raw=raw, overrides=changes)
        return cfg
    except ConfigError as error:
        if changes:
            raise
        raise RunError(error.got, error.wanted, error.fix) from None


def base_of(cfg: RunConfig, say: Say) -> Path | None:
    """The folder of the base; None where it has gone and a checkpoint holds all weights.

    Raises the error of the missing base for a run with adapters, which are nothing without it.
    """
    try:
        return resolve_model(cfg.model.path)
    except AhaError as error:
        if cfg.model.lora_rank:
            raise
        say(f"the base has gone ({error.got}): the run goes on from its checkpoint")
        return None


def accepted_changes(
    run: Run, before: Mapping[str, Any], now: Fingerprints, accept: bool, say: Say
) -> list[Difference]:
    """All changes since the run began, each told. Raises `RunError` for one that the user has to
    accept and has not."""
    changes = differences(before, now) if before else []
    check_differences(changes, run.path, accept)
    for change in changes:
        say(f"changed since the run began: {change}")
    return changes


def saved_state(run: Run, say: Say) -> SavedState | None:
    """The newest whole checkpoint; None for a run that died before its first, which begins anew.

    Raises `RunError` for a finished run without a checkpoint, which would lose its result, and
    where every checkpoint is damaged.
    """
    saved = newest_whole(run.checkpoints)
    if saved is None:
        if (run.path / "summary.json").exists():
            raise no_checkpoint(run.checkpoints)
        say("no checkpoint yet: the run begins again at step 1")
    return saved


def findings_of(saved: SavedState | None, changed: list[Difference]) -> list[Finding]:
    """Damaged checkpoints that were passed over, and changes that the user has accepted."""
    damaged = [
        Finding(
            "warn",
            f"a damaged checkpoint: {reason}; the run goes on from {saved.path.name}, which is "
            "whole",
            "look after the disk (`dmesg`, `smartctl`): a file has changed since it was written",
            "checkpoint_damage",
        )
        for _, reason in (saved.damaged if saved else [])
        if saved
    ]
    accepted = [
        Finding(
            "warn",
            f"accepted at a resume: {change}",
            "compare the steps before it and after it with care: they are not of one recipe",
            "accepted_change",
        )
        for change in changed
        if not change.free
    ]
    return damaged + accepted


def is_longer(changed: list[Difference]) -> bool:
    """Whether the run has got more steps or tokens."""
    return any(change.name in ("steps", "tokens") for change in changed)


def schedule_words(run: Run, changed: list[Difference], rate: float) -> str:
    """What more steps do to the learning rate, which falls until the last of them."""
    rows = list(read_rows(run.metrics))
    last = rows[-1].get("lr") if rows else None
    was = "" if last is None else f", that of the step before was {last:.3g}"
    longer = ", ".join(str(change) for change in changed if change.name in ("steps", "tokens"))
    return (
        f"{longer}: the learning rate falls until the new end, so it is {rate:.3g} in the next "
        f"step{was}"
    )


def tell_price(run: Run, cfg: RunConfig, ranks: int, stored: Mapping[str, Any], say: Say) -> None:
    """Say which price goes on, where the machine or the number of ranks is another: a run has one
    price, which was filled in where it began."""
    then, now = run.read_or_none("environment.json") or {}, environment()
    places = {(one.get("machine"), one.get("gpu")) for one in (then, now) if one.get("machine")}
    if len(places) > 1 or ranks != stored_ranks(stored):
        say(
            f"another machine or number of ranks: all of the run counts as ${cfg.usd_per_hour:g} "
            f"an hour and {cfg.watts:g} watts; if that is wrong, resume with --usd-per-hour and "
            "--watts"
        )


def cut_back(run: Run, step: int, say: Say) -> None:
    """Remove what came after the checkpoint's step; say which steps have no row."""
    for name in ("metrics.jsonl", "evals.jsonl"):
        truncate_after(run.path / name, "step", step)
    truncate_after(run.findings, "step", step, several=True)
    for path in run.completions.iterdir():
        match = OF_A_STEP.fullmatch(path.name)
        if match and int(match[1]) > step:
            path.unlink()
    present = {row.get("step") for row in read_rows(run.metrics)}
    if lost := [number for number in range(1, step + 1) if number not in present]:
        say(f"{run.metrics} has no row of {len(lost)} of {step} steps, first of step {lost[0]}")


def set_result_aside(run: Run, step: int) -> None:
    """A finished run goes on: its result so far gets the name of its step. Its model stays until
    the new one is there, but `resolve_model` takes it only beside a summary."""
    for name in ("summary.json", "after.json", "completions/after.jsonl"):
        path = run.path / name
        if path.exists():
            path.replace(run.path / f"{path.stem}_{step:06d}{path.suffix}")


def last_elapsed(run: Run, saved: float, step: int) -> float:
    """Seconds of training up to a step: its evaluation, after the checkpoint, counts as well."""
    rows = read_rows(run.path / "evals.jsonl")
    return max([saved, *(float(row["elapsed_s"]) for row in rows if row.get("step") == step)])
