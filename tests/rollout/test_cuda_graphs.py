"""Ticks: one token for every row without a word to the host, so that a GPU may replay them.

The promises of what they write are held in test_native.py, along with the other loops.
"""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from aha.model.lora import add_lora
from aha.model.transformer import Transformer
from aha.rollout.cuda_graphs import NUM_WIDTHS, STEPS_PER_SYNC, DecodeSteps
from aha.rollout.engine import Sampling
from aha.rollout.native import NativeEngine
from aha.rollout.slots import Slots
from aha.rollout.thinking_budget import ThinkingBudget

from ..tiny import TOKENIZER, some_prompts, tiny_config, tiny_transformer

BUDGET = ThinkingBudget(max_tokens=6, min_tokens=4, waits=2)
SAMPLING = Sampling(max_new_tokens=40, group_size=4, seed=11)
# Operations whose result or shape the host must know before it can go on.
WAITS = {
    *("_local_scalar_dense", "nonzero", "masked_select", "unique", "_unique2", "equal"),
    *("is_nonzero", "item", "repeat_interleave", "bincount", "isin", "_assert_async"),
}


def begun(size: int = 12, **sampling) -> tuple[NativeEngine, Slots]:
    """An engine in the middle of a rollout: three groups have drawn their first token, and there is
    room for as many again."""
    engine = NativeEngine(tiny_transformer(std=0.25), TOKENIZER, "float32", loop="graphs")
    settings = Sampling(**({"max_new_tokens": 40, "group_size": 4, "seed": 11} | sampling))
    groups = engine.make_groups(some_prompts(3), settings)
    cache, tables = engine.new_cache(2 * size), engine.tables_of(settings)
    slots = Slots(cache, 2 * size, 30, settings, engine.stop, tables)
    slots.append(0, engine.start(slots, groups))
    slots.cache.reserve(64)
    return engine, slots


class Listen(TorchDispatchMode):
    """Writes down every operation, and refuses to bring a number to the host."""

    def __init__(self):
        super().__init__()
        self.heard: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        self.heard.append(name)
        assert name not in WAITS, f"{name} waits for the device"
        # An index of bools has a result whose size only its content tells.
        indices = args[1] if name in ("index", "index_put", "index_put_") else []
        assert all(i is None or i.dtype == torch.long for i in indices), f"{name} by a mask"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("budget", [None, BUDGET])
@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_a_tick_asks_the_host_for_nothing(temperature, budget):
    engine, slots = begun(temperature=temperature, budget=budget)
    with Listen() as listener:
        engine.step(slots, 16)
    assert {"embedding", "scatter_", "_log_softmax"} <= {*listener.heard}


class Devices(TorchDispatchMode):
    """Refuses an operation that reads or makes a tensor of the host's memory."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        tensors = [x for x in (*args, made) if isinstance(x, torch.Tensor)]
        name = func.overloadpacket.__name__
        assert all(x.device.type == "meta" for x in tensors), f"{name} on the host"
        return made


@pytest.mark.parametrize("rank, vocab_size, budget", [(0, 5_000, None), (4, 112, BUDGET)])
def test_a_tick_touches_no_memory_of_the_host(rank, vocab_size, budget):
    """The meta device stands for a GPU: its tensors are elsewhere, too. With a vocabulary that is
    searched in two steps, and with adapters."""
    with torch.device("meta"):
        policy = Transformer(tiny_config(vocab_size=vocab_size))
    if rank:
        add_lora(policy, rank, 8.0, 0)
    engine = NativeEngine(policy, TOKENIZER, "float32", loop="graphs")
    settings = Sampling(max_new_tokens=40, group_size=4, budget=budget)
    cache, tables = engine.new_cache(24), engine.tables_of(settings)
    slots = Slots(cache, 24, 30, settings, engine.stop, tables)
    slots.cache.reserve(64)
    with Devices():
        engine.step(slots, 16)
    assert slots.tokens.device.type == "meta"


def test_the_listener_hears_a_wait():
    with pytest.raises(AssertionError, match="waits"), Listen():
        bool(torch.ones(1) > 0)
    with pytest.raises(AssertionError, match="mask"), Listen():
        torch.ones(2)[torch.tensor([True, False])]


def state_of(slots: Slots) -> list[torch.Tensor]:
    kept = (slots.alive, slots.used, slots.last, slots.tokens, slots.logprobs, slots.entropies)
    return [*kept, slots.cache.lengths, *slots.cache.keys, *slots.cache.values]


def test_what_a_tick_leaves_is_where_it_was():
    """A graph reads and writes the addresses that it was recorded with."""
    engine, slots = begun()
    places = [tensor.data_ptr() for tensor in state_of(slots)]
    before = [tensor.clone() for tensor in state_of(slots)]
    engine.step(slots, 16)
    assert [tensor.data_ptr() for tensor in state_of(slots)] == places
    assert sum(not torch.equal(a, b) for a, b in zip(before, state_of(slots), strict=True)) > 6


def test_rows_that_do_not_exist_stay_dead():
    """Computed along, at position 0, and recorded nowhere."""
    engine, slots = begun()
    for _ in range(20):
        engine.step(slots, 24)
    assert not slots.alive[12:].any() and not slots.used[12:].any()
    assert not slots.tokens[12:].any() and not slots.cache.lengths[12:].any()
    assert slots.used[:12].float().mean() > 2


def test_a_row_that_has_ended_keeps_its_record():
    engine, slots = begun()
    while slots.alive[:12].all():
        engine.step(slots, 12)
    ended = (~slots.alive[:12]).nonzero().flatten()
    tokens, used = slots.tokens[ended].clone(), slots.used[ended].clone()
    for _ in range(30):
        engine.step(slots, 12)
    assert torch.equal(slots.tokens[ended], tokens) and torch.equal(slots.used[ended], used)
    assert not slots.cache.lengths[ended].any()


@pytest.mark.parametrize("rows, width", [(1, 4), (4, 4), (5, 8), (29, 30), (30, 30)])
def test_rows_are_rounded_up_to_an_eighth_of_the_table(rows, width):
    _, slots = begun(15)
    slots.rows = slots.rows[:1] * rows
    assert slots.size == 30 and -(-30 // NUM_WIDTHS) == 4
    assert DecodeSteps(slots, lambda unused: None).width() == width


def test_the_host_looks_once_in_so_many_ticks(monkeypatch):
    looks = []
    plain = Slots.sync
    monkeypatch.setattr(Slots, "sync", lambda slots: (looks.append(1), plain(slots)))
    counts = {}
    for loop in ("torch", "graphs"):
        engine = NativeEngine(tiny_transformer(std=0.25), TOKENIZER, "float32", loop=loop)
        looks.clear()
        engine.generate(some_prompts(6), SAMPLING)
        counts[loop] = len(looks)
    # The first token comes with the prompt.
    assert counts == {"torch": 40, "graphs": 1 + -(-39 // STEPS_PER_SYNC)}


@pytest.mark.gpu
def test_graphs_write_what_the_loop_without_them_writes():
    policy, prompts = tiny_transformer(std=0.25).cuda(), some_prompts(20)
    found = [
        NativeEngine(policy, TOKENIZER, "float32", 24, loop).generate(prompts, SAMPLING)
        for loop in ("torch", "graphs")
    ]
    for plain, graph in zip(*(sum(groups, []) for groups in found), strict=True):
        assert plain.tokens == graph.tokens
        torch.testing.assert_close(
            torch.tensor(plain.logprobs), torch.tensor(graph.logprobs), rtol=1e-4, atol=1e-4
        )
