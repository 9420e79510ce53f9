"""A calibration: what this machine does with a recipe's model, in at most half a minute.

The engine writes and the trainer trains, as in a run, on random weights of the model's shape, or
on fewer layers and words of it where the whole is too large; every token has the chance of ending
its completion that makes them as long as the plan assumes. The run's own random streams are left
alone.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from statistics import median

import torch
from torch.nn import functional as F

from aha.algo.batch import totals_of
from aha.core.config import RunConfig
from aha.core.records import Graded, Problem, Prompt
from aha.model import ops
from aha.model.config import ModelConfig
from aha.model.lora import add_lora
from aha.model.transformer import Decoder
from aha.plan.calibration import Calibration
from aha.plan.estimate import activation_bytes
from aha.plan.shapes import Shape
from aha.plan.speed import Lengths, Training, Writing
from aha.rollout.engine import Sampling
from aha.rollout.native import NativeEngine, compute_dtype
from aha.store.run import cpu_name
from aha.train.device import choose_device
from aha.train.doctor.machine import memory_bytes
from aha.train.rl import RLTrainer

LIMIT_S = 30.0
PIECE_S = 4.0  # of one measurement at most, as far as the one before can tell
FEW_WORDS = 8_192  # a vocabulary that is left of one that does not fit
SHARE = 0.15  # of the arithmetic, guessed, to see what can be measured in time


class Stub:
    """Stands for a tokenizer: its first `stops` ids end a completion, and nothing is spelled."""

    pad_id = 0

    def __init__(self, stops: int):
        self.stop_ids = list(range(stops))

    def decode(self, unused) -> str:
        return ""


class Probe:
    """Measures for one recipe."""

    def __init__(self, cfg: RunConfig, shape: Shape):
        # Whatever the method adds (reference, critic) is counted by the plan, not measured.
        algo = type(cfg.algo)()
        self.cfg = cfg.model_copy(update={"algo": algo})
        self.wanted, self.lengths = shape, Lengths.of(cfg)
        self.device = choose_device(cfg.model.device, shape.parameters)
        self.dtype = compute_dtype(cfg.optim.dtype, self.device)
        self.began = time.perf_counter()

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], object]) -> float:
        self.wait()
        start = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - start

    def typical(self, work: Callable[[], object], limit: float = 1.0) -> float:
        """The median over as many rounds as fit the limit, after one that does not count."""
        first = self.seconds(work)
        rounds = min(20, int(limit / first))
        if not rounds or self.late(0.3):
            return first
        return median(self.seconds(work) for _ in range(rounds))

    # -- rates -----------------------------------------------------------------------------

    def random(self, *sizes: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(*sizes, generator=generator).to(self.device, self.dtype)

    def matmul_rate(self) -> float:
        """FLOP/s of the mlp's first product."""
        rows, C, wide = 1024, self.wanted.C, 2 * self.wanted.I
        x, weight = self.random(rows, C), self.random(wide, C)
        return 2 * rows * C * wide / self.typical(lambda: F.linear(x, weight))

    def attention_rate(self) -> float:
        """FLOP/s, forward and backward, of one layer at the plan's length."""
        shape, T = self.wanted, int(self.lengths.prompt + self.lengths.weighted)
        rows = max(1, min(self.cfg.optim.micro_batch_tokens, 8192) // T)
        q = self.random(rows * shape.K, shape.H // shape.K, T, shape.D).requires_grad_()
        k, v = (self.random(rows * shape.K, T, shape.D).requires_grad_() for _ in range(2))

        def work() -> None:
            ops.causal_attention(q, k, v).sum().backward()

        one = replace(shape, L=1)
        return Training(rows * T, T, 1).attention(one) / self.typical(work)

    def bandwidth(self) -> float:
        """Bytes/s of copying what no cache holds."""
        source = torch.zeros(2**26, dtype=torch.uint8, device=self.device)
        target = torch.empty_like(source)
        return 2 * source.numel() / self.typical(lambda: target.copy_(source), 0.3)

    # -- the model -------------------------------------------------------------------------

    def fitting(self, rate: float) -> Shape:
        """As much of the shape as half of the free memory holds and one row can be trained of
        in time; widths stay, as they decide how fast products are."""
        on_gpu = self.device.type == "cuda"
        free = torch.cuda.mem_get_info()[0] if on_gpu else memory_bytes()[0]
        T = self.lengths.prompt + self.lengths.weighted

        def fits(shape: Shape) -> bool:
            held = 12.0 * shape.parameters + activation_bytes(shape, int(T), int(T))
            quick = Training(T, T, 1).products(shape) <= PIECE_S * SHARE * rate
            return held <= free / 2 and quick

        shape = self.wanted
        if not fits(shape):
            shape = replace(shape, V=min(shape.V, FEW_WORDS))
        while not fits(shape) and shape.L > 1:
            shape = replace(shape, L=shape.L // 2)
        return shape

    def decoder(self, shape: Shape) -> Decoder:
        """Of random weights, all logits alike: every word is as probable as another."""
        config = ModelConfig(
            *(shape.V, shape.C, shape.I, shape.L, shape.H, shape.K),
            max_position_embeddings=int(self.lengths.prompt + self.lengths.limit),
            tie_word_embeddings=shape.tied,
            model_type="qwen3" if shape.norms else "qwen2" if shape.bias else "llama",
            head_dim=shape.D,
        )
        with torch.device("meta"):
            decoder = Decoder(config)
        decoder.to_empty(device=self.device)
        generator = torch.Generator(self.device).manual_seed(0)
        with torch.no_grad():
            for name, parameter in decoder.named_parameters():
                norm = name.endswith("norm.weight")
                parameter.normal_(float(norm), 0.0 if norm else 0.02, generator=generator)
        rank = self.cfg.model.lora_rank
        if rank:
            decoder.to(self.dtype)
            add_lora(decoder, rank, 2.0 * rank, 0)
        return decoder

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

    def written(self, groups: list[list], limit: int) -> Writing:
        sizes = [len(one.tokens) for group in groups for one in group]
        prompt, tokens = self.lengths.prompt, sum(sizes)
        context = prompt + sum(size * size for size in sizes) / tokens / 2
        return Writing(tokens, context, limit, prompt * len(groups))

    def generation(self, engine: NativeEngine, limit: int) -> tuple[Writing, float, list[list]]:
        """As many rows as the recipe has, or as can be written in time."""
        wanted = min(
            self.cfg.rollout.prompts * self.cfg.rollout.group_size, self.cfg.rollout.max_rows
        )
        rows = min(8, wanted)
        while True:
            groups: list[list] = []
            took = self.seconds(
                lambda rows=rows, out=groups: out.extend(self.write(engine, rows, limit))
            )
            more = min(wanted, 4 * rows)
            if more == rows or took * more / rows > PIECE_S or self.late(0.5):
                return self.written(groups, limit), took, groups
            rows = more

    def train(self, trainer: RLTrainer, groups: list[list]) -> tuple[Training, float]:
        """The gradient of as many of these completions as can be had in time."""
        flat = [Graded(1.0, True, "", {}, one) for group in groups for one in group]
        rows = [(one, (-1.0) ** place) for place, one in enumerate(flat)]
        micro, count = self.cfg.optim.micro_batch_tokens, min(4, len(rows))
        while True:
            some = rows[:count]
            totals = totals_of(some, self.cfg.rollout.max_new_tokens)
            took = self.seconds(lambda some=some, t=totals: trainer.gradient(some, t, micro))
            trainer.decoder.zero_grad()
            more = min(len(rows), 4 * count)
            if more == count or took * more / count > PIECE_S or self.late(0.9):
                break
            count = more
        prompt = self.lengths.prompt
        sizes = [prompt + len(one.completion.tokens) for one, _ in some]
        tokens, work = sum(sizes), 4.0 if self.cfg.model.lora_rank else 6.0
        work += 2.0 * self.cfg.optim.recompute
        length = sum(size * size for size in sizes) / tokens
        return Training(tokens, length, -(-tokens // micro), work), took

    def late(self, share: float) -> bool:
        return time.perf_counter() - self.began > share * LIMIT_S

    def layer_us(self, pass_s: float, shape: Shape, bandwidth: float) -> float:
        """What a GPU needs for a layer of one row, less what reading the weights takes."""
        if self.device.type == "cpu":
            return 0.0
        return max(0.0, pass_s - 2 * shape.multiplied / bandwidth) / shape.L * 1e6

    def run(self, model: str) -> Calibration:
        matmul, attention, bandwidth = self.matmul_rate(), self.attention_rate(), self.bandwidth()
        shape = self.fitting(matmul)
        decoder = self.decoder(shape)
        rollout = self.cfg.rollout
        engine = NativeEngine(decoder, Stub(1), rollout.dtype, rollout.max_rows, rollout.loop)
        trainer = RLTrainer(decoder, Stub(1), None, engine, self.cfg)
        self.write(engine, 1, 8)  # builds and warms what is built at first use
        pass_s = self.seconds(lambda: self.write(engine, 1, 8)) / 8
        limit = int(max(16, min(self.lengths.limit, 0.7 * PIECE_S / pass_s)))
        short, short_s, _ = self.generation(engine, limit // 4)
        long, long_s, groups = self.generation(engine, limit)
        training, training_s = self.train(trainer, groups)
        on_gpu = self.device.type == "cuda"
        memory = torch.cuda.mem_get_info()[1] if on_gpu else memory_bytes()[1]
        return Calibration(
            machine=torch.cuda.get_device_name() if on_gpu else cpu_name(),
            device=self.device.type,
            memory_gb=memory / 1e9,
            threads=torch.get_num_threads(),
            dtype=str(self.dtype).removeprefix("torch."),
            model=model,
            shape=shape,
            whole=shape == self.wanted,
            matmul_rate=matmul,
            attention_rate=attention,
            bandwidth=bandwidth,
            layer_us=self.layer_us(pass_s, shape, bandwidth),
            writings=((short, short_s), (long, long_s)),
            training=training,
            training_s=training_s,
            seconds=time.perf_counter() - self.began,
            measured=datetime.now(UTC).isoformat(timespec="seconds"),
        )


def probe(cfg: RunConfig, shape: Shape, model: str) -> Calibration:
    """Measure this machine for a recipe whose model has this shape."""
    return Probe(cfg, shape).run(model)
