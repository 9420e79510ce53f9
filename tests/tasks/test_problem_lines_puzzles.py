import pytest

from aha.core.errors import DataError
from aha.tasks.problem_lines import countdown_from_config, parse_puzzle


@pytest.mark.parametrize(
    "line",
    [
        "numbers 3 7 25 target 82",
        "numbers 3 7 25 target 82\n",
        "Numbers: 3, 7, 25, target: 82",
        "3 7 25 -> 82",
        "3 7 25→82",
        "3, 7, 25 = 82",
        "  3 7 25 82  ",
        "3,7,25,82",
    ],
)
def test_ways_to_type_a_puzzle(line):
    problem = parse_puzzle(line)
    assert problem.given == {"numbers": (3, 7, 25), "target": 82}
    assert problem.id == "countdown/3-7-25=82"


def test_two_and_six_numbers():
    assert parse_puzzle("3 7 = 10").given == {"numbers": (3, 7), "target": 10}
    assert parse_puzzle("1 2 3 4 5 6 21").given == {"numbers": (1, 2, 3, 4, 5, 6), "target": 21}


@pytest.mark.parametrize(
    "line",
    [
        "",
        "hello",
        "82",
        "3 82",
        "target 82",
        "3 7 25 target",
        "3 7 25 target 0",
        "0 7 25 target 82",
        "-3 7 25 target 82",
        "3.5 7 25 target 82",
        "1 2 3 4 5 6 7 -> 8",
        "3 7 25 -> 82 -> 83",
        "please solve 3 7 25 -> 82",
        "٣ 7 25 -> 82",
        "3 7 25 -> 82" + " " * 100_000,
        "1 " * 100_000,
        "1" * 50 + " 2 3",
    ],
)
def test_anything_else_is_refused_with_an_example_at_once(line):
    with pytest.raises(DataError, match="numbers 3 7 25 target 82"):
        parse_puzzle(line)


def test_the_game_of_a_run_is_asked_and_judged_as_it_was_there():
    task = countdown_from_config(
        {"name": "countdown", "template": "r1", "verifier": "tinyzero", "x": 1}
    )
    assert task.template == "r1" and task.verifier == "tinyzero"
    assert "User:" in task.ask(parse_puzzle("3 7 25 82"))
    assert countdown_from_config({"name": "countdown"}).template == "plain"


def test_what_a_newer_version_wrote_is_the_plain_game_and_another_task_none():
    assert (
        countdown_from_config({"name": "countdown", "template": "from tomorrow"}).template
        == "plain"
    )
    assert countdown_from_config({"name": "multiply"}) is None
    assert countdown_from_config(None) is None and countdown_from_config([]) is None
