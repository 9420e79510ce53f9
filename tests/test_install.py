"""The wheel, installed by pip and by uv into an environment of its own, without this repository.

Opt-in (`pytest -m slow tests/test_install.py`): an environment takes half a minute. The packages
that aha needs are those of this environment, so no network is needed.
"""

import os
import shutil
import site
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from .pages import ROOT

pytestmark = pytest.mark.slow
UV = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    return next(folder.glob("aha-*.whl"))


def install_by_pip(wheel: Path, folder: Path) -> None:
    venv.create(folder, with_pip=True)
    words = ("-m", "pip", "install", "-q", "--no-deps", "--no-index", str(wheel))
    subprocess.run([folder / "bin" / "python", *words], check=True)


def install_by_uv(wheel: Path, folder: Path) -> None:
    subprocess.run([UV, "venv", "-q", "--python", sys.executable, str(folder)], check=True)
    words = (
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--offline",
        "--python",
        folder / "bin" / "python",
    )
    subprocess.run([UV, *words, str(wheel)], check=True)


@pytest.mark.parametrize(
    "install",
    [
        install_by_pip,
        pytest.param(
            install_by_uv, marks=pytest.mark.skipif(UV is None, reason="no uv: pip install uv")
        ),
    ],
)
def test_the_wheel_is_installed_and_its_command_runs(wheel, tmp_path, install):
    install(wheel, tmp_path / "env")
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    clean["PYTHONPATH"] = os.pathsep.join(site.getsitepackages())
    done = subprocess.run(
        [tmp_path / "env" / "bin" / "aha", "recipes"],
        cwd=tmp_path,
        env=clean,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "demo" in done.stdout and "laptop-3to4" in done.stdout
    where = "import aha; print(aha.__file__)"
    python = tmp_path / "env" / "bin" / "python"
    file = subprocess.run([python, "-c", where], cwd=tmp_path, env=clean, capture_output=True)
    assert str(tmp_path).encode() in file.stdout
