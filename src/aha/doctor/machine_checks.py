"""The machine: can Aha work here, and how fast. Facts are gathered once; checks only judge them."""

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
from aha.machine.device import accelerator, num_threads
from aha.machine.dtype import has_native_bf16
from aha.machine.host import cpu_name, load_average, memory_bytes, system_name, usable_cores
from aha.model import fused
from aha.rollout import c_loop

checks = Checklist()

MIN_PYTHON = (3, 11)
MEMORY_GB = (2.0, 0.7)  # free: worth a word, too little for the demo
DISK_GB = (2.0, 0.2)
MAX_ERROR = {torch.float32: 1e-5, torch.bfloat16: 2e-2}  # of a product, against float64
ROUNDS = {torch.float32: "float32", torch.bfloat16: "bf16"}


@dataclass(frozen=True)
class Place:
    """A folder that has to take files."""

    path: str
    free_bytes: int = 0
    complaint: str = ""  # why nothing can be written there


@dataclass(frozen=True)
class Machine:
    """What there is. `packages` and `extras` map a name to its version, None if missing."""

    python: tuple[int, ...]
    packages: dict[str, str | None]
    minimums: dict[str, str]
    extras: dict[str, dict[str, str | None]]
    cpu: str
    accelerator: str  # empty: the CPU alone
    accelerator_bytes: tuple[int, int] | None  # free, total
    native_bf16: bool
    product_error: float  # relative, of a product in the type that runs use
    memory_bytes: tuple[int, int]  # free, total
    cores: int  # that this process may use
    threads: int
    load: float  # processes that want to run, in the last minute
    c_code: str  # why the parts in C cannot be used; empty where they can
    places: dict[str, Place] = field(default_factory=dict)
    missing_model: str = ""


# -- looking ---------------------------------------------------------------------------------


def look(runs: Path = Path("runs")) -> Machine:
    """Gather the facts. Compiles the parts in C where that has not been done."""
    needed, extras = wanted_packages(requires("aha") or [])
    name, memory = accelerator()
    bf16 = has_native_bf16()
    return Machine(
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
        places={"cache": place(cache_folder()), "runs": place(runs)},
        missing_model=missing_model(),
    )


