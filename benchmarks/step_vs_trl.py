"""One whole RL step: `RLTrainer.step` against TRL's GRPOTrainer, the same work on both sides.

Measured: wall seconds of one optimiser update: 32 prompts of 26 tokens, 8 completions of each,
128 tokens each, rollout, reward, advantage, forward, backward, update, and on our side handing the
weights to the engine. Same start weights, prompts, reward, learning rate (1e-6) and number of
optimiser steps; beta 0 and one iteration, so that TRL too runs one forward pass. Each side lives
in a process of its own and is idle while another has its turn; a round is one step of each, the
order rotating, and the ratio is taken within a round.

No completion may stop early, or the sides would do different amounts of work: the weights give the
stop token a probability of 1e-12 (`_common.set_stop_probability`), and both sides check that all
tokens came. `--model` takes a real model instead: our engine then looks for no stop token, and TRL
draws none (`suppress_tokens`). `--lora-rank` trains adapters on all linear maps, on both sides.
Our step skips rows whose advantage is exactly 0; the reward is a hash of the text, so no two are
alike, no advantage is 0 (checked) and every token is trained.

TRL runs without gradient checkpointing in the fastest of four configurations (float32 or bf16,
SDPA or eager attention), found by a pre-run and named, and once more with its defaults (bf16 with
checkpointing, SDPA), but with `--micro-batch` completions per backward pass in place of 8.

Not measured: learning; loading; checkpoints and logging, which are off. TRL also computes entropy
and its other metrics in each step. Its phases come from wrapping its methods; what they miss
(optimiser, advantages, collation) is in the total alone.
"""

import argparse
import multiprocessing
import sys
import tempfile
from pathlib import Path

from _common import (
    NEVER,
    SHAPES,
    busy,
    file_row,
    head,
    need,
    random_model,
    show,
    spread,
    use_threads,
)
from _step_sides import run_ours, run_trl

from aha.model.policy import Policy
from aha.model.tokenizer import Tokenizer
from aha.model.weights import load_model, save_model

NAME = "step_vs_trl"
TRIED = {
    f"TRL {dtype} {attention}": {"dtype": dtype, "attention": attention, "checkpointing": False}
    for dtype in ("float32", "bfloat16")
    for attention in ("sdpa", "eager")
}
DEFAULTS = "TRL defaults"
PEERS = TRIED | {DEFAULTS: {"dtype": "bfloat16", "attention": "sdpa", "checkpointing": True}}


def read_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--group-size", type=int, default=8, help="completions of each prompt")
    parser.add_argument("--prompt-tokens", type=int, default=26)
    parser.add_argument("--completion-tokens", type=int, default=128)
    parser.add_argument("--micro-batch", type=int, default=64, help="TRL: completions a backward")
    parser.add_argument("--shape", choices=SHAPES, default="tiny")
    parser.add_argument("--model", type=Path, help="a model folder in place of random weights")
    parser.add_argument("--lora-rank", type=int, default=0, help="0: all weights train")
    parser.add_argument("--dtype", default="auto", help="ours: auto, float32 or bfloat16")
    parser.add_argument("--configurations", nargs="+", choices=TRIED, default=list(TRIED))
    parser.add_argument("--no-defaults", action="store_true", help="leave TRL's defaults out")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--warmup", type=int, default=1, help="steps that do not count")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="append the result to this file of JSON lines")
    return parser.parse_args()


class Side:
    """A process that makes one step when asked, and what its counted steps took."""

    def __init__(self, name: str, target, *args):
        spawn = multiprocessing.get_context("spawn")
        self.name, self.steps = name, []
        self.turns, far_end = spawn.Pipe()
        self.process = spawn.Process(target=target, args=(far_end, *args), daemon=True)
        self.process.start()
        far_end.close()
        self.receive()  # it is ready: no side starts up while another is measured

    def receive(self):
        try:
            return self.turns.recv()
        except (EOFError, OSError):
            sys.exit(f"{self.name} failed; its traceback is above")

    def step(self, tokens: int) -> dict:
        self.turns.send(True)
        step = self.receive()
        if step["tokens"] != tokens:
            sys.exit(f"{self.name} made {step['tokens']} tokens, want {tokens}")
        return step

    def stop(self) -> None:
        self.turns.send(False)
        self.process.join()


