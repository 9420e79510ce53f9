"""`benchmarks/rank_kills.py`: how it counts, and the kills themselves, which are slow."""

import importlib.util
import json
import subprocess
import sys

import pytest

from ..pages import ROOT

SCRIPT = ROOT / "benchmarks" / "rank_kills.py"
HAS_RAY = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(not HAS_RAY, reason="Ray is not installed: pip install '.[ray]'")


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))  # as for a script
    spec = importlib.util.spec_from_file_location("rank_kills", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "rank_kills", module)  # its dataclasses look there
    spec.loader.exec_module(module)
    return module


def test_a_step_is_lost_where_a_run_goes_on_before_its_checkpoint(script):
    # Killed with step 3 saved and no line yet, and again with 5 saved, before the next line.
    marks = [(0, 3), (1, 5), (1, 5)]
    assert script.lost_steps([3, 5], marks) == 0
    assert script.lost_steps([4, 6], marks) == 0
    assert script.lost_steps([2, 5], marks) == 1
    assert script.lost_steps([3, 0], marks) == 10  # both kills with 5 saved were followed by it
    assert script.lost_steps([], [(0, 7)]) == 0  # it was killed after its last step


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("launcher", "kills"),
    [
        ("local", 4),
        ("torchrun", 4),
        pytest.param("ray", 1, marks=needs_ray),
        pytest.param("ray-node", 1, marks=needs_ray),
    ],
)
def test_kills_cost_no_step_and_no_bit(launcher, kills, tmp_path):
    out = tmp_path / "rows.jsonl"
    words = ["--launcher", launcher, "--kills", str(kills), "--steps", "12", "--out", str(out)]
    subprocess.run([sys.executable, SCRIPT, *words], check=True)
    row = json.loads(out.read_text())
    assert (row["kills"], row["hangs"], row["lost_steps"], row["differences"]) == (kills, 0, 0, [])
