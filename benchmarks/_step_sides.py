"""The two sides of `step_vs_trl.py`, each the life of one process."""

import argparse
import resource
import time
import warnings
from functools import partial
from itertools import islice

import torch
from _common import Digits, reward, timed, use_threads

from aha.core.config import RunConfig
from aha.machine.device import compute_dtype
from aha.model.lora import add_lora
from aha.model.weights import load_model
from aha.rollout.native import NativeEngine
from aha.training.rl import RLTrainer

LR = 1e-6  # TRL's default; the weights hardly move, so that the stop token stays away


def wait_for_turn(turns) -> bool:
    """Wait for the next turn; False when there is none."""
    try:
        return turns.recv()
    except EOFError:
        return False


def peak_bytes() -> int:
    """Of this process, so far: Linux counts kibibytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run_ours(turns, folder: str, args: argparse.Namespace) -> None:
    """The process of our side: one step for every message."""
    use_threads(args.threads)
    model = load_model(folder)
    sizes = {"prompts": args.prompts, "group_size": args.group_size}
    sizes |= {"max_new_tokens": args.completion_tokens, "dtype": args.dtype}
    optim = {"lr": LR, "final_lr": 1.0, "warmup": 0, "dtype": args.dtype}
    cfg = RunConfig.model_validate({"rollout": sizes, "optim": optim})
    if args.lora_rank:
        model.policy.to(compute_dtype(args.dtype, model.policy.device))
        add_lora(model.policy, args.lora_rank, 2.0 * args.lora_rank, 0)
    engine = NativeEngine(model.policy, model.tokenizer, args.dtype, cfg.rollout.max_rows)
    if args.model:
        engine.stop = torch.tensor([], dtype=torch.long)
    task = Digits(args.prompt_tokens)
    trainer = RLTrainer(model.policy, model.tokenizer, task, engine, cfg)
    turns.send("ready")
    while wait_for_turn(turns):
        run = timed(lambda: trainer.step(trainer.problems()))
        graded = [graded_row for group in run.result.groups for graded_row in group]
        advantages = [graded_row for group in run.result.advantages for graded_row in group]
        assert all(advantages), "a row without credit would not be trained"
        tokens = sum(len(graded_row.completion.tokens) for graded_row in graded)
        phases = dict(run.result.seconds)
        step = {"seconds": run.seconds, "cpu": run.cpu, "tokens": tokens, "phases": phases}
        turns.send(step | {"peak_bytes": peak_bytes()})


def run_trl(turns, folder: str, args: argparse.Namespace, peer: dict) -> None:
    """The process of a TRL side: its own loop, which waits for a message after each step."""
    use_threads(args.threads)
    warnings.simplefilter("ignore")  # names that TRL and transformers are about to change
    from datasets import Dataset
    from transformers import AutoTokenizer, PrinterCallback, TrainerCallback
    from transformers.utils import logging
    from trl import GRPOConfig, GRPOTrainer

    logging.set_verbosity_error()
    logging.disable_progress_bar()

    phases, drawn = {}, []

    def wrapped(name, call, *args, **kwargs):
        start = time.perf_counter()
        try:
            return call(*args, **kwargs)
        finally:
            phases[name] = phases.get(name, 0.0) + time.perf_counter() - start

    def rewards(completions, completion_ids, **unused):
        drawn.extend(completion_ids)
        return [reward(text) for text in completions]

    class Turns(TrainerCallback):
        """The clock runs from one message to the end of the step that it allows."""

        def on_train_begin(self, args, state, control, **more):
            turns.send("ready")
            self.wait(control)

        def on_step_end(self, args, state, control, **more):
            seconds, cpu = time.perf_counter() - self.start, time.process_time() - self.cpu
            tokens = sum(map(len, drawn))
            result = {"seconds": seconds, "cpu": cpu, "tokens": tokens, "phases": dict(phases)}
            turns.send(result | {"peak_bytes": peak_bytes()})
            self.wait(control)

        def wait(self, control):
            control.should_training_stop = not wait_for_turn(turns)
            phases.clear()
            drawn.clear()
            self.start, self.cpu = time.perf_counter(), time.process_time()

    more = {}
    if args.lora_rank:
        from peft import LoraConfig

        rank = args.lora_rank
        more["peft_config"] = LoraConfig(
            r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM"
        )
    stops = list(load_model(folder).tokenizer.stop_ids) if args.model else []
    rows = args.prompts * args.group_size
    micro = min(args.micro_batch, rows)
    cfg = GRPOConfig(
        output_dir=folder,
        use_cpu=True,
        bf16=peer["dtype"] == "bfloat16",
        gradient_checkpointing=peer["checkpointing"],
        model_init_kwargs={"dtype": "float32", "attn_implementation": peer["attention"]},
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=rows // micro,
        num_generations=args.group_size,
        max_completion_length=args.completion_tokens,
        temperature=1.0,
        generation_kwargs={"suppress_tokens": stops} if stops else None,
        beta=0.0,
        num_iterations=1,
        learning_rate=LR,
        lr_scheduler_type="constant",
        max_steps=100_000,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    problems = islice(Digits(args.prompt_tokens).problems("train", 0), args.prompts * 50)
    trainer = GRPOTrainer(
        model=folder,
        reward_funcs=rewards,
        args=cfg,
        train_dataset=Dataset.from_dict({"prompt": [problem.id for problem in problems]}),
        processing_class=AutoTokenizer.from_pretrained(folder),
        callbacks=[Turns()],
        **more,
    )
    trainer.remove_callback(PrinterCallback)
    parts = {"_generate": "rollout", "_calculate_rewards": "grade"}
    parts["_get_per_token_logps_and_entropies"] = "forward"
    for method, name in parts.items():
        setattr(trainer, method, partial(wrapped, name, getattr(trainer, method)))
    trainer.accelerator.backward = partial(wrapped, "backward", trainer.accelerator.backward)
    trainer.train()
