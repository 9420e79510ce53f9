"""The loss and the gradient of an update against transformers, and what must not change them."""

import json

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from aha.core.config import ModelSection, OptimSection
from aha.core.errors import RunStopped
from aha.model.hf_policy import HfPolicy
from aha.model.lora import add_lora
from aha.sft.examples import Example
from aha.sft.fine_tuner import FineTuner, num_steps, scheduled_rate
from aha.sft.tuning_config import TuningConfig

from ..tiny import TOKENIZER, tiny_folder, tiny_transformer

STOP = TOKENIZER.stop_ids[0]


def example(prompt: str, completion: str) -> Example:
    return Example(tuple(TOKENIZER.encode(prompt)), (*TOKENIZER.encode(completion), STOP))


# Lengths that differ, one prompt that comes twice, and one completion that is its end alone.
EXAMPLES = [
    example("2+2=", "4"),
    example("numbers 3 4 5 target 12\n<think>\n", "3+4=7\n7+5=12 yes\n</think>"),
    example("a", "bcdefgh"),
    example("2+2=", "four, I think"),
    Example(tuple(TOKENIZER.encode("xyz")), (STOP,)),
]


def config(**changes) -> TuningConfig:
    optim = {"lr": 1e-2, "warmup": 1, "dtype": "float32"} | changes.pop("optim", {})
    settings = {"data": "a.jsonl", "examples": len(EXAMPLES), "epochs": 4, "optim": optim}
    cfg = TuningConfig.model_validate(settings | changes)
    return cfg.model_copy(update={"steps": num_steps(len(EXAMPLES), cfg)})


def make(cfg: TuningConfig | None = None, lora: int = 0, **model) -> FineTuner:
    policy = tiny_transformer(std=0.1, **model)
    if lora:
        add_lora(policy, lora, 2.0 * lora, 1)
    return FineTuner(policy, TOKENIZER, EXAMPLES, cfg or config())


def gradient(tuner: FineTuner, examples: list[Example], tokens: int) -> tuple[float, torch.Tensor]:
    tuner.optimizer.clear()
    loss = tuner.gradient(tuner.batch_of(examples, tokens))
    return loss.item(), torch.cat([p.grad.flatten() for p in tuner.policy.trainable()])


def test_loss_and_gradient_are_those_of_transformers(tmp_path):
    """One row after the other, without padding, in float64, the loss by its definition."""
    net = AutoModelForCausalLM.from_pretrained(tiny_folder(tmp_path / "tiny", std=0.1)).double()
    total = sum(len(one.completion) for one in EXAMPLES)
    expected = torch.zeros((), dtype=torch.float64)
    for one in EXAMPLES:
        tokens_T = torch.tensor(one.prompt + one.completion)
        logits_TV = net(input_ids=tokens_T[None]).logits[0, :-1]
        own = slice(len(one.prompt) - 1, None)
        expected = expected + F.cross_entropy(logits_TV[own], tokens_T[1:][own], reduction="sum")
    (expected / total).backward()
    grads = {name: parameter.grad for name, parameter in net.named_parameters()}

    tuner = make()
    loss, _ = gradient(tuner, EXAMPLES, 10_000)
    assert loss == pytest.approx((expected / total).item(), abs=1e-5)
    assert len(grads) == len(dict(tuner.policy.named_parameters()))
    for name, parameter in tuner.policy.named_parameters():
        difference = (parameter.grad - grads[name]).norm()
        assert difference < 1e-4 * grads[name].norm() + 1e-7, name


def test_a_model_that_transformers_runs_has_the_same_loss_with_padding(tmp_path):
    net = AutoModelForCausalLM.from_pretrained(tiny_folder(tmp_path / "tiny", std=0.1))
    strange = FineTuner(HfPolicy(net), TOKENIZER, EXAMPLES, config())
    expected = gradient(make(), EXAMPLES, 10_000)[0]
    for tokens in (1, 60, 10_000):
        assert gradient(strange, EXAMPLES, tokens)[0] == pytest.approx(expected, rel=1e-5)


def test_only_the_completions_are_learnt():
    """The loss does not know what the prompts would be worth, and knows every completion token."""
    tuner = make()
    batch = tuner.batch_of(EXAMPLES, 10_000)
    (part,) = batch.parts
    learnt = part.tokens_BT[:, part.start :][part.weights_BT > 0]
    expected = [token for one in EXAMPLES for token in one.completion]
    assert sorted(learnt.tolist()) == sorted(expected) and batch.total == len(expected)
    assert set(part.weights_BT.unique().tolist()) == {0.0, 1.0}
    assert batch.num_tokens == sum(one.num_tokens for one in EXAMPLES)


