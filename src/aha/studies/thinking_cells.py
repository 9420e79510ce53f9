"""The cells of the study `thinking`: completions of the same problems under different budgets.

free        no budget, many completions of each problem: parallel thinking, and rejection
max-N       thoughts closed at N tokens, as many completions as fit into the largest N together
waits-K     K ends of each thought suppressed, within the largest N
search-X    a search without a model, in the tokens of the model
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from aha.core.errors import ConfigError
from aha.core.records import Graded
from aha.dist.world import World
from aha.eval.behavior_numbers import completion_of
from aha.eval.grade_errors import GradeErrors
from aha.eval.opponents import counter_of, counts_by_line
from aha.eval.suite import MAX_GRADE_ERRORS, PART, held_out, with_budget
from aha.eval.thoughts import thoughts_of
from aha.eval.yardstick import curve_of
from aha.machine.device import choose_device
from aha.model.folders import PlannedModel, resolve_model
from aha.model.weights import LoadedModel, load_model, tokenizer_of
from aha.plan.shapes import shape_of
from aha.plan.speed import PROMPT_TOKENS, Card, Generation
from aha.rollout.engine import Sampling
from aha.rollout.native import open_engine
from aha.rollout.shared_rollout import graded_groups
from aha.rollout.slot_engine import SlotEngine
from aha.rollout.thinking_budget import ANSWER_ROOM, ThinkingBudget, check_thought_is_open
from aha.studies.cell_files import Cell, Result
from aha.studies.study_frame import sampling_seed
from aha.studies.training_cells import weights_digest
from aha.tasks.catalog import make_task
from aha.tasks.tags import read_answer

SEARCHES = ("blind", "glance")
EXPECTED_THOUGHT = 100  # tokens, of a model about which nothing is known
MAX_ROWS = 512  # rows that are generated together
SEARCH_SECONDS = 0.004  # a puzzle: measured on two cores, for a plan
LONGEST_ANSWER = 200  # characters that are kept, for votes


@dataclass(frozen=True)
class Subject:
    """What is studied: one model, drawn from with several seeds; or several runs of one method,
    each of them a seed."""

    label: str
    models: tuple[str, ...]

    def model(self, place: int) -> str:
        """The model of seed number `place`."""
        return self.models[place] if len(self.models) > 1 else self.models[0]


@dataclass(frozen=True)
class ThinkingGrid:
    """The settings of the study. `budgets` and `waits` increase; `completions` is how many the
    cell `free` draws of each problem."""

    subjects: tuple[Subject, ...]
    seeds: tuple[int, ...]
    problems: int
    budgets: tuple[int, ...]
    waits: tuple[int, ...]
    completions: int
    max_new_tokens: int
    task: str = "countdown"
    task_settings: dict[str, Any] = field(default_factory=dict)
    split: str = "test"

    def __post_init__(self) -> None:
        for name, numbers in (("budgets", self.budgets), ("waits", self.waits)):
            if list(numbers) != sorted({*numbers}) or (numbers and numbers[0] < 0):
                raise ConfigError(f"{name} {list(numbers)}", "numbers that increase, from 0 on")
        if len(self.budgets) < 2:
            raise ConfigError(f"budgets {list(self.budgets)}", "at least two", "--budgets 16,64")
        if 0 in self.waits:
            raise ConfigError("0 waits", "1 or more: the largest budget stands for none")
        if len({*self.seeds}) < len(self.seeds) or not self.seeds:
            raise ConfigError(f"seeds {list(self.seeds)}", "each once, three for a verdict")
        ThinkingBudget(self.most).most(self.max_new_tokens)
        for subject in self.subjects:
            if 1 < len(subject.models) != len(self.seeds):
                raise ConfigError(
                    f"{len(subject.models)} models in {subject.label} and {len(self.seeds)} seeds",
                    "as many models as seeds, or one",
                    f"--seeds {','.join(map(str, range(len(subject.models))))}",
                )

    @property
    def most(self) -> int:
        """The largest budget."""
        return self.budgets[-1]

    def group_size(self, budget: int) -> int:
        """How many thoughts of this budget have together at most as many tokens as one of the
        largest budget."""
        return max(1, min(self.completions, self.most // max(budget, 1)))

    def plays_countdown(self) -> bool:
        """Whether searches without a model can be compared."""
        return self.task == "countdown"


def default_budgets(most: int, quick: bool) -> tuple[int, ...]:
    """Eight budgets up to `most`, closer together where thoughts are short; four if `quick`."""
    shares = (
        (1 / 6, 3 / 8, 2 / 3, 1)
        if quick
        else (1 / 18, 1 / 9, 1 / 6, 1 / 4, 3 / 8, 9 / 16, 3 / 4, 1)
    )
    return tuple(sorted({round(most * share) for share in shares}))


def subjects_of(names: Sequence[str]) -> tuple[Subject, ...]:
    """`runs/a` is a model; `runs/a,runs/b,runs/c` are the seeds of one method. Labels are the last
    parts of the paths, numbered where two are alike."""
    subjects: list[Subject] = []
    for text in names:
        models = tuple(name.strip() for name in text.split(",") if name.strip())
        if not models or len({*models}) < len(models):
            raise ConfigError(
                f"the model {text!r}", "a model, or several different ones with commas"
            )
        label = " + ".join(Path(model).name for model in models)
        alike = sum(subject.label.split(" #")[0] == label for subject in subjects)
        subjects.append(Subject(f"{label} #{alike + 1}" if alike else label, models))
    if not subjects:
        raise ConfigError("no model", "at least one", "aha study thinking aha-tiny")
    return tuple(subjects)


# -- the grid ---------------------------------------------------------------------------------


def check_prompts(grid: ThinkingGrid) -> None:
    """Raises what every cell would raise for a task, a split or a model that cannot be used. Cells
    that began and failed would keep the wrong setting in the folder, and refuse the right one."""
    task = make_task(grid.task, grid.task_settings)
    for model in {model: None for subject in grid.subjects for model in subject.models}:
        tokenizer = tokenizer_of(resolve_model(model))
        (prompt,) = held_out(task, tokenizer, grid.split, 1, 0)
        try:
            check_thought_is_open(prompt.text)
        except ConfigError as error:
            raise ConfigError(error.got, error.wanted, "another task: --task countdown") from None


def cells_of(grid: ThinkingGrid) -> list[Cell]:
    """All cells, seed by seed. Raises `ModelError` for a model that is not there, and as
    `check_prompts`."""
    check_prompts(grid)
    shared = {
        "task": grid.task,
        "task_settings": grid.task_settings,
        "split": grid.split,
        "problems": grid.problems,
        "max_new_tokens": grid.max_new_tokens,
        "most": grid.most,
    }
    cells = []
    for place, seed in enumerate(grid.seeds):
        for number, subject in enumerate(grid.subjects):
            model = subject.model(place)
            about = {"model": model, "weights": weights_digest(model), "seed": seed}
            budgets: list[tuple[str, dict[str, Any]]] = [("free", {"size": grid.completions})]
            budgets += [
                (f"max-{most}", {"max": most, "size": grid.group_size(most)})
                for most in grid.budgets
            ]
            budgets += [(f"waits-{count}", {"waits": count, "size": 1}) for count in grid.waits]
            if grid.plays_countdown() and place == 0:
                budgets += [(f"search-{name}", {"search": name}) for name in SEARCHES]
            for kind, setting in budgets:
                name = f"{number}-{Path(model).name}-{kind}-seed{seed}"
                cells.append(
                    Cell(name, {**about, "subject": number, "kind": kind, **setting}, shared)
                )
    return cells


# -- one cell ---------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def opened(model: str) -> tuple[LoadedModel, SlotEngine]:
    """The model and its engine; the last one is kept."""
    loaded = load_model(resolve_model(model))
    loaded.policy.to(choose_device("auto", loaded.policy.num_parameters()))
    return loaded, open_engine(loaded.policy, loaded.tokenizer, max_rows=MAX_ROWS)


def run_cell(cell: Cell) -> Result:
    """The result of a cell: rows by problem."""
    settings = cell.settings
    task = make_task(settings["task"], settings["task_settings"])
    loaded, engine = opened(settings["model"])
    # The seed of the problems is one for all cells, so that every comparison is paired.
    prompts = held_out(task, loaded.tokenizer, settings["split"], settings["problems"], 0)
    if "search" in settings:
        return searched(settings, loaded, [prompt.problem.given for prompt in prompts])
    sampling = Sampling(
        settings["max_new_tokens"],
        settings["size"],
        1.0,
        sampling_seed(settings["seed"], "free" if settings["kind"] == "free" else "budget"),
    )
    budget = None
    if "max" in settings:
        budget = ThinkingBudget(settings["max"])
    elif "waits" in settings:
        budget = ThinkingBudget(settings["most"], waits=settings["waits"])
    sampling = with_budget(sampling, budget, prompts, loaded.tokenizer)
    graded: list[list[Graded]] = []
    for first in range(0, len(prompts), PART):
        part = prompts[first : first + PART]
        graded += graded_groups(World(), engine, task, part, sampling)
        GradeErrors.of(row for group in graded for row in group).check(MAX_GRADE_ERRORS)
    return rows_of(graded, engine, sampling)


def rows_of(graded: Sequence[Sequence[Graded]], engine: SlotEngine, sampling: Sampling) -> Result:
    """Of every completion of every problem: whether it is right, its tokens, its answer, and its
    thought: tokens, who closed it, waits."""
    completions = [completion_of(row) for group in graded for row in group]
    thoughts = iter(thoughts_of(completions, engine, sampling))
    by_problem = [[next(thoughts) for _ in group] for group in graded]
    return {
        "right": [[row.correct for row in group] for group in graded],
        "tokens": [[len(completion_of(row).tokens) for row in group] for group in graded],
        "answers": [[answer_of(completion_of(row).text) for row in group] for group in graded],
        "thinking": [[thought.tokens for thought in group] for group in by_problem],
        "closed": [[thought.closed for thought in group] for group in by_problem],
        "waits": [[thought.waits for thought in group] for group in by_problem],
    }


def answer_of(text: str) -> str | None:
    """A completion's answer as a vote: without white space; None where there is none."""
    answer = read_answer(text).text
    return None if answer is None else "".join(answer.split())[:LONGEST_ANSWER] or None


