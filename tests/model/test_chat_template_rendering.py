"""Chat templates with the constructs of real ones, rendered as `transformers` renders them; and
templates that open or close a thought themselves, against a task that opens one."""

import json
import warnings
from datetime import datetime
from pathlib import Path

import pytest
from tokenizers import processors
from transformers import AutoTokenizer
from transformers.utils.chat_template_utils import render_jinja_template

from aha.core.errors import ModelError
from aha.core.records import Prompt
from aha.model import chat_template
from aha.model.chat_template import RenderedText, conversation
from aha.model.model_warning import ModelWarning
from aha.model.own_words import in_own_words
from aha.model.tokenizer import Tokenizer
from aha.tasks.countdown import Countdown, as_problem
from aha.tasks.tags import LEAD_IN, instruct_frame

from ..tiny import TOKENIZER

BASE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}"
FIRST_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('none') }}{% endif %}"
TEMPLATES = {
    "generation": "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}"
    "{% endfor %}{% if add_generation_prompt %}>{% endif %}",
    "generation, spaces": "{%- for m in messages -%}\n  {%- generation -%} {{ m.content }}\n"
    "  {%- endgeneration -%}\n{%- endfor -%}",
    "set in a generation": "{% set a = 1 %}{% generation %}{% set a = 2 %}{{ a }}"
    "{% endgeneration %}{{ a }}",
    "date": "{{ strftime_now('%d %B %Y') }}" + BASE,
    "date if there is one": "{% if strftime_now is defined %}{{ strftime_now('%Y') }}{% endif %}",
    "tools is not none": "{% if tools is not none %}TOOLS{% endif %}" + BASE,
    "tools is defined": "{% if tools is defined %}DEFINED{% endif %}" + BASE,
    "tools printed": "{{ tools }}{{ documents }}{{ other }}|" + BASE,
    "tools looped": "{% if tools %}{% for t in tools %}{{ t }}{% endfor %}{% endif %}" + BASE,
    "json": "{{ messages | tojson }}",
    "json, indent": "{{ messages | tojson(indent=2) }}",
    "json, all": "{{ {'b': 1, 'a': 'é<'} | tojson(sort_keys=true, separators=(',', ':')) }}"
    "{{ 'é' | tojson(ensure_ascii=true) }}",
    "loop controls": "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}"
    "{{ m.content }}{% break %}{% endfor %}",
    "blocks": "{% for m in messages %}\n    {% if m.role %}\n  {{ m.content }}\n{% endif %}\n"
    "{% endfor %}\nend\n",
    "macro": "{% macro f(x) %}[{{ x | trim }}]{% endmacro %}{% set ns = namespace(n=0) %}"
    "{% for m in messages %}{% set ns.n = ns.n + 1 %}{{ ns.n }}{{ f(m['content']) }}{% endfor %}",
    "special tokens": "{{ bos_token }}{{ sep_token }}{{ cls_token }}{{ nothing }}" + BASE,
    "slices": "{% for m in messages[::-1] %}{{ m.content.split(' ')[-1] }}{% endfor %}",
    "items": "{% for k, v in messages[0].items() %}{{ k }}{{ dict(a=v) }}{% endfor %}",
    "thinking": BASE + "{% if enable_thinking is defined and not enable_thinking %}OFF{% endif %}",
}
MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Make 72 of 25,\n7 & 4 <é>."},
]
SETTINGS = {"sep_token": "<sep>", "cls_token": {"content": "<cls>"}, "bos_token": None}


@pytest.mark.filterwarnings("ignore::aha.model.model_warning.ModelWarning")
@pytest.mark.parametrize("name", TEMPLATES)
def test_a_construct_renders_as_in_transformers(name):
    wanted = render_jinja_template(
        [MESSAGES],
        chat_template=TEMPLATES[name],
        add_generation_prompt=True,
        sep_token="<sep>",
        cls_token="<cls>",
    )[0][0]
    assert conversation(MESSAGES, TEMPLATES[name], SETTINGS, lambda name: None) == wanted


@pytest.mark.parametrize("template", ["{% do 1 %}", FIRST_SYSTEM, "{{ bos_token + 'x' }}"])
def test_what_transformers_cannot_render_is_refused(template):
    with pytest.raises(Exception, match=r"."):
        render_jinja_template([MESSAGES], chat_template=template)
    with pytest.raises(ModelError, match="the model's chat template: "):
        conversation(MESSAGES, template, SETTINGS, lambda name: None)


def test_a_task_holds_the_date_and_a_chat_asks_the_clock(monkeypatch):
    def asked() -> str:
        chat_template.held_now.cache_clear()
        return in_own_words(FRAME, TEMPLATES["date"], {}, lambda name: None)

    today = datetime.now().strftime("%d %B %Y")
    with pytest.warns(ModelWarning, match="today's date.*SOURCE_DATE_EPOCH="):
        assert asked().startswith(today)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert asked().startswith("02 January 1970")
    chat = conversation(MESSAGES, TEMPLATES["date"], {}, lambda name: None)
    assert chat.startswith(today)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "soon")
    with pytest.raises(ModelError, match="SOURCE_DATE_EPOCH 'soon'"):
        asked()
    chat_template.held_now.cache_clear()


# -- one thought, and it is open ------------------------------------------------------------

