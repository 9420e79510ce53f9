"""A data set of reasoning-gym as a task: `task.name = "gym:chain_sum"`, with the extra [gym].

Its own scoring gives partial scores (0.05 for a well-formed wrong answer here, 0.1 there): that is
a shaped reward, so `strict` counts only a full score. A scorer that raises, and some do on text
that they do not expect, costs that completion alone, because tasks from outside are isolated.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from itertools import count
from typing import Any

from aha.core.errors import MissingExtra
from aha.core.records import Graded, Problem
from aha.core.seeds import seed_for
from aha.tasks.splits import check_split, split_by_hash
from aha.tasks.tags import answer_ending, check_template, framed, read_answer

HELD_OUT_PERCENT = 10
PART = 256  # problems of one data set; then another seed makes the next
REQUEST = (
    "{question}\nWork it out inside <think> </think> tags, then give the final answer alone inside "
    "<answer> </answer> tags."
)


def gym_task(dataset: str) -> Callable[..., "GymTask"]:
    """The constructor of the task of one data set. Raises `MissingExtra` without reasoning-gym."""
    try:
        import reasoning_gym  # noqa: F401
    except ImportError as error:
        raise MissingExtra("reasoning-gym", "gym") from error
    return partial(GymTask, dataset)


class GymTask:
    """The questions of one data set. `options` go to it: `task.options = {min_terms = 2}`.

    With `strict` the reward is 1 for a full score and 0 otherwise, else the score itself.
    """

    def __init__(self, dataset: str, template: str = "plain", strict: bool = True, **options: Any):
        self.name, self.dataset, self.options = f"gym:{dataset}", dataset, options
        self.template, self.strict = check_template(template), strict
        # A data set is a function of its seed: a few are kept, others are made again when needed.
        self.part = lru_cache(maxsize=8)(self.make_part)
        self.part(0)  # an unknown name or option is an error now, not at the first problem

    def make_part(self, data_seed: int) -> Any:
        """reasoning-gym's data set of this seed."""
        from reasoning_gym import create_dataset

        return create_dataset(self.dataset, size=PART, seed=data_seed, **self.options)

    def problems(self, split: str, seed: int) -> Iterator[Problem]:
        """Different questions of one split. Ends when a whole part brings no new question, because
        some data sets have few."""
        check_split(split)
        seen: set[str] = set()
        for round_ in count():
            before, data_seed = len(seen), seed_for(self.name, split, seed, round_) % 2**31
            for index, entry in enumerate(self.part(data_seed)):
                question = entry["question"]
                if question in seen:
                    continue
                seen.add(question)
                if split_by_hash(question, HELD_OUT_PERCENT) == split:
                    # Not the entry: its metadata may be anything, and it can be made again.
                    given = {"question": question, "data_seed": data_seed, "index": index}
                    yield Problem(f"{self.name}/{seed_for(question):016x}", self.name, given)
            if len(seen) == before:
                return

    def ask(self, problem: Problem) -> str:
        """The prompt, in the frame of the template."""
        question = problem.given["question"]
        return framed(self.template, question, REQUEST.format(question=question))

    def grade(self, problem: Problem, text: str) -> Graded:
        """The score of the last answer block; `parts["gym_score"]` has it in any case."""
        answer = read_answer(text).text
        if answer is None:
            return Graded(0.0, False, "no <answer>...</answer> block")
        data = self.part(problem.given["data_seed"])
        score = float(data.score_answer(answer.strip(), data[problem.given["index"]]))
        right = score >= 1.0
        reward = float(right) if self.strict else score
        return Graded(reward, right, f"reasoning-gym scores it {score:g}", {"gym_score": score})

    def solve(self, problem: Problem) -> str | None:
        """reasoning-gym's own answer, as a completion; None where the data set has none."""
        entry = self.part(problem.given["data_seed"])[problem.given["index"]]
        answer = entry.get("answer")
        return None if answer is None else f"The answer is known.\n{answer_ending(str(answer))}"
