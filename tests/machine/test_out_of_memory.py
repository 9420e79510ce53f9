"""The words for used-up memory, of torch, oneDNN and others."""

import pytest
import torch

from aha.machine.out_of_memory import is_out_of_memory

SAID = [
    "could not create a primitive",
    "could not create a memory object",
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you "
    "tried to allocate 1600000000 bytes. Error code 12 (Cannot allocate memory)",
    "[enforce fail at alloc_cpu.cpp:80] data. DefaultCPUAllocator: not enough memory: you tried",
    "CUDA out of memory. Tried to allocate 20.00 MiB",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "MPS backend out of memory",
    "Storage size calculation overflowed with sizes=[1000000000, 1000000000]",
    "std::bad_alloc",
]


@pytest.mark.parametrize("words", SAID)
def test_the_words_of_a_runtime_error(words):
    assert is_out_of_memory(RuntimeError(words))
    assert not is_out_of_memory(ValueError(words))


def test_classes_say_it_without_words_and_other_faults_do_not():
    assert is_out_of_memory(MemoryError()) and is_out_of_memory(torch.OutOfMemoryError("x"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_torch_says_it_in_words_that_are_known():
    with pytest.raises(RuntimeError) as error:
        torch.empty(1 << 60)
    assert is_out_of_memory(error.value)
