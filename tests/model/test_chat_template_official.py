"""Official chat templates, as many as a folder has, against `transformers`.

For those who ask for it: the templates are not ours to ship. llama.cpp's sources have 70 of them:

    pip download --no-deps --no-binary llama-cpp-python llama-cpp-python
    tar xzf llama_cpp_python-*.tar.gz --wildcards '*models/templates/*'
    AHA_TEMPLATES=FOLDER pytest -n 0 -m slow tests/model/test_chat_template_official.py
"""

import os
import warnings
from pathlib import Path

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from aha.core.errors import ModelError
from aha.model.chat_template import render
from aha.model.model_warning import ModelWarning
from aha.model.own_words import in_own_words, tags_of
from aha.tasks.tags import LEAD_IN, instruct_frame

pytestmark = pytest.mark.slow
SETTINGS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
SYSTEM = {"role": "system", "content": "Be kind."}
USER = {"role": "user", "content": "1+1 < 3?"}
TURNS = [USER, {"role": "assistant", "content": "Yes."}, {"role": "user", "content": "And 5 + 6?"}]
CONVERSATIONS = {"system and user": [SYSTEM, USER], "user": [USER], "turns": TURNS}


def templates() -> dict[str, str]:
    folder = os.environ.get("AHA_TEMPLATES")
    paths = sorted(Path(folder).rglob("*.jinja")) if folder else []
    if not paths:
        pytest.skip("AHA_TEMPLATES names no folder with .jinja files")
    return {path.stem: path.read_text(encoding="utf-8") for path in paths}


def theirs(template: str, messages: list[dict[str, str]]) -> str | None:
    """What transformers makes of it; None where it raises."""
    try:
        said, _ = render_jinja_template(
            conversations=[messages], chat_template=template, add_generation_prompt=True, **SETTINGS
        )
    except Exception:  # a template may raise anything
        return None
    return said[0]


def ours(template: str, messages: list[dict[str, str]]) -> str | None:
    try:
        return str(render(template, messages, SETTINGS))
    except ModelError:
        return None


def test_every_conversation_is_what_transformers_makes_of_it():
    """Word for word, or both refuse it."""
    found = {
        (name, kind): (ours(template, messages), theirs(template, messages))
        for name, template in templates().items()
        for kind, messages in CONVERSATIONS.items()
    }
    refused = sum(said is None for said, _ in found.values())
    print(f"{len(found)} conversations, {refused} refused by both or by one")
    assert not {key for key, (one, other) in found.items() if one != other}


def test_no_prompt_has_two_thoughts():
    """Behind the task's own words one thought is opened, at the end, and none is closed."""
    frame, faults, refused = instruct_frame("Reach 72 with 25, 7, 4. ANSWER"), {}, []
    assert frame.endswith(LEAD_IN)
    for name, template in templates().items():
        tags = tags_of(template)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ModelWarning)
                text = in_own_words(frame, template, SETTINGS, lambda unused_token: None)
        except ModelError:
            refused.append(name)
            continue
        answer = text.rpartition("ANSWER")[2]
        if answer.count(tags.opened) != 1 or tags.closed in answer:
            faults[name] = answer[-200:]
    print(f"refused: {', '.join(refused)}")
    assert not faults
