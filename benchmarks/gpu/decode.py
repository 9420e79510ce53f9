"""How fast completions are written: against the memory's speed, `transformers`, and loop by loop.

Writing a token reads all weights once for all rows, and every row's keys and values. What that
takes at the memory's full speed is the roofline; the share of it that is reached counts the whole
call, prompts, drawing and records included.

All rows write the same number of tokens; prompts have 160, eight rows share one.
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


def random_decoder(bench: Bench, shape: Shape, new: int) -> Transformer:
    sections = {"model": {"device": bench.device.type}, "rollout": {"max_new_tokens": new}}
    cfg = RunConfig.model_validate(sections | {"task": {"template": "r1"}})
    return bench.policy(cfg, shape)


class Ours:
    """The native engine, writing `new` tokens in each of `rows` rows."""

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
        flat = [one for group in groups for one in group]
        assert sum(len(one.tokens) for one in flat) == self.rows * (new or self.new)
        return flat

    @property
    def loop(self) -> Loop:
        """That runs, where the engine may choose."""
        if self.engine.compiled:
            return "compiled"
        return "graphs" if self.engine.uses_graphs else "torch"

    def bytes_read(self, shape: Shape) -> float:
        """In one call, at every token but the first, which the prompts' reading gives."""
        ticks = self.new - 1
        work = Generation(self.rows * ticks, PROMPT + (ticks + 1) / 2, ticks, 0)
        width = self.engine.dtype.itemsize / 2  # the plan counts numbers of two bytes
        return width * (work.weight_bytes(shape) + work.cache_bytes(shape))


