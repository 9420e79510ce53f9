"""The C code of the package: compiled once on this machine, then loaded from a cache.

`load_code` gives the library, `CStruct` and `CFunction` call it with all arguments by keyword.

Compiling needs a C compiler (cc, gcc or clang). Without one, torch does the same work more slowly.
Each source is compiled for two types: float32, and bf16 if the processor can multiply it. A library
is built for this processor (-march=native). Its name has a hash of the processor's features, the
compiler's version, the flags and all sources, so that machines with a shared home folder never load
each other's libraries.
"""

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import torch

from aha.machine.host import cpu_features

# -- compiling -----------------------------------------------------------------------------------

COMPILERS = ("cc", "gcc", "clang")
FLAGS = ("-O3", "-shared", "-fPIC", "-pthread")
LANES = 16  # floats of the widest vector in the C code: sizes must be multiples of it
HEADERS = Path(str(files("aha"))) / "model" / "native_c"


class NotCompiled(Exception):
    """Why the C code cannot be used here. Not an error of the user: torch does the same work."""


def find_compiler() -> str | None:
    """The path of the first C compiler there is."""
    return next(filter(None, map(shutil.which, COMPILERS)), None)


def why_not_compiled(sources: Iterable[Path], bf16: bool) -> str:
    """The reason why one of these sources cannot be built and loaded; empty where all can."""
    try:
        for source in sources:
            load_code(source, bf16)
    except NotCompiled as reason:
        return str(reason)
    return ""


def load_code(source: Path, bf16: bool) -> ctypes.CDLL:
    """The compiled source for one number type. AHA_CFLAGS are added last to the compiler's options,
    such as -mno-avx512f.

    Raises `NotCompiled` where it cannot be built or loaded, or where the environment says AHA_C=0.
    """
    loaded = code_or_reason(source, bf16)
    if isinstance(loaded, str):
        raise NotCompiled(loaded)
    return loaded


@lru_cache
def code_or_reason(source: Path, bf16: bool) -> ctypes.CDLL | str:
    """The library, or why there is none. A cache keeps no exceptions: the compiler would fail again
    at each new version of the weights."""
    try:
        return built_code(source, bf16)
    except NotCompiled as reason:
        return str(reason)


def built_code(source: Path, bf16: bool) -> ctypes.CDLL:
    """What `load_code` gives and raises, found anew at each call."""
    if os.environ.get("AHA_C") == "0":
        raise NotCompiled("AHA_C=0")
    compiler = find_compiler()
    if compiler is None:
        raise NotCompiled(f"no C compiler ({', '.join(COMPILERS)})")
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout
    texts = [source, *sorted({*source.parent.glob("*.h"), *HEADERS.glob("*.h")})]
    extra = os.environ.get("AHA_CFLAGS", "").split()
    parts = [version, cpu_features(), *FLAGS, *extra, *(path.read_text() for path in texts)]
    name = hashlib.blake2b("\0".join(parts).encode(), digest_size=8).hexdigest()
    built = cache_folder() / f"{source.stem}-{name}-{'bf16' if bf16 else 'float32'}.so"
    if not built.is_file():
        build([compiler, *FLAGS], extra, source, built, bf16)
    try:
        return ctypes.CDLL(str(built))
    except OSError as error:
        raise NotCompiled(str(error)) from None


def build(compiler: list[str], extra: list[str], source: Path, target: Path, bf16: bool) -> None:
    """Compile for this very processor. The library appears under its name complete or not at all,
    so that two processes may build it at the same time."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(suffix=".so", dir=target.parent)
        os.close(handle)
    except OSError as error:
        raise NotCompiled(f"cannot write to {target.parent}: {error.strerror}") from None
    complaint = ""
    # Some compilers for Arm know only the second option; all compile without one.
    for tuning in (["-march=native"], ["-mcpu=native"], []):
        command = [*compiler, *tuning, *extra, f"-I{HEADERS}", f"-DBF16={int(bf16)}", str(source)]
        done = subprocess.run([*command, "-o", partial, "-lm"], capture_output=True, text=True)
        if done.returncode == 0:
            os.replace(partial, target)
            return
        complaint = complaint or (done.stderr.strip().splitlines() or ["no reason given"])[0]
    os.unlink(partial)
    raise NotCompiled(f"{compiler[0]}: {complaint}")


def cache_folder() -> Path:
    """Where built libraries live: $AHA_CACHE, or the user's cache folder."""
    chosen = os.environ.get("AHA_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(chosen) if chosen else Path(base) / "aha"


# -- calls ---------------------------------------------------------------------------------------

CType = type[ctypes.c_void_p | ctypes.c_int | ctypes.c_int64 | ctypes.c_float]
Argument = torch.Tensor | int | float


def check_names(where: str, given: Iterable[str], declared: Iterable[str]) -> None:
    """Raise TypeError unless both are the same names, whatever their order."""
    missing, unknown = {*declared} - {*given}, {*given} - {*declared}
    if missing or unknown:
        raise TypeError(
            f"{where}: missing {', '.join(sorted(missing)) or 'nothing'}, "
            f"unknown {', '.join(sorted(unknown)) or 'nothing'}"
        )


class CStruct(ctypes.Structure):
    """A C structure, made with all its fields by keyword.

    Pointers are addresses: keep the tensors alive as long as the structure is used.
    """

    def __init__(self, **values: int | float) -> None:
        check_names(type(self).__name__, values, [field[0] for field in self._fields_])
        super().__init__(**values)


class CFunction:
    """A C function that returns nothing, called with all its parameters by keyword.

    `parameters` are their names and types in C's order. Tensors go as the addresses of their
    memory, so they have to be contiguous.
    """

    def __init__(self, name: str, function: Callable[..., object], parameters: Mapping[str, CType]):
        self.name, self.function, self.parameters = name, function, parameters
        function.argtypes = list(parameters.values())  # type: ignore[attr-defined]
        function.restype = None  # type: ignore[attr-defined]

    def __call__(self, **values: Argument) -> None:
        if values.keys() != self.parameters.keys():
            check_names(self.name, values, self.parameters)
        arguments = [values[name] for name in self.parameters]
        self.function(*(x.data_ptr() if isinstance(x, torch.Tensor) else x for x in arguments))
