"""A thousand examples out of a pool, as s1 chooses them (arXiv 2501.19393), and its controls.

Quality: finished, right as far as a grade is known, in the form of its tags, without a loop of
equal lines, a picture or broken characters. Difficulty: what solver models miss. Diversity: a
domain is drawn evenly, then one of its examples, the longer the likelier (2 to the power of minus
its rank by length); so on until there are enough. Controls: at random, the longest, evenly by
domain alone, all.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from aha.core.errors import DataError
from aha.core.records import Problem
from aha.core.seeds import seed_for
from aha.distill.problem_rows import problem_for
from aha.distill.rejection import foreign_rows
from aha.distill.stages import Stage
from aha.sft.example_rows import example_texts, lengths_of
from aha.tasks.protocol import Task
from aha.tasks.tags import THINK_OPEN, read_answer, well_formed

Row = dict[str, Any]
WAYS = ("s1", "random", "longest", "diverse", "all")
LOOP = 6  # equal lines in a row, or this share of all lines equal, are a loop
LOOP_SHARE = 0.5
PICTURE = re.compile(r"!\[[^\]]*\]\(|<img\b|\[asy\]|\\includegraphics")
BROKEN = re.compile("\ufffd|\x00")
SAME_DOMAIN = "one domain"
RANKS = 60  # 2 to the power of minus more ranks is no weight any more


def read_pool(path: Path) -> Stage:
    """The rows of a pool that are examples; the others are counted by their kind."""
    stage = Stage("pool")
    stage.rows = foreign_rows(path, stage)
    return stage


def refuse_empty(stage: Stage, source: str) -> None:
    """Raises `DataError` for a stage that keeps nothing."""
    if not stage.rows:
        raise DataError(
            f"no example of {source} is left at the stage {stage.name}: {stage.reasons()}",
            "examples that pass it",
            "another pool, or fewer conditions",
        )


def good_ones(rows: Sequence[Row]) -> Stage:
    """Stage "quality"."""
    stage, texts = Stage("quality"), set()
    for row in rows:
        last = example_texts(row)[-1]
        fault = fault_of(row, str(last.prompt), last.completion)
        key = (str(last.prompt), last.completion.strip())
        if not fault and key in texts:
            fault = "that repeat another"
        if fault:
            stage.drop(fault, last.completion[:60])
        else:
            texts.add(key)
            stage.keep(row)
    refuse_empty(stage, "the pool")
    return stage


def fault_of(row: Mapping[str, Any], prompt: str, text: str) -> str:
    """What speaks against an example; empty where nothing does."""
    if row.get("correct") is False:
        return "wrong"
    if BROKEN.search(text):
        return "with broken characters"
    if PICTURE.search(text):
        return "with a picture"
    if prompt.rstrip().endswith(THINK_OPEN) and not well_formed(text):
        return "not in the form of the tags"
    return "with a loop" if is_loop(text) else ""


def is_loop(text: str) -> bool:
    """Whether a text says one line again and again: LOOP times in a row, or in half of its
    lines."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    run = longest = 1
    for one, other in zip(lines, lines[1:], strict=False):
        run = run + 1 if one == other else 1
        longest = max(longest, run)
    most = max(Counter(lines).values(), default=0)
    return longest >= LOOP or (most >= LOOP and most > LOOP_SHARE * len(lines))


# -- difficulty -----------------------------------------------------------------------------------


def problems_in(rows: Sequence[Row], task: Task) -> dict[str, Problem]:
    """The problems of the rows by their ids, of those that have one of this task.

    Raises `DataError` where none has, and for two problems of one id: a solver's result would be
    counted for both.
    """
    problems: dict[str, Problem] = {}
    for number, row in enumerate(rows, 1):
        problem = problem_for(task, row)
        if problem is None:
            continue
        if task.ask(problems.setdefault(problem.id, problem)) != task.ask(problem):
            raise DataError(
                f"example {number} has the id {problem.id!r} of another problem",
                "an id for each problem",
                "other ids in one of the files that the pool is made of",
            )
    if not problems:
        raise DataError(
            f"none of {len(rows):,} examples has a problem of {task.name} for a solver to try",
            "rows of `aha distill` or `aha eval MODEL --out FILE`, which keep it",
            "the pool's own --task, a pool that has them, or no --solver",
        )
    return problems


