"""C sources of the package, built once on this machine, then loaded from a cache.

They need a C compiler (cc, gcc or clang) the first time; without one torch does the same work more
slowly. Each source is compiled for two types: float32, and bf16 where the processor multiplies it.
"""

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

COMPILERS = ("cc", "gcc", "clang")
FLAGS = ("-O3", "-shared", "-fPIC", "-pthread")
LANES = 16  # numbers of the widest vector in the C code
HEADERS = Path(str(files("aha"))) / "model" / "native_c"


class NotCompiled(Exception):
    """Why the C code cannot be used here; never an error, for torch does the same."""


@lru_cache
def load_code(source: Path, bf16: bool) -> ctypes.CDLL:
    """The compiled source for one number type; NotCompiled where it cannot be had, or where the
    environment says AHA_C=0. AHA_CFLAGS are the compiler's last words, such as -mno-avx512f."""
    if os.environ.get("AHA_C") == "0":
        raise NotCompiled("AHA_C=0")
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        raise NotCompiled(f"no C compiler ({', '.join(COMPILERS)})")
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout
    texts = [source, *sorted({*source.parent.glob("*.h"), *HEADERS.glob("*.h")})]
    own = os.environ.get("AHA_CFLAGS", "").split()
    parts = [version, processor(), *FLAGS, *own, *(path.read_text() for path in texts)]
    name = hashlib.blake2b("\0".join(parts).encode(), digest_size=8).hexdigest()
    built = cache_folder() / f"{source.stem}-{name}-{'bf16' if bf16 else 'float32'}.so"
    if not built.is_file():
        build([compiler, *FLAGS], own, source, built, bf16)
    try:
        return ctypes.CDLL(str(built))
    except OSError as error:
        raise NotCompiled(str(error)) from None


def build(compiler: list[str], own: list[str], source: Path, target: Path, bf16: bool) -> None:
    """Compile for this very processor; the file appears whole or not at all."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(suffix=".so", dir=target.parent)
        os.close(handle)
    except OSError as error:
        raise NotCompiled(f"cannot write to {target.parent}: {error.strerror}") from None
    complaint = ""
    # Some compilers for Arm know only the second spelling, and the last one is always known.
    for tuned in (["-march=native"], ["-mcpu=native"], []):
        command = [*compiler, *tuned, *own, f"-I{HEADERS}", f"-DBF16={int(bf16)}", str(source)]
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


def processor() -> str:
    """What `-march=native` depends on: a cache that is shared between machines keeps them apart."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return "\n".join(
            sorted({x for x in lines if x.startswith(("model name", "flags", "Feat"))})
        )
    except OSError:
        return " ".join(os.uname()) if hasattr(os, "uname") else ""