def searched(settings: dict[str, Any], loaded: LoadedModel, given: Sequence[Any]) -> Result:
    """An opponent's whole curve: see `yardstick.Curve`. Raises `ConfigError` for a tokenizer that
    counts lines otherwise one by one than together."""
    if not counts_by_line(loaded.tokenizer):
        raise ConfigError(
            f"{settings['model']}, whose tokenizer counts lines otherwise one by one",
            "a tokenizer that does not begin each text with a space of its own",
        )
    puzzles = [(tuple(puzzle["numbers"]), puzzle["target"]) for puzzle in given]
    count, limit = counter_of(loaded.tokenizer), settings["max_new_tokens"]
    curve = curve_of(settings["search"], puzzles, 0, count, limit, float(settings["most"]))
    return {
        "n": curve.n,
        "longest": curve.longest,
        "solved_ends": curve.solved_ends,
        "all_ends": curve.all_ends,
    }


def seconds_of(cell: Cell, card: Card) -> float:
    """How long a cell takes, from the model's shape; thoughts are guessed to have EXPECTED_THOUGHT
    tokens where their budget allows it."""
    settings = cell.settings
    if "search" in settings:
        return SEARCH_SECONDS * float(settings["problems"])
    shape = shape_of(PlannedModel.of(resolve_model(settings["model"])).shaped)
    thought = min(settings.get("max", settings["most"]), EXPECTED_THOUGHT)
    thought = min(settings["most"], thought * (1 + settings.get("waits", 0) / 2))
    length = thought + ANSWER_ROOM / 2
    rows = settings["problems"] * settings["size"]
    prompt = PROMPT_TOKENS[settings["task_settings"].get("template", "plain")]
    passes = length * max(1.0, rows / MAX_ROWS)
    work = Generation(rows * length, prompt + length / 2, passes, settings["problems"] * prompt)
    return work.seconds(shape, card)
