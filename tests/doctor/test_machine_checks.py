"""The doctor's look at a machine: this one passes, and every planted fault is found."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from aha.core.findings import worst_level
from aha.doctor.machine_checks import (
    MAX_ERROR,
    FolderState,
    MachineFacts,
    checks,
    folder_state,
    inspect_machine,
    product_error,
    required_packages,
)
from aha.machine.host import held_by_container, usable_cores

GB = 10**9
HEALTHY = MachineFacts(
    python=(3, 12, 1),
    packages={"torch": "2.13.0+cpu", "numpy": "2.4.0"},
    minimums={"torch": "2.6"},
    extras={"hf": {"transformers": "5.0"}, "vllm": {"vllm": None}},
    cpu="a CPU",
    accelerator="",
    accelerator_bytes=None,
    native_bf16=True,
    product_error=3e-3,
    memory_bytes=(9 * GB, 16 * GB),
    cores=2,
    threads=2,
    load=0.4,
    c_code="",
    folders={"cache": FolderState("~/.cache/aha", 50 * GB), "runs": FolderState("runs", 50 * GB)},
)


def folders(**changed) -> dict:
    return {"folders": HEALTHY.folders | changed}


FAULTS = {
    "old Python": ("python", "fail", {"python": (3, 10, 4)}),
    "torch is missing": ("packages", "fail", {"packages": {"torch": None, "numpy": "2"}}),
    "torch is old": ("packages", "fail", {"packages": {"torch": "2.5.1", "numpy": "2"}}),
    "products are wrong": ("dtype", "fail", {"product_error": 0.5}),
    "products are NaN": ("dtype", "fail", {"product_error": float("nan")}),
    "little memory": ("memory", "warn", {"memory_bytes": (GB, 16 * GB)}),
    "no memory": ("memory", "fail", {"memory_bytes": (GB // 5, 16 * GB)}),
    "too many threads": ("cores", "warn", {"threads": 64}),
    "a busy machine": ("cores", "warn", {"load": 9.0}),
    "no compiler": ("c_compiler", "warn", {"c_code": "no C compiler (cc, gcc, clang)"}),
    "a cache that takes nothing": (
        "cache",
        "fail",
        folders(cache=FolderState("/c", 0, "Permission denied")),
    ),
    "runs takes nothing": (
        "runs",
        "fail",
        folders(runs=FolderState("/r", 0, "Read-only file system")),
    ),
    "a full disk": ("runs", "fail", folders(runs=FolderState("runs", GB // 100))),
    "a base without weights": ("base_model", "fail", {"missing_model_files": "model.safetensors"}),
}


def found(machine: MachineFacts) -> dict:
    return {finding.check: finding for finding in checks.run(machine)}


def test_a_healthy_machine_raises_no_alarm():
    findings = found(HEALTHY)
    assert worst_level(list(findings.values())) == "ok", findings
    assert set(findings) == set(checks)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault):
    check, level, change = FAULTS[fault]
    finding = found(replace(HEALTHY, **change))[check]
    assert finding.level == level and finding.fix, finding


def test_what_is_missing_is_installed_by_its_own_name():
    """And Aha itself from its clone: no index has it."""
    assert found(replace(HEALTHY, packages={"torch": None}))["packages"].fix == "pip install torch"
    for change in ({"packages": {}}, {"missing_model_files": "config.json"}):
        findings = found(replace(HEALTHY, **change))
        fixes = {finding.fix for finding in findings.values() if finding.level == "fail"}
        assert len(fixes) == 1 and "in the clone" in fixes.pop()


def test_an_extra_is_told_with_its_line():
    finding = found(HEALTHY)["extras"]
    assert finding.level == "ok" and "installed: hf; not: vllm" in finding.message
    assert "aha[vllm]" in finding.fix


def test_packages_come_from_the_wheels_own_list():
    lines = ["torch>=2.6", "numpy", "peft; extra == 'hf'", 'ray>=2 ; extra == "ray"']
    assert required_packages(lines) == (
        {"torch": "2.6", "numpy": ""},
        {"hf": ["peft"], "ray": ["ray"]},
    )


def test_this_machine_is_looked_at(tmp_path):
    machine = inspect_machine(tmp_path)
    assert machine.packages["torch"] and 0 < machine.memory_bytes[0] <= machine.memory_bytes[1]
    assert 1 <= usable_cores() and "hf" in machine.extras
    assert {f.check for f in checks.run(machine)} == set(checks)
    must_pass = ("python", "packages", "dtype", "runs", "base_model")
    assert all(found(machine)[name].level == "ok" for name in must_pass)


def test_files_that_were_read_are_no_memory_that_is_taken(tmp_path):
    """A container's count has them in it, and the system gives them up when asked."""
    assert held_by_container(tmp_path) == 0
    (tmp_path / "memory.current").write_text("9000\n")
    assert held_by_container(tmp_path) == 9000  # without memory.stat nothing is taken off
    rows = "anon 2000\nfile 7000\ninactive_file 4000\nactive_file 2500\n"
    (tmp_path / "memory.stat").write_text(rows)
    assert held_by_container(tmp_path) == 2500


@pytest.mark.parametrize("dtype", MAX_ERROR)
def test_the_error_of_a_product_is_that_of_its_type(dtype):
    assert 0 < product_error(dtype) < MAX_ERROR[dtype]
    assert product_error(torch.float32) < product_error(torch.bfloat16) / 100


def test_a_place_that_does_not_exist_is_judged_by_its_parent_and_not_made(tmp_path):
    wanted = tmp_path / "a" / "b"
    assert not folder_state(wanted).error and not wanted.parent.exists()
    assert folder_state(Path("/proc/nowhere")).error
