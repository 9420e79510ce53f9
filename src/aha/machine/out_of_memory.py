"""What an error looks like that says: the memory is used up. No torch.

On a GPU torch has a class of its own for it. On a CPU there are only the words of a RuntimeError,
from torch's allocator, from oneDNN or from a driver.
"""

WORDS = (
    "out of memory",  # CUDA, HIP, MPS
    "not enough memory",  # torch's allocator on Windows
    "can't allocate memory",  # torch's DefaultCPUAllocator
    "cannot allocate memory",  # the C library's strerror
    "could not create a primitive",  # oneDNN, which does not say why; it has no other common cause
    "could not create a memory",  # oneDNN
    "bad_alloc",
    "failed to allocate",
    "unable to allocate",
    "storage size calculation overflowed",  # torch: larger than any memory can be
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is used up."""
    names = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, MemoryError) or "OutOfMemoryError" in names:
        return True
    text = str(error).lower() if isinstance(error, RuntimeError) else ""
    return any(words in text for words in WORDS)
