"""What a request's text means to a model: puzzles to aha-tiny, conversations to the others."""

import pytest

from aha.model.tokenizer import Tokenizer, build_tokenizer
from aha.serve.prompts import TrainingTask, prompt_of_messages, prompts_of_text
from aha.serve.request_fields import RequestError
from aha.tasks.countdown import Countdown

from ..tiny import TOKENIZER, ask

UNKNOWN = TrainingTask()
TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
CHATTY = Tokenizer(build_tokenizer().fast, template=TEMPLATE)


def user(*texts: str) -> dict:
    return {"messages": [{"role": "user", "content": text} for text in texts]}


@pytest.mark.parametrize("text", ["numbers 3 7 25 target 82", "3 7 25 -> 82", "3 7 25 82"])
def test_a_message_to_aha_tiny_is_a_puzzle_asked_as_in_training(text):
    assert prompt_of_messages(user(text), TOKENIZER, UNKNOWN) == ask(3, 7, 25, target=82)


def test_parts_of_text_are_text():
    parts = [{"type": "text", "text": "numbers 3 7 25"}, {"type": "text", "text": "target 82"}]
    body = {"messages": [{"role": "user", "content": parts}]}
    assert prompt_of_messages(body, TOKENIZER, UNKNOWN) == ask(3, 7, 25, target=82)


def test_a_model_with_a_template_reads_the_conversation():
    body = {"messages": [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "hi"},
        {"role": "user", "content": "3 7 25 -> 82"},
    ]}  # fmt: skip
    prompt = prompt_of_messages(body, CHATTY, UNKNOWN)
    want = "system: be brief\nuser: hello\nassistant: hi\nuser: 3 7 25 -> 82\nassistant: "
    assert prompt.text == want and prompt.tokens == tuple(CHATTY.encode(want))


def test_a_run_on_countdown_reads_a_puzzle_as_it_was_asked_there_and_else_the_conversation():
    trained = TrainingTask("countdown", Countdown((3,), template="r1"))
    prompt = prompt_of_messages(user("3 7 25 -> 82"), CHATTY, trained)
    assert "User: Make an equation from the numbers [3, 7, 25]" in prompt.text
    assert prompt_of_messages(user("hi"), CHATTY, trained).text == "user: hi\nassistant: "
    both = prompt_of_messages(user("1 2 3", "3 7 25 82"), CHATTY, trained)
    assert both.text.startswith("user: 1 2 3\nuser: 3 7")


@pytest.mark.parametrize(
    "body, words",
    [
        (user("hello there"), "'hello there'; wanted a puzzle"),
        (user("3 7 25 82", "1 2 3"), "user, user for a model without a chat template"),
        (user(*["1 2 3"] * 5000), "messages of user, user, user, user and 4,996 more for"),
        ({"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": "1 2 3"}]},
         "messages of system, user for a model without a chat template; wanted one message"),
        ({"messages": []}, "messages []"),
        ({"messages": "hi"}, "messages 'hi'"),
        ({"messages": ["hi"]}, "a role of system"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "a role of system"),
        ({"messages": [{"role": "user"}]}, "content None; wanted text"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "wanted text"),
        ({"messages": [{"role": "user", "content": []}]}, "wanted text"),
        ({"messages": [{"role": "assistant", "content": "1 2 3"}]}, "one of the user"),
        ({}, "messages None"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(body, words):
    with pytest.raises(RequestError) as caught:
        prompt_of_messages(body, TOKENIZER, UNKNOWN)
    assert words in str(caught.value) and caught.value.param == "messages"


def test_a_run_on_another_task_without_a_template_is_asked_at_the_other_door():
    with pytest.raises(RequestError, match="'multiply', without a chat template.*v1/completions"):
        prompt_of_messages(user("1 2 3"), TOKENIZER, TrainingTask("multiply"))


def test_texts_stand_as_they_are():
    (prompt,) = prompts_of_text({"prompt": "numbers 3 7"}, TOKENIZER)
    assert prompt.text == "numbers 3 7" and prompt.tokens == tuple(TOKENIZER.encode("numbers 3 7"))
    assert len(prompts_of_text({"prompt": ["3", "7"]}, TOKENIZER)) == 2


@pytest.mark.parametrize(
    "given, words",
    [
        (None, "a text, or a list of texts"),
        ([1, 2, 3], "a text, or a list of texts"),
        ([], "a text, or a list of texts"),
        ("", "an empty prompt"),
        ("Größe", "characters this tokenizer cannot hold"),
    ],
)
def test_prompts_that_are_none(given, words):
    with pytest.raises(RequestError, match=words) as caught:
        prompts_of_text({"prompt": given}, TOKENIZER)
    assert caught.value.param == "prompt"
