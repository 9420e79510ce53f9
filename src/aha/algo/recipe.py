"""The one way to load a recipe: its file, the overrides, installed packages, and every check.

Precedence: defaults of `aha.core.config` < recipe (TOML) < `--section.key value`. An override that
takes a thing off (`--algo.kl none`) takes along what the recipe's file has set for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from aha.algo.algorithms import chosen_of
from aha.algo.combinations import check_combinations, clashes_of
from aha.algo.correction import DEFAULT
from aha.algo.fixes import OF_FILE, TYPED, completed
from aha.algo.losses import LOSSES
from aha.algo.registry import load_outside
from aha.core.config import AlgoSection, RunConfig, validated
from aha.core.engines import ENGINES
from aha.core.errors import ConfigError, UnreadSetting
from aha.core.recipe_layers import flattened, layered, set_dotted, without_dotted
from aha.core.section import is_section


def load_recipe(recipe: Path | None, overrides: dict[str, Any] | None = None) -> RunConfig:
    """A checked config from a recipe file and dotted overrides `{"optim.lr": "3e-4"}`.

    Raises ConfigError for an unknown key or name (with the nearest), a value of the wrong kind, and
    a combination that cannot work (with the reason and the fix).
    """
    raw = layered(recipe, overrides)
    if recipe and overrides:
        raw = without_leftovers(raw, layered(recipe), overrides)
    return checked(raw, f"{recipe}: " if recipe else "", overrides)


def without_leftovers(
    raw: dict[str, Any], file: dict[str, Any], overrides: Mapping[str, Any]
) -> dict[str, Any]:
    """The settings without those of the recipe's file that an override has left without a reader,
    such as its kl_coef with `--algo.kl none`. What was typed, and what is not read in the file
    alone, is a mistake of somebody and stays, to be refused."""
    load_outside()
    own = flattened(file).keys() - typed_keys(overrides)
    if not (key := unread_key(raw)) or unread_key(file):
        return raw
    while key in own:
        raw, own = without_dotted(raw, key), own - {key}
        key = unread_key(raw)
    return raw


def unread_key(raw: dict[str, Any]) -> str:
    """The dotted key of a setting that nothing reads; empty if there is none, or if the settings
    cannot be resolved for another reason."""
    try:
        clashes = list(clashes_of(resolved(raw)))
    except UnreadSetting as error:
        return error.key
    except ConfigError:
        return ""
    return next((clash.unread for clash in clashes if clash.unread), "")


def checked(
    raw: dict[str, Any], where: str = "", overrides: dict[str, Any] | None = None
) -> RunConfig:
    """The config of raw settings; errors as in `load_recipe`."""
    load_outside()
    try:
        cfg = resolved(raw, where, overrides)
        check_recipe(cfg, where, raw, overrides)
    except ConfigError as error:
        raise completed(error, lambda changes: recheck(changed(raw, changes), overrides)) from None
    return cfg


def recheck(raw: dict[str, Any], overrides: Mapping[str, Any] | None) -> None:
    check_recipe(resolved(raw), raw=raw, overrides=overrides)


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
    prices = dict.fromkeys(flattened(raw or {}), OF_FILE)
    prices |= dict.fromkeys(typed_keys(overrides), TYPED)
    check_combinations(cfg, lambda changes: resolved(changed(settings, changes)), prices)


def check_names(
    cfg: RunConfig, where: str = "", overrides: Mapping[str, Any] | None = None
) -> None:
    """Raise ConfigError for a name that nobody has registered; `where` and `overrides` as in
    `check_recipe`."""
    try:
        chosen_of(cfg.algo)
    except ConfigError as error:
        if error.got.partition(" ")[0] in typed_keys(overrides):
            where = ""
        raise ConfigError(f"{where}{error.got}", error.wanted, error.fix) from None


def typed_keys(overrides: Mapping[str, Any] | None) -> set[str]:
    """The dotted keys of overrides, spelled as in a recipe."""
    return {key.replace("-", "_") for key in overrides or {}}


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