def hard_ones(
    rows: Sequence[Row], task: Task, solved: Mapping[str, Mapping[str, int | None]]
) -> Stage:
    """Stage "difficulty": examples whose problem no solver has solved. `solved` has for each solver
    the number of right tries by problem; a problem that a solver cannot read stays, an example
    without a problem of this task does not."""
    stage = Stage("difficulty")
    for row in rows:
        problem = problem_for(task, row)
        if problem is None:
            stage.drop(f"without a problem of {task.name}")
            continue
        solvers = [name for name, right in solved.items() if right.get(problem.id)]
        if solvers:
            stage.drop("that a solver solves", f"{problem.id} by {solvers[0]}")
        else:
            stage.keep(row)
    refuse_empty(stage, "the pool")
    return stage


# -- diversity ------------------------------------------------------------------------------------


def check_column(rows: Sequence[Row], column: str | None) -> None:
    """Raises `DataError` for a column of domains that no row has."""
    if column is None or any(row.get(column) is not None for row in rows):
        return
    names = sorted({name for row in rows for name in row})
    raise DataError(
        f"--domain {column}, a column that none of {len(rows):,} examples has",
        "a column that says what an example is about",
        f"one of {', '.join(names)}",
    )


def domain_of(row: Mapping[str, Any], column: str | None) -> str:
    """What an example is about: the value of a column, or for a number puzzle how many numbers it
    has and the operations of its answer. Everything else is one domain."""
    if column is not None:
        value = row.get(column)
        return f"no {column}" if value is None else str(value)
    numbers = row.get("numbers")
    if not isinstance(numbers, list | tuple):
        return SAME_DOMAIN
    answer = read_answer(example_texts(row)[-1].completion).text or ""
    return f"{len(numbers)} {''.join(sorted(set(answer) & set('+-*/')))}"


def select(rows: Sequence[Row], n: int, way: str, seed: int, domain: Callable[[Row], str]) -> Stage:
    """Stage "selected": n of the rows, in the order in which they were drawn.

    Raises `DataError` where there are fewer, but for the way "all", which takes every one.
    """
    stage = Stage("selected")
    if way != "all" and len(rows) < n:
        raise DataError(
            f"{len(rows):,} examples, of which {n:,} are to be selected",
            "at least as many",
            f"--n {len(rows)}, or a larger pool",
        )
    rng = Random(seed_for(seed, "select", way))
    if way == "all":
        chosen = list(range(len(rows)))
    elif way == "random":
        chosen = rng.sample(range(len(rows)), n)
    elif way == "longest":
        chosen = longest_first(rows)[:n]
    else:
        chosen = drawn_by_domain(rows, n, way == "s1", rng, domain)
    stage.rows = [rows[place] for place in chosen]
    if left := len(rows) - len(chosen):
        stage.dropped["not selected"] = left
    return stage


def longest_first(rows: Sequence[Row]) -> list[int]:
    """The places of the rows, those of longer completions first."""
    sizes = lengths_of(rows)[1]
    return sorted(range(len(rows)), key=lambda place: (-sizes[place], place))


def drawn_by_domain(
    rows: Sequence[Row], n: int, longer: bool, rng: Random, domain: Callable[[Row], str]
) -> list[int]:
    """A domain drawn evenly, then one of its rows; so on, n times, none twice."""
    domains: dict[str, list[int]] = {}
    for place in longest_first(rows):
        domains.setdefault(domain(rows[place]), []).append(place)
    names = sorted(domains)
    chosen = []
    for _ in range(n):
        name = rng.choice(names)
        members = domains[name]
        weights = [2.0**-rank for rank in range(min(len(members), RANKS))]
        rank = (
            rng.choices(range(len(weights)), weights)[0] if longer else rng.randrange(len(members))
        )
        chosen.append(members.pop(rank))
        if not members:
            names.remove(name)
    return chosen


def domain_line(rows: Sequence[Row], domain: Callable[[Row], str]) -> str:
    """How many domains there are among the rows, for people."""
    counts = Counter(map(domain, rows))
    if set(counts) == {SAME_DOMAIN}:
        return "no domains: the rows have none, so that nothing is diverse (--domain COLUMN)"
    most = ", ".join(f"{name} ({count:,})" for name, count in counts.most_common(3))
    return f"{len(counts):,} domains, the largest {most}"
