"""Models that write: which prompts they take, and that a seed decides."""

import pytest

import aha
from aha.core.errors import ConfigError, ModelError


def test_completions_come_by_prompt_and_a_seed_decides(model):
    opened = aha.load(model)
    written = opened.generate(["1+1=", "2+2="], n=2, max_new_tokens=5, seed=3)
    assert [w.prompt for w in written] == ["1+1=", "1+1=", "2+2=", "2+2="]
    assert written == opened.generate(["1+1=", "2+2="], n=2, max_new_tokens=5, seed=3)
    assert written != aha.generate(opened, ["1+1=", "2+2="], n=2, max_new_tokens=5, seed=4)
    assert all(w.tokens <= 5 and w.logprob < 0 and str(w) == w.text for w in written)
    (one,) = aha.generate(model, "1+1=", max_new_tokens=5, temperature=0.0)
    assert one == aha.generate(str(model), "1+1=", max_new_tokens=5, temperature=0.0, seed=9)[0]
    assert opened.generate([]) == [] and "M parameters" in repr(opened)


def test_the_limit_is_what_the_prompt_leaves(model):
    opened = aha.load(model)
    (written,) = opened.generate("1" * 150, max_new_tokens=400)
    assert written.tokens <= opened.positions - 150
    with pytest.raises(ModelError, match="positions"):
        opened.generate("1" * 200)


@pytest.mark.parametrize(
    "prompts",
    ["", 5, [5], [""], [["a", "b"]], [{"role": "user"}], {"role": "user", "content": "x"}],
)
def test_what_is_no_prompt_is_refused(model, prompts):
    with pytest.raises(ConfigError):
        aha.generate(model, prompts)


def test_messages_need_a_model_of_conversations(model):
    messages = [{"role": "user", "content": "1+1?"}]
    for prompts in (messages, [messages, messages]):
        with pytest.raises(ModelError, match="conversation"):
            aha.generate(model, prompts)


def test_characters_that_the_model_cannot_read_are_an_error(model):
    with pytest.raises(ModelError):
        aha.generate(model, "ж")
