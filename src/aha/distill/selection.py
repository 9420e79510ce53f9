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
from aha.distill.problem_rows import problem_of
from aha.distill.rejection import length_of
from aha.distill.stages import Stage
from aha.sft.example_rows import EXPECTED, UnusableRow, example_texts
from aha.tasks.files import read_rows
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
    for number, row in read_rows(path, EXPECTED):
        try:
            example_texts(row)
        except UnusableRow as reason:
            stage.drop(reason.kind, f"row {number}: {reason.details}")
            continue
        assert isinstance(row, dict), "`example_texts` takes no other row"
        stage.keep(row)
    refuse_empty(stage, f"{path}")
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


def problems_in(rows: Sequence[Row], task: str) -> dict[str, Problem]:
    """The problems of the rows by their ids. Raises `DataError` for rows without any."""
    problems = {}
    for number, row in enumerate(rows, 1):
        problem = problem_of(row, task)
        if problem is None:
            raise DataError(
                f"example {number} has no problem that a solver could try",
                "rows of `aha distill` or `aha eval --out`, which keep it",
                "without --solver, or a pool that has them",
            )
        problems[problem.id] = problem
    return problems


def hard_ones(rows: Sequence[Row], solved: Mapping[str, Mapping[str, int | None]]) -> Stage:
    """Stage "difficulty": examples whose problem no solver has solved. `solved` has for each solver
    the number of right tries by problem; a problem that a solver cannot read stays."""
    stage = Stage("difficulty")
    for row in rows:
        solvers = [name for name, right in solved.items() if right.get(row["id"])]
        if solvers:
            stage.drop("that a solver solves", f"{row['id']} by {solvers[0]}")
        else:
            stage.keep(row)
    refuse_empty(stage, "the pool")
    return stage


# -- diversity ------------------------------------------------------------------------------------


def domain_of(row: Mapping[str, Any], column: str | None) -> str:
    """What an example is about: the value of a column, or for a number puzzle how many numbers it
    has and the operations of its answer. Everything else is one domain."""
    if column is not None:
        return str(row.get(column))
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
        chosen = sorted(range(len(rows)), key=lambda i: (-size_of(rows[i]), i))[:n]
    else:
        chosen = drawn_by_domain(rows, n, way == "s1", rng, domain)
    stage.rows = [rows[place] for place in chosen]
    if left := len(rows) - len(chosen):
        stage.dropped["not selected"] = left
    return stage


def size_of(row: Row) -> int:
    """The length of an example's completion."""
    if "completion" in row:
        return length_of(row)
    return sum(len(text.completion) for text in example_texts(row))


def drawn_by_domain(
    rows: Sequence[Row], n: int, longer: bool, rng: Random, domain: Callable[[Row], str]
) -> list[int]:
    """A domain drawn evenly, then one of its rows; so on, n times, none twice."""
    domains: dict[str, list[int]] = {}
    for place in sorted(range(len(rows)), key=lambda i: (-size_of(rows[i]), i)):
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
