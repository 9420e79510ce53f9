"""The job of `aha pretrain` and its plan. No torch, so that a dry run is quick."""

import dataclasses
from pathlib import Path
from typing import Any

from aha.core.errors import ConfigError
from aha.core.sizes import ONE_THREAD_MODEL
from aha.corpus.bases import BASES, PretrainConfig, TraceMix
from aha.model.architecture import ModelConfig
from aha.plan.estimate import CPU_THREADS
from aha.plan.machines import load_cards
from aha.plan.pretrain_estimate import WRITERS, BasePlan, PretrainTokens, estimate_base
from aha.plan.shapes import Shape
from aha.plan.speed import Card

RANK_TOKENS = 1_280  # of an update, at least, for each rank that `auto` starts


@dataclasses.dataclass(frozen=True)
class PretrainJob:
    """A base model to make in the folder `out`: architecture, training settings, and the model
    whose weights it starts from (`start` None: random weights)."""

    out: Path
    architecture: ModelConfig
    cfg: PretrainConfig
    start: Path | None

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that decides the weights, as plain values for JSON."""
        return {
            "model": self.architecture.to_hf(),
            "pretraining": dataclasses.asdict(self.cfg),
            "start": self.start and str(self.start),
        }

    @property
    def shape(self) -> Shape:
        config = self.architecture
        sizes = (config.vocab_size, config.hidden_size, config.intermediate_size)
        heads = (config.num_attention_heads, config.num_key_value_heads, config.head_dim)
        return Shape(*sizes, config.num_hidden_layers, *heads, config.tie_word_embeddings, True)

    @property
    def most_ranks(self) -> int:
        """For how many ranks an update has work enough."""
        return self.cfg.batch_tokens // RANK_TOKENS

    def ranks_on(self, card: Card, ranks: int | None) -> int:
        """The ranks that train on a machine of the table: 1 on a GPU; on a CPU `ranks`, or, None,
        as many as `--ranks auto` takes on its cores."""
        if not card.cpu:
            return 1
        small = self.shape.parameters < ONE_THREAD_MODEL
        return ranks or (max(1, min(CPU_THREADS, self.most_ranks)) if small else 1)

    def plan(self, card: Card, writers: int, ranks: int = 1) -> BasePlan:
        cfg, positions = self.cfg, self.architecture.max_position_embeddings
        reading = PretrainTokens(cfg.tokens, cfg.batch_tokens, positions, cfg.shard_documents)
        return estimate_base(self.shape, reading, card, writers, ranks)


def make_job(
    name: str,
    out: Path | None = None,
    sizes: dict[str, int | None] | None = None,
    changes: dict[str, Any] | None = None,
    mix: str = "",
    start: Path | None = None,
) -> PretrainJob:
    """The base `name` with other sizes (named as in config.json) and settings; None: unchanged.

    Raises ConfigError for a name, a size or a rate that does not exist.
    """
    if name not in BASES:
        raise ConfigError(f"shape {name!r}", f"one of {', '.join(BASES)}", "--shape 10m")
    base = BASES[name]
    named_sizes = {
        "hidden_size": base.shape.C,
        "intermediate_size": base.shape.I,
        "num_hidden_layers": base.shape.L,
    }
    architecture = ModelConfig(
        vocab_size=base.shape.V,
        num_attention_heads=base.shape.H,
        num_key_value_heads=base.shape.K,
        **(named_sizes | without_none(sizes or {})),
    )
    changed = without_none(changes or {}) | {"mix": parse_mix(mix, base.cfg.mix)}
    cfg = dataclasses.replace(base.cfg, **changed)
    return PretrainJob(out or base.folder, architecture, cfg, start or base.start)


def without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def parse_mix(text: str, base: TraceMix) -> TraceMix:
    """The rates of `base` with those of a text such as "backtrack=0,search=0.2".

    Raises ConfigError for an unknown rate and for a value that is no number.
    """
    known = {field.name: field.type for field in dataclasses.fields(TraceMix)}
    changes: dict[str, Any] = {}
    for pair in filter(None, text.split(",")):
        name, equals, value = pair.partition("=")
        if name not in known or name == "numbers" or not equals:
            raise ConfigError(f"mix {pair!r}", f"rate=value with one of {', '.join(known)}")
        try:
            changes[name] = int(value) if known[name] is int else float(value)
        except ValueError:
            raise ConfigError(f"mix {pair!r}", "a number") from None
    return dataclasses.replace(base, **changes)


def with_price(card: Card, usd_per_hour: float | None, watts: float | None) -> Card:
    """The machine with another price or power, if they are given."""
    return dataclasses.replace(card, **without_none({"usd_per_hour": usd_per_hour, "watts": watts}))


def plans_on_table(
    job: PretrainJob,
    writers: int | None,
    usd_per_hour: float | None,
    watts: float | None,
    ranks: int | None = None,
) -> tuple[str, dict[str, tuple[Card, BasePlan]]]:
    """(date of the prices, {machine: its row and the plan on it}) for all of cards.toml.

    `writers` None: 8 processes that write documents on a machine with a GPU, 0 without. `ranks`: as
    in `PretrainJob.ranks_on`.
    """
    as_of, cards = load_cards()
    plans = {}
    for name, card in cards.items():
        processes = writers if writers is not None else 0 if card.cpu else WRITERS
        priced = with_price(card, usd_per_hour, watts)
        plans[name] = card, job.plan(priced, processes, job.ranks_on(card, ranks))
    return as_of, plans
