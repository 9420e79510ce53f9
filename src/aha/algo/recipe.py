"""The one way to load a recipe: its file, the overrides, installed packages, and every check.

Precedence: defaults of `aha.core.config` < recipe (TOML) < `--section.key value`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aha.algo.algorithms import chosen_of
from aha.algo.combinations import check_combinations
from aha.algo.correction import DEFAULT
from aha.algo.losses import LOSSES
from aha.algo.registry import load_outside
from aha.core.config import AlgoSection, RunConfig, validated
from aha.core.engines import ENGINES
from aha.core.errors import ConfigError
from aha.core.recipe_layers import layered


def load_recipe(recipe: Path | None, overrides: dict[str, Any] | None = None) -> RunConfig:
    """A checked config from a recipe file and dotted overrides `{"optim.lr": "3e-4"}`.

    Raises ConfigError for an unknown key or name (with the nearest), a value of the wrong kind, and
    a combination that cannot work (with the reason and the fix).
    """
    return checked(layered(recipe, overrides), f"{recipe}: " if recipe else "", overrides)


def checked(
    raw: dict[str, Any], where: str = "", overrides: dict[str, Any] | None = None
) -> RunConfig:
    """The config of raw settings; errors as in `load_recipe`."""
    load_outside()
    correct_engine(raw)
    cfg = validated(raw, where, overrides)
    check_recipe(cfg, where)
    return cfg


def begun(raw: dict[str, Any], where: str = "") -> RunConfig:
    """The config of a run that began with these settings, from its config.json.

    Values and names are checked as in `load_recipe`, combinations are not: the run began with
    them, perhaps under a version that did not refuse them.
    """
    load_outside()
    cfg = validated(raw, where)
    check_names(cfg, where)
    return cfg


def check_recipe(cfg: RunConfig, where: str = "") -> None:
    """Raise a ConfigError for a name that nobody has registered, or algorithms that do not go
    together."""
    check_names(cfg, where)
    check_combinations(cfg)


def check_names(cfg: RunConfig, where: str = "") -> None:
    """Raise ConfigError for a name that nobody has registered."""
    try:
        chosen_of(cfg.algo)
    except ConfigError as error:
        raise ConfigError(f"{where}{error.got}", error.wanted, error.fix) from None


def correct_engine(raw: dict[str, Any]) -> None:
    """The log-probs of some engines are not the trainer's: where a loss takes no ratio against them
    and the recipe says nothing, they are corrected."""
    rollout, algo = raw.get("rollout"), raw.get("algo", {})
    if not isinstance(rollout, dict) or not isinstance(algo, dict):
        return
    name = algo.get("loss", AlgoSection.model_fields["loss"].default)
    loss = LOSSES.get(name) if isinstance(name, str) else None
    engine = ENGINES.get(str(rollout.get("engine")))
    if engine and not engine.exact and loss and not loss.facts.ratio:
        raw["algo"] = {"correction": DEFAULT} | algo
