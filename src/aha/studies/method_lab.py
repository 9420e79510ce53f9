"""The lab: any set of recipes from the same base, on the same problems, with the same budget.

    OUT/runs/RECIPE-seed0/  ...  ordinary run folders, which every other command reads
    OUT/base.json           pass@k of the base
    OUT/lab.json, lab.html  the results: written again after every run

Runs are done one at a time, all recipes with the first seed, then all with the second, so that a
lab that was stopped has compared all recipes on the seeds it has finished. The same command
continues it: a finished run is not repeated.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from aha.algo.recipe import load_recipe
from aha.core.config import RunConfig
from aha.core.errors import ConfigError, RunError
from aha.core.seeds import seed_for
from aha.dist.local_ranks import LocalRanks
from aha.dist.world import World
from aha.eval.suite import EvalReport, evaluate_by, held_out
from aha.model.folders import resolve_model
from aha.model.weights import load_model
from aha.rollout.engine import Sampling
from aha.rollout.shared_rollout import graded_groups
from aha.store.run_folder import Run
from aha.studies.training_cells import weights_digest
from aha.studies.training_stages import open_experiment
from aha.training.builders import make_engine, task_of
from aha.training.outcome import Listener
from aha.training.preflight import readable_task
from aha.training.rank_choice import ranks_for
from aha.web.run_comparison import config_differences

PASS_PROBLEMS, PASS_COMPLETIONS = 128, 16  # completions of each problem
MAX_STEPS = 100_000  # where only the token budget ends a run
# Sections that must be equal for a comparison. The format reward belongs to the method; so do the
# number of prompts and the group size, which is why the budget is in tokens.
SHARED = ("model", "task", "eval", "tokens", "steps")


@dataclass(frozen=True)
class PlannedRun:
    """One run of the lab: a recipe with one seed."""

    recipe: str
    cfg: RunConfig
    run: Run

    @property
    def trained(self) -> bool:
        """Trained and tested."""
        return (self.run.path / "summary.json").is_file()

    @property
    def done(self) -> bool:
        """Trained and tested, and pass@k is measured."""
        return self.trained and (self.run.path / "pass_at_k.json").is_file()


def plan_runs(
    recipes: list[Path],
    seeds: list[int],
    tokens: int,
    steps: int,
    changes: dict[str, Any],
    out: Path,
) -> list[PlannedRun]:
    """All runs, ordered by seed. `tokens` or `steps` 0 is no limit; `changes` apply to every
    recipe.

    Raises ConfigError for recipes that cannot be compared and RunError where `out` has runs of
    other settings.
    """
    names = [path.stem for path in recipes]
    if len(names) < 2 or len({*names}) < len(names):
        raise ConfigError(f"recipes {', '.join(names)}", "at least two, of different names")
    if not seeds or len({*seeds}) < len(seeds):
        raise ConfigError(f"seeds {seeds}", "each once, at least three for a verdict")
    if not tokens and not steps:
        raise ConfigError("no budget", "completion tokens of each run", "--tokens 3000000")
    if reserved := {"seed", "steps", "tokens"} & changes.keys():
        raise ConfigError(f"--{min(reserved)} twice", "keys that are options of the lab only once")
    budget = {"tokens": tokens, "steps": steps or MAX_STEPS}
    defaults = {"eval.every": 5, "show_every": 0}
    planned = []
    for seed in seeds:
        for name, path in zip(names, recipes, strict=True):
            cfg = load_recipe(path, defaults | changes | budget | {"seed": seed})
            planned.append(PlannedRun(name, cfg, Run(out / "runs" / f"{name}-seed{seed}")))
    check_shared(planned)
    for planned_run in planned:
        check_stored_config(planned_run)
    return planned


def check_shared(planned: list[PlannedRun]) -> None:
    """Raise ConfigError for recipes that differ in more than their method."""
    first, settings = planned[0], shared_settings(planned[0].cfg)
    for other in planned[1:]:
        for key, ours, theirs in config_differences(settings, shared_settings(other.cfg)):
            raise ConfigError(
                f"{key} {ours} in {first.recipe} and {theirs} in {other.recipe}",
                "the same base, problems and limits in every recipe",
                f"--{key} VALUE, which goes to all of them",
            )
    if not first.cfg.eval.final or not first.cfg.eval.every:
        raise ConfigError(
            "eval.final or eval.every 0", "held-out problems to compare on", "--eval.every 5"
        )


def shared_settings(cfg: RunConfig) -> dict[str, Any]:
    """The settings that the recipes of a lab have in common."""
    settings = cfg.model_dump(mode="json", include={*SHARED})
    del settings["task"]["format_reward"]
    return settings | {"rollout": {"max_new_tokens": cfg.rollout.max_new_tokens}}


def check_stored_config(planned: PlannedRun) -> None:
    """Raise RunError where the folder has a run of the same name with another config."""
    if not planned.run.path.exists():
        return
    stored = Run.open(planned.run.path).read("config.json")
    for key, then, now in config_differences(stored, planned.cfg.model_dump(mode="json")):
        raise RunError(
            f"{planned.run.path} was run with {key} {then}, and not {now}",
            "the lab that is in this folder",
            "--out ANOTHER",
        )


def run_planned(planned: PlannedRun, listener: Listener, ranks: int | None = 1) -> int | None:
    """Do the rest of a run on so many ranks: training, tests, pass@k. Returns the number of the
    signal that has stopped it, None where it is done. `ranks` None chooses, as `ranks_for` does."""
    ranks = ranks or ranks_for(planned.cfg)
    if not planned.trained:
        outcome = open_experiment(planned.cfg, planned.run.path, listener, ranks).run_all()
        if outcome.summary is None:
            assert outcome.stopped_by is not None, "a run of a lab has no budget in money or time"
            return outcome.stopped_by
    measure_pass_at_k(planned.cfg, planned.run.model, planned.run, "pass_at_k.json", ranks)
    return None


def measure_base(cfg: RunConfig, out: Path, ranks: int | None = 1) -> None:
    """Write base.json: pass@k of the base that all recipes start from, and what it was measured on.
    Anew where that is something else: a lab that has not begun a run may have been given another
    base or task, and one of other recipes may go on in its folder."""
    out.mkdir(parents=True, exist_ok=True)
    folder, settings = Run(out), settings_of_base(cfg)
    kept = folder.read_or_none("base.json")
    if kept is not None and kept.get("settings") == settings:
        return
    (out / "base.json").unlink(missing_ok=True)
    ranks = ranks or ranks_for(cfg)
    measure_pass_at_k(cfg, resolve_model(cfg.model.path), folder, "base.json", ranks)
    folder.write("base.json", folder.read("base.json") | {"settings": settings})


def settings_of_base(cfg: RunConfig) -> dict[str, Any]:
    """All that pass@k of the base depends on."""
    shared = shared_settings(cfg)
    kept = {key: shared[key] for key in ("model", "task", "eval", "rollout")}
    return kept | {"weights": weights_digest(cfg.model.path)}


def measure_pass_at_k(cfg: RunConfig, model: Path, folder: Run, name: str, ranks: int) -> None:
    """Write PASS_COMPLETIONS completions of each of the first test problems to `folder`/`name`.

    Does nothing where the file exists.
    """
    if (folder.path / name).is_file():
        return
    with LocalRanks(ranks, partial(pass_at_k, cfg, model), again="--ranks 1") as world:
        folder.write(name, pass_at_k(cfg, model, world).numbers)


def pass_at_k(cfg: RunConfig, model: Path, world: World) -> EvalReport:
    """The test of pass@k as each rank takes it."""
    loaded = load_model(model)
    task, _ = readable_task(cfg, task_of(cfg), loaded)
    problems = min(PASS_PROBLEMS, cfg.eval.final)
    prompts = held_out(task, loaded.tokenizer, "test", problems, cfg.eval.seed)
    seed = seed_for(cfg.eval.seed, "pass_at_k")
    sampling = Sampling(cfg.rollout.max_new_tokens, PASS_COMPLETIONS, 1.0, seed)
    rollout = partial(graded_groups, world, make_engine(cfg, loaded), task)
    return evaluate_by(rollout, prompts, sampling)
