"""Checks of this machine: whether Aha works here, and how fast.

`inspect_machine` gathers the facts once; the checks read only these facts.
"""

import re
import shutil
import sys
import tempfile
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.resources import files
from pathlib import Path

import torch

from aha.core.findings import Checklist, Finding, fail, ok, warn
from aha.core.sizes import GB
from aha.machine.c_build import cache_folder, why_not_compiled
from aha.machine.device import accelerator, has_native_bf16, num_threads
from aha.machine.host import cpu_name, load_average, memory_bytes, system_name, usable_cores
from aha.model import fused
from aha.rollout import c_loop

checks = Checklist()

MIN_PYTHON = (3, 11)
# Pairs are the bounds of a warning and of a failure.
MEMORY_GB = (2.0, 0.7)  # free; with less the demo does not run
DISK_GB = (2.0, 0.2)  # free
MAX_ERROR = {torch.float32: 1e-5, torch.bfloat16: 2e-2}  # of a product, against float64
DTYPE_NAMES = {torch.float32: "float32", torch.bfloat16: "bf16"}


@dataclass(frozen=True)
class FolderState:
    """A folder that Aha has to write to."""

    path: str
    free_bytes: int = 0
    error: str = ""  # why nothing can be written there; empty where it can


@dataclass(frozen=True)
class MachineFacts:
    """The facts of a machine. `packages` and `extras` have versions by name, None if missing."""

    python: tuple[int, ...]
    packages: dict[str, str | None]
    minimums: dict[str, str]  # the least version of a package
    extras: dict[str, dict[str, str | None]]
    cpu: str
    accelerator: str  # empty: the CPU alone
    accelerator_bytes: tuple[int, int] | None  # free, total
    native_bf16: bool
    product_error: float  # relative, of a product in the type that runs use
    memory_bytes: tuple[int, int]  # free, total
    cores: int  # that this process may use
    threads: int
    load: float  # processes that are ready to run, mean of the last minute
    c_code: str  # why the C code cannot be used; empty where it can
    folders: dict[str, FolderState] = field(default_factory=dict)
    missing_model_files: str = ""  # of the packaged base model


# -- gathering the facts -----------------------------------------------------------------------


def inspect_machine(runs: Path = Path("runs")) -> MachineFacts:
    """The facts of this machine. Compiles the C code where that has not been done.

    `runs` is the folder that runs are written to.
    """
    needed, extras = required_packages(requires("aha") or [])
    name, memory = accelerator()
    bf16 = has_native_bf16()
    return MachineFacts(
        python=tuple(sys.version_info[:3]),
        packages={package: installed(package) for package in needed},
        minimums={package: least for package, least in needed.items() if least},
        extras={extra: {p: installed(p) for p in names} for extra, names in extras.items()},
        cpu=cpu_name(),
        accelerator=name,
        accelerator_bytes=memory,
        native_bf16=bf16,
        product_error=product_error(torch.bfloat16 if bf16 else torch.float32),
        memory_bytes=memory_bytes(),
        cores=usable_cores(),
        threads=num_threads(),
        load=load_average(),
        c_code=why_not_compiled((c_loop.SOURCE, *fused.SOURCES), bf16),
        folders={"cache": folder_state(cache_folder()), "runs": folder_state(runs)},
        missing_model_files=missing_model_files(),
    )


