"""Speed of generation: against the memory's bandwidth, against `transformers`, and loop by loop.

A decode step reads all weights once for all rows, and every row's keys and values. The time of
these reads at the memory's full bandwidth is the roofline; the share of it that is reached counts
the whole call, with prompts, drawing and records.

All rows generate the same number of tokens; prompts have 160, eight rows share one.
"""

import statistics
from collections.abc import Callable
from typing import get_args

import torch

from aha.core.config import RunConfig
from aha.core.errors import ConfigError
from aha.core.records import Completion, Prompt
from aha.model.transformer import Transformer
from aha.plan.shapes import Shape
from aha.plan.speed import Generation
from aha.rollout.engine import Sampling
from aha.rollout.native import NativeEngine
from aha.rollout.slot_engine import Loop

from .._common import spread
from .bench import PROMPT, Bench, Endless, extreme
from .rows import Check

SHAPES = ("Qwen2.5-0.5B", "Qwen2.5-1.5B")
GROUP = 8


def random_transformer(bench: Bench, shape: Shape, new: int) -> Transformer:
    sections = {"model": {"device": bench.device.type}, "rollout": {"max_new_tokens": new}}
    cfg = RunConfig.model_validate(sections | {"task": {"template": "r1"}})
    return bench.policy(cfg, shape)


class NativeSide:
    """The native engine, generating `new` tokens in each of `rows` rows."""

    def __init__(
        self,
        policy: Transformer,
        prompts: list[Prompt],
        new: int,
        loop: Loop = "auto",
        dtype: str = "auto",
    ):
        self.prompts, self.new = prompts, new
        self.rows = len(prompts) * GROUP
        tokenizer = Endless(policy.config.vocab_size)
        self.engine = NativeEngine(policy, tokenizer, dtype, self.rows, loop)

    def generate(self, seed: int, new: int | None = None) -> list[Completion]:
        sampling = Sampling(new or self.new, GROUP, 1.0, seed)
        groups = self.engine.generate(self.prompts, sampling)
        flat = [completion for group in groups for completion in group]
        assert sum(len(completion.tokens) for completion in flat) == self.rows * (new or self.new)
        return flat

    @property
    def loop(self) -> Loop:
        """The loop that runs, where the engine may choose."""
        if self.engine.compiled:
            return "compiled"
        return "graphs" if self.engine.uses_graphs else "torch"

    def bytes_read(self, shape: Shape) -> float:
        """In one call, at every token but the first, whose logits come from reading the prompts."""
        steps = self.new - 1
        work = Generation(self.rows * steps, PROMPT + (steps + 1) / 2, steps, 0)
        width = self.engine.dtype.itemsize / 2  # the plan counts numbers of two bytes
        return width * (work.weight_bytes(shape) + work.cache_bytes(shape))


