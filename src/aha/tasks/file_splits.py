"""The splits of problems that come from files.

One file is parted by a hash of each problem, so that training and tests never share one. With a
file of its own for the tests, every row of that is a test, and none of them is trained on. The
split "all" is every row of the first file, for one that is a test set as a whole.
"""

from collections.abc import Callable, Sequence
from random import Random
from typing import Generic, TypeVar

from aha.core.errors import ConfigError, DataError
from aha.core.findings import Finding, warn
from aha.core.seeds import seed_for

ALL = "all"
Row = TypeVar("Row")


def check_test_data(data: object, test_data: object) -> None:
    """Raises `ConfigError` for test problems from a file beside no file to train on."""
    if test_data and not data:
        raise ConfigError(
            "test_data without data", "a file of other problems beside it", "--task.data FILE"
        )


class FileSplits(Generic[Row]):
    """The rows of a file, or of one to train on and one of tests, by split.

    `key_of` says which rows are the same problem, `split_of` in which split one is.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        test_rows: Sequence[Row] | None,
        key_of: Callable[[Row], str],
        split_of: Callable[[Row], str],
    ):
        self.rows, self.test_rows, self.split_of = list(rows), test_rows, split_of
        self.notes: list[Finding] = []
        if test_rows is not None:
            tests = set(map(key_of, test_rows))
            self.rows = [row for row in rows if key_of(row) not in tests]
            shared = len(rows) - len(self.rows)
            if shared:
                message = f"{shared:,} problems of task.data are in task.test_data too"
                self.notes.append(
                    warn(
                        f"{message}: they are only tests", "nothing: they are left out of training"
                    )
                )
            if not self.rows:
                raise DataError(
                    "every problem of task.data is in task.test_data too",
                    "other problems to train on",
                    "another file after --task.data",
                )

    def of(self, split: str) -> list[Row]:
        """The rows of a split, in the order of the file."""
        if split == ALL:
            return [*self.rows, *(self.test_rows or ())]
        if self.test_rows is None:
            return [row for row in self.rows if self.split_of(row) == split]
        if split.startswith("test"):
            return list(self.test_rows) if split == "test" else []
        validation = split == "validation"
        return [row for row in self.rows if (self.split_of(row) == "validation") == validation]

    def shuffled(self, split: str, seed: int, name: str) -> list[Row]:
        """The rows of a split in the order of a seed; `name` keeps two tasks' orders apart."""
        rows = self.of(split)
        Random(seed_for(name, split, seed)).shuffle(rows)
        return rows
