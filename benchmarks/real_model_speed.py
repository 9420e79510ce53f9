"""A real model on a CPU: rollouts and long prompts, against transformers and llama.cpp.

Measured: wall seconds from prompts as token ids to the completions of 16 rows (2 prompts with 8
completions each), for prompts of 64 and of 512 tokens; and from one prompt of 1,000 tokens to the
logits after it. The same weights, drawn at temperature 1 without top-k and top-p. No row may stop
early: no side looks for a stop token, and each makes exactly `--new` tokens a row. Sides take turns
in one process, the order alternating; a ratio is taken within a round.

transformers gets all rows as one batch in the fastest of float32 or bf16 with SDPA or eager
attention, found by a pre-run and named. llama.cpp (the package xllamacpp, if it is installed) gets
each row as a request to its own server, 16 slots wide, and the weights in 16 bits; its wheel for
Linux is built without AVX-512, so a build for this machine would be faster. Ours also records
log-probs and entropies.

Not measured: loading, and the memory that each side takes.
"""

import argparse
import json
import random
import statistics
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from urllib.request import Request, urlopen

import torch
from _common import busy, file_row, head, need, show, spread, timed, use_threads
from rollout_vs_transformers import CONFIGURATIONS, TransformersSide

from aha.core.records import Problem, Prompt
from aha.model.gguf import save_gguf
from aha.model.weights import LoadedModel, load_model
from aha.rollout.engine import Sampling
from aha.rollout.native import NativeEngine

NAME = "real_model_speed"
NO_TOKEN = -1  # a stop token that nobody draws
NEVER = torch.tensor([], dtype=torch.long)


def read_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="a model folder")
    parser.add_argument("--prompts", type=int, default=2)
    parser.add_argument("--group-size", type=int, default=8, help="completions of each prompt")
    parser.add_argument("--prompt-tokens", type=int, nargs="+", default=[64, 512])
    parser.add_argument("--new", type=int, default=64, help="tokens of a completion")
    parser.add_argument("--long", type=int, default=1000, help="tokens of the prompt read alone")
    names = [" ".join(each) for each in CONFIGURATIONS]
    parser.add_argument("--configurations", nargs="+", choices=names, default=names)
    parser.add_argument("--no-llama", action="store_true", help="leave llama.cpp out")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--warmup", type=int, default=1, help="rounds that do not count")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--probe-tokens", type=int, default=8, help="per row in the pre-run")
    parser.add_argument("--json", type=Path, help="append the result to this file of JSON lines")
    return parser.parse_args()


def random_prompts(model: LoadedModel, count: int, length: int) -> list[Prompt]:
    """Prompts of tokens drawn at random: what they say does not change what they cost."""
    drawn = random.Random(f"{count} {length}")
    top = min(model.tokenizer.vocab_size, model.policy.config.vocab_size)
    tokens = [tuple(drawn.choices(range(100, top), k=length)) for _ in range(count)]
    return [Prompt(Problem(str(place), "", {}), "", row) for place, row in enumerate(tokens)]


