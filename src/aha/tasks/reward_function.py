"""A reward function: a plain Python function that pays for a completion.

    def reward(completion, answer):            # `answer` is a column of the data
        return float(completion.strip() == answer)

The completion goes to the argument `completion`, else to the first one; every other argument takes
the column of its name, and `**row` all of them. Functions of two other trainers are called as they
are: in TRL `def f(completions, **kwargs)` takes and returns lists, here of one; in veRL
`def compute_score(data_source, solution_str, ground_truth, extra_info)` may return a dict with
"score".
"""

import copy
import difflib
import hashlib
import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from aha.core.errors import ConfigError
from aha.core.records import Graded
from aha.tasks.isolation import checked, number_of, shown
from aha.tasks.worker_process import Nonsense

Function = Callable[..., Any]
TEXT_ARGUMENTS = ("completion", "solution_str")  # ours, and that of veRL
LISTS, PROMPT_LISTS = "completions", "prompts"  # TRL's
TAKEN = ("std",)  # of no function: `reward_std` is another number of a step
BY_FUNCTION = "the reward "  # how the reason of a failed grade begins, before a function's name
LAMBDA = "lambda"  # the name of a function without one
SCORE = "score"  # veRL's key for the reward in a dict
BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclass(frozen=True)
class RewardFunction:
    """A function with what its signature says.

    `text_argument` takes the completion, None where it is passed first and without a name;
    `columns` are the arguments without a default, `optional` those with one; `takes_rest` says
    whether it has `**row`.
    """

    name: str
    function: Function
    text_argument: str | None
    columns: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    takes_rest: bool = False

    @classmethod
    def of(cls, function: object, name: str | None = None) -> "RewardFunction":
        """Raises `ConfigError` for what cannot be called with a completion."""
        name = name or name_of(function)
        if not callable(function):
            raise ConfigError(
                f"the reward {shown(function)}",
                "a function such as def reward(completion, **row)",
                "pass the function itself, without calling it",
            )
        if inspect.iscoroutinefunction(function):
            raise ConfigError(
                f"the reward {name!r}, an async function",
                "a plain function",
                f"def {name}(...) in place of async def",
            )
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except (TypeError, ValueError):  # some functions in C say nothing
            return cls(name, function, None)
        return cls(name, function, *arguments_of(name, parameters))

    @property
    def in_lists(self) -> bool:
        """Whether it takes and returns lists, as TRL's functions do."""
        return self.text_argument == LISTS

    def check_columns(self, columns: Iterable[str]) -> None:
        """Raises `ConfigError` for an argument that no column has the name of."""
        known = list(columns)
        for argument in self.columns:
            if argument in known:
                continue
            near = difflib.get_close_matches(argument, known, 1, 0.5)
            rename = f"call it {near[0]!r}, or " if near else ""
            raise ConfigError(
                f"the reward {self.name!r} takes {argument!r}, which is no column of the data",
                f"arguments among the columns: {', '.join(known)}",
                f"{rename}give the argument a default",
            )

    def grade(self, text: str, row: Mapping[str, Any]) -> Graded:
        """The function's verdict on a completion of a row.

        Raises what the function raises, and `Nonsense` for a result that is no reward.
        """
        return graded_result(self.call(text, row))

    def call(self, text: str, row: Mapping[str, Any]) -> Any:
        """What the function returns; of a list its only item."""
        known = (*self.columns, *self.optional)
        names = [name for name in (row if self.takes_rest else known) if name in row]
        # Copies: a function that sorts a list must not change the row of the next completion.
        passed = {name: copy.deepcopy(row[name]) for name in names}
        if not self.in_lists:
            if self.text_argument is None:
                return self.function(text, **passed)
            return self.function(**passed | {self.text_argument: text})
        chat = isinstance(row.get("prompt"), list)
        completion = [{"role": "assistant", "content": text}] if chat else text
        lists = {name: [value] for name, value in passed.items()}
        if PROMPT_LISTS in self.optional or self.takes_rest:
            lists[PROMPT_LISTS] = [row["prompt"]]
        result = self.function(**lists | {LISTS: [completion]})
        if not isinstance(result, Sequence) or isinstance(result, str) or len(result) != 1:
            raise Nonsense(f"returned {shown(result)} in place of a list with one reward")
        return result[0]

    def source(self) -> str | None:
        """Its source, with the values that a `partial` binds; None where it cannot be read."""
        function: object = self.function
        bound = ""
        if isinstance(function, partial):
            bound = f"# {function.args} {function.keywords}\n"
            function = function.func
        if not inspect.isroutine(function):
            function = type(function)
        try:
            return bound + textwrap.dedent(inspect.getsource(function))
        except (OSError, TypeError):
            return None

    def digest(self) -> str:
        """The SHA-256 of the source; a word where it cannot be read."""
        source = self.source()
        if source is None:
            return "not readable"
        return hashlib.sha256(source.encode(errors="surrogatepass")).hexdigest()


