"""vLLM's engine against a stand-in: the order of the calls, each fault in it planted once, and the
records that come out. The real vLLM was not at hand: it needs a GPU."""

import sys

import pytest
import torch

from aha.algo.recipe import load_recipe
from aha.core.config import RolloutSection
from aha.core.errors import AhaError, ConfigError, MissingExtra, ModelError
from aha.model.lora import add_lora, merged_weights
from aha.rollout.engine import Sampling
from aha.rollout.native import NativeEngine
from aha.rollout.thinking_budget import ThinkingBudget
from aha.rollout.vllm import VllmEngine

from ..tiny import TOKENIZER, some_prompts, tiny_folder, tiny_transformer
from . import fake_vllm
from .fake_vllm import OutOfOrder

ROLLOUT = RolloutSection(engine="vllm", max_new_tokens=20)
SAMPLING = Sampling(20, 3, 0.7, seed=5)
STEP = ["push", "reset", "wake kv_cache", "generate", "sleep 1"]


@pytest.fixture(autouse=True)
def vllm(monkeypatch):
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    monkeypatch.setitem(sys.modules, "vllm", fake_vllm.module())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def policy():
    return tiny_transformer()


@pytest.fixture
def engine(policy, folder) -> VllmEngine:
    return VllmEngine(policy, TOKENIZER, folder, ROLLOUT)


@torch.no_grad()
def move(policy) -> None:
    """Weights that no engine may mistake for those before."""
    generator = torch.Generator().manual_seed(3)
    for parameter in policy.parameters():
        parameter += 0.3 * torch.randn(parameter.shape, generator=generator)


# -- the order ------------------------------------------------------------------------------


def test_the_tape_of_a_start_two_rollouts_and_a_new_version(engine, policy):
    prompts = some_prompts(2)
    engine.generate(prompts, SAMPLING)
    again = ["wake weights", *STEP[2:]]
    assert engine.llm.tape == ["sleep 1", "wake weights", *STEP]
    engine.generate(prompts, SAMPLING)  # an evaluation: the same version, nothing is pushed
    assert engine.llm.tape[-4:] == again
    engine.load(policy, 1)
    engine.generate(prompts, SAMPLING)
    assert engine.llm.tape[-6:] == ["wake weights", *STEP]
    assert not engine.llm.awake, "it keeps memory that training needs"


class Between:
    """Stands between the engine and the fake: the engine's calls arrive as `fault` changes them."""

    def __init__(self, llm, fault):
        self.llm, self.fault = llm, fault

    def __getattr__(self, name):
        def call(*args, **kwargs):
            return self.fault(getattr(self.llm, name), name, args, kwargs)

        return call


def drops(dropped: str, tags: list[str] | None = None, answer=None):
    def fault(call, name, args, kwargs):
        if name == dropped and kwargs.get("tags") == tags:
            return answer
        return call(*args, **kwargs)

    return fault


def wakes_all_at_once(call, name, args, kwargs):
    if name != "wake_up":
        return call(*args, **kwargs)
    return call() if kwargs["tags"] == ["weights"] else None


def sleeps_too_deep(call, name, args, kwargs):
    return call(level=2) if name == "sleep" else call(*args, **kwargs)


def resets_before_the_push(call, name, args, kwargs):
    if name == "apply_model":
        call.__self__.reset_prefix_cache()
    return None if name == "reset_prefix_cache" else call(*args, **kwargs)


