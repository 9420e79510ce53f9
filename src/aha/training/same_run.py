"""Ranks on several machines: do all have the same run before them, and see its folder?

Each rank that another program has started has read its own command line and its own disk. Before
anything is written they compare what they have read; a difference is the error of all of them.
"""

import os
import secrets
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import aha
from aha.core.config import RunConfig
from aha.core.errors import ConfigError, RunError, shown
from aha.dist.joined_ranks import JoinedRanks
from aha.dist.world import World
from aha.model.folders import resolve_model
from aha.training.builders import task_of
from aha.training.fingerprints import Fingerprints, fingerprints_of, in_words, unequal
from aha.training.joint_work import take_part
from aha.training.rank_log import FOLDER

# Of each machine, and filled in where the recipe is silent.
PRICES = ("usd_per_hour", "watts")
COMPARED = ("base", "data", "task", "versions")
SEE_S = 20.0  # how long a shared disk may take to show a new file to another machine


@dataclass(frozen=True)
class Beginning:
    """What rank 0 is about to begin or to go on with: the resolved recipe, the run's folder,
    absolute, the digests of its files, and the device. `base_gone`: the run goes on without its
    base."""

    cfg: RunConfig
    path: Path
    files: Mapping[str, Any]
    device: torch.device
    base_gone: bool


NOTHING: Beginning | None = None


def compare_settings(world: World, settings: Mapping[str, Any]) -> None:
    """Raise ConfigError in all ranks unless all have the same settings, which are those of their
    command lines: the recipe, or the run to go on with."""
    mine = {"aha": aha.__version__} | dict(settings)
    compare(world.gather(mine, "the comparison of commands"), "the same command on every machine")


def begin_run(
    cfg: RunConfig,
    path: Path,
    fingerprints: Fingerprints,
    base: Path | None,
    device: torch.device,
) -> None:
    """Of rank 0, before it writes anything: the other ranks compare base, data and task with their
    own, look for the run's folder, and take a device of this kind. Does nothing where nobody has
    joined.

    Raises ConfigError for other files on another rank, and for one without a GPU of its own;
    RunError for a folder that it cannot see.
    """
    ranks = JoinedRanks.current
    if ranks is None:
        return
    files = compared_of(fingerprints)
    beginning: Beginning | None = Beginning(cfg, path.absolute(), files, device, base is None)
    ranks.world.broadcast(beginning, 0, "the run to begin")
    ranks.begun = True
    agree(ranks.world, path.absolute(), files)
    ranks.world.take_device(device)


def keep_run(path: Path) -> None:
    """The next attempt of the same job goes on with this run."""
    if JoinedRanks.current is not None:
        JoinedRanks.current.keep("run", str(path.absolute()))


def work_for_rank_0(ranks: JoinedRanks) -> None:
    """The life of a rank other than 0, from the comparison to the end of the run."""
    beginning = ranks.world.broadcast(NOTHING, 0, "the run to begin")
    if beginning is None:
        return
    cfg = beginning.cfg
    base = None if beginning.base_gone else resolve_model(cfg.model.path)
    mine = fingerprints_of(cfg, base, task_of(cfg), beginning.files)
    agree(ranks.world, beginning.path, compared_of(mine))
    ranks.world.take_device(beginning.device)
    take_part(beginning.path / FOLDER, ranks.world)


def nothing_to_begin(ranks: JoinedRanks) -> None:
    """Of rank 0 where it has come to its end without a run: the others end as well."""
    if not ranks.begun:
        ranks.world.broadcast(NOTHING, 0, "the run to begin")


def compared_of(fingerprints: Fingerprints) -> dict[str, Any]:
    """The fingerprints that all ranks must have alike."""
    return {name: value for name, value in fingerprints.items() if name in COMPARED}


def agree(world: World, path: Path, files: Mapping[str, Any]) -> None:
    compare(world.gather(files, "the comparison of files"), "the same files on every machine")
    check_visible(world, path)


def compare(values: list[Mapping[str, Any]], expected: str) -> None:
    """Raise ConfigError for the first rank whose values are not those of rank 0."""
    for rank, other in enumerate(values):
        pairs = [pair for pair in unequal(values[0], other) if pair[0] not in PRICES]
        if pairs:
            words = [f"{name} {in_words(one)} and {in_words(two)}" for name, one, two in pairs[:3]]
            more = f", and {len(pairs) - 3} more" if len(pairs) > 3 else ""
            raise ConfigError(
                f"rank 0 and rank {rank} have different runs: {'; '.join(words)}{more}",
                expected,
                f"copy the files of rank 0 to the machine of rank {rank}, or give both one command",
            )


def check_visible(world: World, path: Path) -> None:
    """Raise RunError in all ranks unless all see the folder that the run is in or will be in.

    Rank 0 writes a file there, for a moment.
    """
    folder = next(parent for parent in path.parents if parent.is_dir())
    marker = folder / f".aha-{secrets.token_hex(8)}"
    problem = ""
    if world.rank == 0:
        try:
            marker.touch()
        except OSError as error:
            problem = f"rank 0 cannot write to {folder}: {error.strerror}"
    try:
        named = world.broadcast(marker, 0, "the sight of the run folder")
        if not problem and not is_visible(named):
            host = socket.gethostname()
            problem = f"rank {world.rank} on {host} cannot see {shown(str(named.parent))}"
        problems = world.gather(problem, "the sight of the run folder")
    finally:
        if world.rank == 0:
            with suppress(OSError):
                marker.unlink()
    if first := next(filter(None, problems), ""):
        raise RunError(
            f"{first}, where the run is",
            "a folder that all ranks see under the same name",
            "start the command in a folder of a shared disk (NFS, Lustre), with "
            "the same path on all machines",
        )


def is_visible(marker: Path) -> bool:
    deadline = time.monotonic() + SEE_S
    while not marker.exists():
        if time.monotonic() > deadline or not marker.parent.is_dir():
            return False
        with suppress(OSError):
            os.listdir(marker.parent)  # makes a network file system ask its server again
        time.sleep(0.2)
    return True
