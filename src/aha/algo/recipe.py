"""The one way to load a recipe: its file, the overrides, installed packages, and every check.

Precedence: defaults of `aha.core.config` < recipe (TOML) < `--section.key value`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from aha.algo.algorithms import chosen_of
from aha.algo.combinations import check_combinations
from aha.algo.correction import DEFAULT
from aha.algo.fixes import completed
from aha.algo.losses import LOSSES
from aha.algo.registry import load_outside
from aha.core.config import AlgoSection, RunConfig, validated
from aha.core.engines import ENGINES
from aha.core.errors import ConfigError
from aha.core.recipe_layers import layered, set_dotted
from aha.core.section import is_section


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
    try:
        cfg = resolved(raw, where, overrides)
        check_recipe(cfg, where, raw, overrides)
    except ConfigError as error:
        raise completed(error, lambda changes: recheck(changed(raw, changes))) from None
    return cfg


def recheck(raw: dict[str, Any]) -> None:
    check_recipe(resolved(raw), raw=raw)


def changed(raw: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with these changes by dotted keys."""
    copied = {k: dict(v) if isinstance(v, dict) else v for k, v in raw.items()}
    for key, value in changes.items():
        set_dotted(copied, key, value)
    return copied


def resolved(
    raw: dict[str, Any], where: str = "", overrides: dict[str, Any] | None = None
) -> RunConfig:
    """The config of raw settings, with what follows from them; the algorithms are not checked."""
    return validated(corrected(without_unset(raw)), where, overrides)


def begun(raw: dict[str, Any], where: str = "") -> RunConfig:
    """The config of a run that began with these settings, from its config.json.

    Values and names are checked as in `load_recipe`, combinations are not: the run began with
    them, perhaps under a version that did not refuse them.
    """
    load_outside()
    cfg = validated(raw, where)
    check_names(cfg, where)
    return cfg


def check_recipe(
    cfg: RunConfig,
    where: str = "",
    raw: dict[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> None:
    """Raise a ConfigError for a name that nobody has registered, or algorithms that do not go
    together.

    `raw`: the settings that the recipe was resolved from, if a fix is to be one for them. `where`:
    the file that they are from, for the error; the `overrides` among them are not.
    """
    check_names(cfg, where, overrides)
    settings = cfg.model_dump() if raw is None else raw

    check_combinations(cfg, lambda changes: resolved(changed(settings, changes)))


def check_names(
    cfg: RunConfig, where: str = "", overrides: Mapping[str, Any] | None = None
) -> None:
    """Raise ConfigError for a name that nobody has registered; `where` and `overrides` as in
    `check_recipe`."""
    try:
        chosen_of(cfg.algo)
    except ConfigError as error:
        typed = {key.replace("-", "_") for key in overrides or {}}
        if error.got.partition(" ")[0] in typed:
            where = ""
        raise ConfigError(f"{where}{error.got}", error.wanted, error.fix) from None


def without_unset(raw: dict[str, Any]) -> dict[str, Any]:
    """`none` is no value for a key that may be left out, as help and `aha config show` print it:
    so an option can take back what a recipe sets."""
    return unset_in(RunConfig, raw) | {
        name: unset_in(field.annotation, raw[name])
        for name, field in RunConfig.model_fields.items()
        if is_section(field.annotation) and isinstance(raw.get(name), dict)
    }


def unset_in(section: type[BaseModel], raw: dict[str, Any]) -> dict[str, Any]:
    fields = section.model_fields
    unset = {k for k, v in raw.items() if v == "none" and k in fields and fields[k].default is None}
    return {key: None if key in unset else value for key, value in raw.items()}


def corrected(raw: dict[str, Any]) -> dict[str, Any]:
    """The log-probs of some engines are not the trainer's: where a loss takes no ratio against them
    and the recipe says nothing, they are corrected."""
    rollout, algo = raw.get("rollout"), raw.get("algo", {})
    if not isinstance(rollout, dict) or not isinstance(algo, dict):
        return raw
    name = algo.get("loss", AlgoSection.model_fields["loss"].default)
    loss = LOSSES.get(name) if isinstance(name, str) else None
    engine = ENGINES.get(str(rollout.get("engine")))
    if engine and not engine.exact and loss and not loss.facts.ratio:
        return raw | {"algo": {"correction": DEFAULT} | algo}
    return raw