def take_turns(bench: Bench, sides: dict[str, Callable], rounds: int) -> dict[str, list[float]]:
    """Seconds of each side in every round but the first, the order alternating."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(1 + rounds):
        for name in sorted(sides, reverse=bool(turn % 2)):
            elapsed, _ = bench.timed(lambda name=name, turn=turn: sides[name](turn))
            if turn:
                seconds[name].append(elapsed)
    return seconds


def ratios(seconds: dict[str, list[float]], slow: str, fast: str) -> dict[str, float]:
    return spread([a / b for a, b in zip(seconds[slow], seconds[fast], strict=True)])


# -- against the memory's speed ------------------------------------------------------------------


def decode(bench: Bench) -> tuple[dict, list[Check]]:
    new, cases = bench.pick(512, 256, 5), []
    sizes = bench.pick((64, 128, 256), (64, 256), (8,))
    for name in SHAPES:
        shape = bench.shape(name)

        def case(rows: int, shape: Shape = shape) -> dict:
            return roofline(bench, shape, bench.prompts(rows // GROUP, shape), new)

        cases += [bench.attempt(f"{name}, {rows} rows", lambda r=rows: case(r)) for rows in sizes]
    name, card = bench.card
    numbers = {"cases": cases, "new_tokens": new, "prompt_tokens": PROMPT, "card_row": name}
    numbers["copy_bytes_per_second"] = bench.copy_bandwidth
    least = extreme(min, cases, "share_of_data_sheet" if card else "share_of_copy")
    against = "data sheet" if card else "copy bandwidth"
    return numbers, [Check(f"of the bandwidth roofline ({against})", 0.4, 0.6, True, least)]


def roofline(bench: Bench, shape: Shape, prompts: list[Prompt], new: int) -> dict:
    native = NativeSide(random_transformer(bench, shape, new), prompts, new)
    seconds = take_turns(bench, {"ours": native.generate}, bench.pick(5, 2, 1))["ours"]
    elapsed, read = statistics.median(seconds), native.bytes_read(shape)
    _, card = bench.card
    result = {
        "tokens_per_second": native.rows * new / elapsed,
        "tokens_per_second_spread": spread([native.rows * new / each for each in seconds]),
        # Everything but decode steps: the prompts, and the overhead of a call.
        "first_token_s": bench.timed(lambda: native.generate(0, 1))[0],
        "ms_per_token_of_all_rows": 1000 * elapsed / new,
        "gigabytes_read": read / 1e9,
        "share_of_copy": read / bench.copy_bandwidth / elapsed,
        "loop": native.loop,
        "dtype": str(native.engine.dtype),
    }
    return result | (
        {"share_of_data_sheet": read / (card.bandwidth * 1e9) / elapsed} if card else {}
    )


# -- against transformers ------------------------------------------------------------------------


class TransformersSide:
    """`generate` of transformers with the same weights, all rows one batch."""

    CACHES = ("dynamic", "static")  # static: it compiles its forward pass on a GPU

    def __init__(self, policy: Transformer, dtype: torch.dtype):
        from transformers import AutoConfig, AutoModelForCausalLM
        from transformers.utils import logging

        logging.set_verbosity_error()
        settings = policy.config.to_hf()
        config = AutoConfig.for_model(settings.pop("model_type"), **settings)
        with policy.device:  # also its buffers, which no state_dict holds
            self.model = AutoModelForCausalLM.from_config(
                config, dtype=torch.float32, attn_implementation="sdpa"
            ).eval()
        missing, odd = self.model.load_state_dict(policy.weights(), strict=False)
        assert not odd and set(missing) <= {"lm_head.weight"}, (missing, odd)
        self.check_same(policy)
        # Parameters alone: rotary frequencies in bf16 would be wrong after some hundred tokens.
        for parameter in self.model.parameters():
            parameter.data = parameter.data.to(dtype)
        self.cache = "dynamic"

    @torch.no_grad()
    def check_same(self, policy: Transformer) -> None:
        tokens_BT = torch.arange(1, 33, device=policy.device)[None]
        native, peer = policy(tokens_BT), self.model(tokens_BT).logits
        gap = float((native - peer).abs().max() / native.std())
        assert gap < 1e-3, f"not the same model: logits differ by {gap} of their deviation"

    @torch.no_grad()
    def generate(self, prompts: list[Prompt], seed: int, new: int) -> torch.Tensor:
        torch.manual_seed(seed)
        rows = [prompt.tokens for prompt in prompts for _ in range(GROUP)]
        ids = torch.tensor(rows, device=self.model.device)
        # No stop token, so that every row generates all of its tokens.
        drawing = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
        result = self.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            **drawing,
            max_new_tokens=new,
            eos_token_id=None,
            pad_token_id=0,
            cache_implementation=None if self.cache == "dynamic" else self.cache,
        )
        assert result.shape == (ids.shape[0], ids.shape[1] + new), result.shape
        return result

    def choose_cache(self, bench: Bench, prompts: list[Prompt], new: int) -> dict:
        """Keep the faster cache; seconds of a second call with each, or why there are none."""
        outcomes: dict[str, float | str] = {}
        for cache in self.CACHES:
            self.cache = cache
            try:
                self.generate(prompts, 0, new)  # compiles
                outcomes[cache], _ = bench.timed(lambda: self.generate(prompts, 1, new))
            except Exception as error:  # a failure of transformers: the other cache is its best
                outcomes[cache] = f"{type(error).__name__}: {error}".splitlines()[0]
        timed = {
            cache: elapsed for cache, elapsed in outcomes.items() if isinstance(elapsed, float)
        }
        if not timed:
            raise RuntimeError(f"no configuration of transformers ran: {outcomes}")
        self.cache = min(timed, key=timed.__getitem__)
        return outcomes


def transformers(bench: Bench) -> tuple[dict, list[Check]]:
    new, cases = bench.pick(192, 128, 5), []
    for name in SHAPES[bench.pick(0, 1, 0) :]:
        shape = bench.shape(name)
        for rows in bench.pick((64, 256), (64,), (8,)):
            prompts = bench.prompts(rows // GROUP, shape)
            case = f"{name}, {rows} rows"
            cases.append(
                bench.attempt(case, lambda s=shape, p=prompts: compare_with_peer(bench, s, p, new))
            )
            torch.compiler.reset()
    numbers = {"cases": cases, "new_tokens": new, "prompt_tokens": PROMPT}
    least = extreme(min, cases, "ratio")
    return numbers, [Check("times transformers.generate", 4.0, 8.0, True, least)]


def compare_with_peer(bench: Bench, shape: Shape, prompts: list[Prompt], new: int) -> dict:
    """Both sides in turns; the ratio is taken within a round."""
    policy = random_transformer(bench, shape, new)
    native = NativeSide(policy, prompts, new)
    peer = TransformersSide(policy, native.engine.dtype)
    del policy
    outcomes = peer.choose_cache(bench, prompts, new)
    sides = {
        "ours": native.generate,
        "transformers": lambda seed: peer.generate(prompts, seed, new),
    }
    seconds = take_turns(bench, sides, bench.pick(3, 2, 1))
    ratio = ratios(seconds, "transformers", "ours")
    tokens = native.rows * new
    return {
        "ratio": ratio["median"],
        "ratio_spread": ratio,
        "loop": native.loop,
        "transformers_configuration": f"sdpa, {peer.cache} cache, {native.engine.dtype}",
        "pre_run_seconds": outcomes,
        "tokens_per_second": {
            name: spread([tokens / each for each in times]) for name, times in seconds.items()
        },
    }


# -- loop by loop --------------------------------------------------------------------------------


def loops(bench: Bench) -> tuple[dict, list[Check]]:
    """Every loop that the engine has, against the plain one, in two types of arithmetic."""
    new, rows = bench.pick(256, 128, 5), bench.pick(64, 64, 8)
    shape = bench.shape(SHAPES[1])
    prompts = bench.prompts(rows // GROUP, shape)
    types = ("bfloat16", "float32")
    cases = [
        bench.attempt(
            f"{SHAPES[1]}, {rows} rows, {dtype}",
            lambda d=dtype: compare_loops(bench, shape, prompts, new, d),
        )
        for dtype in types
    ]
    speedups = cases[0].get("times_the_torch_loop", {})
    checks = [
        Check(f"loop {name} in bf16, times the torch loop", None, None, True, value)
        for name, value in speedups.items()
    ]
    equal = [case.get("least_equal") for case in cases if case["case"].endswith("float32")]
    checks.append(Check("float32 tokens as the torch loop writes them", None, None, True, equal[0]))
    return {"cases": cases, "new_tokens": new, "prompt_tokens": PROMPT}, checks


def compare_loops(bench: Bench, shape: Shape, prompts: list[Prompt], new: int, dtype: str) -> dict:
    policy = random_transformer(bench, shape, new)
    engines, unsupported = {}, {}
    for loop in get_args(Loop):
        if loop == "auto":
            continue
        try:
            engines[loop] = NativeSide(policy, prompts, new, loop, dtype)
        except ConfigError as reason:  # not for this device
            unsupported[loop] = str(reason)
    sides = {loop: native.generate for loop, native in engines.items()}
    seconds = take_turns(bench, sides, bench.pick(3, 2, 1))
    tokens_of = {
        loop: [completion.tokens for completion in native.generate(7)]
        for loop, native in engines.items()
    }
    others = [loop for loop in engines if loop != "torch"]
    equal = {loop: equal_share(tokens_of[loop], tokens_of["torch"]) for loop in others}
    return {
        "seconds": {loop: spread(times) for loop, times in seconds.items()},
        "times_the_torch_loop": {loop: ratios(seconds, "torch", loop)["median"] for loop in others},
        "equal_tokens": equal,
        "least_equal": min(equal.values(), default=None),
        "refused": unsupported,
    }


def equal_share(first: list[tuple[int, ...]], second: list[tuple[int, ...]]) -> float:
    """The share of all tokens that are equal. A rounding that changes one draw changes the rest of
    that row."""
    pairs = [pair for rows in zip(first, second, strict=True) for pair in zip(*rows, strict=True)]
    return sum(a == b for a, b in pairs) / len(pairs)
