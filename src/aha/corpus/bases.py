"""The base models that `aha pretrain` makes, and everything that decides their weights.

`TraceMix` has the rates of the behaviours in the corpus, `PretrainConfig` the settings of the
training, `BASES` the models by name.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

from aha.plan.shapes import Shape, known_shapes


@dataclass(frozen=True)
class TraceMix:
    """The rates of the corpus; each is a probability unless its comment says otherwise.

    If the rate of a behaviour is 0, the base never reads that behaviour. Studies of priming change
    these rates. The names are keys of `aha pretrain --mix` and of `pretraining.json`.
    """

    # How many numbers a puzzle has, drawn evenly. With two there is no search, only verdicts.
    numbers: tuple[int, ...] = (2, 3, 3, 3, 3, 4, 4)
    drill: float = 0.25  # a page of arithmetic before each puzzle, and before each product
    judged: float = 0.65  # share of those pages with verdicts: each result is compared with a goal
    search: float = 0.24  # share of puzzles with tries and checks; the others are guesses
    gold_guess: float = 0.03  # a direct guess that is right on purpose
    gold_attempt: float = 0.10  # an attempt that follows a solution
    abandon: float = 0.35  # an operation without a whole result >= 0: written without a result
    insight: float = 0.30  # last operation chosen to hit the target when one does
    verify: float = 0.92  # searches that write a verdict after each full attempt
    backtrack: float = 0.45  # an attempt that starts from an intermediate result
    backward: float = 0.12  # an attempt that works back from the target
    subgoal: float = 0.08  # an attempt that names its goal first
    give_up: float = 0.45  # after each failed attempt
    orderly: float = 0.8  # searches that try operations in order, see `corpus.orderly`
    glance: float = 0.9  # of those: of the last two numbers only the nearest operation, if near ...
    look: float = 0.6  # ... and of those: only if it is very near the target
    sloppy: float = 0.4  # of those with a glance or look: pass some operations by
    again: float = 0.7  # after one of those without a solution: another pass, other eyes
    work_back: float = 0.15  # orderly searches that work back from the target
    skips: float = 0.6  # orderly searches that leave out operations that lead nowhere
    patient: float = 0.12  # other searches that are long: give_up / 12, gold_attempt / 8
    max_attempts: int = 60
    max_lines: int = 140  # of an orderly search
    give_up_early: float = 0.2  # orderly searches that end after fewer lines, drawn evenly
    high_result: int = 200  # results above it are written less often ...
    high_rate: float = 0.25  # ... by this factor: they rarely lead to targets of 10..100
    max_result: int = 1_000  # and above this one
    max_rate: float = 0.01
    multiply: float = 0.0  # a product before each puzzle, perhaps several: for the task `multiply`
    long_way: float = 0.25  # share of products calculated digit by digit; the others are guesses


@dataclass(frozen=True)
class PretrainConfig:
    """Everything that decides the weights of a base; written to its `pretraining.json`."""

    tokens: int = 72_000_000  # tokens of documents to read, padding not counted
    batch_tokens: int = 5_120  # per update, padding counted
    shard_documents: int = 20_000
    lr: float = 6e-3  # of Muon, for the matrices
    lr_rest: float = 4e-3  # of AdamW, for embeddings, norms and biases
    warmup_steps: int = 100
    decay: float = 0.4  # last share of the tokens, over which lr falls linearly to 0
    result_weight: float = 3.0  # weight in the loss of results, see `follows_line`
    choice_weight: float = 6.0  # of what a search in order chooses, see `DocumentRow`
    weight_decay: float = 0.1
    grad_clip: float = 1.0
    dtype: str = "auto"  # bf16 where the machine multiplies it, else float32
    seed: int = 0
    mix: TraceMix = field(default_factory=TraceMix)


@dataclass(frozen=True)
class Base:
    """A base that `aha pretrain --shape NAME` makes."""

    model: str  # its shape, a row of models.toml
    folder: Path  # where it is made
    cfg: PretrainConfig
    start: Path | None = None  # the model whose weights it starts from; None: from nothing

    @property
    def shape(self) -> Shape:
        """The sizes of the model, from models.toml."""
        return known_shapes()[self.model]

    @property
    def model_folder(self) -> Path:
        """The folder of the finished model; it does not exist before all tokens are read."""
        return self.folder / "model"


# 10m: ten million parameters in few layers, because every layer costs launch time on a GPU; heads
# of 64. It reads 144 tokens per parameter (aha-tiny: 89) in 47,000 updates. A whole batch fits in
# the memory of a card of 8 GB. As many puzzles have four numbers as three, as in the RL that
# follows. The learning rates are those of aha-tiny, not tuned. Two rules would change them: for
# three times the width 0.6 of Muon's rate (under RMS matching, the spectral norm of an update grows
# with the root of the width, arXiv 2310.17813); for 6.4 times the batch 2.5 times the rate (square
# root rule of Adam, arXiv 2205.10287). Together 1.5 times; we leave that out as a margin.
# multiply: aha-tiny, which has read sums and differences, continues with products.
# guesses: a base without the behaviours, for the studies: three numbers, so that nothing is a
# search. It has pages with verdicts, since a base that cannot tell whether a result is the target
# has no use for a search, whatever examples of it are read: see docs/decisions/studies.md.
GUESSES = replace(
    TraceMix(),
    numbers=(3,),
    drill=1.0,
    search=0.0,
    gold_guess=0.05,
    verify=0.0,
    backtrack=0.0,
    backward=0.0,
    subgoal=0.0,
)
BASES = {
    "tiny": Base("aha-tiny", Path("runs/pretrain"), PretrainConfig()),
    "10m": Base(
        "base-10m",
        Path("runs/base-10m"),
        PretrainConfig(
            tokens=1_500_000_000,
            batch_tokens=32_768,
            warmup_steps=300,
            mix=replace(TraceMix(), numbers=(2, 2, 3, 3, 3, 4, 4, 4)),
        ),
    ),
    "multiply": Base(
        "base-multiply",
        Path("runs/base-multiply"),
        PretrainConfig(tokens=10_000_000, mix=replace(TraceMix(), multiply=0.9)),
        start=Path("aha-tiny"),
    ),
    "guesses": Base(
        "aha-tiny", Path("runs/base-guesses"), PretrainConfig(tokens=20_000_000, mix=GUESSES)
    ),
}


def command_for(path: str | Path) -> str | None:
    """The command that makes the model at this path; None for any other path."""
    for name, base in BASES.items():
        if Path(path) == base.model_folder:
            return f"aha pretrain --shape {name}"
    return None
