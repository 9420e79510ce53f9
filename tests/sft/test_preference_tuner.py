"""The gradient of a preference update against the loss written out, and whole runs on pairs."""

import json
import math
import os
import signal
import weakref
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from aha.core.errors import ConfigError, RunError
from aha.model.hf_policy import HfPolicy
from aha.model.lora import add_lora
from aha.model.parents import chain_of
from aha.sft.data_cost import write_data_cost
from aha.sft.examples import PreferencePair
from aha.sft.preference_tuner import PreferenceTuner
from aha.sft.tuning_config import TuningConfig, default_lr, tuning_config
from aha.sft.tuning_run import FineTuning
from aha.store.run_folder import is_tuning, read_rows

from ..tiny import TOKENIZER, OnApple, tiny_folder, tiny_transformer

STOP = TOKENIZER.stop_ids[0]
TEXTS = [
    ("2+2=", "4", "4, I think, or something like it"),
    ("numbers 3 4 5 target 12\n<think>\n", "3+4=7\n7+5=12 yes", "3+4=7"),
    ("a", "bcdefgh", "b"),
]


def pair(prompt: str, chosen: str, rejected: str) -> PreferencePair:
    sides = ((*TOKENIZER.encode(text), STOP) for text in (chosen, rejected))
    return PreferencePair(tuple(TOKENIZER.encode(prompt)), *sides)


PAIRS = [pair(*texts) for texts in TEXTS]


def config(method: str = "simpo", data: str = "a", **preference) -> TuningConfig:
    raw = {"kind": "prefer", "data": data, "examples": 3, "epochs": 4, "checkpoint_every": 1}
    raw |= {"optim": {"lr": 1e-2, "dtype": "float32"}}
    raw |= {"preference": {"method": method} | preference}
    return TuningConfig.model_validate(raw)


def make(cfg: TuningConfig, lora: int = 0) -> PreferenceTuner:
    policy = tiny_transformer(std=0.1)
    if lora:
        add_lora(policy, lora, 2.0 * lora, 1)
    return PreferenceTuner(policy, TOKENIZER, PAIRS, cfg.model_copy(update={"steps": 4}))


def logprob(net, one: PreferencePair, tokens: tuple[int, ...]) -> torch.Tensor:
    row_T = torch.tensor(one.prompt + tokens)
    logprobs_TV = net(input_ids=row_T[None]).logits[0, :-1].log_softmax(-1)
    return logprobs_TV.gather(1, row_T[1:, None]).squeeze(1)[len(one.prompt) - 1 :].sum()


@pytest.mark.parametrize("nll", [0.0, 0.3])
@pytest.mark.parametrize("method", ["simpo", "dpo"])
def test_loss_and_gradient_are_those_of_the_formula(tmp_path, method, nll):
    """With transformers in float64, each row alone, from the papers' equations."""
    net = AutoModelForCausalLM.from_pretrained(tiny_folder(tmp_path / "tiny", std=0.1)).double()
    losses, tokens, total = [], 0, torch.zeros((), dtype=torch.float64)
    for one in PAIRS:
        chosen, rejected = (logprob(net, one, side) for side in (one.chosen, one.rejected))
        if method == "simpo":
            gap = 2.0 * (chosen / len(one.chosen) - rejected / len(one.rejected)) - 0.5
        else:  # the reference is the model itself, so that ratios are 0 and have a gradient
            gap = 0.1 * ((chosen - chosen.detach()) - (rejected - rejected.detach()))
        losses.append(-torch.nn.functional.logsigmoid(gap))
        total, tokens = total - chosen, tokens + len(one.chosen)
    expected = sum(losses) / len(losses) + nll * total / tokens
    expected.backward()
    grads = {name: parameter.grad for name, parameter in net.named_parameters()}

    for size in (1, 30, 10_000):
        tuner = make(config(method, nll=nll))
        if method == "dpo":
            tuner.reference_R = tuner.sums_of(tuner.parts_of(rows(PAIRS), 10_000))
        tuner.optimizer.clear()
        batch = tuner.batch_of(PAIRS, size)
        assert tuner.gradient(batch).item() == pytest.approx(expected.item(), abs=1e-5)
        for name, parameter in tuner.policy.named_parameters():
            difference = (parameter.grad - grads[name]).norm()
            assert difference < 1e-3 * grads[name].norm() + 1e-6, (name, size)
    if method == "dpo" and not nll:
        assert expected.item() == pytest.approx(math.log(2))


def rows(pairs):
    from aha.sft.preference_tuner import rows_of

    return rows_of(pairs)


def test_the_reference_of_a_file_has_one_micro_batch_at_a_time_on_the_device():
    tuner, made = make(config("dpo")), []

    def watched():
        for part in tuner.parts_of(rows(PAIRS), 1):
            made.append(weakref.ref(part))
            yield part
            del part
            assert sum(one() is not None for one in made) <= 1

    assert len(tuner.sums_of(watched())) == 2 * len(PAIRS) and len(made) > 2


