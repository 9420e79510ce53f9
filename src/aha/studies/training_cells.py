"""Cells that train: what one of them does, what it is made of, and how long it takes.

A cell is a chain: a base, perhaps examples that it is fine-tuned on, perhaps reinforcement
learning, tests. A base that is pre-trained for the study is a cell of its own, which others need.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import aha
from aha.algo.algorithms import method_of
from aha.algo.recipe import load_recipe
from aha.core.config import RunConfig
from aha.corpus.bases import TraceMix
from aha.model.folders import PlannedModel, resolve_model
from aha.model.tokenizer import build_tokenizer
from aha.plan.estimate import estimate
from aha.plan.shapes import Shape, shape_of
from aha.plan.speed import PROMPT_TOKENS, Card, Generation, Workload
from aha.plan.tuning_estimate import TuningTokens, estimate_tuning
from aha.pretrain.settings import PretrainJob, make_job
from aha.sft.tuning_config import TuningConfig
from aha.store.checksums import digest
from aha.studies.cell_files import Result
from aha.studies.example_kinds import KINDS, write_examples
from aha.studies.study_bases import (
    START_SECONDS,
    base_model,
    goes_on_from_guesser,
    small_training,
)
from aha.studies.training_stages import (
    MAX_ROWS,
    HeldOutTest,
    Say,
    fine_tune,
    reinforce,
    result_of_run,
    test_model,
)

RECIPES = Path(aha.__file__).parent / "recipes"
EXAMPLE_TOKENS = 90  # of one with its prompt, for a plan; shorter where the thought is empty
EMPTY_TOKENS = 30


@dataclass(frozen=True)
class Scale:
    """How much of everything: tokens that a base reads, RL, and the tests. `limit` is that of a
    completion, `every` the steps between validations of `problems` problems, `final` the problems
    of the tests before and after."""

    tokens: int
    steps: int
    prompts: int = 32
    group_size: int = 16
    limit: int = 256
    every: int = 10
    problems: int = 100
    final: int = 1_000

    def recipe(self, seed: int, changes: Mapping[str, Any] | None = None) -> RunConfig:
        """The recipe of the demo at this scale."""
        own = {
            "seed": seed,
            "steps": self.steps,
            "rollout.prompts": self.prompts,
            "rollout.group_size": self.group_size,
            "rollout.max_new_tokens": self.limit,
            "eval.every": self.every,
            "eval.problems": self.problems,
            "eval.final": self.final,
            "rollout.expected_tokens": 0.0,
            "show_every": 0,
        }
        return load_recipe(RECIPES / "demo.toml", own | dict(changes or {}))

    def base(
        self,
        name: str,
        seed: int,
        mix: TraceMix,
        sizes: dict[str, int | None] | None = None,
        tokens: int | None = None,
    ) -> PretrainJob:
        """The job of a base of this many tokens, from nothing, in a folder of this name."""
        read = tokens or self.tokens
        changes = {"tokens": read, "seed": seed} | small_training(read)
        job = make_job("tiny", Path(name), sizes, changes)
        return replace(job, cfg=replace(job.cfg, mix=mix))

    def base_after_guesses(self, name: str, seed: int, mix: TraceMix, quick: bool) -> PretrainJob:
        """The job of a base that goes on from `guesser`; in a smoke run one from nothing."""
        if quick:
            return self.base(name, seed, mix)
        return goes_on_from_guesser(name, seed, mix, self.tokens)


@dataclass(frozen=True)
class Primer:
    """Examples of a kind to fine-tune on before RL: how many, how often, of puzzles of which
    sizes."""

    kind: str
    count: int
    epochs: int
    numbers: tuple[int, ...] = (3,)
    lr: float = 1e-3


@dataclass(frozen=True)
class Chain:
    """What a cell does, stage by stage. `base` is the name of a model, or the job that makes one;
    `recipe` has no model path: that of the stage before is put in. `tests_before`: the tests are
    made before RL as well. `length`: the mean tokens of a completion, assumed for the plan. `more`:
    settings of a stage that a study adds."""

    base: str | PretrainJob
    primer: Primer | None = None
    recipe: RunConfig | None = None
    tests: tuple[HeldOutTest, ...] = ()
    tests_before: bool = False
    length: float = 60.0
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides the result, in sections."""
        base = self.base
        return {
            "base": base_settings(base),
            "primer": None if self.primer is None else asdict(self.primer),
            "recipe": None if self.recipe is None else self.recipe.model_dump(mode="json"),
            "tests": [asdict(test) for test in self.tests],
            "tests_before": self.tests_before,
            **self.more,
        }

    @property
    def seed(self) -> int:
        """The seed of what the cell draws: that of its recipe, or without one of its base."""
        if self.recipe is not None:
            return self.recipe.seed
        return self.base.cfg.seed if isinstance(self.base, PretrainJob) else 0

    @property
    def shape(self) -> Shape:
        """The sizes of the model."""
        if isinstance(self.base, PretrainJob):
            return self.base.shape
        return shape_of(PlannedModel.of(resolve_model(self.base)).shaped)


