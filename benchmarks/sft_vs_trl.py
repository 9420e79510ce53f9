"""One update of fine-tuning: `FineTuner.step` against TRL's SFTTrainer, the same work for both.

Measured: wall seconds of one optimiser update on the same 64 examples, in tokens already: prompts
of 16 random tokens, completions of 16 to 160 (the loss is on completions alone), forward, backward,
update, batching and padding included. Same start weights, learning rate (1e-6) and optimiser
(AdamW). TRL pads its rows to the longest of a batch; we share parts of rows by length. Each side
lives in a process of its own and is idle while another has its turn; a round is one update of each,
the order rotating, and the ratio is taken within a round.

TRL runs without gradient checkpointing in the fastest of four configurations (float32 or bf16,
SDPA or eager attention), found by a pre-run and named, and once more with its defaults (bf16 with
checkpointing, SDPA). Its packing needs FlashAttention, which no CPU has.

Not measured: learning; loading; checkpoints and logging, which are off.
"""

import argparse
import sys
import tempfile
import time
import warnings
from pathlib import Path
from random import Random

from _common import (
    NEVER,
    SHAPES,
    busy,
    file_row,
    head,
    need,
    random_model,
    show,
    timed,
    use_threads,
)
from _step_sides import LR, peak_bytes, wait_for_turn
from step_vs_trl import DEFAULTS, PEERS, TRIED, Side, fastest, summary, take_rounds

from aha.model.weights import load_model, save_model
from aha.sft.examples import Example
from aha.sft.fine_tuner import FineTuner
from aha.sft.tuning_config import tuning_config

NAME = "sft_vs_trl"
PROMPT, SHORTEST, LONGEST = 16, 16, 160  # tokens


def read_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=64, help="of an update")
    parser.add_argument("--micro-batch", type=int, default=64, help="TRL: examples a backward")
    parser.add_argument("--shape", choices=SHAPES, default="tiny")
    parser.add_argument("--dtype", default="auto", help="ours: auto, float32 or bfloat16")
    parser.add_argument("--configurations", nargs="+", choices=TRIED, default=list(TRIED))
    parser.add_argument("--no-defaults", action="store_true", help="leave TRL's defaults out")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--warmup", type=int, default=2, help="updates that do not count")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", type=Path, help="append the result to this file of JSON lines")
    return parser.parse_args()


def examples_of(count: int, vocabulary: int) -> list[Example]:
    """Examples of random tokens: the lengths of their completions are spread evenly."""
    rng = Random(0)

    def tokens(length: int) -> tuple[int, ...]:
        return tuple(rng.randrange(10, vocabulary) for _ in range(length))

    spread = (LONGEST - SHORTEST) / max(1, count - 1)
    lengths = [round(SHORTEST + spread * place) for place in range(count)]
    return [Example(tokens(PROMPT), tokens(length)) for length in lengths]


def run_ours(turns, folder: str, args: argparse.Namespace) -> None:
    """The process of our side: one update for every message."""
    use_threads(args.threads)
    model = load_model(folder)
    examples = examples_of(args.examples, model.tokenizer.vocab_size)
    optim = {"lr": LR, "final_lr": 1.0, "warmup": 0, "dtype": args.dtype}
    many = {"steps": 10**6, "epochs": 10**6}
    cfg = tuning_config({"data": "-", "examples": args.examples, "optim": optim} | many)
    trainer = FineTuner(model.policy, model.tokenizer, examples, cfg)
    tokens = sum(len(example.completion) for example in examples)
    turns.send("ready")
    while wait_for_turn(turns):
        run = timed(trainer.step)
        assert run.result.loss > 0
        step = {"seconds": run.seconds, "cpu": run.cpu, "tokens": tokens, "phases": {}}
        turns.send(step | {"peak_bytes": peak_bytes()})


