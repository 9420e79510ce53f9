"""A calibration: what this machine does with a recipe's model, in half a minute.

The engine writes and the trainer trains, as in a run, on random weights of the model's shape, or
on fewer layers and words of it where the whole is too large; every token has the chance of ending
its completion that makes them as long as the plan assumes. The run's own random streams are left
alone.
"""

import time
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

import torch

from aha.batching.batch import TrainingRow, totals_of
from aha.core.config import RunConfig
from aha.core.records import Graded, Problem, Prompt
from aha.machine.device import device_memory, device_name, num_threads
from aha.measure.base_length import completions_in, folder_at_hand, measure_base
from aha.measure.rates import RATES_BY, SHARE, SLOW, Rates
from aha.model.architecture import ModelConfig
from aha.model.lora import add_lora
from aha.model.transformer import Transformer
from aha.plan.calibration import BaseLength, Calibration
from aha.plan.estimate import activation_bytes
from aha.plan.shapes import Shape
from aha.plan.speed import Card, Generation, Training
from aha.rollout.engine import Sampling
from aha.rollout.native import NativeEngine
from aha.train.rl import RLTrainer

PIECE_S = 4.0  # of one measurement at most, as far as the one before can tell
# Shares of the limit after which a part is not begun; the base's completions have what is left.
SHORT_BY, LONG_BY, TRAIN_BY = 0.45, 0.6, 0.8
FEW_WORDS = 8_192  # a vocabulary that is left of one that does not fit
DISK = 0.5e9  # bytes/s at which weights are read, a guess on the safe side


class Stub:
    """Stands for a tokenizer: its first `stops` ids end a completion, and nothing is spelled."""

    pad_id = 0

    def __init__(self, stops: int):
        self.stop_ids = list(range(stops))

    def decode(self, unused) -> str:
        return ""