def take_turns(bench: Bench, sides: dict[str, Callable], rounds: int) -> dict[str, list[float]]:
    """Seconds of each side in every round but the first, the order alternating."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(1 + rounds):
        for name in sorted(sides, reverse=bool(turn % 2)):
            took, _ = bench.timed(lambda name=name, turn=turn: sides[name](turn))
            if turn:
                seconds[name].append(took)
    return seconds


def ratios(seconds: dict[str, list[float]], slow: str, fast: str) -> dict[str, float]:
    return spread([a / b for a, b in zip(seconds[slow], seconds[fast], strict=True)])


# -- against the memory's speed ------------------------------------------------------------------


def decode(bench: Bench) -> tuple[dict, list[Check]]:
    new, cases = bench.pick(512, 256, 5), []
    sizes = bench.pick((64, 128, 256), (64, 256), (8,))
    for name in SHAPES:
        shape = bench.shape(name)

        def one(rows: int, shape: Shape = shape) -> dict:
            return roofline(bench, shape, bench.prompts(rows // GROUP, shape), new)

        cases += [bench.attempt(f"{name}, {rows} rows", lambda r=rows: one(r)) for rows in sizes]
    name, card = bench.card
    numbers = {"cases": cases, "new_tokens": new, "prompt_tokens": PROMPT, "card_row": name}
    numbers["copy_bytes_per_second"] = bench.copy_bandwidth
    least = extreme(min, cases, "share_of_data_sheet" if card else "share_of_copy")
    against = "data sheet" if card else "copy bandwidth"
    return numbers, [Check(f"of the bandwidth roofline ({against})", 0.4, 0.6, True, least)]


def roofline(bench: Bench, shape: Shape, prompts: list[Prompt], new: int) -> dict:
    ours = Ours(random_decoder(bench, shape, new), prompts, new)
    seconds = take_turns(bench, {"ours": ours.generate}, bench.pick(5, 2, 1))["ours"]
    took, read = statistics.median(seconds), ours.bytes_read(shape)
    _, card = bench.card
    found = {
        "tokens_per_second": ours.rows * new / took,
        "tokens_per_second_spread": spread([ours.rows * new / each for each in seconds]),
        # All that is not one token after the other: the prompts, and what a call costs.
        "first_token_s": bench.timed(lambda: ours.generate(0, 1))[0],
        "ms_per_token_of_all_rows": 1000 * took / new,
        "gigabytes_read": read / 1e9,
        "share_of_copy": read / bench.copy_bandwidth / took,
        "loop": ours.loop,
        "dtype": str(ours.engine.dtype),
    }
    return found | ({"share_of_data_sheet": read / (card.bandwidth * 1e9) / took} if card else {})


# -- against transformers ------------------------------------------------------------------------


class Theirs:
    """`generate` of transformers with the same weights, all rows one batch."""

    CACHES = ("dynamic", "static")  # static: it compiles its forward pass on a GPU

    def __init__(self, policy: Transformer, dtype: torch.dtype):
        from transformers import AutoConfig, AutoModelForCausalLM
        from transformers.utils import logging

        logging.set_verbosity_error()
        told = policy.config.to_hf()
        config = AutoConfig.for_model(told.pop("model_type"), **told)
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
        ours, theirs = policy(tokens_BT), self.model(tokens_BT).logits
        gap = float((ours - theirs).abs().max() / ours.std())
        assert gap < 1e-3, f"not the same model: logits differ by {gap} of their deviation"

    @torch.no_grad()
    def generate(self, prompts: list[Prompt], seed: int, new: int) -> torch.Tensor:
        torch.manual_seed(seed)
        rows = [prompt.tokens for prompt in prompts for _ in range(GROUP)]
        ids = torch.tensor(rows, device=self.model.device)
        # No stop token, so that every row writes all of its tokens.
        drawing = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
        found = self.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            **drawing,
            max_new_tokens=new,
            eos_token_id=None,
            pad_token_id=0,
            cache_implementation=None if self.cache == "dynamic" else self.cache,
        )
        assert found.shape == (ids.shape[0], ids.shape[1] + new), found.shape
        return found

    def choose_cache(self, bench: Bench, prompts: list[Prompt], new: int) -> dict:
        """Keep the faster cache; seconds of a second call with each, or why there are none."""
        seen: dict[str, float | str] = {}
        for cache in self.CACHES:
            self.cache = cache
            try:
                self.generate(prompts, 0, new)  # compiles
                seen[cache], _ = bench.timed(lambda: self.generate(prompts, 1, new))
            except Exception as error:  # theirs to fail: the other cache is then their best
                seen[cache] = f"{type(error).__name__}: {error}".splitlines()[0]
        timed = {cache: took for cache, took in seen.items() if isinstance(took, float)}
        if not timed:
            raise RuntimeError(f"no configuration of transformers ran: {seen}")
        self.cache = min(timed, key=timed.__getitem__)
        return seen


def transformers(bench: Bench) -> tuple[dict, list[Check]]:
    new, cases = bench.pick(192, 128, 5), []
    for name in SHAPES[bench.pick(0, 1, 0) :]:
        shape = bench.shape(name)
        for rows in bench.pick((64, 256), (64,), (8,)):
            prompts = bench.prompts(rows // GROUP, shape)
            case = f"{name}, {rows} rows"
            cases.append(bench.attempt(case, lambda s=shape, p=prompts: beside(bench, s, p, new)))
            torch.compiler.reset()
    numbers = {"cases": cases, "new_tokens": new, "prompt_tokens": PROMPT}
    least = extreme(min, cases, "ratio")
    return numbers, [Check("times transformers.generate", 4.0, 8.0, True, least)]


def beside(bench: Bench, shape: Shape, prompts: list[Prompt], new: int) -> dict:
    """Both sides in turns, the ratio within a round."""
    policy = random_decoder(bench, shape, new)
    ours = Ours(policy, prompts, new)
    theirs = Theirs(policy, ours.engine.dtype)
    del policy
    seen = theirs.choose_cache(bench, prompts, new)
    sides = {
        "ours": ours.generate,
        "transformers": lambda seed: theirs.generate(prompts, seed, new),
    }
    seconds = take_turns(bench, sides, bench.pick(3, 2, 1))
    ratio = ratios(seconds, "transformers", "ours")
    tokens = ours.rows * new
    return {
        "ratio": ratio["median"],
        "ratio_spread": ratio,
        "loop": ours.loop,
        "transformers_configuration": f"sdpa, {theirs.cache} cache, {ours.engine.dtype}",
        "pre_run_seconds": seen,
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
            lambda d=dtype: by_loop(bench, shape, prompts, new, d),
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


def by_loop(bench: Bench, shape: Shape, prompts: list[Prompt], new: int, dtype: str) -> dict:
    policy = random_decoder(bench, shape, new)
    engines, refused = {}, {}
    for loop in get_args(Loop):
        if loop == "auto":
            continue
        try:
            engines[loop] = Ours(policy, prompts, new, loop, dtype)
        except ConfigError as reason:  # not for this device
            refused[loop] = str(reason)
    sides = {loop: ours.generate for loop, ours in engines.items()}
    seconds = take_turns(bench, sides, bench.pick(3, 2, 1))
    written = {loop: [one.tokens for one in ours.generate(7)] for loop, ours in engines.items()}
    others = [loop for loop in engines if loop != "torch"]
    equal = {loop: equal_share(written[loop], written["torch"]) for loop in others}
    return {
        "seconds": {loop: spread(times) for loop, times in seconds.items()},
        "times_the_torch_loop": {loop: ratios(seconds, "torch", loop)["median"] for loop in others},
        "equal_tokens": equal,
        "least_equal": min(equal.values(), default=None),
        "refused": refused,
    }


def equal_share(first: list[tuple[int, ...]], second: list[tuple[int, ...]]) -> float:
    """Of all tokens. Where a draw at an edge has fallen otherwise, the rest of its row differs."""
    pairs = [pair for rows in zip(first, second, strict=True) for pair in zip(*rows, strict=True)]
    return sum(a == b for a, b in pairs) / len(pairs)