def base_settings(base: str | PretrainJob) -> dict[str, Any]:
    """What decides the weights of a base: its job without its folder, or the hash of a model."""
    if isinstance(base, PretrainJob):
        return dict(base.settings)
    return {"model": base, "weights": weights_digest(base)}


@lru_cache
def weights_digest(model: str) -> str:
    """A hash of a model's weights: results of a model that was trained further are another's."""
    folder = resolve_model(model)
    return " ".join(digest(path)[:16] for path in sorted(folder.glob("*.safetensors")))


# -- doing it ---------------------------------------------------------------------------------


def carry_chain(chain: Chain, runs: Path, name: str, say: Say = print) -> Result:
    """All stages of a chain, each in a folder below `runs` that begins with the cell's name."""
    model = str(base_of(chain, runs, say))
    result: Result = {}
    if chain.primer is not None:
        model, result["primer"] = prime(chain.primer, model, runs / name, chain.seed, say)
    folder = runs / f"{name}-tests"
    tests = all_tests(chain, model, folder, ", before") if chain.tests_before else {}
    if chain.recipe is not None:
        section = chain.recipe.model.model_copy(update={"path": model})
        cfg = chain.recipe.model_copy(update={"model": section})
        run = reinforce(cfg, runs / f"{name}-rl", say)
        model = str(run.path)
        result |= result_of_run(run)
    if chain.recipe is not None or not tests:
        tests |= all_tests(chain, model, folder)
    return result | {"tests": tests}


def all_tests(chain: Chain, model: str, folder: Path, when: str = "") -> dict[str, Result]:
    """The tests of a chain for a model, by name."""
    names = {f"{test.name}{when}": test for test in chain.tests}
    return {
        name: test_model(model, test, chain.seed, folder / f"{name}.json")
        for name, test in names.items()
    }


def base_of(chain: Chain, runs: Path, say: Say) -> Path:
    """The folder of the base; made here where it is to be made and is not there."""
    if isinstance(chain.base, PretrainJob):
        return base_model(chain.base, runs, say)
    return resolve_model(chain.base)


def prime(primer: Primer, model: str, path: Path, seed: int, say: Say) -> tuple[str, Result]:
    """Fine-tune on the examples of a primer; returns the model and what was learnt."""
    tokenizer, data = build_tokenizer(), path.with_name(f"{path.name}-examples.jsonl")
    drawn = (primer.numbers, seed, primer.count)
    right = write_examples(
        data, KINDS[primer.kind], *drawn, lambda text: len(tokenizer.encode(text))
    )
    cfg = tuning_of(primer, model, str(data), seed)
    return str(fine_tune(cfg, path.with_name(f"{path.name}-sft"), say)), {"right": right}


def tuning_of(primer: Primer, model: str, data: str, seed: int) -> TuningConfig:
    """The settings of the fine-tuning."""
    raw: dict[str, Any] = {"data": data, "epochs": primer.epochs, "seed": seed}
    return TuningConfig.model_validate(raw | {"model": {"path": model}, "optim": {"lr": primer.lr}})


# -- planning it ------------------------------------------------------------------------------


def chain_seconds(chain: Chain, card: Card) -> float:
    """How long a cell takes, without a base that is another cell."""
    shape, seconds = chain.shape, START_SECONDS
    if chain.primer is not None:
        seconds += primer_seconds(chain.primer, shape, card)
    if chain.recipe is not None:
        load = Workload(chain.recipe, method_of(chain.recipe), shape)
        seconds += estimate(load, card, chain.length).cost.seconds
    tests = sum(test_seconds(test, shape, card, chain.length) for test in chain.tests)
    return seconds + tests * (2 if chain.tests_before else 1)


def primer_seconds(primer: Primer, shape: Shape, card: Card) -> float:
    """How long a fine-tuning takes."""
    length = EMPTY_TOKENS if KINDS[primer.kind].thought == "empty" else EXAMPLE_TOKENS
    return tuning_seconds(primer.count, primer.epochs, length, shape, card)


def tuning_seconds(count: int, epochs: int, length: float, shape: Shape, card: Card) -> float:
    """How long it takes to learn so many examples of `length` tokens in the mean."""
    updates = max(1, count * epochs // 16)
    read = TuningTokens(int(length * count), int(2 * length), 1.2 * length, epochs, updates)
    return estimate_tuning(RunConfig(), shape, read, card).cost.seconds


def test_seconds(test: HeldOutTest, shape: Shape, card: Card, length: float) -> float:
    """How long a test takes whose completions have `length` tokens in the mean."""
    prompt = PROMPT_TOKENS["plain"]
    rows = test.n * test.completions
    passes = test.max_new_tokens * -(-rows // MAX_ROWS)
    work = Generation(rows * length, prompt + length / 2, passes, test.n * prompt)
    return work.seconds(shape, card)