def summary(side: Side, ours: Side, tokens: int) -> dict:
    seconds = [step["seconds"] for step in side.steps]
    pairs = zip(side.steps, ours.steps, strict=True)
    names = side.steps[0]["phases"]
    phases = {name: [step["phases"].get(name, 0.0) for step in side.steps] for name in names}
    return {
        "seconds": spread(seconds),
        "tokens_per_second": spread([tokens / value for value in seconds]),
        "ratio": spread([step["seconds"] / own["seconds"] for step, own in pairs]),
        "cpu_per_second": spread([step["cpu"] / step["seconds"] for step in side.steps]),
        "phases": {name: spread(values)["median"] for name, values in phases.items()},
        "peak_bytes": max(step["peak_bytes"] for step in side.steps),
    }


def fastest(sides: list[Side], tokens: int) -> tuple[Side, dict[str, float]]:
    """The side with the best of two steps after a first one; the others are stopped."""
    seen: dict[str, float] = {}
    if len(sides) == 1:
        return sides[0], seen
    for side in sides:
        runs = [side.step(tokens)["seconds"] for _ in range(3)]
        seen[side.name] = round(min(runs[1:]), 3)
    best = min(sides, key=lambda side: seen[side.name])
    for side in sides:
        if side is not best:
            side.stop()
    return best, seen


def take_rounds(sides: list[Side], tokens: int, warmup: int, rounds: int) -> None:
    """A step of each side in every round, in a rotating order; those after the warm-up are kept.
    Then all sides are stopped."""
    for turn in range(warmup + rounds):
        first = turn % len(sides)
        for side in sides[first:] + sides[:first]:
            step = side.step(tokens)
            side.steps += [step] if turn >= warmup else []
    for side in sides:
        side.stop()


def model_of(args: argparse.Namespace) -> tuple[Policy, Tokenizer]:
    if args.model:
        loaded = load_model(args.model)
        return loaded.policy, loaded.tokenizer
    return random_model(args.shape, NEVER)


def main() -> None:
    args = read_args()
    need("trl", "transformers", "accelerate", "datasets")
    if args.prompts * args.group_size % min(args.micro_batch, args.prompts * args.group_size):
        sys.exit(f"--micro-batch {args.micro_batch} does not divide the completions of a step")
    use_threads(args.threads)
    policy, tokenizer = model_of(args)
    tokens = args.prompts * args.group_size * args.completion_tokens
    names = ("prompts", "group_size", "prompt_tokens", "completion_tokens", "micro_batch")
    names += ("dtype", "lora_rank", "threads", "warmup", "rounds")
    weights = args.model.name if args.model else f"random {args.shape}"
    settings = {"weights": weights, "parameters": policy.num_parameters()}
    settings |= {name: getattr(args, name) for name in names}
    row = head(NAME, ("trl", "transformers", "accelerate"), settings)
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder), policy, tokenizer)
        del policy
        ours = Side("ours", run_ours, folder, args)
        defaults = [] if args.no_defaults else [DEFAULTS]
        configurations = [*args.configurations, *defaults]
        peers = {name: Side(name, run_trl, folder, args, PEERS[name]) for name in configurations}
        best, seen = fastest([peers[name] for name in args.configurations], tokens)
        print("pre-run, seconds a step: " + ", ".join(f"{k} {v:.2f}" for k, v in seen.items()))
        sides = [ours, best, *(peers[name] for name in defaults)]
        take_rounds(sides, tokens, args.warmup, args.rounds)
    row |= {"tokens_per_step": tokens, "pre_run_seconds": seen, "trl_fastest": best.name}
    row["sides"] = {side.name: summary(side, ours, tokens) for side in sides}
    for name, numbers in row["sides"].items():
        phases = ", ".join(f"{phase} {value:.2f}" for phase, value in numbers["phases"].items())
        print(f"\n{name}: {show(numbers['seconds'], '.2f')} s a step ({phases})")
        peak = numbers["peak_bytes"] / 1e9
        print(
            f"  {show(numbers['tokens_per_second'])} completion tokens/s, {peak:.2f} GB at the peak"
        )
        if name != ours.name:
            print(f"  our step is {show(numbers['ratio'], '.2f')} times as fast")
    busy([numbers["cpu_per_second"]["min"] for numbers in row["sides"].values()])
    file_row(args.json, row)


if __name__ == "__main__":
    main()