def run_trl(turns, folder: str, args: argparse.Namespace, peer: dict) -> None:
    """The process of a TRL side: its own loop, which waits for a message after each update."""
    use_threads(args.threads)
    warnings.simplefilter("ignore")  # names that TRL and transformers are about to change
    from datasets import Dataset
    from transformers import AutoTokenizer, PrinterCallback, TrainerCallback
    from transformers.utils import logging
    from trl import SFTConfig, SFTTrainer

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    examples = examples_of(args.examples, load_model(folder).tokenizer.vocab_size)
    tokens = sum(len(example.completion) for example in examples)

    class Turns(TrainerCallback):
        """The clock runs from one message to the end of the update that it allows."""

        def on_train_begin(self, args, state, control, **more):
            turns.send("ready")
            self.wait(control)

        def on_step_end(self, args, state, control, **more):
            seconds, cpu = time.perf_counter() - self.start, time.process_time() - self.cpu
            step = {"seconds": seconds, "cpu": cpu, "tokens": tokens, "phases": {}}
            turns.send(step | {"peak_bytes": peak_bytes()})
            self.wait(control)

        def wait(self, control):
            control.should_training_stop = not wait_for_turn(turns)
            self.start, self.cpu = time.perf_counter(), time.process_time()

    micro = min(args.micro_batch, args.examples)
    cfg = SFTConfig(
        output_dir=folder,
        use_cpu=True,
        bf16=peer["dtype"] == "bfloat16",
        gradient_checkpointing=peer["checkpointing"],
        model_init_kwargs={"dtype": "float32", "attn_implementation": peer["attention"]},
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=args.examples // micro,
        completion_only_loss=True,
        learning_rate=LR,
        lr_scheduler_type="constant",
        max_steps=100_000,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    rows = {
        "input_ids": [[*one.prompt, *one.completion] for one in examples],
        "completion_mask": [[0] * PROMPT + [1] * len(one.completion) for one in examples],
    }
    trainer = SFTTrainer(
        model=folder,
        args=cfg,
        train_dataset=Dataset.from_dict(rows),
        processing_class=AutoTokenizer.from_pretrained(folder),
        callbacks=[Turns()],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()


def main() -> None:
    args = read_args()
    need("trl", "transformers", "accelerate", "datasets")
    if args.examples % min(args.micro_batch, args.examples):
        sys.exit(f"--micro-batch {args.micro_batch} does not divide the examples of an update")
    use_threads(args.threads)
    policy, tokenizer = random_model(args.shape, NEVER)
    tokens = sum(len(one.completion) for one in examples_of(args.examples, tokenizer.vocab_size))
    names = ("examples", "micro_batch", "dtype", "threads", "warmup", "rounds")
    settings = {"weights": f"random {args.shape}", "parameters": policy.num_parameters()}
    settings |= {name: getattr(args, name) for name in names}
    row = head(NAME, ("trl", "transformers", "accelerate"), settings)
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder), policy, tokenizer)
        ours = Side("ours", run_ours, folder, args)
        defaults = [] if args.no_defaults else [DEFAULTS]
        configurations = [*args.configurations, *defaults]
        peers = {name: Side(name, run_trl, folder, args, PEERS[name]) for name in configurations}
        best, seen = fastest([peers[name] for name in args.configurations], tokens)
        sides = [ours, best, *(peers[name] for name in defaults)]
        take_rounds(sides, tokens, args.warmup, args.rounds)
    row |= {"tokens_per_update": tokens, "pre_run_seconds": seen, "trl_fastest": best.name}
    row["sides"] = {side.name: summary(side, ours, tokens) for side in sides}
    for name, numbers in row["sides"].items():
        print(f"\n{name}: {show(numbers['seconds'], '.3f')} s an update")
        peak = numbers["peak_bytes"] / 1e9
        speed = show(numbers["tokens_per_second"])
        print(f"  {speed} completion tokens/s, {peak:.2f} GB at the peak")
        if name != ours.name:
            print(f"  our update is {show(numbers['ratio'], '.2f')} times as fast")
    busy([numbers["cpu_per_second"]["min"] for numbers in row["sides"].values()])
    file_row(args.json, row)


if __name__ == "__main__":
    main()
