"""The log of a rank; that of a real one is in `test_ranks.py`."""

import subprocess
import sys
from functools import partial

from aha.dist.world import World
from aha.training.rank_log import carry_out, name_of, rank_log

SCRIPT = """
import os, sys
from pathlib import Path
from aha.dist.world import World
from aha.training.rank_log import carry_out, rank_log

def double(rows):
    print("a warning of a library")
    os.system("echo of a child")
    rows.append(2)

with rank_log(Path(sys.argv[1]), World()) as note:
    carry_out(double, [], note)
    raise ValueError("a bad day")
"""


def test_a_log_has_orders_output_and_the_error_that_ended_it(tmp_path):
    words = [sys.executable, "-c", SCRIPT, str(tmp_path / "ranks")]
    for times in (1, 2):
        done = subprocess.run(words, capture_output=True, text=True)
        assert done.returncode == 1 and done.stdout == ""
        log = (tmp_path / "ranks" / "rank_0.log").read_text()
        for line in ("rank 0 of 1, process ", "a warning of a library\n", "of a child\n"):
            assert log.count(line) == times, "a resumed run adds to the log"
        assert log.count(" double: 0.") == times and "ValueError: a bad day" in log
        assert " the end" not in log


def test_without_a_folder_to_write_to_the_rank_works_on(tmp_path, capsys):
    rows = []
    with rank_log(tmp_path / "none" / "ranks", World()) as note:
        carry_out(rows.append, 1, note)
    assert rows == [1] and "rank 0 keeps no log" in capsys.readouterr().err


def test_the_name_of_an_order():
    assert name_of(len) == name_of(partial(len)) == "len"