class LlamaCppSide:
    """llama.cpp's server in this process."""

    name = "llama.cpp"

    def __init__(self, path: Path, rows: int, positions: int, threads: int):
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_parallel, params.n_ctx = rows, rows * positions
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        params.verbosity = 0
        self.server = xllamacpp.Server(params)
        self.pool = ThreadPoolExecutor(rows)

    def request(self, prompt: Prompt, new: int, seed: int) -> int:
        """The number of tokens of one completion."""
        body = {"prompt": list(prompt.tokens), "n_predict": new, "seed": seed, "ignore_eos": True}
        body |= {"temperature": 1.0, "samplers": ["temperature"], "cache_prompt": False}
        request = Request(
            f"{self.server.listening_address}/completion",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urlopen(request, timeout=600) as answer:
            return json.load(answer)["tokens_predicted"]

    def generate(self, prompts: list[Prompt], group_size: int, new: int, seed: int) -> int:
        """All rows at the same time; the number of their tokens."""
        rows = [prompt for prompt in prompts for _ in range(group_size)]
        seeds = range(seed * len(rows), (seed + 1) * len(rows))
        return sum(self.pool.map(self.request, rows, [new] * len(rows), seeds))


class Sides:
    """All sides of the comparison, with one model."""

    def __init__(self, model: LoadedModel, args: argparse.Namespace, scratch: Path):
        self.args = args
        self.engine = NativeEngine(model.policy, model.tokenizer)
        self.engine.stop = NEVER
        self.peers = []
        for name in args.configurations:
            self.peers.append(TransformersSide(args.model, model, *name.split()))
            self.peers[-1].stop = NO_TOKEN
        self.llama = None
        if find_spec("xllamacpp") and not args.no_llama:
            path = scratch / "model.gguf"
            save_gguf(path, model.policy, model.tokenizer, torch.float16)
            longest = max(args.long, *args.prompt_tokens) + args.new + 8
            rows = args.prompts * args.group_size
            self.llama = LlamaCppSide(path, rows, longest, args.threads)

    def fastest(self, prompts: list[Prompt], group_size: int, new: int) -> tuple:
        """The peer with the best of two short runs, and the seconds of all."""
        seen = {}
        if len(self.peers) == 1:
            return self.peers[0], seen
        for peer in self.peers:
            inputs = peer.inputs(prompts, group_size)
            seen[peer.name] = min(timed(peer.generate, inputs, t, new).seconds for t in range(2))
        best = min(self.peers, key=lambda peer: seen[peer.name])
        return best, {name: round(seconds, 3) for name, seconds in seen.items()}

    def compare(self, prompts: list[Prompt], group_size: int, new: int) -> dict:
        """All rounds of one case: seconds of each side, and how many times as long as ours."""
        args, rows = self.args, len(prompts) * group_size
        peer, probed = self.fastest(prompts, group_size, min(args.probe_tokens, new))
        inputs = peer.inputs(prompts, group_size)

        def ours(seed: int) -> int:
            groups = self.engine.generate(prompts, Sampling(new, group_size, 1.0, seed))
            return sum(len(completion.tokens) for group in groups for completion in group)

        sides = {
            "ours": ours,
            f"transformers {peer.name}": lambda seed: peer.generate(inputs, seed, new).numel(),
        }
        if self.llama:
            llama = self.llama
            sides[llama.name] = lambda seed: llama.generate(prompts, group_size, new, seed)
        runs = {name: [] for name in sides}
        for turn in range(args.warmup + args.rounds):
            for name in sorted(sides, reverse=bool(turn % 2)):
                run = timed(sides[name], turn)
                if run.result != rows * new:
                    raise SystemExit(f"{name} made {run.result} tokens, want {rows * new}")
                runs[name] += [run] if turn >= args.warmup else []
        own = [run.seconds for run in runs["ours"]]
        case = {"rows": rows, "prompt_tokens": len(prompts[0].tokens), "new": new}
        case["pre_run_seconds"] = probed
        for name, done in runs.items():
            seconds = [run.seconds for run in done]
            case[name] = {
                "seconds": spread(seconds),
                "tokens_per_second": spread([rows * new / value for value in seconds]),
                "ratio": spread([a / b for a, b in zip(seconds, own, strict=True)]),
                "cpu_per_second": statistics.median(run.cpu / run.seconds for run in done),
            }
        report(case, [*runs])
        return case


def report(case: dict, names: list[str]) -> None:
    print(
        f"\n{case['rows']} rows, prompts of {case['prompt_tokens']}, {case['new']} new tokens each"
    )
    for name in names:
        side = case[name]
        line = f"  {name:32} {show(side['seconds'], '.2f'):>22} s"
        print(f"{line}  {show(side['ratio'], '.2f')} times ours", flush=True)


def main() -> None:
    args = read_args()
    need("transformers")
    use_threads(args.threads)
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.simplefilter("ignore")
    model = load_model(args.model)
    names = ("prompts", "group_size", "new", "threads", "warmup", "rounds")
    settings = {"model": args.model.name, "parameters": model.policy.num_parameters()}
    settings |= {name: getattr(args, name) for name in names}
    settings["configurations"] = args.configurations
    packages = ("transformers", *(["xllamacpp"] if find_spec("xllamacpp") else []))
    row = head(NAME, packages, settings) | {"cases": []}
    with tempfile.TemporaryDirectory() as scratch:
        sides = Sides(model, args, Path(scratch))
        for length in args.prompt_tokens:
            prompts = random_prompts(model, args.prompts, length)
            row["cases"].append(sides.compare(prompts, args.group_size, args.new))
        prompt = random_prompts(model, 1, args.long)
        row["cases"].append(sides.compare(prompt, 1, 1))
    busy([case["ours"]["cpu_per_second"] / args.threads for case in row["cases"][:-1]])
    file_row(args.json, row)


if __name__ == "__main__":
    main()
