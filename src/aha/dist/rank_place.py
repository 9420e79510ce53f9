"""The place of a rank that another program has started: which one it is, and where all ranks meet.

torchrun starts the processes of a run and tells each of them by variables of its environment; Ray
Train sets the same ones. No torch: a wrong environment is refused before anything is loaded.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from aha.core.errors import ConfigError, shown

Launcher = Literal["local", "torchrun", "ray"]
LAUNCHERS: tuple[Launcher, ...] = ("local", "torchrun", "ray")
TORCHRUN = "torchrun --standalone --nproc-per-node 2 -m aha train RECIPE"
NEEDED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class LocalPlace:
    """One of `size` ranks of a machine. `gpu`: the number of the GPU, among those that the process
    sees, that its launcher has given it; None where it takes the one of its own number."""

    rank: int = 0
    size: int = 1
    gpu: int | None = None


@dataclass(frozen=True)
class RankPlace:
    """One rank of `size`, and the store at `host`:`port` through which they find each other.

    `local_rank` of `local_size` counts those of this machine. `attempt`: how often all of them were
    started again. `hosted`: the launcher keeps the store, and keeps it over its attempts; otherwise
    rank 0 does. `gpu`: see `LocalPlace`.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int
    host: str
    port: int
    attempt: int = 0
    hosted: bool = False
    gpu: int | None = None

    @property
    def local(self) -> LocalPlace:
        """Its place among the ranks of its machine."""
        return LocalPlace(self.local_rank, self.local_size, self.gpu)

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def on_one_machine(self) -> bool:
        return self.local_size == self.size


def is_of_torchrun(env: Mapping[str, str]) -> bool:
    """Whether torchrun has started this process."""
    return "TORCHELASTIC_RUN_ID" in env


def is_one_of_several(env: Mapping[str, str]) -> bool:
    """Whether torchrun has started this process and others beside it."""
    return is_of_torchrun(env) and env.get("WORLD_SIZE", "1") != "1"


def launcher_of(name: Launcher | None, ranks: int | None, env: Mapping[str, str]) -> Launcher:
    """The launcher of a command with `--launcher name` and `--ranks ranks`.

    Without a name it is torchrun where the process comes from there, else local. Raises ConfigError
    where the environment contradicts the command.
    """
    from_torchrun = is_of_torchrun(env)
    chosen: Launcher = name or ("torchrun" if from_torchrun else "local")
    if chosen != "torchrun":
        if is_one_of_several(env):
            raise ConfigError(
                f"--launcher {chosen} in one of {shown(env['WORLD_SIZE'])} processes of torchrun",
                "one program that starts the ranks",
                f"without torchrun: aha train RECIPE --launcher {chosen}, or leave --launcher out",
            )
        return chosen
    size = place_of(env).size
    if ranks is not None and ranks != size:
        raise ConfigError(
            f"--ranks {ranks}, and torchrun has started {size} (WORLD_SIZE)",
            "the number that torchrun has started",
            f"leave --ranks out, or torchrun with {ranks} processes in all",
        )
    return chosen


def place_of(env: Mapping[str, str]) -> RankPlace:
    """The place that an environment names. Raises ConfigError for one that is not whole or
    contradicts itself."""
    missing = [name for name in NEEDED if not env.get(name)]
    if missing:
        got = f"--launcher torchrun, and the environment has no {', '.join(missing)}"
        raise ConfigError(got, "a process that torchrun has started", TORCHRUN)
    counts = {name: number_in(env, name) for name in NEEDED if name != "MASTER_ADDR"}
    attempt = number_in(env, "TORCHELASTIC_RESTART_COUNT", "0")
    for name, of in (("RANK", "WORLD_SIZE"), ("LOCAL_RANK", "LOCAL_WORLD_SIZE")):
        if counts[name] >= counts[of]:
            raise contradiction(f"{name} {counts[name]} with {of} {counts[of]}", f"less than {of}")
    if counts["LOCAL_WORLD_SIZE"] > counts["WORLD_SIZE"]:
        got = f"LOCAL_WORLD_SIZE {counts['LOCAL_WORLD_SIZE']} with WORLD_SIZE "
        raise contradiction(f"{got}{counts['WORLD_SIZE']}", "no more ranks here than in all")
    if not 0 < counts["MASTER_PORT"] < 2**16:
        raise contradiction(f"MASTER_PORT {counts['MASTER_PORT']}", "a port from 1 to 65535")
    return RankPlace(
        *(counts["RANK"], counts["WORLD_SIZE"], counts["LOCAL_RANK"], counts["LOCAL_WORLD_SIZE"]),
        *(env["MASTER_ADDR"], counts["MASTER_PORT"]),
        attempt,
        env.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
    )


def number_in(env: Mapping[str, str], name: str, default: str = "") -> int:
    """The whole number of a variable. Raises ConfigError for anything else."""
    text = env.get(name, default)
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise contradiction(f"{name}={shown(text)}", "a whole number")
    return int(text)


def contradiction(got: str, expected: str) -> ConfigError:
    return ConfigError(f"{got} in the environment", expected, f"start it with {TORCHRUN}")


def refuse_copies(command: str, env: Mapping[str, str]) -> None:
    """Raise ConfigError where torchrun has started several processes of a command of which each
    would do the whole work."""
    if is_one_of_several(env):
        raise ConfigError(
            f"{shown(env['WORLD_SIZE'])} processes of {command} by torchrun",
            "one process: of all commands, only `aha train` and `aha demo` share their work so",
            f"{command} without torchrun",
        )