FAULTS = {
    "pushes while asleep": (drops("wake_up", ["weights"]), "pushed into memory that sleeps"),
    "pushes beside the cache": (wakes_all_at_once, "beside a cache that is awake"),
    "keeps the prefixes": (drops("reset_prefix_cache"), "prefixes of the weights before"),
    "resets too early": (resets_before_the_push, "prefixes of the weights before"),
    "generates while asleep": (drops("wake_up", ["kv_cache"]), "awake alone"),
    "never sleeps": (drops("sleep"), "awake already"),
    "sleeps too deep": (sleeps_too_deep, "that sleep has dropped"),
    "says a new version and keeps the old": (
        drops("apply_model", answer=[[]]),
        "apart at version 1",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_wrong_order_is_caught(engine, policy, name):
    fault, words = FAULTS[name]
    prompts = some_prompts(2)
    engine.generate(prompts, SAMPLING)
    engine.llm = Between(engine.llm, fault)
    with pytest.raises((OutOfOrder, ConfigError), match=words):
        move(policy)
        engine.load(policy, 1)
        engine.generate(prompts, SAMPLING)
        engine.generate(prompts, SAMPLING)
    # Without the fault, the same calls pass.


def test_the_same_calls_without_a_fault_pass(engine, policy):
    prompts = some_prompts(2)
    engine.generate(prompts, SAMPLING)
    engine.llm = Between(engine.llm, lambda call, name, args, kwargs: call(*args, **kwargs))
    move(policy)
    engine.load(policy, 1)
    first, second = (engine.generate(prompts, SAMPLING) for _ in range(2))
    assert first == second and first[0][0].version == 1


def test_it_sleeps_even_when_generating_fails(engine):
    def fails(call, name, args, kwargs):
        if name == "generate":
            raise RuntimeError("out of blocks")
        return call(*args, **kwargs)

    llm, engine.llm = engine.llm, Between(engine.llm, fails)
    with pytest.raises(RuntimeError, match="out of blocks"):
        engine.generate(some_prompts(1), SAMPLING)
    assert not llm.awake


def test_a_weight_that_is_not_pushed_is_missed(engine, policy):
    kept = dict(list(policy.weights().items())[:-1])
    policy.weights = lambda: kept
    with pytest.raises(ModelError, match="1 weights that ours lacks, such as model.norm.weight"):
        engine.load(policy, 1)


# -- what comes out -------------------------------------------------------------------------


def test_completions_are_those_of_our_own_engine(engine, policy):
    """The fake draws with our random streams, so that every token can be held to ours."""
    prompts = some_prompts(6)
    native = NativeEngine(policy, TOKENIZER, "float32", loop="torch")
    for sampling in (SAMPLING, Sampling(20, 1, 0.0), Sampling(20, 2, 1.0, seed=9)):
        found, wanted = (one.generate(prompts, sampling) for one in (engine, native))
        ends = set()
        for ours, theirs in zip(sum(found, []), sum(wanted, []), strict=True):
            assert (ours.tokens, ours.finish, ours.text) == (
                theirs.tokens,
                theirs.finish,
                theirs.text,
            )
            assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-4)
            assert ours.entropies == () and ours.prompt == theirs.prompt
            ends.add(ours.finish)
    assert engine.generate([], SAMPLING) == []


def test_vllm_gets_what_the_recipe_says(policy, folder, monkeypatch):
    monkeypatch.setattr("aha.machine.device.has_native_bf16", lambda: True)
    rollout = RolloutSection(engine="vllm", max_new_tokens=20, memory_share=0.3, max_rows=7)
    given = VllmEngine(policy, TOKENIZER, folder, rollout).llm.given
    assert (given["gpu_memory_utilization"], given["max_num_seqs"]) == (0.3, 7)
    assert (given["dtype"], given["logprobs_mode"]) == ("bfloat16", "processed_logprobs")
    assert given["max_model_len"] == 160
    monkeypatch.setattr("aha.machine.device.has_native_bf16", lambda: False)
    old = VllmEngine(policy, TOKENIZER, folder, rollout).llm.given
    assert old["dtype"] == "float32"  # bf16 vLLM would refuse


def test_an_adapter_is_pushed_inside_the_weights(folder):
    policy = tiny_transformer()
    add_lora(policy, 4, 8.0, seed=1)
    generator = torch.Generator().manual_seed(0)
    for layer in policy.model.layers:
        for part in layer.lora.B.values():
            torch.nn.init.normal_(part, std=0.3, generator=generator)
    engine = VllmEngine(policy, TOKENIZER, folder, ROLLOUT)
    prompts = some_prompts(2)
    native = NativeEngine(policy, TOKENIZER, "float32", loop="torch")
    found, wanted = (one.generate(prompts, SAMPLING) for one in (engine, native))
    assert [[c.tokens for c in g] for g in found] == [[c.tokens for c in g] for g in wanted]
    pushed, base = dict(merged_weights(policy)), policy.weights()
    moved = {name for name in base if not torch.equal(base[name], pushed[name])}
    assert moved == {name for name in base if "_proj.weight" in name}


# -- the check of a version, and what is refused ---------------------------------------------


def test_log_probs_of_another_temperature_are_refused(engine):
    engine.llm.given["logprobs_mode"] = "raw_logprobs"
    with pytest.raises(ConfigError, match="nats a token apart.*wanted at most 0.1.*native"):
        engine.generate(some_prompts(4), SAMPLING)


def test_every_version_is_checked_once(engine, policy):
    looks = []
    check = engine.check_version
    engine.check_version = lambda *given: (looks.append(engine.version), check(*given))
    for version in (0, 1, 2):
        engine.load(policy, version)
        for _ in range(2):
            engine.generate(some_prompts(1), SAMPLING)
    assert looks == [0, 1, 2]


def test_an_end_that_is_no_end_is_refused(engine):
    def aborts(call, name, args, kwargs):
        found = call(*args, **kwargs)
        if name == "generate":
            found[0].outputs[0].finish_reason = "abort"
        return found

    engine.llm = Between(engine.llm, aborts)
    with pytest.raises(ConfigError, match="'abort'.*'stop' at a stop token"):
        engine.generate(some_prompts(1), SAMPLING)


def test_without_vllm_the_line_that_installs_it_is_told(policy, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(MissingExtra, match=r"pip install 'aha\[vllm\]'"):
        VllmEngine(policy, TOKENIZER, folder, ROLLOUT)


def test_a_folder_with_an_adapter_alone_is_refused(policy, tmp_path):
    with pytest.raises(ModelError, match="adapter.*aha export"):
        VllmEngine(policy, TOKENIZER, tmp_path, ROLLOUT)


def test_its_tokens_are_corrected_unless_a_ratio_does_it():
    on = {"rollout.engine": "vllm"}
    assert load_recipe(None, on).algo.correction == "token_tis"
    assert load_recipe(None, on | {"algo.correction": "icepop"}).algo.correction == "icepop"
    assert load_recipe(None, on | {"algo.loss": "ppo_clip"}).algo.correction == "none"
    assert load_recipe(None).algo.correction == "none"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        # What was typed stays where another way out is left.
        ({"rollout.engine": "vllm", "algo.correction": "none"}, "fix: --algo.loss ppo_clip"),
        ({"rollout.engine": "vllm", "rollout.loop": "torch"}, "rollout.loop 'torch'"),
        ({"rollout.memory_share": 0.5}, "--rollout.engine vllm"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, words):
    with pytest.raises(AhaError, match=words):
        load_recipe(None, changes)


def test_a_thinking_budget_is_refused_by_name(engine):
    with pytest.raises(ConfigError, match="thinking budget with rollout.engine 'vllm'"):
        engine.generate(some_prompts(1), Sampling(60, budget=ThinkingBudget(4)))