def required_packages(lines: list[str]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """({package: least version or ""}, {extra: packages}) from the requirements of the wheel."""
    needed: dict[str, str] = {}
    extras: dict[str, list[str]] = {}
    for line in lines:
        match = re.match(r"[\w.-]+", line)
        assert match, f"a requirement without a name: {line!r}"
        name = match[0]
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", line)
        if extra:
            extras.setdefault(extra[1], []).append(name)
        else:
            least = re.search(r">=\s*([\d.]+)", line)
            needed[name] = least[1] if least else ""
    return needed, extras


def installed(package: str) -> str | None:
    """The installed version of a package; None where it is missing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def product_error(dtype: torch.dtype) -> float:
    """Relative error of a matrix product in a type; a broken build of torch has a large one."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(64, 64, generator=generator, dtype=torch.float64) for _ in range(2))
    exact, rounded = a @ b, (a.to(dtype) @ b.to(dtype)).double()
    return float((rounded - exact).norm() / exact.norm())


def folder_state(folder: Path) -> FolderState:
    """Whether files can be written to a folder, or to its nearest parent that exists.

    The folder itself is not made: a check must not change the disk.
    """
    parents = [folder, *folder.absolute().parents]
    existing = next(parent for parent in parents if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            return FolderState(str(folder), shutil.disk_usage(existing).free)
    except OSError as error:
        return FolderState(str(folder), 0, f"{existing}: {error.strerror}")


def missing_model_files() -> str:
    """Names of the packaged base model's files that are missing; empty where none is."""
    folder = Path(str(files("aha"))) / "models" / "aha-tiny"
    required = ("config.json", "model.safetensors", "tokenizer.json")
    return ", ".join(name for name in required if not (folder / name).is_file())


# -- checks ------------------------------------------------------------------------------------

# No index has Aha: by its name alone pip would install what others have called so.
FROM_CLONE = "in the clone of Aha: pip install --force-reinstall --no-deps ."


def version_numbers(text: str) -> tuple[int, ...]:
    """(2, 13, 0) from "2.13.0+cpu"."""
    return tuple(int(part) for part in re.findall(r"\d+", text.split("+")[0])[:3])


@checks
def python(machine: MachineFacts) -> Finding:
    """Python is new enough."""
    version_text = ".".join(map(str, machine.python))
    if machine.python < MIN_PYTHON:
        return fail(f"Python {version_text}", "install Python 3.11 or newer, and Aha in it")
    return ok(f"Python {version_text} on {system_name() or 'an unknown system'}")


@checks
def packages(machine: MachineFacts) -> Finding:
    """Every required package is there and new enough."""
    missing = [name for name, version in machine.packages.items() if version is None]
    if not machine.packages:
        return fail("not installed: aha itself", FROM_CLONE)
    if missing:
        return fail(f"not installed: {', '.join(missing)}", f"pip install {' '.join(missing)}")
    old = [
        f"{name} {machine.packages[name]}"
        for name, least in machine.minimums.items()
        if version_numbers(machine.packages[name] or "0") < version_numbers(least)
    ]
    if old:
        required = " ".join(f"'{name}>={least}'" for name, least in machine.minimums.items())
        return fail(f"too old: {', '.join(old)}", f"pip install --upgrade {required}")
    return ok(f"torch {machine.packages.get('torch')}, and the {len(machine.packages) - 1} others")


@checks
def device(machine: MachineFacts) -> Finding:
    """Names the device that computes; never fails."""
    if machine.accelerator:
        return ok(f"{machine.accelerator}, and {machine.cpu}")
    return ok(f"{machine.cpu}; no GPU, and the demo needs none")


@checks
def dtype(machine: MachineFacts) -> Finding:
    """Products in the number type that runs use are right."""
    used = torch.bfloat16 if machine.native_bf16 else torch.float32
    if not machine.product_error < MAX_ERROR[used]:
        return fail(
            f"a product in {DTYPE_NAMES[used]} is wrong by {machine.product_error:.1g} of its size",
            "reinstall torch; until then --rollout.dtype float32 --optim.dtype float32",
        )
    if machine.native_bf16:
        return ok("bf16 in hardware")
    return ok("float32: this CPU has no bf16 in hardware; the demo takes about three times as long")


@checks
def memory(machine: MachineFacts) -> Finding:
    """Enough memory is free for the demo."""
    free, total = (amount / GB for amount in machine.memory_bytes)
    message = f"{free:.1f} of {total:.1f} GB free"
    if total and free < MEMORY_GB[0]:
        fix = (
            "close other programs; --rollout.max_rows 128 --optim.micro_batch_tokens 2048 need less"
        )
        return (fail if free < MEMORY_GB[1] else warn)(message, fix)
    return ok(message)


@checks
def cores(machine: MachineFacts) -> Finding:
    """No more threads than cores: threads that wait for a core are slower than one thread."""
    message = f"{machine.cores} cores, {machine.threads} threads, load {machine.load:.1f}"
    if machine.threads > machine.cores:
        return warn(message, f"export OMP_NUM_THREADS={machine.cores}")
    if machine.load > 1.5 * machine.cores:
        return warn(
            f"{message}: other programs use this machine", "times will be long and not comparable"
        )
    return ok(message)


@checks
def c_compiler(machine: MachineFacts) -> Finding:
    """The C code of the engine and the training can be used."""
    if machine.c_code:
        fix = "install a C compiler (Debian: apt install gcc; macOS: xcode-select --install)"
        if machine.c_code == "AHA_C=0":
            fix = "unset AHA_C"
        return warn(f"no C code, rollouts are several times slower: {machine.c_code}", fix)
    return ok("the engine's loop and the training's in C are compiled and load")


def check_folder(machine: MachineFacts, name: str, fix: str) -> Finding:
    """A folder can be written to and its disk has space."""
    folder = machine.folders[name]
    free = folder.free_bytes / GB
    if folder.error:
        return fail(f"cannot write to {folder.path} ({folder.error})", fix)
    message = f"{folder.path} is writable, {free:.1f} GB free"
    if free < DISK_GB[0]:
        return (fail if free < DISK_GB[1] else warn)(message, "free some space on that disk")
    return ok(message)


@checks
def cache(machine: MachineFacts) -> Finding:
    """The cache of compiled code can be written."""
    return check_folder(machine, "cache", "export AHA_CACHE=/a/folder/of/yours")


@checks
def runs(machine: MachineFacts) -> Finding:
    """Runs can be written."""
    return check_folder(machine, "runs", "go to a folder of yours: runs are written inside it")


@checks
def base_model(machine: MachineFacts) -> Finding:
    """The packaged base model is complete."""
    if machine.missing_model_files:
        return fail(f"aha-tiny lacks {machine.missing_model_files}", FROM_CLONE)
    return ok("aha-tiny is installed, nothing to download")


@checks
def extras(machine: MachineFacts) -> Finding:
    """Which optional packages are there; none is needed."""
    present = [name for name, versions in machine.extras.items() if all(versions.values())]
    absent = [name for name in machine.extras if name not in present]
    message = f"installed: {', '.join(present) or 'none'}; not: {', '.join(absent) or 'none'}"
    return ok(message, f"if you want one: pip install 'aha[{absent[0]}]'" if absent else "")
