"""The examples run, and do what they say."""

import runpy

import torch

from aha.model.folders import resolve_model
from aha.model.weights import load_model

from .pages import ROOT, read

EXAMPLE_LINES = range(15, 31)


def test_the_example_takes_one_step(capsys):
    path = ROOT / "examples" / "rl_step.py"
    lines = read(path).split("import Countdown\n")[1].splitlines()
    assert len([line for line in lines if line.strip()]) in EXAMPLE_LINES
    names = runpy.run_path(str(path))
    before = load_model(resolve_model("aha-tiny")).policy.weights()
    after = names["policy"].weights()
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    assert moved == list(before), "every weight of the policy gets a gradient"
    # The engine has the new weights, and what was rewarded is likelier under them.
    batch, engine = names["batch"], names["engine"]
    assert engine.version == 1
    with torch.no_grad():
        now_BT = names["policy"].token_logprobs(batch.tokens_BT, batch.start, layout=batch.layout)
    gain = ((now_BT - names["logprobs_BT"].detach()) * batch.advantages_BT * batch.mask_BT).sum()
    assert gain > 0
    right, completions = names["rewards_PG"].mean(), names["rewards_PG"].numel()
    assert capsys.readouterr().out.startswith(
        f"{right:.3f} of {completions} completions right; loss "
    )
    assert 0 < right < 1 and completions == 128
