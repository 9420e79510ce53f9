"""The step can be read: few conditions, few files.

A reader of one training step of `grpo` starts at `RLTrainer.step` and stops at the doors of the
task, the engine and the policy, each behind a protocol. What lies before the doors is counted here,
from a real step.
"""

import ast
import re
import sys
from pathlib import Path
from types import FrameType

import aha
from aha.algo.recipe import load_recipe
from aha.api.recipe_names import find_recipe
from aha.core.config import RunConfig

from .test_rl import make

AHA = Path(aha.__file__).resolve().parent
ROOMS = ("training", "batching", "algo", "core")
PAGE = AHA.parents[1] / "docs" / "reading.md"
# In the order of the table in docs/reading.md.
FILES_OF_A_STEP = [
    "training/rl.py",
    "training/rollouts.py",
    "core/records.py",
    "training/advantage_estimators.py",
    "algo/advantages.py",
    "algo/filters.py",
    "batching/batch.py",
    "training/objective.py",
    "algo/losses.py",
    "algo/kl.py",
    "training/reference.py",
    "algo/aggregation.py",
]
# Mechanism that a reader may take on trust: how a registered function gets its keywords, names of
# seeds, the order of tokens inside the model, one predicate, ratios kept finite, and what watches a
# step and changes nothing.
MECHANISM = {
    "algo/registry.py",
    "core/seeds.py",
    "batching/layout.py",
    "core/method.py",
    "algo/ratios.py",
    "training/draw_statistics.py",
    "training/finite_checks.py",
    "training/step_attempt.py",
}


def files_of_a_step(cfg: RunConfig) -> set[str]:
    """Files of `ROOMS` in which a function is called during the second step of a run."""
    trainer = make(cfg)
    trainer.step(trainer.problems())  # what is set up at first use is not part of a step
    problems, files = trainer.problems(), set()

    def note(frame: FrameType, event: str, unused: object) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(AHA):
            files.add(path.relative_to(AHA).as_posix())

    sys.setprofile(note)
    try:
        trainer.step(problems)
    finally:
        sys.setprofile(None)
    return {file for file in files if file.split("/")[0] in ROOMS}


def test_one_step_of_grpo_is_read_in_twelve_files():
    small = {"rollout.prompts": "16", "rollout.group_size": "4", "rollout.max_new_tokens": "12"}
    read = files_of_a_step(load_recipe(find_recipe("grpo"), small))
    assert read - MECHANISM == {*FILES_OF_A_STEP} and len(FILES_OF_A_STEP) == 12
    assert read & MECHANISM == MECHANISM, "a file that no step runs is no excuse"


def test_the_page_names_these_files():
    text = PAGE.read_text(encoding="utf-8").split("## One step of `grpo`")[1]
    rows = re.findall(r"^\| `src/aha/(\S+)` \|", text, flags=re.MULTILINE)
    assert rows == FILES_OF_A_STEP
    assert all(f"`src/aha/{file}`" in text for file in MECHANISM)


def test_the_file_of_the_step_has_at_most_ten_conditions():
    """Optional features are decided once, in train/parts.py."""
    tree = ast.parse((AHA / "training" / "rl.py").read_text(encoding="utf-8"))
    branches = [node for node in ast.walk(tree) if isinstance(node, ast.If | ast.IfExp)]
    filters = [test for node in ast.walk(tree) for test in getattr(node, "ifs", [])]
    assert len(branches) + len(filters) <= 10