def wanted_packages(lines: list[str]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """({package: least version or ""}, {extra: packages}) from the wheel's own list."""
    needed, extras = {}, {}
    for line in lines:
        name = re.match(r"[\w.-]+", line)[0]
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", line)
        if extra:
            extras.setdefault(extra[1], []).append(name)
        else:
            least = re.search(r">=\s*([\d.]+)", line)
            needed[name] = least[1] if least else ""
    return needed, extras


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def product_error(dtype: torch.dtype) -> float:
    """Relative error of a product of two random matrices: a broken build of torch shows here."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(64, 64, generator=generator, dtype=torch.float64) for _ in range(2))
    exact, made = a @ b, (a.to(dtype) @ b.to(dtype)).double()
    return float((made - exact).norm() / exact.norm())


def place(folder: Path) -> Place:
    """Try to write there; a folder that we make for that is left behind only if it is kept."""
    parents = [folder, *folder.absolute().parents]
    there = next(parent for parent in parents if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            return Place(str(folder), shutil.disk_usage(there).free)
    except OSError as error:
        return Place(str(folder), 0, f"{there}: {error.strerror}")


def missing_model() -> str:
    """What the packaged base lacks; empty if it is whole."""
    folder = Path(str(files("aha"))) / "models" / "aha-tiny"
    wanted = ("config.json", "model.safetensors", "tokenizer.json")
    return ", ".join(name for name in wanted if not (folder / name).is_file())


# -- judging ---------------------------------------------------------------------------------


def as_numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text.split("+")[0])[:3])


@checks
def python(machine: Machine) -> Finding:
    seen = ".".join(map(str, machine.python))
    if machine.python < MIN_PYTHON:
        return fail(f"Python {seen}", "install Python 3.11 or newer, and Aha in it")
    return ok(f"Python {seen} on {system_name() or 'an unknown system'}")


@checks
def packages(machine: Machine) -> Finding:
    missing = [name for name, found in machine.packages.items() if found is None]
    if missing or not machine.packages:
        return fail(f"not installed: {', '.join(missing) or 'aha itself'}", "pip install aha")
    old = [
        f"{name} {machine.packages[name]}"
        for name, least in machine.minimums.items()
        if as_numbers(machine.packages[name] or "0") < as_numbers(least)
    ]
    if old:
        wanted = " ".join(f"'{name}>={least}'" for name, least in machine.minimums.items())
        return fail(f"too old: {', '.join(old)}", f"pip install --upgrade {wanted}")
    return ok(f"torch {machine.packages.get('torch')}, and the {len(machine.packages) - 1} others")


@checks
def device(machine: Machine) -> Finding:
    if machine.accelerator:
        return ok(f"{machine.accelerator}, and {machine.cpu}")
    return ok(f"{machine.cpu}; no GPU, and the demo needs none")


@checks
def dtype(machine: Machine) -> Finding:
    used = torch.bfloat16 if machine.native_bf16 else torch.float32
    if not machine.product_error < MAX_ERROR[used]:
        return fail(
            f"a product in {ROUNDS[used]} is wrong by {machine.product_error:.1g} of its size",
            "reinstall torch; until then --rollout.dtype float32 --optim.dtype float32",
        )
    if machine.native_bf16:
        return ok("bf16 in hardware")
    return ok("float32: this CPU multiplies no bf16; the demo took three times as long on one such")


@checks
def memory(machine: Machine) -> Finding:
    free, total = (amount / GB for amount in machine.memory_bytes)
    saw = f"{free:.1f} of {total:.1f} GB free"
    if total and free < MEMORY_GB[0]:
        fix = "close something; --rollout.max_rows 128 --optim.micro_batch_tokens 2048 need less"
        return (fail if free < MEMORY_GB[1] else warn)(saw, fix)
    return ok(saw)


@checks
def cores(machine: Machine) -> Finding:
    """Threads that wait for one another on too few cores are slower than one thread."""
    saw = f"{machine.cores} cores, {machine.threads} threads, load {machine.load:.1f}"
    if machine.threads > machine.cores:
        return warn(saw, f"export OMP_NUM_THREADS={machine.cores}")
    if machine.load > 1.5 * machine.cores:
        return warn(f"{saw}: others are working here", "times will be long and not comparable")
    return ok(saw)


@checks
def c_compiler(machine: Machine) -> Finding:
    if machine.c_code:
        fix = "install a C compiler (Debian: apt install gcc; macOS: xcode-select --install)"
        if machine.c_code == "AHA_C=0":
            fix = "unset AHA_C"
        return warn(f"no C code, rollouts are several times slower: {machine.c_code}", fix)
    return ok("the engine's loop and the training's in C are compiled and load")


def writable(machine: Machine, name: str, fix: str) -> Finding:
    found = machine.places[name]
    free = found.free_bytes / GB
    if found.complaint:
        return fail(f"cannot write to {found.path} ({found.complaint})", fix)
    saw = f"{found.path} is writable, {free:.1f} GB free"
    if free < DISK_GB[0]:
        return (fail if free < DISK_GB[1] else warn)(saw, "make room on that disk")
    return ok(saw)


@checks
def cache(machine: Machine) -> Finding:
    return writable(machine, "cache", "export AHA_CACHE=/a/folder/of/yours")


@checks
def runs(machine: Machine) -> Finding:
    return writable(machine, "runs", "go to a folder of yours: runs are written below it")


@checks
def base_model(machine: Machine) -> Finding:
    if machine.missing_model:
        fix = "install again: pip install --force-reinstall aha"
        return fail(f"aha-tiny lacks {machine.missing_model}", fix)
    return ok("aha-tiny is here, nothing to download")


@checks
def extras(machine: Machine) -> Finding:
    """None is needed; each says how to get it."""
    have = [name for name, found in machine.extras.items() if all(found.values())]
    lack = [name for name in machine.extras if name not in have]
    saw = f"installed: {', '.join(have) or 'none'}; not: {', '.join(lack) or 'none'}"
    return ok(saw, f"if you want one: pip install 'aha[{lack[0]}]'" if lack else "")