OPENS = "{% if add_generation_prompt %}<assistant>\n<think>\n{% endif %}"
CLOSES = "{% if add_generation_prompt %}<assistant>\n<think>\n\n</think>\n\n{% endif %}"
ASKED = (
    "{% if add_generation_prompt %}<assistant>\n{% if enable_thinking is defined and "
    "enable_thinking %}{{ '<think>\n' }}{% else %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{% endif %}"
)
ASKED_SILENT = (
    "{% if add_generation_prompt %}<assistant>\n{% if enable_thinking is not defined or not "
    "enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
QWEN3 = (
    "{% if add_generation_prompt %}<assistant>\n{% if enable_thinking is defined and "
    "enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
BEGINS = "{% if add_generation_prompt %}<assistant>\n<think>\nOkay, {% endif %}"
FRAME = instruct_frame("Reach 72 with 25, 7, 4. Think in <think> </think>, then answer.")


@pytest.mark.parametrize(
    ("tail", "end", "words"),
    [
        ("<assistant>", f"<assistant>{LEAD_IN}", ""),
        (QWEN3, f"<assistant>\n{LEAD_IN}", ""),
        (OPENS, "<assistant>\n<think>\n", "opens the thought itself"),
        (BEGINS, "<assistant>\n<think>\nOkay, ", "opens the thought itself"),
        (CLOSES, "<assistant>\n<think>\n", "empty thought, which is opened again: a task's own"),
        (ASKED, "<assistant>\n<think>\n", "enable_thinking and then opens it: a task's own"),
        (ASKED_SILENT, f"<assistant>\n{LEAD_IN}", "rendered with enable_thinking; each"),
    ],
)
def test_a_prompt_ends_with_one_open_thought(tail, end, words):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        text = in_own_words(FRAME, BASE + tail, {}, lambda name: None)
    assert text.endswith(end) and isinstance(text, RenderedText)
    begun = text[text.rindex("<assistant>") :]
    assert begun.count("<think>") == 1 and "</think>" not in begun
    assert bool(told) == bool(words)
    assert not words or any(words in str(warning.message) for warning in told)


def test_a_conversation_without_a_task_is_what_the_template_says():
    """In a chat there is no beginning to bring together: the template is left alone."""
    for tail in (OPENS, CLOSES, QWEN3):
        wanted = render_jinja_template(
            [MESSAGES], chat_template=BASE + tail, add_generation_prompt=True
        )[0][0]
        assert conversation(MESSAGES, BASE + tail, {}, lambda name: None) == wanted


def test_every_problem_of_a_task_gets_one_open_thought():
    tokenizer = Tokenizer(TOKENIZER.fast, template=BASE + OPENS)
    problem = as_problem((3, 7, 25), 82)
    with pytest.warns(ModelWarning, match="one open thought"):
        prompt = Prompt.of(problem, Countdown(template="instruct"), tokenizer)
    assert prompt.text.endswith("<assistant>\n<think>\n") and "[3, 7, 25]" in prompt.text


# -- ids ------------------------------------------------------------------------------------


def tokenizer_folder(folder: Path, single: str | None, template: str, **settings) -> Path:
    """A tokenizer that puts tokens around a text, as `single` says, and its settings."""
    folder.mkdir()
    fast = TOKENIZER.fast.from_str(TOKENIZER.fast.to_str())
    if single:
        special = [(name, fast.token_to_id(name)) for name in ("<|pad|>", "<|endoftext|>")]
        fast.post_processor = processors.TemplateProcessing(single=single, special_tokens=special)
    fast.save(str(folder / "tokenizer.json"))
    content = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|pad|>",
        "eos_token": "<|endoftext|>",
        "chat_template": template,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(content | settings))
    return folder


@pytest.mark.parametrize(
    ("single", "template", "settings"),
    [
        (None, BASE, {}),
        ("<|pad|> $A", BASE, {}),
        ("<|pad|> $A", "{{ bos_token }}" + BASE, {}),
        (None, "{{ bos_token }}" + BASE, {}),
        ("<|endoftext|> $A", BASE, {}),
        ("<|pad|> $A", BASE, {"add_bos_token": False}),
        (None, BASE, {"add_bos_token": True}),
        (None, "<think>" + BASE, {"split_special_tokens": True}),
        (None, "{{ image_token }}" + BASE, {"extra_special_tokens": {"image_token": "<think>"}}),
    ],
)
def test_ids_begin_as_those_of_transformers(tmp_path, single, template, settings):
    """A chat prompt begins as the template says, any other text as the tokenizer says."""
    folder = tokenizer_folder(tmp_path / "one", single, template, **settings)
    ours, theirs = Tokenizer.load(folder), AutoTokenizer.from_pretrained(folder)
    messages = [{"role": "user", "content": "3 and 7"}]
    wanted = theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert ours.encode(ours.converse(messages)) == wanted
    assert ours.encode("3 and 7") == theirs("3 and 7").input_ids


def test_a_limit_in_tokenizer_json_cuts_no_prompt(tmp_path):
    folder = tokenizer_folder(tmp_path / "one", None, BASE)
    fast = TOKENIZER.fast.from_file(str(folder / "tokenizer.json"))
    fast.enable_truncation(3)
    fast.enable_padding(length=9, pad_id=1, pad_token="<|pad|>")
    fast.save(str(folder / "tokenizer.json"))
    assert Tokenizer.load(folder).encode("3 and 7") == TOKENIZER.encode("3 and 7")


def test_several_templates_without_a_default_are_named(tmp_path):
    named = [{"name": "rag", "template": BASE}, {"name": "tool_use", "template": BASE}]
    tokenizer = Tokenizer.load(tokenizer_folder(tmp_path / "one", None, named))
    with pytest.raises(ModelError, match="called rag, tool_use.*write the one to use into"):
        tokenizer.converse(MESSAGES)
    named[1]["name"] = "default"
    tokenizer = Tokenizer.load(tokenizer_folder(tmp_path / "two", None, named))
    assert tokenizer.converse(MESSAGES).startswith("<system>Be brief.")
