"""Shards in their order, whoever writes them; and no process is left over."""

import multiprocessing
import operator
import os
import pickle
import signal
import subprocess
import sys
import time
from functools import partial
from itertools import islice

import numpy as np
import pytest

from aha.core.errors import RunError
from aha.corpus.bases import PretrainConfig
from aha.corpus.shards import CorpusTokenizer, write_shard
from aha.corpus.writers import in_order
from aha.model.tokenizer import build_tokenizer

WRITE = partial(
    write_shard,
    CorpusTokenizer.of(build_tokenizer()),
    PretrainConfig(batch_tokens=600, shard_documents=20),
    max_tokens=160,
)


def as_bytes(batches) -> list[tuple]:
    return [
        (b.tokens_BT.shape, b.tokens_BT.tobytes(), b.weights_BT.tobytes(), b.num_tokens)
        for b in batches
    ]


@pytest.fixture(scope="module")
def alone() -> list[list[tuple]]:
    return [as_bytes(found) for found in islice(in_order(WRITE, 0, 0), 7)]


@pytest.mark.parametrize(("writers", "first"), [(1, 0), (3, 0), (2, 3)])
def test_the_batches_are_bit_equal_whatever_the_number_of_writers(alone, writers, first):
    shards = in_order(WRITE, first, writers)
    found = [as_bytes(batches) for batches in islice(shards, 7 - first)]
    assert found == alone[first:]
    assert len(multiprocessing.active_children()) == writers
    shards.close()
    assert multiprocessing.active_children() == []


def test_nothing_starts_before_it_is_asked_for():
    in_order(WRITE, 0, 2).close()
    assert multiprocessing.active_children() == []


def test_a_shard_that_cannot_be_written_is_an_error_and_ends_the_others(capfd):
    shards = in_order(partial(operator.getitem, (3, 6)), 0, 2)
    assert [next(shards), next(shards)] == [3, 6]
    with pytest.raises(RunError, match=r"writes shard 2 ended, exit code 1; .*--writers 0"):
        next(shards)
    assert multiprocessing.active_children() == []
    assert "IndexError" in capfd.readouterr().err  # its own words


def test_a_writer_that_was_killed_is_an_error():
    shards = in_order(WRITE, 0, 1)
    next(shards)
    (process,) = multiprocessing.active_children()
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(RunError, match="exit code -9"):
        for _ in range(3):  # one more may have been on its way
            next(shards)


def test_one_that_was_killed_in_the_middle_of_a_shard_is_the_same_error():
    """A shard of five megabytes is on its way when a pipe is full."""
    shards = in_order(bytes, 5_000_000, 1)
    next(shards)
    (process,) = multiprocessing.active_children()
    time.sleep(0.5)
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(RunError, match="exit code -9"):
        next(shards)


def test_an_error_of_the_reader_ends_the_writers():
    with pytest.raises(KeyboardInterrupt):
        for _ in in_order(WRITE, 0, 2):
            raise KeyboardInterrupt
    assert multiprocessing.active_children() == []


RUN = """
import multiprocessing, os, signal, time
from aha.corpus.writers import in_order

def write(number):
    time.sleep(100 * number)

if __name__ == "__main__":
    shards = in_order(write, 0, 2)
    next(shards)
    with open("pids", "w") as file:
        print(*(child.pid for child in multiprocessing.active_children()), file=file)
    {ending}
"""


def still_there(pid: int) -> bool:
    try:
        state = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks for processes in /proc")
@pytest.mark.parametrize("ending", ["os.kill(os.getpid(), signal.SIGKILL)", "raise ValueError"])
def test_no_writer_outlives_a_run_however_it_ends(tmp_path, ending):
    script = tmp_path / "run.py"
    script.write_text(RUN.format(ending=ending))
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    # Nothing of its output is read: that would wait until the last writer has let go of it.
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run([sys.executable, script], cwd=tmp_path, env=env, **quiet)
    pids = list(map(int, (tmp_path / "pids").read_text().split()))
    assert len(pids) == 2
    deadline = time.monotonic() + 30  # they have a hundred seconds and more to write
    while any(map(still_there, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(still_there, pids))


def test_ctrl_c_is_not_for_the_writers():
    shards = in_order(WRITE, 0, 1)
    before = [as_bytes(next(shards))]
    (process,) = multiprocessing.active_children()
    os.kill(process.pid, signal.SIGINT)
    before += [as_bytes(next(shards)) for _ in range(2)]
    assert process.is_alive() and len(before) == 3
    shards.close()


FIRST = """
import multiprocessing, os, signal
from aha.corpus.writers import in_order

shards = in_order(bytes, 10, 1)
next(shards)
(process,) = multiprocessing.active_children()
os.kill(process.pid, signal.SIGINT)
print([len(next(shards)) for _ in range(3)])
shards.close()
"""


def test_nor_for_the_first_that_a_process_starts():
    """With it Python starts a helper of its own, which lets in what was held back."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", FIRST], env=env, capture_output=True, text=True)
    assert done.stdout == "[11, 12, 13]\n" and done.stderr == "", done


def test_what_a_writer_is_told_loads_no_torch():
    code = "import pickle, sys; pickle.load(sys.stdin.buffer); sys.exit('torch' in sys.modules)"
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(WRITE), env=env)
    assert done.returncode == 0


def test_the_arrays_of_a_shard_travel_as_they_are():
    shards = in_order(WRITE, 2, 1)
    (first, *_) = next(shards)
    shards.close()
    assert first.tokens_BT.dtype == np.int32 and first.weights_BT.dtype == np.float32
