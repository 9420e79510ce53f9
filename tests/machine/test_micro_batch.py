"""Too little memory: smaller parts, the same update; and what is held at which precision."""

import pytest
import torch

from aha.core.errors import ConfigError
from aha.machine.micro_batch import MicroBatchSize, is_out_of_memory
from aha.model.lora import add_lora
from aha.training.rl import RLTrainer

from ..tiny import TOKENIZER, tiny_transformer
from ..training.test_rl import config, make, weights

CPU = torch.device("cpu")
CPU_WORDS = (
    "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory"
)


def short_of_memory(trainer: RLTrainer, most: int, error: Exception) -> list[int]:
    """Let parts of more than `most` tokens fail in the middle of their step; lists all parts."""
    plain, parts = trainer.objective.backward, []

    def backward(part, totals):
        parts.append(part.layout.tokens)
        found = plain(part, totals)  # its gradient is there when the memory runs out
        if part.layout.tokens > most:
            raise error
        return found

    trainer.objective.backward = backward
    return parts


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA"),
        RuntimeError(CPU_WORDS),
        RuntimeError("could not create a primitive"),  # oneDNN
    ],
)
def test_parts_become_smaller_until_they_fit_and_the_update_stays(error):
    easy, hard = make(config()), make(config())
    easy.step(easy.problems())
    parts = short_of_memory(hard, 130, error)
    report = hard.step(hard.problems())
    assert parts[0] > 130 and max(parts[-3:]) <= 130
    # 4096 halved until no part is above 130 tokens; the next step begins there.
    assert hard.micro_batch.tokens == report.numbers["micro_batch_tokens"] == 128
    assert "micro_batch_tokens" not in easy.step(easy.problems()).numbers
    parts.clear()
    easy, again = make(config()), hard
    again.step(again.problems())
    assert max(parts) <= 130
    for _ in range(2):
        easy.step(easy.problems())
    for name, tensor in weights(easy).items():
        torch.testing.assert_close(weights(hard)[name], tensor, rtol=1e-4, atol=1e-5)


def test_what_fitted_is_remembered_by_a_checkpoint():
    first, second = make(config()), make(config())
    short_of_memory(first, 130, torch.OutOfMemoryError("CUDA"))
    first.step(first.problems())
    second.load_state_dict(first.state_dict())
    assert second.micro_batch.tokens == 128
    state = first.state_dict()
    del state["micro_batch"]  # of a run before this was known
    third = make(config())
    third.load_state_dict(state)
    assert third.micro_batch.tokens == third.micro_batch.configured


def test_a_single_row_that_does_not_fit_is_a_clear_error():
    trainer = make(config())
    error = torch.OutOfMemoryError("CUDA out of memory. Tried\nsecond line")
    parts = short_of_memory(trainer, 0, error)
    with pytest.raises(ConfigError, match="one completion at a time.*--model.lora_rank") as found:
        trainer.step(trainer.problems())
    assert "\n" not in str(found.value)
    assert len(parts) > 3
    # The step left no trace: its size too is that of the last whole step.
    assert trainer.micro_batch.tokens == trainer.micro_batch.configured


def test_another_error_is_not_taken_for_a_lack_of_memory():
    trainer = make(config())
    parts = short_of_memory(trainer, 0, RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes"):
        trainer.step(trainer.problems())
    assert len(parts) == 1
    assert not is_out_of_memory(ValueError("out of memory")) and is_out_of_memory(MemoryError())


def test_a_critic_backs_off_as_well_and_learns_the_same():
    """Its own update and its looks at the completions; the size that fitted holds for both."""
    algo = {"advantage": "gae", "loss": "ppo_clip"}
    easy, hard = (make(config(algo=algo, critic={"lr": 1e-3})) for _ in range(2))
    plain, parts = hard.advantages.values, []

    def values(batch):
        parts.append(batch.layout.tokens)
        found = plain(batch)
        if batch.layout.tokens > 130:
            raise torch.OutOfMemoryError("CUDA")
        return found

    hard.advantages.values = values
    for trainer in (easy, hard):
        trainer.step(trainer.problems())
    assert parts[0] > 130 and hard.micro_batch.tokens == 128
    for one, other in zip(
        easy.advantages.model.parameters(),
        hard.advantages.model.parameters(),
        strict=True,
    ):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5)


def test_a_critic_beside_adapters_has_adapters_of_its_own_on_the_same_weights():
    policy = tiny_transformer()
    add_lora(policy, 2, 4.0, seed=0)
    algo = {"advantage": "gae", "loss": "ppo_clip"}
    trainer = make(config(algo=algo, critic={"lr": 1e-2}), policy=policy)
    value = trainer.advantages.model.decoder
    frozen = {name: tensor.clone() for name, tensor in policy.weights().items()}
    for _ in range(2):
        trainer.step(trainer.problems())
    q_proj = value.model.layers[0].self_attn.q_proj
    assert q_proj.weight is policy.model.layers[0].self_attn.q_proj.weight
    assert all(torch.equal(tensor, frozen[name]) for name, tensor in policy.weights().items())
    mine, theirs = (d.adapter.B["q_proj"] for d in (value, policy))
    assert mine.abs().max() > 0 and theirs.abs().max() > 0 and not torch.equal(mine, theirs)
    state = trainer.advantages.state_dict()
    assert len(state["model"]) == 2 * 7 * 2 + 2  # A and B of seven maps in two layers, the head
    other = make(config(algo=algo), policy=policy).advantages
    other.load_state_dict(state)
    assert torch.equal(other.model.decoder.adapter.B["q_proj"], mine)


def test_half_a_gradient_is_cleared_before_the_next_attempt():
    tape = []

    def compute(tokens: int) -> int:
        tape.append(tokens)
        if tokens > 30:
            raise torch.OutOfMemoryError("CUDA")
        return tokens

    assert MicroBatchSize(100, CPU).fit(compute, lambda: tape.append("clear")) == 25
    assert tape == [100, "clear", 50, "clear", 25]


def test_weights_and_moments_stay_float32_under_bf16_arithmetic():
    """A rate of 1e-6 moves a weight of 0.3 by less than bf16 can tell apart: it must add up."""
    lr = 1e-6
    cfg = config(optim={"dtype": "bfloat16", "lr": lr}, rollout={"dtype": "bfloat16"})
    trainer = make(cfg, policy=tiny_transformer())
    before = weights(trainer)
    for _ in range(3):
        trainer.step(trainer.problems())
    assert trainer.dtype == torch.bfloat16
    assert all(p.dtype == torch.float32 for p in trainer.policy.parameters())
    moments = [state["exp_avg_sq"] for state in trainer.optimizer.adam.state.values()]
    assert moments and all(moment.dtype == torch.float32 for moment in moments)
    name = "model.layers.0.mlp.up_proj.weight"
    moved = (weights(trainer)[name] - before[name]).abs()
    assert 0.5 * lr < moved.max() < 4 * lr and (moved > 0).float().mean() > 0.9


def test_recomputing_changes_no_update():
    found = []
    for recompute in (False, True):
        trainer = make(config(optim={"recompute": recompute}))
        assert trainer.policy.recompute == recompute
        trainer.step(trainer.problems())
        found.append(weights(trainer))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert TOKENIZER.pad_id == 1
