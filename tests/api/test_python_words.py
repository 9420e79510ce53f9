"""Fixes name arguments, not options of the command line, and they work."""

import pytest

import aha
from aha.api.python_words import in_python
from aha.core.errors import AhaError

from .conftest import ROWS


@pytest.mark.parametrize(
    ("typed", "argument"),
    [
        ("--optim.lr 3e-4", "optim={'lr': 3e-4}"),
        ("--task.template r1, the form", "task={'template': 'r1'}, the form"),
        ("--task.data FILE", "data=FILE"),
        ("--task.numbers [3]", "task={'numbers': [3]}"),
        (
            "--task.bad_rows drop (to leave them out)",
            "task={'bad_rows': 'drop'} (to leave them out)",
        ),
        ("--max-new-tokens 12", "max_new_tokens=12"),
        ("`aha train --resume 'runs/a b'`", "`aha.train(resume='runs/a b', ...)`"),
        ("at most --n 5", "at most n=5"),
        ("--optim.recompute true", "optim={'recompute': True}"),
        ("--algo.correction none", "algo={'correction': 'none'}"),
        ("--name '../up'", "name='../up'"),
        ("pip install 'aha[wandb]', or --log none", "pip install 'aha[wandb]', or log='none'"),
        (
            "go on all the same: aha train --resume runs/a --accept-changes",
            "go on all the same: aha.train(resume='runs/a', accept_changes=True, ...)",
        ),
        ("or `aha train --resume runs/a` to", "or `aha.train(resume='runs/a', ...)` to"),
        ("aha train --resume runs/a; then", "aha.train(resume='runs/a', ...); then"),
        (
            "all for a test: `aha eval MODEL --split all`",
            "all for a test: aha.evaluate(..., split='all')",
        ),
        ("Qwen--2 and -- are no options", "Qwen--2 and -- are no options"),
    ],
)
def test_an_option_becomes_an_argument(typed, argument):
    assert in_python(typed) == argument


def fix_of(call) -> str:
    with pytest.raises(AhaError) as caught:
        call()
    assert "--" not in str(caught.value) and caught.value.fix in str(caught.value)
    return caught.value.fix


def test_a_fix_works_when_it_is_obeyed(train, model):
    name = fix_of(lambda: train(name="../up", show=False))
    assert train(**eval(f"dict({name})"), show=False).name != "../up"
    broken = [*ROWS, {"prompt": "?"}]
    drop = fix_of(lambda: train(data=broken, reward=needs_answer, show=False))
    changes = eval(f"dict({drop.rpartition(', or ')[2].partition(' leaves')[0]})")
    assert changes == {"task": {"bad_rows": "drop"}}
    assert train(data=broken, reward=needs_answer, **changes, show=False).finished
    short = fix_of(lambda: aha.evaluate(model, reward=needs_answer, data=ROWS, max_new_tokens=900))
    changes = eval(f"dict({short})")
    assert aha.evaluate(model, reward=needs_answer, data=ROWS, n=1, **changes).completions


def needs_answer(completion, answer):
    return float(completion == answer)


def test_a_conversation_with_a_base_model_has_a_fix_that_works(train):
    chats = [{"prompt": [{"role": "user", "content": row["prompt"]}]} for row in ROWS]
    with pytest.raises(AhaError, match=r"task=\{'template': 'r1'\}"):
        train(data=chats, show=False)