def test_log_probs_on_an_apple_gpu_are_added_up_on_the_cpu(monkeypatch):
    tuner = make(config("dpo"))
    plain, own = tuner.policy.token_logprobs, tuner.sums_of(tuner.parts_of(rows(PAIRS), 10_000))
    monkeypatch.setattr(
        tuner.policy,
        "token_logprobs",
        lambda *inputs, **options: plain(*inputs, **options).as_subclass(OnApple),
    )
    assert torch.equal(tuner.sums_of(tuner.parts_of(rows(PAIRS), 10_000)), own)


def test_a_model_that_transformers_runs_has_the_same_loss(tmp_path):
    net = AutoModelForCausalLM.from_pretrained(tiny_folder(tmp_path / "tiny", std=0.1))
    strange = PreferenceTuner(HfPolicy(net), TOKENIZER, PAIRS, config())
    expected = make(config()).batch_of(PAIRS, 10_000).loss.item()
    assert strange.batch_of(PAIRS, 1).loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("lora", [0, 2])
@pytest.mark.parametrize("method", ["simpo", "dpo"])
def test_the_chosen_ones_become_likelier_than_the_rejected(method, lora):
    tuner = make(config(method), lora)
    losses, margins = [], []
    for report in tuner.steps():
        losses.append(float(report.loss))
        margins.append(tuner.numbers()["margin"])
    assert len(losses) == 4 and losses == sorted(losses, reverse=True)
    assert margins == sorted(margins) and 0.0 <= tuner.numbers()["ranked"] <= 1.0


# -- whole runs ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("models") / "tiny", std=0.1)


@pytest.fixture
def data(tmp_path) -> Path:
    path = tmp_path / "pairs.jsonl"
    names = ("prompt", "chosen", "rejected")
    rows = [dict(zip(names, texts, strict=True)) for texts in TEXTS]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"prompt": "x"}]))
    return path


def started(cfg: TuningConfig, model: Path, path: Path) -> FineTuning:
    cfg = cfg.model_copy(update={"model": cfg.model.model_copy(update={"path": str(model)})})
    return FineTuning.start(cfg, path, ignore, None)


def ignore(*unused: object) -> None:
    pass


def timeless(run) -> list[dict]:
    measured = ("elapsed_s", "train_s", "tokens_per_s", "memory_gb")
    return [{k: v for k, v in row.items() if k not in measured} for row in read_rows(run.metrics)]


@pytest.mark.parametrize("method", ["simpo", "dpo"])
def test_a_stopped_run_goes_on_bit_for_bit(model, data, tmp_path, method):
    whole = started(config(method, str(data)), model, tmp_path / "whole")
    summary = whole.run_all(ignore, ignore).summary
    assert summary["steps"] == 4 and summary["examples"] == 3
    first = timeless(whole.run)[0]
    assert {"margin", "ranked"} <= first.keys() and is_tuning(whole.run.read("config.json"))
    pairs = whole.trainer.examples_of(0)
    lengths = [len(side) for pair in pairs for side in (pair.chosen, pair.rejected)]
    assert first["tokens"] == sum(lengths) and first["mean_tokens"] == sum(lengths) / len(lengths)
    assert "1 without an answer" in next(iter(read_rows(whole.run.findings)))["message"]

    def stop(row: dict) -> None:
        if row["step"] == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    cut = started(config(method, str(data)), model, tmp_path / "cut")
    assert cut.run_all(ignore, stop).summary is None
    again = FineTuning.resume(tmp_path / "cut", ignore, False, None)
    again.run_all(ignore, ignore)
    assert timeless(again.run) == timeless(whole.run)
    assert chain_of(tmp_path / "cut" / "model")[-1]["kind"] == "prefer"


def test_the_reference_of_other_pairs_is_refused(model, data, tmp_path):
    cut = started(config("dpo", str(data)), model, tmp_path / "run")
    cut.budget_s = 1e-9
    assert cut.run_all(ignore, ignore).summary is None
    data.write_text(data.read_text().replace("I think", "I guess"))
    with pytest.raises(RunError, match="other pairs"):
        FineTuning.resume(tmp_path / "run", ignore, True, None)


def test_what_the_examples_have_cost_is_a_parent(model, data, tmp_path):
    write_data_cost(data, "answers of a teacher", 2.5, 0.1)
    tuning = started(config("simpo", str(data)), model, tmp_path / "run")
    summary = tuning.run_all(ignore, ignore).summary
    assert summary["base_cost_usd"] == 2.5 and summary["base_kwh"] == 0.1
    parents = tuning.run.read("fingerprints.json")["parents"]
    assert [one["kind"] for one in parents] == ["data", "model"]
    write_data_cost(data, "answers of a teacher", None, None)
    unknown = started(config("simpo", str(data)), model, tmp_path / "other")
    assert unknown.fingerprints["base_cost"] == {}


def test_settings():
    with pytest.raises(ConfigError, match="kind prefer"):
        tuning_config({"data": "a", "kind": "prefer"})
    with pytest.raises(ConfigError, match="kind prefer"):
        tuning_config({"data": "a", "preference": {}})
    assert default_lr(10, 0, pairs=True) == pytest.approx(5e-5)
    assert default_lr(10**10, 0, pairs=True) == pytest.approx(5e-7)