@pytest.mark.parametrize("lora", [0, 2])
def test_it_does_not_matter_how_an_update_is_packed(lora):
    whole_loss, whole = gradient(make(lora=lora), EXAMPLES, 10_000)
    for tokens in (1, 20, 45):
        tuner = make(lora=lora)
        parts = tuner.batch_of(EXAMPLES, tokens).parts
        assert len(parts) > 1
        loss, grads = gradient(tuner, EXAMPLES[::-1], tokens)
        assert loss == pytest.approx(whole_loss, rel=1e-5)
        assert (grads - whole).norm() < 1e-4 * whole.norm()
    halves = sum(gradient(make(lora=lora), EXAMPLES[i::2], 10_000)[1] for i in range(2)) / 2
    assert (halves - whole).norm() > 1e-2 * whole.norm()  # means of means are something else


def test_neighbours_do_not_see_each_other():
    alone = sum(gradient(make(), [one], 10_000)[0] * len(one.completion) for one in EXAMPLES) / sum(
        len(one.completion) for one in EXAMPLES
    )
    assert gradient(make(), EXAMPLES, 10_000)[0] == pytest.approx(alone, rel=1e-5)


@pytest.mark.parametrize("lora", [0, 2])
def test_it_learns_its_examples(lora):
    tuner = make(config(epochs=40, optim={"lr": 3e-2}), lora=lora)
    losses = [float(report.loss) for report in tuner.steps()]
    assert len(losses) == 40 and tuner.done and not tuner.mid_step
    assert losses[0] > 3.5 and losses[-1] < (1.0 if not lora else 3.0)
    frozen = [p for p in tuner.policy.parameters() if not p.requires_grad]
    assert bool(frozen) == bool(lora) and all(p.grad is None for p in frozen)


@pytest.mark.parametrize("state", ["device", "cpu"])
@pytest.mark.parametrize("pause", [1, 5])
def test_a_resumed_training_is_bit_equal(pause, state, tmp_path):
    cfg = config(examples=2, optim={"state": state})
    whole = make(cfg)
    expected = [(report.loss, report.tokens_seen) for report in whole.steps()]
    first = make(cfg)
    reports = [first.step() for _ in range(pause)]
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = make(cfg)
    second.policy.load_state_dict(first.policy.state_dict())
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    reports += list(second.steps())
    assert [(report.loss, report.tokens_seen) for report in reports] == expected
    for ours, theirs in zip(second.policy.parameters(), whole.policy.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_every_epoch_has_each_example_once_in_another_order():
    cfg = config(examples=2, epochs=3)
    tuner = make(cfg)
    assert cfg.steps == 8  # 15 examples in pairs; the last is alone
    read = [EXAMPLES.index(one) for step in range(cfg.steps) for one in tuner.examples_of(step)]
    epochs = [read[:5], read[5:10], read[10:]]
    assert all(sorted(epoch) == list(range(5)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    other = make(cfg.model_copy(update={"seed": 1}))
    again = [EXAMPLES.index(one) for step in range(cfg.steps) for one in other.examples_of(step)]
    assert again != read and sorted(again) == sorted(read)


def test_the_schedule_by_hand():
    optim = OptimSection(lr=1.0, warmup=1, final_lr=0.5)
    # five steps: warm-up to the second, and down to one half in equal parts of 1/8
    expected = [0.5 * 1.0, 0.875, 0.75, 0.625, 0.5]
    assert [scheduled_rate(optim, step, 5) for step in range(5)] == pytest.approx(expected)
    assert scheduled_rate(OptimSection(lr=1.0, warmup=0), 0, 1) == 1.0


def test_a_loss_that_is_no_number_stops_before_a_weight_changes():
    tuner = make()
    tuner.step()
    with torch.no_grad():
        tuner.policy.model.norm.weight[0] = torch.nan
    before = [parameter.clone() for parameter in tuner.policy.parameters()]
    with pytest.raises(RunStopped) as fault:
        tuner.step()
    assert fault.value.step == 2 and tuner.version == 1 and not tuner.mid_step
    after = list(tuner.policy.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before[:1], after[:1], strict=True))


def test_memory_that_runs_out_takes_smaller_parts():
    tuner = make()
    computed = []

    class Full(FineTuner):
        def gradient(self, batch):
            computed.append(len(batch.parts))
            if len(batch.parts) < 3:
                raise MemoryError
            return super().gradient(batch)

    full = Full(tuner.policy, TOKENIZER, EXAMPLES, config(optim={"micro_batch_tokens": 128}))
    report = full.step()
    assert computed[0] == 1 and computed[-1] >= 3 and full.micro_batch.numbers()
    assert float(report.loss) == pytest.approx(gradient(make(), EXAMPLES, 10_000)[0], rel=1e-5)


def test_a_config_keeps_everything_as_json():
    cfg = config(model=ModelSection(lora_rank=2))
    assert TuningConfig.model_validate(json.loads(cfg.model_dump_json())) == cfg
