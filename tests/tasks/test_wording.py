"""The words of a prompt as a recipe sets them, for any task; nothing is left out in silence."""

import pytest

from aha.core.errors import ConfigError
from aha.core.records import Prompt
from aha.model.tokenizer import Tokenizer
from aha.tasks.catalog import make_task
from aha.tasks.countdown import Countdown, as_problem
from aha.tasks.problem_lines import countdown_from_config
from aha.tasks.tags import LEAD_IN
from aha.tasks.wording import WordedTask, Wording, in_frame, unworded

from ..tiny import TOKENIZER

PROBLEM = as_problem((3, 7, 25), 82)
# In the way of Qwen3, with a variable that says whether to think.
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    "{% if enable_thinking is defined and enable_thinking is false %}<think></think>{% endif %}"
)


def asked(template: str = "instruct", **words) -> str:
    return make_task("countdown", {"template": template, **words}).ask(PROBLEM)


def test_a_task_without_words_is_the_task_itself():
    assert isinstance(make_task("countdown", {"template": "r1"}), Countdown)
    assert asked() == Countdown(template="instruct").ask(PROBLEM)


def test_the_systems_turn_and_the_beginning_of_the_answer_are_settings():
    text = asked(system="Be brief.", lead_in="Well,")
    assert text.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n")
    assert text.endswith("<|im_end|>\n<|im_start|>assistant\nWell,") and LEAD_IN not in text
    bare = asked(system="", lead_in="")
    assert bare.startswith("<|im_start|>user\n") and bare.endswith("<|im_start|>assistant\n")
    assert asked("r1", lead_in="Well,").endswith("\nAssistant: Well,")


def test_variables_of_the_template_reach_it():
    tokenizer = Tokenizer(TOKENIZER.fast, template=TEMPLATE)
    settings = {"template": "instruct", "lead_in": "", "template_args": {"enable_thinking": False}}
    text = Prompt.of(PROBLEM, make_task("countdown", settings), tokenizer).text
    assert text.endswith("<assistant><think></think>")
    settings["template_args"] = {}
    assert Prompt.of(PROBLEM, make_task("countdown", settings), tokenizer).text.endswith(
        "<assistant>"
    )


def test_a_model_that_thinks_in_other_tags_is_asked_and_graded_in_them():
    task = make_task(
        "countdown",
        {"template": "r1", "think_tags": ["[THINK]", "[/THINK]"], "format_reward": 0.5},
    )
    assert task.ask(PROBLEM).endswith("[THINK]") and "<think>" not in task.ask(PROBLEM)
    right = "7 * 3 = 21[/THINK]\n<answer>(25 * 3) + 7</answer>"
    assert task.grade(PROBLEM, right).reward == 1.5
    assert unworded(task).grade(PROBLEM, right).reward == 1.0
    assert isinstance(task, WordedTask) and task.name == "countdown" and task.numbers == (3,)


@pytest.mark.parametrize(
    ("template", "words", "got"),
    [
        ("plain", {"system": "x"}, "task.options.system 'x'; wanted a prompt that is a conversat"),
        ("r1", {"template_args": {"a": 1}}, "template_args {'a': 1}; wanted a prompt that is a c"),
        ("plain", {"lead_in": "x"}, "lead_in 'x'; wanted a prompt that begins the answer"),
    ],
)
def test_words_without_a_place_are_an_error(template, words, got):
    with pytest.raises(ConfigError, match=got.replace("{", r"\{")) as error:
        asked(template, **words)
    assert "--task.template instruct" in error.value.fix


@pytest.mark.parametrize(
    "words",
    [
        {"system": 3},
        {"lead_in": ["x"]},
        {"template_args": [1]},
        {"think_tags": "<think>"},
        {"think_tags": ["<think>"]},
        {"think_tags": ["", "x"]},
    ],
)
def test_a_value_of_another_kind_is_an_error_with_one_that_works(words):
    with pytest.raises(ConfigError, match="wanted .*fix: --task.options"):
        asked(**words)


def test_a_task_keeps_a_setting_of_its_own_name(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(
        "from aha.core.records import Graded, Problem\n"
        "class Own:\n"
        "    name = 'own'\n"
        "    def __init__(self, system='none'): self.system = system\n"
        "    def problems(self, split, seed): yield Problem(split, 'own', {})\n"
        "    def ask(self, problem): return self.system\n"
        "    def grade(self, problem, text): return Graded(0.0, False, 'no')\n"
    )
    task = make_task(str(path), {"system": "mine"})
    assert task.ask(next(task.problems("train", 0))) == "mine"


def test_the_words_of_a_run_come_from_its_config():
    section = {"name": "countdown", "template": "instruct", "options": {"system": "Be brief."}}
    assert "Be brief." in countdown_from_config(section).ask(PROBLEM)
    assert Wording.of({}) == Wording()
    for damaged in ({"options": "x"}, {"options": {"system": 3}}):
        assert isinstance(countdown_from_config(section | damaged), Countdown)


def test_in_another_frame_the_words_stay_that_it_has_a_place_for():
    words = {"system": "Be brief.", "lead_in": "Well,", "think_tags": ["<a>", "</a>"]}
    settings = {"numbers": (3,), "template": "instruct", **words}

    def kept(template: str, own: tuple[str, ...] = ()) -> dict:
        return in_frame(settings, template, lambda: own)

    assert kept("instruct") == settings
    assert kept("r1") == {k: v for k, v in settings.items() if k != "system"} | {"template": "r1"}
    assert set(kept("plain")) == {"numbers", "template", "think_tags"}
    assert kept("plain", ("system",))["system"] == "Be brief.", "a setting of the task itself"
    assert kept("of its own") == settings | {"template": "of its own"}
    for template in ("plain", "r1"):
        assert make_task("countdown", kept(template)).ask(PROBLEM)