def name_of(function: object) -> str:
    """A function's name as the key of a metric: letters, digits and _."""
    inner = function.func if isinstance(function, partial) else function
    name = getattr(inner, "__name__", type(inner).__name__)
    return re.sub(r"\W+", "_", name).strip("_") or "reward"


def arguments_of(
    name: str, parameters: Sequence[inspect.Parameter]
) -> tuple[str | None, tuple[str, ...], tuple[str, ...], bool]:
    """(`text_argument`, `columns`, `optional`, `takes_rest`) of a signature.

    Raises `ConfigError` where nothing takes the completion, or an argument has no name to pass it.
    """
    named = [p for p in parameters if p.kind in BY_NAME]
    takes_rest = any(p.kind is p.VAR_KEYWORD for p in parameters)
    first = next((p for p in parameters if p.kind is not p.KEYWORD_ONLY), None)
    text = next((a for a in (*TEXT_ARGUMENTS, LISTS) if a in [p.name for p in named]), None)
    if text is None and first is not None and first.kind is first.VAR_KEYWORD:
        text = TEXT_ARGUMENTS[0]  # def reward(**row)
    elif text is None and first is None:
        raise ConfigError(
            f"the reward {name!r}, to which no completion can be passed",
            "a first argument for the completion",
            "lambda completion, **row: ..." if name == LAMBDA else f"def {name}(completion, **row)",
        )
    elif text is None:
        named = [p for p in named if p is not first]
    unnamed = [p.name for p in parameters if p.kind is p.POSITIONAL_ONLY and p is not first]
    if unnamed or (first is not None and first.kind is first.POSITIONAL_ONLY and text is not None):
        raise ConfigError(
            f"the reward {name!r} with arguments that have no name for a caller",
            "arguments that are passed by name",
            "remove the / from its arguments",
        )
    others = [p for p in named if p.name != text]
    free = {p.name for p in others if p.default is not p.empty}
    free |= {PROMPT_LISTS} if text == LISTS else set()  # made of the prompt, and no column
    columns = tuple(p.name for p in others if p.name not in free)
    optional = tuple(p.name for p in others if p.name in free)
    return text, columns, optional, takes_rest


def graded_result(result: object) -> Graded:
    """A function's result as a grade: a number, a dict with "score", or a `Graded`.

    A reward of 1 or more counts as right. Other numbers of a dict become parts. Raises `Nonsense`
    for anything else.
    """
    if not isinstance(result, Mapping):
        return checked(result)
    if SCORE not in result:
        raise Nonsense(f"returned {shown(dict(result))}, a dict without {SCORE!r}")
    graded = checked(result[SCORE])
    others = {str(key): number_of(value) for key, value in result.items() if key != SCORE}
    parts = {key: value for key, value in others.items() if value is not None}
    return checked(Graded(graded.reward, graded.correct, graded.reason, parts))


@dataclass(frozen=True)
class WeightedRewards:
    """Several reward functions: the reward is the sum of weight times reward.

    The first one says what is right, and so what the solve rate counts.
    """

    functions: tuple[RewardFunction, ...]
    weights: tuple[float, ...] = field(default=())

    @classmethod
    def of(cls, rewards: object, weights: Sequence[float] | None = None) -> "WeightedRewards":
        """From a function or a sequence of them. Raises `ConfigError` for other numbers of weights,
        and for weights that are no numbers."""
        given = list(rewards) if isinstance(rewards, list | tuple) else [rewards]
        if not given:
            raise ConfigError("no reward function", "at least one", "reward=your_function")
        functions: list[RewardFunction] = []
        for function in given:
            name, taken = name_of(function), [*TAKEN, *(other.name for other in functions)]
            numbered = [name, *(f"{name}_{number}" for number in range(2, len(given) + 2))]
            free = next(candidate for candidate in numbered if candidate not in taken)
            functions.append(RewardFunction.of(function, free))
        given_weights = [1.0] * len(functions) if weights is None else list(weights)
        numbers = list(map(number_of, given_weights))
        if len(numbers) != len(functions) or not all(map(is_weight, numbers)):
            raise ConfigError(
                f"reward_weights {shown(weights)} for {len(functions)} reward functions",
                "a finite number for each of them",
                f"reward_weights={[1.0] * len(functions)}",
            )
        return cls(tuple(functions), tuple(number for number in numbers if number is not None))

    @property
    def weigh(self) -> bool:
        """Whether the weights say something: those of several functions, or of one that is not
        1."""
        return self.weights != (1.0,)

    @property
    def name(self) -> str:
        """The names of the functions, joined by +."""
        return "+".join(function.name for function in self.functions)


def is_weight(number: float | None) -> bool:
    """Whether it is a finite number."""
    return number is not None and abs(number) < float("inf")
