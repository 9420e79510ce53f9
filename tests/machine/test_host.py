"""What the system says of the machine, and that no other room asks it."""

import math
import re
from pathlib import Path

import pytest
import torch

import aha
from aha.machine.device import (
    accelerator,
    device_memory,
    device_name,
    empty_cache,
    gpu_name,
    has_cuda,
    num_threads,
    synchronize,
)
from aha.machine.host import (
    Memory,
    container_cores,
    cpu_features,
    cpu_name,
    first_number,
    load_average,
    memory_bytes,
    num_cores,
    process_bytes,
    usable_cores,
)

CPU = torch.device("cpu")
# Questions that have their answer in aha.machine, and nowhere else.
QUESTIONS = re.compile(
    r"torch\.cuda\.(is_available|get_device|mem_get|empty_cache|synchronize|max_memory|reset_peak)"
    r"|torch\.backends\.mps|torch\.cpu\.|get_num_threads|cpu_count|sched_getaffinity|getloadavg"
    r"|sysconf|getrusage|/proc/|/sys/fs|platform\.(system|platform|processor|machine)\("
    r"|os\.uname|shutil\.which\(.cc"
)


def test_only_the_machine_room_asks_the_machine():
    root = Path(aha.__file__).parent
    sources = [path for path in root.rglob("*.py") if path.parent != root / "machine"]
    assert len(sources) > 100
    lines = [(path, line) for path in sources for line in path.read_text().splitlines()]
    assert [(path, line) for path, line in lines if QUESTIONS.search(line)] == []


def test_a_cpu_has_the_memory_of_the_host_and_no_gpu_name():
    memory = device_memory(CPU)
    assert 0 < memory.free <= memory.total and memory.total == memory_bytes().total
    assert gpu_name(CPU) is None and device_name(CPU) == cpu_name() != ""
    empty_cache(CPU)  # on a CPU both do nothing
    synchronize(CPU)
    assert num_threads() == torch.get_num_threads()


@pytest.mark.skipif(has_cuda() or torch.backends.mps.is_available(), reason="there is a GPU")
def test_no_accelerator_is_an_empty_name():
    assert accelerator() == ("", None)


def test_the_host_counts_what_it_can():
    assert 1 <= usable_cores() <= num_cores()
    assert 0 < process_bytes() < memory_bytes().total
    assert load_average() >= 0 and cpu_features()
    assert Memory(1, 2) == (1, 2)


def test_a_container_has_its_share_of_the_cores(tmp_path):
    """Half a core is one, not the whole machine; and not every period is 100 ms."""
    assert container_cores(tmp_path) == math.inf and usable_cores(tmp_path) == usable_cores()
    told = {"50000 100000\n": 0.5, "150000 100000\n": 1.5, "20000 10000\n": 2.0}
    told |= {"max 100000\n": math.inf, "": math.inf, "5 0": math.inf}
    for text, cores in told.items():
        (tmp_path / "cpu.max").write_text(text)
        assert container_cores(tmp_path) == cores
        assert usable_cores(tmp_path) <= max(1, cores)
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert usable_cores(tmp_path) == 1


def test_the_number_at_the_start_of_a_file(tmp_path):
    path = tmp_path / "cpu.max"
    assert first_number(path) == 0
    for text, number in {"150000 100000\n": 150_000.0, "max 100000\n": 0.0, "": 0.0}.items():
        path.write_text(text)
        assert first_number(path) == number
