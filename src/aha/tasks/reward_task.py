"""A task made of reward functions and a file of rows: what `aha.train(reward=..., data=...)` trains
on.

The functions are called in this process, not in one of their own as a task from outside is: they
are part of the program that calls, may be defined in a notebook, and may hold on to what they like.
So a function that hangs is not ended; one that raises, or returns what is no reward, gives a reward
of 0 with the reason, and is counted in `grade_errors`.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from aha.core.findings import Finding, warn
from aha.core.records import REWARD_PART as PART
from aha.core.records import Graded, Problem
from aha.tasks.file_splits import ALL, FileSplits, check_test_data
from aha.tasks.isolation import MAX_REWARD, failed
from aha.tasks.reward_function import BY_FUNCTION, RewardFunction, WeightedRewards
from aha.tasks.reward_rows import (
    check_given,
    columns_of,
    load_prompt_rows,
    prompt_key,
    prompt_of,
    puzzle_of_row,
    row_id,
)
from aha.tasks.splits import check_split, hash_percent, split_by_hash
from aha.tasks.tags import check_template, instruct_frame, r1_frame
from aha.tasks.worker_process import Nonsense, raised

PREFIX = "reward:"  # of the task's name in a recipe
HELD_OUT_PERCENT = 10  # of the prompts, in test and in validation each
TURN, END = "<|im_start|>", "<|im_end|>"


class RewardTask:
    """Rows of a file, graded by one or several reward functions.

    `data`, `test_data` and `bad_rows` are those of a task that reads files. The template "plain"
    takes a prompt as it stands; "r1" and "instruct" put a text into their frame. Messages become a
    conversation, in the form of the model's own chat template. Raises `ConfigError` for an argument
    of a function that the data has no column for, and `DataError` as `load_prompt_rows` does.
    """

    def __init__(
        self,
        rewards: WeightedRewards,
        data: str | Path | None = None,
        template: str = "plain",
        test_data: str | Path | None = None,
        bad_rows: str = "refuse",
    ):
        check_test_data(data, test_data)
        self.rewards, self.template = rewards, check_template(template)
        self.name = PREFIX + rewards.name
        rows, self.notes = load_prompt_rows(check_given(data), bad_rows, rewards.functions)
        tests = None
        if test_data is not None:
            tests, notes = load_prompt_rows(Path(test_data), bad_rows, rewards.functions)
            self.notes += notes
        held_out = ("validation",) if tests else ("validation", "test")
        split_of = parted({prompt_key(row) for row in rows}, held_out)
        # Looked up in every step, for all rows.
        splits = {id(row): split_of[prompt_key(row)] for row in rows}
        self.splits = FileSplits(rows, tests, prompt_key, lambda row: splits[id(row)])
        self.notes += [*self.splits.notes, *unreadable_sources(rewards.functions)]

    def problems(self, split: str, seed: int) -> Iterator[Problem]:
        """The rows of one split, each once, in the seed's order; "all" is the whole file."""
        if split != ALL:
            check_split(split)
        for row in self.splits.shuffled(split, seed, "reward"):
            yield Problem(f"reward/{row_id(row)}", self.name, puzzle_of_row(row) | {"row": row})

    def num_problems(self, split: str) -> int:
        """How many rows a split has."""
        return len(self.splits.of(split))

    def ask(self, problem: Problem) -> str:
        """The prompt of the row: a text as the template says, messages as a conversation."""
        prompt = prompt_of(problem.given["row"])
        assert prompt is not None, "rows without a prompt are bad rows"
        if isinstance(prompt, str):
            frames = {"r1": r1_frame, "instruct": instruct_frame}
            return frames[self.template](prompt) if self.template in frames else prompt
        if self.template == "r1":
            return r1_frame(prompt[-1]["content"])
        turns = (f"{TURN}{m['role']}\n{m['content']}{END}\n" for m in prompt)
        return "".join(turns) + f"{TURN}assistant\n"

    def grade(self, problem: Problem, text: str) -> Graded:
        """The sum of weight times reward. A function that raises or returns no reward makes the
        reward 0, with its name in the reason."""
        row, grades = columns_of(problem.given["row"]), []
        for function in self.rewards.functions:
            try:
                grades.append(function.grade(text, row))
            except Nonsense as error:
                return failed(f"{BY_FUNCTION}{function.name} {error}")
            except (Exception, SystemExit) as error:  # of the user's code
                return failed(f"{BY_FUNCTION}{function.name} {raised(error)}")
        return self.summed(grades)

    def summed(self, grades: Sequence[Graded]) -> Graded:
        """One grade from those of all functions; the first says what is right."""
        functions, weights = self.rewards.functions, self.rewards.weights
        total = sum(w * grade.reward for w, grade in zip(weights, grades, strict=True))
        if abs(total) > MAX_REWARD:
            return failed(
                f"a sum of rewards of {total:g}, and at most {MAX_REWARD:g} can be learnt"
            )
        if len(grades) == 1:
            reason = grades[0].reason
            parts = {PART + key: value for key, value in grades[0].parts.items()}
        else:
            named = [(f.name, grade) for f, grade in zip(functions, grades, strict=True)]
            reason = ", ".join(f"{name} {grade.reward:g}" for name, grade in named)
            parts = {PART + name: grade.reward for name, grade in named}
            parts |= {f"{PART}{n}_{key}": v for n, g in named for key, v in g.parts.items()}
        return Graded(total, grades[0].correct, reason, parts)

    def digests(self) -> dict[str, str]:
        """The digest of each function's source, for the fingerprints of a run."""
        return {function.name: function.digest() for function in self.rewards.functions}


def parted(keys: Iterable[str], held_out: Sequence[str]) -> dict[str, str]:
    """The split of every prompt: by its hash, so that it stays where it is in a larger file.

    A held-out split that gets none of a few prompts takes one from training, if two are left there.
    """
    splits = {key: split_by_hash(key, HELD_OUT_PERCENT) for key in keys}
    for name in held_out:
        training = [key for key, split in splits.items() if split == "train"]
        if name not in splits.values() and len(training) > 1:
            splits[min(training, key=lambda key: (hash_percent(key), key))] = name
    return splits


def unreadable_sources(functions: Sequence[RewardFunction]) -> list[Finding]:
    """A note where a resumed run could not see that a function has changed."""
    names = [function.name for function in functions if function.source() is None]
    if not names:
        return []
    return [
        warn(
            f"the source of the reward {', '.join(names)} cannot be read, so a resumed run cannot "
            "notice that it has changed",
            "define it in a file or in a cell",
        )
    ]
