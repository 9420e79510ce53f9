"""Task and template brought together, for templates in the way of official ones."""

import warnings

import pytest

from aha.core.errors import ModelError
from aha.core.records import Completion, Graded, Prompt
from aha.model.model_warning import ModelWarning
from aha.model.own_words import KNOWN_TAGS, TASK_TAGS, in_own_words, tags_of
from aha.tasks.countdown import Countdown, as_problem
from aha.tasks.tags import LEAD_IN, SYSTEM, instruct_frame

from ..tiny import TURNS as CHAT
from ..tiny import foreign_tokenizer

FRAME = instruct_frame("Reach 72 with 25, 7, 4. Think in <think> </think>, then answer.")
TURNS = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
ASSISTANT = "{% if add_generation_prompt %}<assistant>TAIL{% endif %}"
# How the official templates of reasoning models end a prompt, with a tag that is replaced below.
TAILS = {
    "opens": "OPEN\\n",
    "opens and says more": "OPEN\\nOkay, ",
    "closes": "OPEN\\n\\nCLOSED\\n\\n",
    "closes what it has not opened": "{# OPEN #}CLOSED",
    "closes unless it is told": (
        "{% if not enable_thinking %}{{ 'OPEN\\n\\nCLOSED\\n\\n' }}{% endif %}"
    ),
    "opens or closes as it is told": (
        "{% if enable_thinking %}{{ 'OPEN\\n' }}{% else %}{{ 'OPEN\\n\\nCLOSED\\n' }}{% endif %}"
    ),
    "leaves it to the model": "{# OPEN CLOSED #}",
}


def said(template: str, frame: str = FRAME, **options) -> tuple[str, list[str]]:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        text = in_own_words(frame, template, {}, lambda name: None, **options)
    return text, [str(warning.message) for warning in told]


@pytest.mark.parametrize("tags", KNOWN_TAGS, ids=[tags.opened for tags in KNOWN_TAGS])
@pytest.mark.parametrize("tail", TAILS)
def test_no_prompt_has_two_thoughts(tail, tags):
    """70 templates: each prompt ends with one open thought, in the model's own tags."""
    end = TAILS[tail].replace("OPEN", tags.opened).replace("CLOSED", tags.closed)
    template = TURNS + ASSISTANT.replace("TAIL", end.replace("\\n", "\n"))
    text, told = said(template)
    answer = text[text.index("<assistant>") :]
    assert answer.count(tags.opened) == 1 and tags.closed not in answer
    assert f"Think in {tags.opened} {tags.closed}, then" in text
    assert tail == "leaves it to the model" or "opens it" in " ".join(told) or "thought" in told[-1]
    if tags != TASK_TAGS:
        assert TASK_TAGS.opened not in text and any(tags.opened in line for line in told)


def test_a_task_reads_a_completion_in_its_own_tags():
    """R1's form was never paid for where a template's tags were found, and an answer within the
    thought was read as one."""
    tokenizer = foreign_tokenizer(CHAT + "{# [THINK] #}")
    task = Countdown(template="instruct", format_reward=0.5)
    with pytest.warns(ModelWarning, match="thinks in"):
        prompt = Prompt.of(as_problem((3, 7), 10), task, tokenizer)
    text = "3 + 7 = 10 [/THINK]\n<answer>3 + 7</answer>"
    graded = Graded.of(Completion(prompt, (1,), (0.0,), text, "stop"), task)
    assert graded.reward == 1.5 and graded.completion.text == text
    plain = Prompt.of(as_problem((3, 7), 10), Countdown(template="r1"), tokenizer)
    assert plain.own_tags == () and "<think>" in plain.text
    usual = Prompt.of(as_problem((3, 7), 10), task, foreign_tokenizer())
    assert usual.own_tags == ()


def test_the_tags_of_a_template_are_those_that_it_writes():
    assert tags_of(TURNS) == TASK_TAGS
    assert tags_of(TURNS + "[THINK]").closed == "[/THINK]"
    assert tags_of("<think> or [THINK]") == TASK_TAGS


REFUSES = "{% if messages[0].role == 'system' %}{{ raise_exception('No system role') }}{% endif %}"
DROPS = TURNS.replace("messages", "messages | rejectattr('role', 'equalto', 'system')")


@pytest.mark.parametrize(
    ("template", "reason"), [(REFUSES + TURNS, "No system role"), (DROPS, "drops one")]
)
def test_a_system_turn_without_a_place_goes_before_the_users_text(template, reason):
    text, told = said(template + "<assistant>")
    assert text.startswith(f"<user>{SYSTEM}\n\nReach 72") and text.endswith(LEAD_IN)
    assert len(told) == 1 and reason in told[0]
    alone = FRAME[FRAME.index("<|im_start|>user") :]
    assert said(template + "<assistant>", alone)[1] == []


def test_a_template_that_takes_words_out_is_told():
    """As that of Nemotron Nano, for which /think is a command: `</think>` becomes `<>`."""
    command = TURNS.replace("m.content", "m.content | replace('/think', '')")
    text, told = said(command + "<assistant>")
    assert "<think> <>, then" in text
    assert len(told) == 1 and "changes the words" in told[0]


def test_a_template_that_raises_for_another_reason_says_so():
    with pytest.raises(ModelError, match="division"):
        said("{{ 1 // 0 }}" + TURNS)


def test_a_recipe_that_asks_for_no_thought_gets_none_or_an_error():
    closes = TURNS + "<assistant>{% if enable_thinking is false %}<think></think>{% endif %}"
    with pytest.raises(ModelError, match=r"enable_thinking False.*lead_in"):
        said(closes, enable_thinking=False)
    silent = FRAME.removesuffix(LEAD_IN)
    text, told = said(closes, silent, enable_thinking=False)
    assert text.endswith("<assistant><think></think>") and not told


@pytest.mark.parametrize("name", ["messages", "add_generation_prompt", "tools"])
def test_variables_that_every_template_is_given_cannot_be_set(name):
    with pytest.raises(ModelError, match=rf"template_args {name}, .*; fix: leave {name} out"):
        said(TURNS, **{name: False})


def test_a_template_may_have_variables_of_any_name():
    """Of those of our own functions too."""
    names = ("text", "template", "settings", "now", "id_of")
    shown = "".join(f"{{{{ {name} }}}}," for name in names)
    tokenizer = foreign_tokenizer(CHAT + shown)
    assert tokenizer.say(FRAME, **dict.fromkeys(names, "so")).count("so,") == len(names)


@pytest.mark.parametrize(("frame", "template"), [("numbers 1 2", TURNS), (FRAME, None)])
def test_variables_that_no_template_reads_are_an_error(frame, template):
    with pytest.raises(ModelError, match=r"template_args enable_thinking.*leave"):
        said(template, frame, enable_thinking=True)
