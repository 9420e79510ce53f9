"""Reward functions: what their signatures say, how they are called, what they may return."""

from functools import partial

import pytest

from aha.core.errors import ConfigError
from aha.core.records import Graded
from aha.tasks.reward_function import RewardFunction, WeightedRewards, graded_result
from aha.tasks.worker_process import Nonsense

ROW = {"prompt": "2+3=", "answer": "5", "level": 2}


def own(completion, answer, level=0, **row):
    return float(completion == answer) + level / 10 + ("prompt" in row)


def first_argument(text, /, answer):
    return text == answer


def trl(prompts, completions, answer, **kwargs):
    assert set(kwargs) == {"prompt", "level"} and prompts == [ROW["prompt"]]
    return [float(c == a) for c, a in zip(completions, answer, strict=True)]


def verl(data_source, solution_str, ground_truth, extra_info=None):
    return {"score": float(solution_str == ground_truth), "format": 1, "note": data_source}


class Judge:
    def __call__(self, completion, answer):
        return completion == answer


@pytest.mark.parametrize(
    ("function", "reward"),
    [
        (own, 2.2),
        (first_argument, 1.0),
        (trl, 1.0),
        (lambda text: len(text), 1.0),
        (lambda **row: float(row["completion"] == row["answer"]), 1.0),
        (lambda *texts: len(texts), 1.0),
        (partial(own, level=5), 2.2),  # the row's level comes over what is bound
        (Judge(), 1.0),
        (lambda completion: True, 1.0),
        (str.isdigit, 1.0),  # of Python itself
    ],
)
def test_the_completion_and_the_columns_reach_their_arguments(function, reward):
    function = RewardFunction.of(function)
    function.check_columns(ROW)
    assert function.grade("5", ROW).reward == pytest.approx(reward)


def test_a_function_of_verl_gets_its_names_and_may_return_parts():
    row = {"prompt": "?", "data_source": "sums", "ground_truth": "5"}
    function = RewardFunction.of(verl)
    function.check_columns(row)
    assert function.optional == ("extra_info",)
    graded = function.grade("5", row)
    assert (graded.reward, graded.correct, dict(graded.parts)) == (1.0, True, {"format": 1.0})


def test_a_function_of_trl_gets_messages_where_the_prompt_is_messages():
    def f(completions, **kwargs):
        return [c[0]["content"] == "5" and c[0]["role"] == "assistant" for c in completions]

    row = ROW | {"prompt": [{"role": "user", "content": "2+3?"}]}
    assert RewardFunction.of(f).grade("5", row).reward == 1.0


def test_a_function_that_changes_its_columns_changes_no_row():
    def greedy(completion, numbers, **row):
        row["extra_info"]["seen"] = numbers.pop()
        return len(numbers)

    row = {"prompt": "?", "numbers": [3, 1], "extra_info": {}}
    function = RewardFunction.of(greedy)
    assert [function.grade("5", row).reward for _ in range(2)] == [1.0, 1.0]
    assert row == {"prompt": "?", "numbers": [3, 1], "extra_info": {}}


def test_an_argument_without_a_column_is_named_with_the_nearest_one():
    function = RewardFunction.of(lambda completion, anwser: 0.0, "right")
    with pytest.raises(ConfigError, match="'right' takes 'anwser'.*fix: call it 'answer'"):
        function.check_columns(["prompt", "answer"])


def no_argument():
    return 1.0


async def waits(completion):
    return 1.0


def unnamed(a, b, /, completion):
    return 1.0


@pytest.mark.parametrize("function", [1.0, None, no_argument, waits, unnamed])
def test_what_cannot_be_called_with_a_completion_is_refused(function):
    with pytest.raises(ConfigError):
        RewardFunction.of(function)


def test_the_fix_for_a_function_without_a_name_is_python():
    with pytest.raises(ConfigError) as error:
        RewardFunction.of(lambda: 1.0)
    assert error.value.fix == "lambda completion, **row: ..."


@pytest.mark.parametrize(
    "result", [None, "1", [1.0], (1, 2), float("nan"), 1e9, {"acc": 1}, {"score": None}, object()]
)
def test_what_is_no_reward_is_nonsense(result):
    with pytest.raises(Nonsense, match="returned"):
        graded_result(result)


def test_a_grade_is_taken_as_it_is():
    graded = graded_result(Graded(0.5, True, "nearly"))
    assert (graded.reward, graded.correct, graded.reason) == (0.5, True, "nearly")


@pytest.mark.parametrize("returned", [[], [1.0, 2.0], 1.0, "a"])
def test_a_function_of_lists_returns_one_reward_for_one_completion(returned):
    function = RewardFunction.of(lambda completions, **kwargs: returned)
    with pytest.raises(Nonsense, match="in place of a list with one reward"):
        function.grade("5", ROW)


def test_the_source_tells_functions_apart():
    one, other = (RewardFunction.of(f) for f in (own, first_argument))
    assert one.digest() != other.digest() and "def own" in one.source()
    bound = [RewardFunction.of(partial(own, level=level)).digest() for level in (1, 2)]
    assert bound[0] != bound[1]
    assert "class Judge" in RewardFunction.of(Judge()).source()
    made = {}
    exec("def made(completion): return 1.0", made)
    unknown = RewardFunction.of(made["made"])
    assert unknown.source() is None and unknown.digest() == "not readable"


def test_functions_of_one_name_are_numbered_and_weights_counted():
    rewards = WeightedRewards.of([own, own, lambda c: 0.0], [1, 0.5, 2])
    assert rewards.name == "own+own_2+lambda" and rewards.weights == (1.0, 0.5, 2.0)
    for weights in ([1], [], [1, 2, float("nan")], [1, 2, "3"]):
        with pytest.raises(ConfigError, match="reward_weights"):
            WeightedRewards.of([own, own, own], weights)
    with pytest.raises(ConfigError, match="no reward function"):
        WeightedRewards.of([])
