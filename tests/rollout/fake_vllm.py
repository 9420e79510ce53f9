"""A stand-in for the module `vllm` that runs on a CPU and fails where the real one would go wrong.

The real one mostly fails in silence: it writes garbage with weights that were dropped, goes on with
cached prefixes of the old policy, or runs out of memory much later. Here each is an `OutOfOrder`.
"""

import os
from types import ModuleType, SimpleNamespace

import torch

from aha.model.weights import load_model
from aha.rollout.engine import draw, uniforms

WEIGHTS, CACHE = "weights", "kv_cache"


class OutOfOrder(AssertionError):
    """A call at a time when vLLM cannot take it."""


class SamplingParams(SimpleNamespace):
    def __init__(self, **given):
        shaped = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "n": 1, "logprobs": 0}
        assert all(given[key] == value for key, value in shaped.items()), given
        assert given["ignore_eos"] and not given["detokenize"] and given["stop_token_ids"]
        super().__init__(**given)


class Model:
    """What `apply_model` hands out: parameters of one's own, filled by name."""

    def __init__(self, policy):
        self.policy = policy

    def named_parameters(self):
        return self.policy.named_parameters()

    @torch.no_grad()
    def load_weights(self, pairs) -> set[str]:
        own, filled = dict(self.policy.named_parameters()), set()
        for name, tensor in pairs:
            own[name].copy_(tensor)  # a name that is not known is a KeyError, as in vLLM
            filled.add(name)
        return filled


class LLM:
    def __init__(self, model: str, **given):
        assert os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0", "weights cannot be handed over"
        assert given["enable_sleep_mode"] and given["skip_tokenizer_init"]
        assert given["generation_config"] == "vllm" and 0 < given["gpu_memory_utilization"] < 1
        self.given, self.policy = given, load_model(model).policy
        self.awake = {WEIGHTS, CACHE}
        self.garbage: set[str] = set()  # weights that sleep has dropped
        self.old_prefixes = False
        self.tape: list[str] = []

    def sleep(self, level: int = 1) -> None:
        self.tape.append(f"sleep {level}")
        if not self.awake:
            raise OutOfOrder("asleep already")
        self.awake = set()
        if level == 2:
            self.garbage = {name for name, _ in self.policy.named_parameters()}

    def wake_up(self, tags: list[str] | None = None) -> None:
        wanted = set(tags or (WEIGHTS, CACHE))
        self.tape.append(f"wake {' '.join(sorted(wanted))}")
        if wanted & self.awake:
            raise OutOfOrder(
                f"{wanted & self.awake} awake already: its memory would be taken twice"
            )
        self.awake |= wanted

    def apply_model(self, function) -> list:
        self.tape.append("push")
        if WEIGHTS not in self.awake:
            raise OutOfOrder("weights pushed into memory that sleeps")
        if CACHE in self.awake:
            raise OutOfOrder("weights pushed beside a cache that is awake: no room for both")
        self.old_prefixes = True
        model = Model(self.policy)
        load = model.load_weights

        def count(pairs) -> set[str]:
            filled = load(pairs)
            self.garbage -= filled
            return filled

        model.load_weights = count
        return [function(model)]

    def reset_prefix_cache(self) -> bool:
        self.tape.append("reset")
        self.old_prefixes = False
        return True

    def generate(self, prompts, sampling_params, use_tqdm: bool) -> list:
        self.tape.append("generate")
        if self.awake != {WEIGHTS, CACHE}:
            raise OutOfOrder(f"generating with {sorted(self.awake)} awake alone")
        if self.old_prefixes:
            raise OutOfOrder("generating with the prefixes of the weights before")
        if self.garbage:
            raise OutOfOrder(f"generating with {len(self.garbage)} weights that sleep has dropped")
        assert len(prompts) <= 10_000 and not use_tqdm
        pairs = zip(prompts, sampling_params, strict=True)
        return [self.write(prompt["prompt_token_ids"], params) for prompt, params in pairs]

    @torch.no_grad()
    def write(self, prompt: list[int], params) -> SimpleNamespace:
        """One completion, as vLLM tells it: the stop token is among the tokens."""
        assert len(prompt) + params.max_tokens <= self.given["max_model_len"]
        tokens, logprobs, ended = [], [], False
        noise = torch.from_numpy(uniforms(params.seed, params.max_tokens))
        while not ended and len(tokens) < params.max_tokens:
            logits_BV = self.policy(torch.tensor([prompt + tokens]))[:, -1]
            at = noise[len(tokens)].view(1, 1)
            token, logprob, _ = draw(logits_BV, at, params.temperature)
            if self.given["logprobs_mode"] == "raw_logprobs":
                logprob = torch.log_softmax(logits_BV, -1)[0, token]
            tokens.append(int(token))
            logprobs.append({int(token): SimpleNamespace(logprob=float(logprob))})
            ended = tokens[-1] in params.stop_token_ids
        reason = "stop" if ended else "length"
        one = SimpleNamespace(token_ids=tokens, logprobs=logprobs, finish_reason=reason)
        return SimpleNamespace(outputs=[one])


def module() -> ModuleType:
    made = ModuleType("vllm")
    made.LLM, made.SamplingParams, made.__version__ = LLM, SamplingParams, "0.32.0"
    return made
