"""Rollouts with long-tailed lengths: our native engine against `generate` of transformers.

Measured: wall seconds from prompts as token ids to the completions of all rows, same weights, same
prompts, temperature 1, no top-k. A token counts up to and including the stop token; what a side
computes for a row behind its stop token does not. Both sides take turns in one process, the order
alternating; the ratio is taken within a round. `generate` gets all rows as one batch and its
fastest configuration of float32 or bf16 with SDPA or eager attention (dynamic cache, which is
faster than the static one on a CPU), chosen for each batch size by a pre-run and named.

The weights are random, with a stop token of nearly constant probability, so that lengths are
geometric: mean 100, cut at 320. `--model` takes a trained model and its own lengths instead.
Length statistics of both sides are printed, and a row is marked when their means differ by more
than chance.

Not measured: loading, casting weights after an update, tokenising prompts. Our side also records
log-probs and decodes every completion to text; theirs returns ids alone.
"""

import argparse
import statistics
import tempfile
from itertools import islice
from pathlib import Path

import torch
from _common import (
    SHAPES,
    busy,
    file_row,
    head,
    need,
    probability_for,
    random_model,
    show,
    spread,
    timed,
    use_threads,
)

from aha.core.records import Prompt
from aha.model.weights import LoadedModel, load_model, save_model
from aha.rollout.engine import Sampling
from aha.rollout.native import NativeEngine
from aha.tasks.countdown import Countdown

NAME = "rollout_vs_transformers"
CONFIGURATIONS = [(d, a) for d in ("float32", "bfloat16") for a in ("sdpa", "eager")]


def read_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[64, 256, 512])
    parser.add_argument("--group-size", type=int, default=16, help="completions of each prompt")
    parser.add_argument("--max-new", type=int, default=320, help="tokens of a completion at most")
    parser.add_argument("--mean", type=float, default=100, help="mean length of random weights")
    parser.add_argument("--shape", choices=SHAPES, default="tiny", help="of random weights")
    parser.add_argument("--model", type=Path, help="a model folder in place of random weights")
    parser.add_argument("--dtype", default="auto", help="ours: auto, float32 or bfloat16")
    parser.add_argument("--max-rows", type=int, default=512, help="ours: rows side by side")
    parser.add_argument("--probe-tokens", type=int, default=96, help="per row in the pre-run")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--warmup", type=int, default=1, help="rounds that do not count")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="append the result to this file of JSON lines")
    return parser.parse_args()


class NativeSide:
    def __init__(self, model: LoadedModel, args: argparse.Namespace):
        self.engine = NativeEngine(model.policy, model.tokenizer, args.dtype, args.max_rows)
        self.group_size, self.max_new = args.group_size, args.max_new

    def generate(self, prompts: list[Prompt], seed: int) -> list[int]:
        """The lengths of all completions, stop token included."""
        sampling = Sampling(self.max_new, self.group_size, 1.0, seed)
        groups = self.engine.generate(prompts, sampling)
        return [len(completion.tokens) for group in groups for completion in group]


