"""Chat templates against `transformers`, and what a hostile one may not do."""

import json

import pytest
from transformers import AutoTokenizer

from aha.core.errors import ModelError
from aha.core.records import Prompt
from aha.model.chat_template import render
from aha.model.model_warning import ModelWarning
from aha.model.tokenizer import Tokenizer
from aha.tasks.countdown import Countdown, as_problem

from ..tiny import TOKENIZER

# In the way of Llama-3.2: begin-of-text, headers, a date unless there is a clock to ask.
LLAMA = """{{- bos_token }}
{%- if strftime_now is defined %}
    {%- set date = strftime_now("%d %b %Y") %}
{%- else %}
    {%- set date = "26 Jul 2024" %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\nToday Date: " + date + "\\n\\n" }}
{{- system_message + "<|eot_id|>" }}
{%- for message in messages %}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
{{- message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
# In the way of Mistral: no system turn, and it says so.
MISTRAL = """{{ bos_token }}{% for message in messages %}
{% if message['role'] == 'user' %}[INST] {{ message['content'] }} [/INST]
{% elif message['role'] == 'assistant' %}{{ message['content'] }}{% break %}
{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}
{% endfor %}"""
QWEN = """{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
{%- endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
PROBLEM = as_problem((3, 7, 25), 82)
MESSAGES = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "1+1 < 3?"}]
SETTINGS = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": {"__type": "AddedToken", "content": "<think>", "lstrip": False},
    "eos_token": "<|endoftext|>",
}


def folder_with(folder, template, apart=False):
    """A tokenizer's folder whose template stands in a file of its own or in the settings."""
    TOKENIZER.save(folder)
    settings = SETTINGS if apart else SETTINGS | {"chat_template": template}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    if apart:
        (folder / "chat_template.jinja").write_text(template)
    return folder


def instructed(tokenizer) -> Prompt:
    return Prompt.of(PROBLEM, Countdown(template="instruct"), tokenizer)


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("template", [LLAMA, QWEN])
def test_a_template_says_what_transformers_says(tmp_path, template, apart):
    folder = folder_with(tmp_path, template, apart)
    theirs = AutoTokenizer.from_pretrained(folder)
    wanted = theirs.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True)
    if template == LLAMA:
        assert wanted.startswith("<think><|start_header_id|>system") and "2024" not in wanted
    assert render(Tokenizer.load(folder).template, MESSAGES, SETTINGS) == wanted


def test_an_instruct_prompt_comes_in_the_words_of_the_model(tmp_path):
    """The system and the user turn through the template, what the assistant has begun behind."""
    tokenizer = Tokenizer.load(folder_with(tmp_path, LLAMA))
    prompt = instructed(tokenizer)
    assert prompt.text.startswith("<think><|start_header_id|>system")
    assert "<|im_start|>" not in prompt.text and "<|im_end|>" not in prompt.text
    assert prompt.text.count("<|eot_id|>") == 2 and "[3, 7, 25]" in prompt.text
    assert prompt.text.endswith("Let me work this out step by step.\n<think>")
    assert list(prompt.tokens) == tokenizer.encode(prompt.text)


def test_qwen_gets_what_the_task_wrote(tmp_path):
    text = Countdown(template="instruct").ask(PROBLEM)
    assert Tokenizer.load(folder_with(tmp_path, QWEN)).say(text) == text


SAID = [
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "hello"},
    {"role": "user", "content": "5 + 6?"},
]


def test_a_conversation_is_written_in_chatml_without_a_template_and_else_by_it(tmp_path):
    chatml = Tokenizer(TOKENIZER.fast.from_str(TOKENIZER.fast.to_str()))
    assert not chatml.converses()
    with pytest.raises(ModelError, match="without a chat template"):
        chatml.converse(SAID)
    chatml.fast.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    assert chatml.converses() and chatml.converse(SAID) == (
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nhello<|im_end|>\n"
        "<|im_start|>user\n5 + 6?<|im_end|>\n<|im_start|>assistant\n"
    )
    own = Tokenizer(TOKENIZER.fast, template="{% for m in messages %}<{{ m.content }}>{% endfor %}")
    assert own.converses() and own.converse(SAID) == "<hi><hello><5 + 6?>"


def test_text_that_is_no_conversation_stays_as_it_is(tmp_path):
    tokenizer = Tokenizer.load(folder_with(tmp_path, LLAMA))
    for text in (Countdown().ask(PROBLEM), Countdown(template="r1").ask(PROBLEM), "", "a\nb"):
        assert tokenizer.say(text) == text


def test_a_base_model_is_not_asked_as_an_instruct_model():
    with pytest.raises(ModelError, match="chat template.*--task.template r1"):
        instructed(TOKENIZER)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ cycler.__init__.__globals__.os.system('true') }}", "unsafe"),
        ("{% for %}", "chat template"),
        ("{{ messages + 1 }}", "chat template"),
        ("{{ 1 // 0 }}", "division"),
        ("{% for i in range(10000000) %}x{% endfor %}", "Range too big"),
    ],
)
def test_a_template_that_is_hostile_or_broken_is_one_line(tmp_path, template, words):
    tokenizer = Tokenizer.load(folder_with(tmp_path, template))
    with pytest.raises(ModelError, match=words) as found:
        instructed(tokenizer)
    assert "\n" not in str(found.value)


def test_a_template_that_refuses_a_system_turn_has_it_in_the_users_and_in_a_chat_says_so(tmp_path):
    tokenizer = Tokenizer.load(folder_with(tmp_path, MISTRAL))
    with pytest.warns(ModelWarning, match="Only user and assistant roles.*before the user's text"):
        text = instructed(tokenizer).text
    assert text.startswith("<think>[INST] You are a helpful assistant.") and "[3, 7, 25]" in text
    with pytest.raises(ModelError, match="Only user and assistant"):
        tokenizer.converse([{"role": "system", "content": "x"}, *SAID])


def test_a_list_of_templates_may_hold_what_is_none(tmp_path):
    TOKENIZER.save(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    named = {"name": "default", "template": "{{ messages[0].content }}"}
    path.write_text(json.dumps(settings | {"chat_template": ["x", named, 3]}))
    assert Tokenizer.load(tmp_path).converse(SAID) == "hi"


def test_a_template_survives_being_saved(tmp_path):
    for apart in (False, True):
        first, second = tmp_path / f"first{apart}", tmp_path / f"second{apart}"
        first.mkdir(), second.mkdir()
        tokenizer = Tokenizer.load(folder_with(first, LLAMA, apart))
        tokenizer.save(second)
        again = Tokenizer.load(second)
        assert again.template == LLAMA and again.settings == tokenizer.settings
        assert again.stop_ids == tokenizer.stop_ids


# -- which tokens end a completion ----------------------------------------------------------


def test_every_end_that_the_folder_names_ends_a_completion(tmp_path):
    """Llama-3.2 Instruct: tokenizer_config names one, generation_config a list."""
    TOKENIZER.save(tmp_path)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [0, 3, 5]}')
    (tmp_path / "config.json").write_text('{"eos_token_id": 3}')
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.stop_ids == (0, 3, 5)
    assert tokenizer.decode([60, 3, 61, 5]) == tokenizer.decode([60, 61])


@pytest.mark.parametrize("eos", [[0, 999], "<|endoftext|>", True, -1, 2**70])
def test_an_end_that_the_tokenizer_does_not_have_is_refused(tmp_path, eos):
    TOKENIZER.save(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": eos}))
    with pytest.raises(ModelError, match="eos_token_id"):
        Tokenizer.load(tmp_path)
