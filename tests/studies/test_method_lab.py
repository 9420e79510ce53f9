"""A lab of two recipes, two seeds and two steps on a random model: run, stopped, gone on with."""

import os
import signal
from pathlib import Path

import pytest

from aha.core.errors import AhaError, ConfigError, RunError
from aha.dist.local_ranks import can_meet
from aha.store.run_folder import Run, read_rows
from aha.studies.lab_page import finished_results, write_results
from aha.studies.method_lab import PlannedRun, measure_base, plan_runs, run_planned
from aha.studies.verdicts import as_json
from aha.training.outcome import Listener

from ..tiny import answering_folder

ROOT = Path(__file__).resolve().parents[2]
GRPO = """
[model]
path = "{model}"
[task]
verifier = "tinyzero"
[rollout]
prompts = 3
group_size = {group}
max_new_tokens = 16
max_rows = 16
dtype = "float32"
[algo]
advantage = "{advantage}"
[optim]
lr = 1e-3
dtype = "float32"
[eval]
every = 1
problems = 4
final = 6
"""


@pytest.fixture(scope="module")
def recipes(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("recipes")
    model = answering_folder(folder / "base")
    made = []
    for name, advantage, group in (("grpo", "grpo", 6), ("plain", "reinforce", 1)):
        path = folder / f"{name}.toml"
        path.write_text(GRPO.format(model=model, advantage=advantage, group=group))
        made.append(path)
    return made


def planned(recipes: list[Path], out: Path, tokens: int = 0, steps: int = 2, seeds=(0, 1), **more):
    changes = {key.replace("__", "."): value for key, value in more.items()}
    return plan_runs(recipes, [*seeds], tokens, steps, {"eval.every": 1} | changes, out)


def carry(plan_: list[PlannedRun], out: Path) -> None:
    measure_base(plan_[0].cfg, out)
    assert all(run_planned(one, Listener()) is None for one in plan_)
    write_results(plan_, out, {})


@pytest.fixture(scope="module")
def done(recipes, tmp_path_factory):
    out = tmp_path_factory.mktemp("lab")
    found = planned(recipes, out)
    carry(found, out)
    return found, out


def timeless(one: PlannedRun) -> list[dict]:
    """The run's rows, without what a clock says."""
    rows = read_rows(one.run.metrics)
    return [{k: v for k, v in row.items() if not k.endswith(("_s", "memory_gb"))} for row in rows]


def test_a_lab_leaves_runs_results_and_no_claim(done):
    found, out = done
    names = ["grpo-seed0", "plain-seed0", "grpo-seed1", "plain-seed1"]
    assert [one.run.name for one in found] == names and all(one.done for one in found)
    assert {path.name for path in out.iterdir()} == {"runs", "base.json", "lab.json", "lab.html"}
    results = finished_results(found)
    assert [(one.recipe, one.seeds) for one in results] == [("grpo", [0, 1]), ("plain", [0, 1])]
    for one in results:
        # the test before, an evaluation after each step, the test after
        assert len(one.points) == 4 and set(one.pass_at_k) == {"1", "2", "4", "8", "16"}
        tokens = [point.tokens for point in one.points]
        assert tokens[0] == 0 < tokens[1] < tokens[2] == tokens[3]
        assert one.end.tokens == sum(one.spent) / 2
        assert one.points[1].entropy > 0
    notes = as_json(results, 0)["notes"]
    assert notes[0] == "fewer than 3 finished seeds: grpo, plain" and len(notes) == 2
    assert "4 of 4" not in (page := (out / "lab.html").read_text()) and page.count("<svg") == 5


def test_all_recipes_meet_the_same_problems(done):
    """Training problems of a seed too, as far as a step asks for equally many."""
    found, _ = done

    def asked(one: PlannedRun, name: str) -> list[str]:
        rows = read_rows(one.run.completions / f"{name}.jsonl")
        return list(dict.fromkeys(row["id"] for row in rows))

    for name in ("before", "after", "eval_000001", "step_000001"):
        assert asked(found[0], name) == asked(found[1], name)
    assert asked(found[0], "after") == asked(found[2], "after")
    assert asked(found[0], "step_000001") != asked(found[2], "step_000001")


def test_what_is_finished_is_not_run_again(done, recipes):
    _, out = done
    before = {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*")}
    carry(planned(recipes, out), out)
    assert {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*")} == before


def test_the_base_is_measured_anew_where_base_or_task_have_changed(recipes, tmp_path):
    """As by a lab that was stopped before its first run, and typed again with another number."""
    first, *_ = planned(recipes, tmp_path)
    measure_base(first.cfg, tmp_path)
    before = (tmp_path / "base.json").stat().st_mtime_ns
    measure_base(first.cfg, tmp_path)
    assert (tmp_path / "base.json").stat().st_mtime_ns == before
    other, *_ = planned(recipes, tmp_path, eval__final=3)
    measure_base(other.cfg, tmp_path)
    assert Run(tmp_path).read("base.json")["problems"] == 3
    (tmp_path / "base.json").write_text("{")
    measure_base(first.cfg, tmp_path)
    assert Run(tmp_path).read("base.json")["problems"] == 6


def test_a_lab_that_was_stopped_goes_on_bit_equal(done, recipes, tmp_path):
    whole, _ = done
    found = planned(recipes, tmp_path)

    def stop(row: dict) -> None:
        if row["step"] == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    assert run_planned(found[0], Listener()) is None
    assert run_planned(found[1], Listener(step=stop)) == signal.SIGTERM and not found[1].done
    # Killed before its first checkpoint: there are files, and nothing to go on from.
    found[2].run.path.mkdir()
    found[2].run.write("config.json", found[2].cfg.model_dump(mode="json"))
    carry(again := planned(recipes, tmp_path), tmp_path)
    for ours, theirs in zip(again, whole, strict=True):
        assert timeless(ours) == timeless(theirs)
        assert (
            ours.run.read("pass_at_k.json")["pass_at_k"]
            == (theirs.run.read("pass_at_k.json")["pass_at_k"])
        )


def test_a_trained_run_that_was_not_measured_is_measured_alone(recipes, tmp_path):
    (one, *_) = planned(recipes, tmp_path, steps=1)
    assert run_planned(one, Listener()) is None
    (one.run.path / "pass_at_k.json").unlink()
    assert one.trained and not one.done and finished_results([one]) == []
    before = one.run.metrics.stat().st_mtime_ns
    assert run_planned(one, Listener()) is None and one.done
    assert one.run.metrics.stat().st_mtime_ns == before


@pytest.mark.slow
@pytest.mark.skipif(not can_meet(), reason="this torch has no gloo")
def test_a_lab_on_two_ranks_has_the_results_of_one(done, recipes, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))  # a started process has this one's sys.path
    (alone, *_), _ = done
    (shared, *_) = planned(recipes, tmp_path)
    measure_base(shared.cfg, tmp_path, 2)
    assert Run(tmp_path).read("base.json")["pass_at_k"]
    assert run_planned(shared, Listener(), 2) is None and shared.done
    assert shared.run.read("fingerprints.json")["ranks"] == 2
    for ours, theirs in zip(timeless(shared), timeless(alone), strict=True):
        assert ours["tokens"] == theirs["tokens"]
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-5)
    ours, theirs = (one.run.read("pass_at_k.json")["pass_at_k"] for one in (shared, alone))
    assert ours == theirs


def test_a_budget_of_tokens_ends_all_runs_alike(recipes, tmp_path):
    found = planned(recipes, tmp_path, tokens=300, steps=0, seeds=(0,))
    carry(found, tmp_path)
    for one in finished_results(found):
        assert min(one.spent) >= 300
    steps = [len(timeless(one)) for one in found]
    assert steps[0] < steps[1]  # a step of 18 completions against one of 3


# -- what is refused ------------------------------------------------------------------------


def refused(kind: type[AhaError], match: str, *arguments, **settings) -> None:
    with pytest.raises(kind, match=match):
        planned(*arguments, **settings)


def test_another_lab_in_the_same_folder_is_not_overwritten(done, recipes):
    _, out = done
    refused(RunError, "steps 2, and not 3", recipes, out, steps=3)
    refused(RunError, "optim.lr 0.001, and not 0.1", recipes, out, optim__lr=0.1)


def test_only_the_method_may_differ(recipes, tmp_path):
    other = tmp_path / "other.toml"
    text = recipes[0].read_text()
    for old, new, match in (
        ("final = 6", "final = 7", "eval.final 6 in grpo and 7 in other"),
        ("max_new_tokens = 16", "max_new_tokens = 17", "max_new_tokens 16 in grpo and 17"),
        ('verifier = "tinyzero"', "numbers = [4]", "task.numbers"),
    ):
        other.write_text(text.replace(old, new))
        refused(ConfigError, match, [recipes[0], other], tmp_path / "out")
    # The format reward is a method's own.
    strict = text.replace('verifier = "tinyzero"', "")
    other.write_text(text.replace('verifier = "tinyzero"', "format_reward = 0.5"))
    (tmp_path / "one.toml").write_text(strict)
    assert planned([tmp_path / "one.toml", other], tmp_path / "out")


def test_a_lab_needs_recipes_seeds_and_a_budget(recipes, tmp_path):
    refused(ConfigError, "at least two", recipes[:1], tmp_path)
    refused(ConfigError, "of different names", [recipes[0], recipes[0]], tmp_path)
    refused(ConfigError, "each once", recipes, tmp_path, seeds=(1, 1))
    refused(ConfigError, "each once", recipes, tmp_path, seeds=())
    refused(ConfigError, "no budget", recipes, tmp_path, steps=0)
    refused(ConfigError, "--seed twice", recipes, tmp_path, seed=3)
    refused(ConfigError, "held-out problems", recipes, tmp_path, eval__final=0)
