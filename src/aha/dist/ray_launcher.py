"""The launcher `ray`: workers of Ray Train that each are one rank. The only file that imports Ray.

Ray places the workers, says who rank 0 is, and starts all of them again when one is lost or its
machine is. It knows nothing of the run: what a worker does is a function, and the checkpoint that
the next attempt goes on from lies in the run's folder, written whole before Ray would know of it.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from aha.core.errors import ConfigError, MissingExtra, RunStopped
from aha.dist.local_ranks import LOST_RANK
from aha.dist.rank_place import RankPlace, place_of

End = TypeVar("End")
Work = Callable[[RankPlace], End]
Gpus = Literal["none", "any", "each"]  # whether the workers have one

# gloo's own limit of a meeting, for Ray's group; a run of ours waits as `joined_ranks` says.
LIMIT_S = 120
START_TRIES = 10  # of a minute each, in which another machine may come for one that is lost


def run_workers(
    work: Work[End], size: int, restarts: int, folder: Path, gpus: Gpus = "none"
) -> End:
    """Run `work(place)` in `size` workers, and return what it returns in rank 0. `folder` is one
    that all machines see; Ray's own files lie in it meanwhile. `gpus`: whether each worker has one,
    "any" where the cluster has any.

    The cluster is that of the environment (`RAY_ADDRESS`), or this machine where there is none.
    After a lost worker all are started again, up to `restarts` times. `work` must be picklable, and
    do the rest of its work when it is called again. Raises MissingExtra without Ray, ConfigError
    for more workers than the cluster has cores or GPUs for, RunStopped where the workers have
    failed.
    """
    try:
        import ray
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer
        from ray.train.v2.api.exceptions import TrainingFailedError
    except ImportError as error:
        raise MissingExtra((error.name or "ray").split(".")[0], "ray") from None
    started_here = not ray.is_initialized()
    if started_here:
        start_ray(ray)
    scratch = tempfile.mkdtemp(prefix=".ray-", dir=folder)
    try:
        on_gpu = takes_gpus(ray.cluster_resources(), size, gpus)
        trainer = TorchTrainer(
            worker_loop,
            train_loop_config={"work": work, "on_gpu": on_gpu},
            # With its one rank for each core a worker computes with one thread.
            scaling_config=ScalingConfig(
                num_workers=size,
                use_gpu=on_gpu,
                resources_per_worker={"CPU": 1} | ({"GPU": 1} if on_gpu else {}),
            ),
            # The group of the GPUs is our own (`World.take_device`).
            torch_config=TorchConfig(backend="gloo", timeout_s=LIMIT_S),
            run_config=RunConfig(
                storage_path=scratch,
                failure_config=FailureConfig(
                    max_failures=restarts, controller_failure_limit=START_TRIES
                ),
            ),
        )
        try:
            end: End = trainer.fit().return_value  # of rank 0
            return end
        except TrainingFailedError as error:
            raise lost(error, restarts, size) from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        if started_here:
            ray.shutdown()


def start_ray(ray: Any) -> None:
    """Join the cluster of the environment, or start one on this machine."""
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    try:
        # Where this package comes from PYTHONPATH, the workers import it from there.
        paths = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
        ray.init(runtime_env={"env_vars": paths})
    except Exception as error:  # Ray raises that very class where a node does not start in time
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        address = os.environ.get("RAY_ADDRESS", "this machine")
        raise ConfigError(
            f"no Ray at {address}: {reason}",
            "a cluster that can be reached",
            "ray status; RAY_ADDRESS=HOST:6379, or without it for a cluster on this machine",
        ) from None


def takes_gpus(resources: Mapping[str, float], size: int, gpus: Gpus) -> bool:
    """Whether so many workers have a GPU each, on a cluster with these resources.

    Raises ConfigError for cores or GPUs that it does not have: Ray itself would wait for ever.
    """
    cores, seen = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    if size > cores:
        got = f"--ranks {size} on a Ray cluster with {cores} CPUs"
        raise ConfigError(got, f"at most {cores}", f"--ranks {max(1, cores)}, or more machines")
    on_gpu = gpus == "each" or (gpus == "any" and seen > 0)
    if on_gpu and size > seen:
        got = f"--ranks {size} on a Ray cluster with {seen} GPUs"
        fewer = f"--ranks {seen}, more machines, or " if seen else ""
        raise ConfigError(got, "a GPU for each rank", f"{fewer}--model.device cpu")
    return on_gpu


def worker_loop(settings: dict[str, Any]) -> Any:
    """The life of a worker. Ray has set the variables of torchrun, and keeps a store at their
    address; it goes with rank 0, and the next attempt has another."""
    place = replace(place_of(os.environ), hosted=True)
    if settings["on_gpu"]:
        from ray.train.torch import get_device

        # A worker sees the GPUs of all workers of its machine, and Ray knows which one is its own.
        place = replace(place, gpu=get_device().index)
    return settings["work"](place)


def lost(error: BaseException, restarts: int, size: int) -> RunStopped:
    """The error of a run whose workers have failed once too often: the first one of theirs."""
    failures: dict[int, BaseException] = getattr(error, "worker_failures", {})
    first = min(failures, default=None)
    reason = " ".join(str(error if first is None else failures[first]).split())[-300:]
    who = "Ray cannot go on" if first is None else f"rank {first} has failed"
    return RunStopped(
        f"{who}, after {restarts} restarts at most: {reason}",
        "workers that work to the end",
        "look at Ray's logs (ray logs), then go on with "
        f"`aha train --launcher ray --ranks {size} --resume RUN`",
        check=LOST_RANK,
    )