class TransformersSide:
    """`generate` of transformers in one configuration; reads the folder that we wrote."""

    def __init__(self, folder: Path, model: LoadedModel, dtype: str, attention: str):
        from transformers import AutoModelForCausalLM

        self.name = f"{dtype} {attention}"
        self.stop, self.pad = model.tokenizer.stop_ids[0], model.tokenizer.pad_id
        self.model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=getattr(torch, dtype), attn_implementation=attention
        ).eval()

    def inputs(self, prompts: list[Prompt], group_size: int) -> dict[str, torch.Tensor]:
        """Every prompt once per completion, padded on the left."""
        longest = max(len(prompt.tokens) for prompt in prompts)
        ids = torch.full((len(prompts), longest), self.pad)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt.tokens) :] = torch.tensor(prompt.tokens)
            mask[row, longest - len(prompt.tokens) :] = 1
        repeated = (tensor.repeat_interleave(group_size, 0) for tensor in (ids, mask))
        return dict(zip(("input_ids", "attention_mask"), repeated, strict=True))

    def generate(self, inputs: dict[str, torch.Tensor], seed: int, max_new: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return self.model.generate(
            **inputs,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            max_new_tokens=max_new,
            use_cache=True,
            eos_token_id=self.stop,
            pad_token_id=self.pad,
        )[:, inputs["input_ids"].shape[1] :]

    def lengths(self, tokens_BT: torch.Tensor) -> list[int]:
        stopped = tokens_BT == self.stop
        first = stopped.int().argmax(1) + 1
        return torch.where(stopped.any(1), first, tokens_BT.shape[1]).tolist()


def check_same(model: LoadedModel, peer: TransformersSide, prompts: list[Prompt]) -> None:
    """The weights that both sides read give the same logits, in float32."""
    tokens_BT = torch.tensor([prompts[0].tokens])
    with torch.no_grad():
        gap = (model.policy(tokens_BT) - peer.model(tokens_BT).logits).abs().max()
    if gap > 1e-3:
        raise SystemExit(f"the two sides do not compute the same model: logits differ by {gap}")


def fastest(
    peers: list[TransformersSide], prompts: list[Prompt], args
) -> tuple[TransformersSide, dict[str, float]]:
    """The peer with the best of two short runs, and the rows x tokens per second of all."""
    seen = {}
    new = min(args.probe_tokens, args.max_new)
    for peer in peers:
        inputs = peer.inputs(prompts, args.group_size)
        peer.generate(inputs, 0, min(8, new))
        runs = [timed(peer.generate, inputs, 1 + turn, new) for turn in range(2)]
        seen[peer.name] = round(max(run.result.numel() / run.seconds for run in runs))
    return max(peers, key=lambda peer: seen[peer.name]), seen


def describe(lengths: list[int]) -> dict[str, float]:
    ordered = sorted(lengths)
    p50, p90 = (ordered[int(share * len(ordered))] for share in (0.5, 0.9))
    mean = round(statistics.fmean(ordered), 2)
    return {"mean": mean, "p50": p50, "p90": p90, "max": ordered[-1], "rows": len(ordered)}


def means_agree(first: list[int], second: list[int]) -> bool:
    """Within four standard errors, rows taken as independent."""
    error = sum(statistics.variance(side) / len(side) for side in (first, second)) ** 0.5
    return abs(statistics.fmean(first) - statistics.fmean(second)) <= 4 * error


def compare(native: NativeSide, peers: list[TransformersSide], prompts: list[Prompt], args) -> dict:
    """All rounds of one batch size."""
    peer, probed = fastest(peers, prompts, args)
    inputs = peer.inputs(prompts, args.group_size)

    def our_turn(seed: int):
        run = timed(native.generate, prompts, seed)
        return run, run.result

    def their_turn(seed: int):
        run = timed(peer.generate, inputs, seed, args.max_new)
        return run, peer.lengths(run.result)

    sides = {"ours": our_turn, "transformers": their_turn}
    rates: dict[str, list[float]] = {name: [] for name in sides}
    lengths: dict[str, list[int]] = {name: [] for name in sides}
    shares: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(args.warmup + args.rounds):
        for name in sorted(sides, reverse=bool(turn % 2)):
            run, drawn = sides[name](turn)
            if turn >= args.warmup:
                rates[name].append(sum(drawn) / run.seconds)
                lengths[name] += drawn
                shares[name].append(run.cpu / run.seconds)
    ratios = [a / b for a, b in zip(rates["ours"], rates["transformers"], strict=True)]
    return {
        "rows": len(prompts) * args.group_size,
        "transformers_configuration": peer.name,
        "probed_row_tokens_per_second": probed,
        "tokens_per_second": {name: spread(values) for name, values in rates.items()},
        "ratio": spread(ratios),
        "cpu_per_second": {name: spread(values) for name, values in shares.items()},
        "lengths": {name: describe(values) for name, values in lengths.items()},
        "lengths_agree": means_agree(*lengths.values()),
    }


def report(case: dict) -> None:
    probed = ", ".join(
        f"{name} {rate:,}" for name, rate in case["probed_row_tokens_per_second"].items()
    )
    print(f"\n{case['rows']} rows")
    print(f"  pre-run of transformers, row-tokens/s: {probed}")
    titles = {"ours": "ours", "transformers": f"transformers {case['transformers_configuration']}"}
    for name, title in titles.items():
        print(f"  {title:30} {show(case['tokens_per_second'][name]):>28} tokens/s")
    print(f"  {'ratio':30} {show(case['ratio'], '.2f'):>28}")
    for name, lengths in case["lengths"].items():
        numbers = ", ".join(f"{key} {value:g}" for key, value in lengths.items())
        print(f"  lengths, {name:21} {numbers}")
    if not case["lengths_agree"]:
        print("  LENGTHS DIFFER by more than chance: do not use this ratio")


def main() -> None:
    args = read_args()
    need("transformers")
    use_threads(args.threads)
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if odd := [rows for rows in args.rows if rows % args.group_size]:
        raise SystemExit(f"--rows {odd[0]}: want a multiple of --group-size {args.group_size}")
    if args.model:
        model = load_model(args.model)
    else:
        stop = probability_for(args.mean, args.max_new)
        model = LoadedModel(*random_model(args.shape, stop), Path(args.shape))
    native = NativeSide(model, args)
    names = ("group_size", "max_new", "threads", "warmup", "rounds", "max_rows")
    settings = {"weights": args.model.name if args.model else f"random {args.shape}"}
    settings |= {"parameters": model.policy.num_parameters(), "ours": str(native.engine.dtype)}
    settings |= {name: getattr(args, name) for name in names}
    row = head(NAME, ("transformers",), settings) | {"cases": []}
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder), model.policy, model.tokenizer)
        peers = [TransformersSide(Path(folder), model, *each) for each in CONFIGURATIONS]
    task = Countdown()
    for rows in args.rows:
        problems = islice(task.problems("train", 0), rows // args.group_size)
        prompts = [Prompt.of(problem, task, model.tokenizer) for problem in problems]
        check_same(model, peers[0], prompts)
        row["cases"].append(compare(native, peers, prompts, args))
        report(row["cases"][-1])
    busy([share["min"] for case in row["cases"] for share in case["cpu_per_second"].values()])
    file_row(args.json, row)


if __name__ == "__main__":
    main()
