"""Measures this machine with a recipe's model in half a minute, and puts it into a plan.

The engine and the trainer work as in a run, with random weights of the model's shape. If that is
too large, the shape has fewer layers and a smaller vocabulary. The number of stop tokens is chosen
so that completions have the length that the plan assumes. The random streams of the run are not
used.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch

from aha.batching.batch import TrainingRow, totals_of
from aha.core.config import RunConfig
from aha.core.errors import ConfigError
from aha.core.records import Completion, Graded, Problem, Prompt
from aha.machine.device import choose_device, device_memory, device_name, num_threads
from aha.measure.base_length import completions_in, measure_base_length
from aha.measure.rates import RATES_BY, SHARE, SLOW, Rates
from aha.model.architecture import ModelConfig
from aha.model.folders import local_model_folder
from aha.model.lora import add_lora
from aha.model.transformer import Transformer
from aha.plan.calibration import BaseLength, Calibration
from aha.plan.estimate import activation_bytes
from aha.plan.shapes import Shape
from aha.plan.speed import Card, Generation, Training
from aha.rollout.cuda_graphs import STEPS_PER_SYNC
from aha.rollout.engine import Sampling
from aha.rollout.native import NativeEngine
from aha.training.preflight import machine_here, with_machine_price
from aha.training.rl import RLTrainer

PART_S = 4.0  # of one measurement at most, predicted from the one before
# Shares of the time limit after which a part is not begun; the base model's completions get the
# rest.
SHORT_BY, LONG_BY, TRAIN_BY = 0.45, 0.6, 0.8
FAR = 4.0  # times the table's seconds, or a fourth: from here on a training is measured again
TIMED_BLOCKS = 4  # of steps, with CUDA graphs: after the prompts of all templates one graph does
SMALL_VOCABULARY = 8_192  # tokens, where the whole vocabulary does not fit
DISK = 0.5e9  # bytes/s at which weights are read: a low guess


class StubTokenizer:
    """A tokenizer without text: its first `stops` ids end a completion."""

    pad_id = 0

    def __init__(self, stops: int):
        self.stop_ids = list(range(stops))

    def decode(self, tokens: Sequence[int]) -> str:
        """No text, whatever the tokens."""
        return ""


class MachineProbe(Rates):
    """The measurements for one recipe."""

    # -- the model -------------------------------------------------------------------------

    def fitting_shape(self, rate: float) -> Shape:
        """The largest shape that fits in half of the free memory and trains one row in time.

        Layers and vocabulary may be smaller than the recipe's; widths are not, because the speed of
        matrix products depends on them. `rate` is that of products in FLOP/s.
        """
        free = device_memory(self.device).free
        T = self.lengths.prompt + self.lengths.weighted

        def fits(shape: Shape) -> bool:
            needed = 12.0 * shape.parameters + activation_bytes(shape, int(T))
            quick = Training(T, T, 1).products(shape) <= PART_S * SHARE * rate
            return needed <= free / 2 and quick

        shape = self.whole_shape
        if not fits(shape):
            shape = replace(shape, V=min(shape.V, SMALL_VOCABULARY))
        while not fits(shape) and shape.L > 1:
            shape = replace(shape, L=shape.L // 2)
        return shape

    def policy(self, shape: Shape) -> Transformer:
        """A policy of random weights, so small that all tokens are about equally probable."""
        config = ModelConfig(
            *(shape.V, shape.C, shape.I, shape.L, shape.H, shape.K),
            max_position_embeddings=int(self.lengths.prompt + self.lengths.limit),
            tie_word_embeddings=shape.tied,
            model_type="qwen3" if shape.norms else "qwen2" if shape.bias else "llama",
            head_dim=shape.D,
        )
        with torch.device("meta"):
            policy = Transformer(config)
        policy.to_empty(device=self.device)
        generator = torch.Generator(self.device).manual_seed(0)
        with torch.no_grad():
            for name, parameter in policy.named_parameters():
                norm = name.endswith("norm.weight")
                parameter.normal_(float(norm), 0.0 if norm else 0.02, generator=generator)
        rank = self.cfg.model.lora_rank
        if rank:
            policy.to(self.dtype)
            add_lora(policy, rank, 2.0 * rank, 0)
        return policy

    # -- generation and training -----------------------------------------------------------

    def generate(
        self, engine: NativeEngine, rows: int, limit: int, stops: int | None = None
    ) -> list[list[Completion]]:
        """`rows` completions in the recipe's groups. `stops` tokens end one: by default so many
        that their mean length is half of `limit`."""
        G = min(rows, self.cfg.rollout.group_size)
        tokens = tuple(range(1, int(self.lengths.prompt) + 1))
        tokens = tuple(token % self.whole_shape.C for token in tokens)
        prompts = [Prompt(Problem(str(p), "", {}), "", tokens) for p in range(rows // G)]
        if stops is None:
            stops = max(1, round(engine.loaded().config.vocab_size * 1.6 / limit))
        engine.stop = torch.arange(stops)
        engine.tokenizer.stop_ids = tuple(range(stops))
        return engine.generate(prompts, Sampling(limit, G, 1.0))

    def pass_seconds(self, engine: NativeEngine) -> float:
        """Seconds of a token of one row, never 0. The first call allocates, and is not timed.

        Each call records CUDA graphs, which takes longer than many tokens, and generates in blocks.
        So with graphs it is what further blocks add.
        """
        few, limit = min(8, int(self.lengths.limit)), int(self.lengths.limit)
        self.generate(engine, 1, few)
        blocks = min(TIMED_BLOCKS, (limit - 1) // STEPS_PER_SYNC)
        if not engine.uses_graphs or blocks < 2:
            return self.seconds(partial(self.generate, engine, 1, few)) / few
        short, long = (
            min(self.seconds(partial(self.generate, engine, 1, 1 + tokens, 0)) for _ in range(2))
            for tokens in (STEPS_PER_SYNC, blocks * STEPS_PER_SYNC)
        )
        return max(long - short, 0.1 * long) / ((blocks - 1) * STEPS_PER_SYNC)

    def generate_into(
        self, groups: list[list[Completion]], engine: NativeEngine, rows: int, limit: int
    ) -> None:
        """`generate`, after what is in `groups`."""
        groups.extend(self.generate(engine, rows, limit))

    def generation_work(self, groups: list[list[Completion]], limit: int) -> Generation:
        """The numbers of a generation for the plan: tokens, mean context, passes, prompt tokens."""
        sizes = [len(completion.tokens) for group in groups for completion in group]
        prompt, tokens = self.lengths.prompt, sum(sizes)
        context = prompt + sum(size * size for size in sizes) / tokens / 2
        return Generation(tokens, context, limit, prompt * len(groups))

    def time_generation(
        self, engine: NativeEngine, rows: int, limit: int, share: float
    ) -> tuple[Generation, float, list[list[Completion]]]:
        """(work, seconds, completions) of as many rows as the recipe has, or as time allows.

        Starts with `rows` and takes four times as many until the next would take too long.
        """
        all_rows = min(
            self.cfg.rollout.prompts * self.cfg.rollout.group_size, self.cfg.rollout.max_rows
        )
        rows = min(rows, all_rows)
        while True:
            groups: list[list[Completion]] = []
            fill = partial(self.generate_into, groups, engine, rows, limit)
            seconds = self.seconds(fill)
            more = min(all_rows, 4 * rows)
            if more == rows or seconds * more / rows > min(PART_S, self.seconds_left(share)):
                return self.generation_work(groups, limit), seconds, groups
            rows = more

    def time_generations(
        self, engine: NativeEngine, pass_s: float
    ) -> tuple[list[tuple[Generation, float]], list[list[Completion]]]:
        """(a short and a long generation, each with its seconds; the last one's completions).

        `pass_s` is the seconds of a token of one row. It predicts the time of the short generation,
        which predicts that of the long one.
        """
        limit = int(min(self.lengths.limit, max(16, 0.7 * PART_S / pass_s)))
        short = max(1, limit // 4)
        generations: list[tuple[Generation, float]] = []
        groups: list[list[Completion]] = []
        rows, row_s = 8, short * pass_s
        for size, share, name in ((short, SHORT_BY, "short"), (limit, LONG_BY, "long")):
            while rows > 1 and rows * row_s > self.seconds_left(share):
                rows //= 2
            result = self.run_part(
                f"{name} completions",
                share - rows * row_s / self.limit_s,
                partial(self.time_generation, engine, rows, size, share),
            )
            row_s *= 4
            if result:
                work, seconds, groups = result
                generations.append((work, seconds))
                row_s = 4 * seconds / (sum(map(len, groups)))
        return generations, groups

    def assumed_generations(
        self, shape: Shape, guess: Card, measured: list[tuple[Generation, float]]
    ) -> list[tuple[Generation, float]]:
        """The generations for which there was no time, with the times of the machine `guess`.

        If the short one was measured, the times are scaled by its ratio to that of `guess`.
        """
        ratios = [seconds / work.seconds(shape, guess) for work, seconds in measured]
        assumed = []
        for limit in (self.lengths.limit / 4, self.lengths.limit)[len(measured) :]:
            lengths = replace(self.lengths, mean=limit / 2, limit=limit)
            work = lengths.generation(8, 1, 8)
            assumed.append((work, (ratios or [1.0])[0] * work.seconds(shape, guess)))
        return assumed

    def time_training(
        self, trainer: RLTrainer, groups: list[list[Completion]], shape: Shape
    ) -> tuple[Training, float]:
        """(work, seconds) of the gradient of as many of these completions as time allows."""
        graded = [Graded(1.0, True, "", {}, c) for group in groups for c in group]
        rows = [TrainingRow.of(row, (-1.0) ** index) for index, row in enumerate(graded)]
        count = 1
        # Not counted: the first gradient loads libraries, compiles and allocates, which has been
        # taken for hours of training.
        first = self.time_gradient(trainer, rows[:count])
        if self.is_spent(1.0):  # `run_part` leaves it out
            return self.training_work(rows[:count]), first
        while True:
            batch = rows[:count]
            seconds = self.time_gradient(trainer, batch)
            more = min(len(rows), 4 * count)
            if more == count or seconds * more / count > min(PART_S, self.seconds_left(TRAIN_BY)):
                break
            count = more
        work = self.training_work(batch)
        measure = partial(self.time_gradient, trainer, batch)
        return work, self.second_look(work, shape, seconds, measure)

    def time_gradient(self, trainer: RLTrainer, batch: list[TrainingRow]) -> float:
        """Seconds of the gradient of these rows."""
        totals = totals_of(batch, self.cfg.rollout.max_new_tokens)
        micro = self.cfg.optim.micro_batch_tokens
        gradient = trainer.objective.accumulate_gradient
        seconds = self.seconds(partial(gradient, batch, totals, StubTokenizer.pad_id, micro))
        for parameter in trainer.policy.parameters():
            parameter.grad = None
        return seconds

    def second_look(
        self, work: Training, shape: Shape, seconds: float, measure: Callable[[], float]
    ) -> float:
        """The seconds of a training, measured again and said where they are far from those of the
        table of machines: then something else may have run meanwhile. The shorter one counts."""
        _, row = machine_here(self.device, shape.parameters)
        if row is None or self.is_spent(1.0):
            return seconds
        expected = work.seconds(shape, row)
        if 1 / FAR < seconds / expected < FAR:
            return seconds
        again = measure()
        self.notes.append(
            f"training was far from the table of machines ({seconds:.3g} s, by the table "
            f"{expected:.3g} s), so it was measured again: {again:.3g} s"
        )
        return min(seconds, again)

    def training_work(self, batch: list[TrainingRow]) -> Training:
        """The numbers of a training for the plan."""
        micro, prompt = self.cfg.optim.micro_batch_tokens, self.lengths.prompt
        done = [row.graded.completion for row in batch]
        sizes = [prompt + len(completion.tokens) for completion in done]
        length = sum(size * size for size in sizes) / sum(sizes)
        # A prompt is computed once for its group.
        prompts = len({id(completion.prompt) for completion in done})
        tokens = sum(len(completion.tokens) for completion in done) + prompts * prompt
        work = 4.0 if self.cfg.model.lora_rank else 6.0
        work += 2.0 * self.cfg.optim.recompute
        return Training(tokens, length, -(-tokens // micro), work)

    def measure_base(
        self, shape: Shape, long: tuple[Generation, float], pass_s: float
    ) -> BaseLength | None:
        """The length of the base model's completions; None if it is not measured.

        It is measured if the recipe does not have it, the base model is on the disk and fits in
        memory, and there is time to generate some dozens of completions.
        """
        if self.cfg.rollout.expected_tokens or shape != self.whole_shape or self.is_spent(1.0):
            return None
        folder = local_model_folder(self.cfg.model.path)
        if folder is None:
            return None
        (work, seconds), limit = long, self.cfg.rollout.max_new_tokens
        reading = 4.0 * shape.parameters / DISK

        def seconds_for(count: int) -> float:
            return reading + max(limit * pass_s, count * limit * seconds / work.tokens)

        count = completions_in(self.seconds_left(1.0), seconds_for)
        if not count:
            self.assumed.append("the length of the base's completions")
        return measure_base_length(self.cfg, folder, count) if count else None

    def layer_us(self, pass_s: float, shape: Shape, bandwidth: float) -> float:
        """Microseconds of a layer for one row on a GPU, less the time of reading its weights."""
        if self.device.type == "cpu":
            return 0.0
        return max(0.0, pass_s - 2 * shape.multiplied / bandwidth) / shape.L * 1e6

    def run(self, model: str) -> Calibration:
        """All measurements; `model` is the name of the recipe's model."""
        matmul, attention, bandwidth = self.rates()
        shape = self.fitting_shape(matmul)
        pass_s, generations, training = self.time_model(shape)
        guess = replace(SLOW, tflops=matmul / 1e12, bandwidth=bandwidth / 1e9)
        guess = replace(guess, attention=guess.train_rate / attention)
        generations += self.assumed_generations(shape, guess, generations)
        if training is None:
            rows = self.lengths.training(1, 1, self.cfg.optim.micro_batch_tokens, 6.0)
            training = rows, rows.seconds(shape, guess)
        base = self.measure_base(shape, generations[1], pass_s) if pass_s else None
        return Calibration(
            machine=device_name(self.device),
            device=self.device.type,
            memory_gb=device_memory(self.device).total / 1e9,
            threads=num_threads(),
            dtype=str(self.dtype).removeprefix("torch."),
            model=model,
            shape=shape,
            whole=shape == self.whole_shape,
            matmul_rate=matmul,
            attention_rate=attention,
            bandwidth=bandwidth,
            layer_us=self.layer_us(pass_s, shape, bandwidth),
            writings=tuple(generations),
            training=training[0],
            training_s=training[1],
            seconds=time.perf_counter() - self.start_time,
            measured=datetime.now(UTC).isoformat(timespec="seconds"),
            assumed=tuple(self.assumed),
            base=base,
            notes=tuple(self.notes),
        )

    def time_model(
        self, shape: Shape
    ) -> tuple[float, list[tuple[Generation, float]], tuple[Training, float] | None]:
        """(seconds of a token of one row, generations, training), as far as there was time.

        The random weights are freed when this returns.
        """
        if self.is_spent(RATES_BY):
            self.assumed.append("generation and training")
            return 0.0, [], None
        policy, rollout = self.policy(shape), self.cfg.rollout
        nothing: Any = None  # no text is read, no problem asked
        stubs: list[Any] = [StubTokenizer(1), StubTokenizer(1)]
        engine = NativeEngine(policy, stubs[0], rollout.dtype, rollout.max_rows, rollout.loop)
        trainer = RLTrainer(policy, stubs[1], nothing, engine, self.cfg)
        name, measure = "generation and training", partial(self.pass_seconds, engine)
        pass_s = self.run_part(name, SHORT_BY, measure)
        if pass_s is None:
            return 0.0, [], None
        generations, groups = self.time_generations(engine, pass_s)
        name, share = f"training at {SHARE:.0%} of the products' rate", LONG_BY if groups else 0.0
        training = self.run_part(name, share, lambda: self.time_training(trainer, groups, shape))
        return pass_s, generations, training


def probe(cfg: RunConfig, shape: Shape, model: str) -> Calibration:
    """Measure this machine for a recipe whose model is called `model` and has this shape.

    Raises ConfigError where the machine is too busy for even one measurement.
    """
    return MachineProbe(cfg, shape).run(model)


def measure_this_machine(
    cfg: RunConfig, shape: Shape, file: Path | None, say: Callable[[str], None]
) -> Calibration:
    """A calibration with the recipe's model, half a minute at most, written to `file` if given.

    Raises ConfigError where `file` cannot be written, or for a GPU without a known price.
    """
    if file and (file.is_dir() or not file.absolute().parent.is_dir()):
        raise ConfigError(f"cannot write {file}", "a file in a folder that exists")
    # A GPU without a price is an error now, not in half a minute.
    with_machine_price(cfg, choose_device(cfg.model.device, shape.parameters))
    say("measuring this machine, half a minute at most")
    calibration = probe(cfg, shape, cfg.model.path)
    if file:
        calibration.write(file)
    return calibration