class Probe(Rates):
    """Measures for one recipe."""

    # -- the model -------------------------------------------------------------------------

    def fitting(self, rate: float) -> Shape:
        """As much of the shape as half of the free memory holds and one row can be trained of
        in time; widths stay, as they decide how fast products are."""
        free = device_memory(self.device).free
        T = self.lengths.prompt + self.lengths.weighted

        def fits(shape: Shape) -> bool:
            held = 12.0 * shape.parameters + activation_bytes(shape, int(T))
            quick = Training(T, T, 1).products(shape) <= PIECE_S * SHARE * rate
            return held <= free / 2 and quick

        shape = self.wanted
        if not fits(shape):
            shape = replace(shape, V=min(shape.V, FEW_WORDS))
        while not fits(shape) and shape.L > 1:
            shape = replace(shape, L=shape.L // 2)
        return shape

    def policy(self, shape: Shape) -> Transformer:
        """Of random weights, all logits alike: every word is as probable as another."""
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

    def write(self, engine: NativeEngine, rows: int, limit: int) -> list[list]:
        """`rows` completions, in the recipe's groups; half as long as their limit on average."""
        G = min(rows, self.cfg.rollout.group_size)
        tokens = tuple(range(1, int(self.lengths.prompt) + 1))
        tokens = tuple(token % self.wanted.C for token in tokens)
        prompts = [Prompt(Problem(str(p), "", {}), "", tokens) for p in range(rows // G)]
        stops = max(1, round(engine.weights.config.vocab_size * 1.6 / limit))
        engine.stop = torch.arange(stops)
        engine.tokenizer.stop_ids = list(range(stops))
        return engine.generate(prompts, Sampling(limit, G, 1.0))

    def written(self, groups: list[list], limit: int) -> Generation:
        sizes = [len(one.tokens) for group in groups for one in group]
        prompt, tokens = self.lengths.prompt, sum(sizes)
        context = prompt + sum(size * size for size in sizes) / tokens / 2
        return Generation(tokens, context, limit, prompt * len(groups))

    def generation(
        self, engine: NativeEngine, rows: int, limit: int, share: float
    ) -> tuple[Generation, float, list[list]]:
        """From `rows` on as many as the recipe has, or as can be written in time."""
        wanted = min(
            self.cfg.rollout.prompts * self.cfg.rollout.group_size, self.cfg.rollout.max_rows
        )
        rows = min(rows, wanted)
        while True:
            groups: list[list] = []
            took = self.seconds(
                lambda rows=rows, out=groups: out.extend(self.write(engine, rows, limit))
            )
            more = min(wanted, 4 * rows)
            if more == rows or took * more / rows > min(PIECE_S, self.left(share)):
                return self.written(groups, limit), took, groups
            rows = more

    def writings(
        self, engine: NativeEngine, pass_s: float
    ) -> tuple[list[tuple[Generation, float]], list[list]]:
        """A short and a long writing, each with its seconds, and the long one's completions. A row
        of `pass_s` seconds a token says how long the first may take, the first how long the
        second."""
        limit = int(min(self.lengths.limit, max(16, 0.7 * PIECE_S / pass_s)))
        short = max(1, limit // 4)
        found, groups, rows, a_row = [], [], 8, short * pass_s
        for size, share, name in ((short, SHORT_BY, "short"), (limit, LONG_BY, "long")):
            while rows > 1 and rows * a_row > self.left(share):
                rows //= 2
            told = self.piece(
                f"{name} completions",
                share - rows * a_row / self.limit_s,
                partial(self.generation, engine, rows, size, share),
            )
            a_row *= 4
            if told:
                work, took, groups = told
                found.append((work, took))
                a_row = 4 * took / (sum(map(len, groups)))
        return found, groups

    def assumed_writings(
        self, shape: Shape, guess: Card, measured: list[tuple[Generation, float]]
    ) -> list[tuple[Generation, float]]:
        """What there was no time to write, as a machine like `guess` would have; as much slower or
        quicker than it as the short writing was, where there was time for that."""
        off = [took / work.seconds(shape, guess) for work, took in measured]
        found = []
        for limit in (self.lengths.limit / 4, self.lengths.limit)[len(measured) :]:
            lengths = replace(self.lengths, mean=limit / 2, limit=limit)
            work = lengths.generation(8, 1, 8)
            found.append((work, (off or [1.0])[0] * work.seconds(shape, guess)))
        return found

    def train(self, trainer: RLTrainer, groups: list[list]) -> tuple[Training, float]:
        """The gradient of as many of these completions as can be had in time."""
        flat = [Graded(1.0, True, "", {}, one) for group in groups for one in group]
        rows = [TrainingRow.of(one, (-1.0) ** place) for place, one in enumerate(flat)]
        micro, count = self.cfg.optim.micro_batch_tokens, 1
        while True:
            some = rows[:count]
            totals = totals_of(some, self.cfg.rollout.max_new_tokens)
            took = self.seconds(
                lambda some=some, t=totals: trainer.objective.gradient(some, t, Stub.pad_id, micro)
            )
            trainer.policy.zero_grad()
            more = min(len(rows), 4 * count)
            if more == count or took * more / count > min(PIECE_S, self.left(TRAIN_BY)):
                break
            count = more
        prompt, done = self.lengths.prompt, [row.graded.completion for row in some]
        sizes = [prompt + len(one.tokens) for one in done]
        length = sum(size * size for size in sizes) / sum(sizes)
        # A prompt is computed once for its group.
        prompts = len({id(one.prompt) for one in done})
        tokens = sum(len(one.tokens) for one in done) + prompts * prompt
        work = 4.0 if self.cfg.model.lora_rank else 6.0
        work += 2.0 * self.cfg.optim.recompute
        return Training(tokens, length, -(-tokens // micro), work), took

    def base(
        self, shape: Shape, long: tuple[Generation, float], pass_s: float
    ) -> BaseLength | None:
        """How long the real base's completions are, where the plan would have to guess, the base
        is on the disk and there is time to read it and to write some dozens."""
        if self.cfg.rollout.expected_tokens or shape != self.wanted or self.late(1.0):
            return None
        folder = folder_at_hand(self.cfg.model.path)
        if folder is None:
            return None
        (work, took), limit = long, self.cfg.rollout.max_new_tokens
        reading = 4.0 * shape.parameters / DISK

        def seconds_for(count: int) -> float:
            return reading + max(limit * pass_s, count * limit * took / work.tokens)

        count = completions_in(self.left(1.0), seconds_for)
        if not count:
            self.assumed.append("the length of the base's completions")
        return measure_base(self.cfg, folder, count) if count else None

    def layer_us(self, pass_s: float, shape: Shape, bandwidth: float) -> float:
        """What a GPU needs for a layer of one row, less what reading the weights takes."""
        if self.device.type == "cpu":
            return 0.0
        return max(0.0, pass_s - 2 * shape.multiplied / bandwidth) / shape.L * 1e6

    def run(self, model: str) -> Calibration:
        matmul, attention, bandwidth = self.rates()
        shape = self.fitting(matmul)
        pass_s, writings, training = self.of_model(shape)
        guess = replace(SLOW, tflops=matmul / 1e12, bandwidth=bandwidth / 1e9)
        guess = replace(guess, attention=guess.train_rate / attention)
        writings += self.assumed_writings(shape, guess, writings)
        if training is None:
            rows = self.lengths.training(1, 1, self.cfg.optim.micro_batch_tokens, 6.0)
            training = rows, rows.seconds(shape, guess)
        base = self.base(shape, writings[1], pass_s) if pass_s else None
        return Calibration(
            machine=device_name(self.device),
            device=self.device.type,
            memory_gb=device_memory(self.device).total / 1e9,
            threads=num_threads(),
            dtype=str(self.dtype).removeprefix("torch."),
            model=model,
            shape=shape,
            whole=shape == self.wanted,
            matmul_rate=matmul,
            attention_rate=attention,
            bandwidth=bandwidth,
            layer_us=self.layer_us(pass_s, shape, bandwidth),
            writings=tuple(writings),
            training=training[0],
            training_s=training[1],
            seconds=time.perf_counter() - self.began,
            measured=datetime.now(UTC).isoformat(timespec="seconds"),
            assumed=tuple(self.assumed),
            base=base,
        )

    def of_model(
        self, shape: Shape
    ) -> tuple[float, list[tuple[Generation, float]], tuple[Training, float] | None]:
        """(seconds of a token of one row, what was written, what was trained), as far as there
        was time. Random weights; they are gone when this returns."""
        if self.late(RATES_BY):
            self.assumed.append("generation and training")
            return 0.0, [], None
        policy, rollout = self.policy(shape), self.cfg.rollout
        engine = NativeEngine(policy, Stub(1), rollout.dtype, rollout.max_rows, rollout.loop)
        trainer = RLTrainer(policy, Stub(1), None, engine, self.cfg)
        few = min(8, int(self.lengths.limit))
        self.write(engine, 1, few)  # builds and warms what is built at first use
        row_s = self.piece(
            "generation and training",
            SHORT_BY,
            lambda: self.seconds(lambda: self.write(engine, 1, few)),
        )
        if row_s is None:
            return 0.0, [], None
        pass_s = row_s / few
        writings, groups = self.writings(engine, pass_s)
        name, share = f"training at {SHARE:.0%} of the products' rate", LONG_BY if groups else 0.0
        return pass_s, writings, self.piece(name, share, lambda: self.train(trainer, groups))


def probe(cfg: RunConfig, shape: Shape, model: str) -> Calibration:
    """Measure this machine for a recipe whose model has this shape."""
    return Probe(cfg, shape).run(model)
