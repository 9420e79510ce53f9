"""The lab: any set of recipes from the same base, on the same problems, with the same budget.

    OUT/runs/RECIPE-seed0/  ...  ordinary run folders, which every other command reads
    OUT/base.json           pass@k of the base
    OUT/lab.json, lab.html  what came out: written again after every run

Runs go one after the other, and seed by seed, so that a lab that was stopped has compared all its
recipes on the seeds it has done. The same command goes on: what is finished is not run again.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from aha.algo.recipe import load_recipe
from aha.core.config import RunConfig
from aha.core.errors import ConfigError, RunError
from aha.core.seeds import seed_for
from aha.eval.suite import evaluate, held_out
from aha.model.folders import resolve_model
from aha.model.weights import load_model
from aha.rollout.engine import Sampling
from aha.store.checkpoint import checkpoints
from aha.store.run_folder import Run
from aha.train.experiment import Experiment, Listener, make_engine, task_of
from aha.web.run_comparison import config_differences

PASS_PROBLEMS, PASS_COMPLETIONS = 128, 16
NO_LIMIT = 100_000  # steps, where the tokens alone end a run
# What has to be the same for a comparison. The format reward is part of a method; the number of
# prompts and the size of a group are too, which is why the budget is one of tokens.
SHARED = ("model", "task", "eval", "tokens", "steps")


@dataclass(frozen=True)
class Planned:
    """One run of the lab: a recipe with one seed."""

    recipe: str
    cfg: RunConfig
    run: Run

    @property
    def trained(self) -> bool:
        return (self.run.path / "summary.json").is_file()

    @property
    def done(self) -> bool:
        """Trained, tested and measured: not to be run again."""
        return self.trained and (self.run.path / "pass_at_k.json").is_file()


def plan(
    recipes: list[Path], seeds: list[int], tokens: int, steps: int, changes: dict, out: Path
) -> list[Planned]:
    """All runs, seed by seed. `tokens` or `steps` 0 is no limit; `changes` go to every recipe."""
    names = [path.stem for path in recipes]
    if len(names) < 2 or len({*names}) < len(names):
        raise ConfigError(f"recipes {', '.join(names)}", "at least two, of different names")
    if not seeds or len({*seeds}) < len(seeds):
        raise ConfigError(f"seeds {seeds}", "each once, at least three for a verdict")
    if not tokens and not steps:
        raise ConfigError("no budget", "completion tokens of each run", "--tokens 3000000")
    if taken := {"seed", "steps", "tokens"} & changes.keys():
        raise ConfigError(f"--{min(taken)} twice", "what the lab has a word for, once")
    budget = {"tokens": tokens, "steps": steps or NO_LIMIT}
    looks = {"eval.every": 5, "show_every": 0}
    found = []
    for seed in seeds:
        for name, path in zip(names, recipes, strict=True):
            cfg = load_recipe(path, looks | changes | budget | {"seed": seed})
            found.append(Planned(name, cfg, Run(out / "runs" / f"{name}-seed{seed}")))
    check_shared(found)
    for one in found:
        check_same(one)
    return found


def check_shared(planned: list[Planned]) -> None:
    """Refuse recipes that differ in more than their method."""
    first, settings = planned[0], shared(planned[0].cfg)
    for one in planned[1:]:
        for key, ours, theirs in config_differences(settings, shared(one.cfg)):
            raise ConfigError(
                f"{key} {ours} in {first.recipe} and {theirs} in {one.recipe}",
                "the same base, problems and limits in every recipe",
                f"--{key} VALUE, which goes to all of them",
            )
    if not first.cfg.eval.final or not first.cfg.eval.every:
        raise ConfigError(
            "eval.final or eval.every 0", "held-out problems to compare on", "--eval.every 5"
        )


def shared(cfg: RunConfig) -> dict:
    """The settings that the recipes of a lab have in common."""
    settings = cfg.model_dump(mode="json", include={*SHARED})
    del settings["task"]["format_reward"]
    return settings | {"rollout": {"max_new_tokens": cfg.rollout.max_new_tokens}}


def check_same(one: Planned) -> None:
    """A run that is there already was asked for with the same config."""
    if not one.run.path.exists():
        return
    stored = Run.open(one.run.path).read("config.json")
    for key, then, now in config_differences(stored, one.cfg.model_dump(mode="json")):
        raise RunError(
            f"{one.run.path} was run with {key} {then}, and not {now}",
            "the lab that is in this folder",
            "--out ANOTHER",
        )


def carry_out(one: Planned, listener: Listener) -> bool:
    """Do what is left of a run; False if somebody stopped it."""
    if not one.trained and experiment_of(one, listener).run_all().summary is None:
        return False
    measure(one.cfg, one.run.model, one.run, "pass_at_k.json")
    return True


def experiment_of(one: Planned, listener: Listener) -> Experiment:
    """The run, from where it was left."""
    if checkpoints(one.run.checkpoints):
        return Experiment.resume(one.run.path, listener)
    # Stopped before its first checkpoint: there is nothing to go on from.
    shutil.rmtree(one.run.path, ignore_errors=True)
    one.run.path.parent.mkdir(parents=True, exist_ok=True)
    return Experiment.start(one.cfg, one.run.path, listener)


def measure_base(cfg: RunConfig, out: Path) -> None:
    """pass@k of the base that all recipes start from."""
    out.mkdir(parents=True, exist_ok=True)
    measure(cfg, resolve_model(cfg.model.path), Run(out), "base.json")


def measure(cfg: RunConfig, model: Path, place: Run, name: str) -> None:
    """Several completions of each of the first test problems, for pass@k; once."""
    if (place.path / name).is_file():
        return
    loaded, task = load_model(model), task_of(cfg)
    problems = min(PASS_PROBLEMS, cfg.eval.final)
    prompts = held_out(task, loaded.tokenizer, "test", problems, cfg.eval.seed)
    seed = seed_for(cfg.eval.seed, "pass_at_k")
    sampling = Sampling(cfg.rollout.max_new_tokens, PASS_COMPLETIONS, 1.0, seed)
    place.write(name, evaluate(make_engine(cfg, loaded), task, prompts, sampling).numbers)
