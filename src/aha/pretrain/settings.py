"""What `aha pretrain` was asked for, and what that will take. No torch: a plan is instant."""

import dataclasses
import json
from pathlib import Path

from aha.core.errors import ConfigError
from aha.core.sizes import GB
from aha.corpus.bases import BASES, PretrainConfig
from aha.corpus.mix import TraceMix
from aha.model.architecture import ModelConfig
from aha.plan.cost import money
from aha.plan.machines import load_cards
from aha.plan.pretrain_estimate import WRITERS, BasePlan, PretrainTokens, estimate_base
from aha.plan.shapes import Shape
from aha.plan.speed import Card


@dataclasses.dataclass(frozen=True)
class Order:
    """A base to be made in the folder `out`, from nothing or from the model `start`."""

    out: Path
    config: ModelConfig
    cfg: PretrainConfig
    start: Path | None

    @property
    def settings(self) -> dict:
        """All that decides the weights."""
        return {
            "model": self.config.to_hf(),
            "pretraining": dataclasses.asdict(self.cfg),
            "start": self.start and str(self.start),
        }

    @property
    def shape(self) -> Shape:
        config = self.config
        sizes = (config.vocab_size, config.hidden_size, config.intermediate_size)
        heads = (config.num_attention_heads, config.num_key_value_heads, config.head_dim)
        return Shape(*sizes, config.num_hidden_layers, *heads, config.tie_word_embeddings, True)

    def plan(self, card: Card, writers: int) -> BasePlan:
        positions = self.config.max_position_embeddings
        reading = PretrainTokens(self.cfg.tokens, self.cfg.batch_tokens, positions)
        return estimate_base(self.shape, reading, card, writers)


def make_order(
    name: str,
    out: Path | None = None,
    sizes: dict[str, int | None] | None = None,
    changes: dict | None = None,
    mix: str = "",
    start: Path | None = None,
) -> Order:
    """A named base with other sizes (under the names of config.json) and settings; None leaves one
    as it is. Raises `ConfigError` for a name, a size or a dial that does not exist."""
    if name not in BASES:
        raise ConfigError(f"shape {name!r}", f"one of {', '.join(BASES)}", "--shape 10m")
    base = BASES[name]
    given = {
        "hidden_size": base.shape.C,
        "intermediate_size": base.shape.I,
        "num_hidden_layers": base.shape.L,
    }
    config = ModelConfig(
        vocab_size=base.shape.V,
        num_attention_heads=base.shape.H,
        num_key_value_heads=base.shape.K,
        **(given | but_for_none(sizes or {})),
    )
    changed = but_for_none(changes or {}) | {"mix": parse_mix(mix, base.cfg.mix)}
    cfg = dataclasses.replace(base.cfg, **changed)
    return Order(out or base.folder, config, cfg, start or base.start)


def but_for_none(given: dict) -> dict:
    return {key: value for key, value in given.items() if value is not None}


def parse_mix(text: str, before: TraceMix) -> TraceMix:
    """ "backtrack=0,search=0.2" on top of the rates of before."""
    known = {field.name: field.type for field in dataclasses.fields(TraceMix)}
    changes = {}
    for pair in filter(None, text.split(",")):
        name, equals, value = pair.partition("=")
        if name not in known or name == "numbers" or not equals:
            raise ConfigError(f"mix {pair!r}", f"rate=value with one of {', '.join(known)}")
        try:
            changes[name] = int(value) if known[name] is int else float(value)
        except ValueError:
            raise ConfigError(f"mix {pair!r}", "a number") from None
    return dataclasses.replace(before, **changes)


def priced(card: Card, usd_per_hour: float | None, watts: float | None) -> Card:
    """With a price and a power of one's own, where they are given."""
    own = but_for_none({"usd_per_hour": usd_per_hour, "watts": watts})
    return dataclasses.replace(card, **own)


def print_base_plan(
    order: Order, writers: int | None, usd_per_hour: float | None, watts: float | None
) -> None:
    """The settings as one object, then memory by part and a line a machine."""
    print(json.dumps(order.settings | {"parameters": order.shape.parameters}, indent=2))
    as_of, cards = load_cards()
    plans = {}
    for name, card in cards.items():
        helping = writers if writers is not None else 0 if card.cpu else WRITERS
        plans[name] = order.plan(priced(card, usd_per_hour, watts), helping)
    shown = next(iter(plans.values()))
    print(
        f"\n{order.shape.parameters / 1e6:,.1f} M parameters, {order.cfg.tokens / 1e6:,.0f} M "
        f"tokens in {shown.updates:,.0f} updates"
    )
    for part, size in [*shown.memory.items(), ("peak", shown.peak)]:
        print(f"  {part:<20}{size / GB:>9.3f} GB")
    print(f"\n{'machine':<18}{'GB':>5}{'fits':>6}{'tok/s':>11}{'hours':>9}{'kWh':>9}{'price':>13}")
    for name, plan in plans.items():
        fits = "yes" if plan.fits(cards[name]) else "no"
        print(
            f"{name:<18}{cards[name].memory:>5.0f}{fits:>6}{plan.tokens_per_s:>11,.0f}"
            f"{plan.cost.seconds / 3600:>9.3f}{plan.cost.kwh:>9.3f}{money(plan.cost.usd):>13}"
        )
    told = "your price" if usd_per_hour is not None else f"prices of {as_of}"
    print(
        f"\nfrom shapes alone, {told}; beside a GPU {WRITERS if writers is None else writers} "
        "processes write documents (--writers); the GPU rows are not measured yet"
    )
