"""What a run needs to be resumed, what may have changed since, and what it does without."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from aha.algo.recipe import load_recipe
from aha.core.errors import ConfigError, ModelError, RunError, RunStopped
from aha.core.findings import Finding, fail
from aha.model.folders import resolve_model
from aha.store.checkpoint import checkpoints, latest_checkpoint, newest_whole
from aha.store.checksums import NAME as CHECKSUMS
from aha.store.run_folder import Run, append, read_rows
from aha.studies.resume_trial import differences_of
from aha.training.experiment import Experiment
from aha.training.fingerprints import digests_by_name
from aha.training.objective import Objective
from aha.training.outcome import Listener
from aha.training.resume import config_of
from aha.training.rl import RLTrainer
from aha.training.step_watch import step_checks
from aha.training.watchers import Evaluate

from ..tiny import answering_folder, tiny_folder
from .test_experiment import config, go, stop_after

STEPS = 4


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    answering_folder(folder / "tiny")
    return folder


def small(model: Path, **changes):
    return config(model, **{"steps": STEPS, "eval": {"every": 2, "problems": 2}} | changes)


@pytest.fixture(scope="module")
def straight(models, tmp_path_factory) -> Path:
    return go(small(models / "tiny"), tmp_path_factory.mktemp("runs") / "straight").run.path


@pytest.fixture(scope="module")
def stopped_once(models, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "stopped"
    go(small(models / "tiny"), path, step=stop_after(2))
    return path


@pytest.fixture
def stopped(stopped_once, tmp_path) -> Path:
    """A run that was stopped after step 2 of 4."""
    return Path(shutil.copytree(stopped_once, tmp_path / "run"))


def resume(path: Path, said: list[str] | None = None, **options):
    lines = [] if said is None else said
    return Experiment.resume(path, Listener(say=lines.append), **options).run_all()


def edit(path: Path, **changes) -> None:
    """Change keys of config.json by hand."""
    raw = json.loads((path / "config.json").read_text())
    for key, value in changes.items():
        section, _, name = key.rpartition("__")
        (raw[section] if section else raw)[name] = value
    (path / "config.json").write_text(json.dumps(raw))


def same_runs(one: Path, other: Path) -> None:
    assert list(differences_of(one, other, {})) == []


# -- the same run -----------------------------------------------------------------------------


def test_a_second_process_is_refused(stopped):
    first = Experiment.resume(stopped, Listener())
    with pytest.raises(RunError, match="in use by process"):
        Experiment.resume(stopped, Listener())
    first.close()
    resume(stopped)


def test_a_refused_resume_leaves_the_lock_to_others(stopped, straight):
    edit(stopped, optim__lr=0.5)
    with pytest.raises(RunError, match="began with something else"):
        resume(stopped)
    edit(stopped, optim__lr=1e-3)
    resume(stopped)
    same_runs(straight, stopped)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"optim__lr": 0.5}, "optim.lr 0.001 -> 0.5"),
        ({"steps": 3}, "steps 4 -> 3"),
        ({"seed": 1, "algo__advantage": "grpo"}, "seed 0 -> 1; algo.advantage"),
        ({"tokens": 10_000}, "tokens 0 -> 10000"),
    ],
)
def test_another_recipe_is_told_and_refused(stopped, changes, words):
    edit(stopped, **changes)
    rows = (stopped / "metrics.jsonl").read_bytes()
    with pytest.raises(RunError, match=f".*{words}.*--accept-changes"):
        resume(stopped)
    assert (stopped / "metrics.jsonl").read_bytes() == rows


def test_what_computes_nothing_may_change(stopped, straight):
    edit(stopped, show_every=1, keep_last=1, watts=50.0)
    resume(stopped)
    same_runs(straight, stopped)


def test_other_weights_are_told_and_accepted_on_demand(models, tmp_path):
    base, path = Path(shutil.copytree(models / "tiny", tmp_path / "base")), tmp_path / "run"
    go(small(base), path, step=stop_after(2))
    tiny_folder(base, seed=5, tie_word_embeddings=False)
    with pytest.raises(RunError, match="base model.safetensors sha256 .* -> sha256"):
        resume(path)
    said = []
    resume(path, said, accept=True)
    assert any("base model.safetensors" in line for line in said)
    rows = list(read_rows(path / "findings.jsonl"))
    assert [row["check"] for row in rows] == ["accepted_change"] and rows[0]["step"] == 2
    resume(path)  # what was accepted is what the run is now


TASK = """\
from aha.tasks.countdown import Countdown

class Mine(Countdown):
    def grade(self, problem, text):
        return len(text) % 2
"""


def test_other_data_and_other_code_are_told(models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"nums": [3, 7, 25], "target": 82}, {"nums": [2, 5, 9], "target": 19}]
    data, code = tmp_path / "rows.jsonl", tmp_path / "mine.py"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code.write_text(TASK)
    none = {"every": 0, "final": 0}
    with_data = small(models / "tiny", steps=2, eval=none, task={"data": str(data)})
    # Both are packaged in one run for the time that it takes.
    raw = with_data.model_dump() | {"task": {"name": "mine.py", "options": {}}}
    with_code = type(with_data).model_validate(raw)
    for cfg, file, words in ((with_data, data, "data rows.jsonl"), (with_code, code, "task mine")):
        path = tmp_path / file.stem
        go(cfg, path, step=stop_after(1))
        file.write_text(file.read_text() + "\n")
        with pytest.raises(RunError, match=f"{words}.* sha256"):
            resume(path)
        resume(path, accept=True)


def test_a_finished_run_is_made_longer(models, tmp_path):
    """With a constant learning rate it is the run that had those steps from the beginning."""
    constant = {"optim": {"lr": 1e-3, "warmup": 0, "final_lr": 1.0, "dtype": "float32"}}
    whole = go(small(models / "tiny", **constant), tmp_path / "whole").run.path
    short = go(small(models / "tiny", steps=2, **constant), tmp_path / "run").run.path
    said = []
    resume(short, said, changes={"steps": STEPS})
    assert any("steps 2 -> 4: the learning rate" in line for line in said)
    same_runs(whole, short)
    assert json.loads((short / "config.json").read_text())["steps"] == STEPS
    # Its first result is not lost, and what it was predicted to take is of all its steps.
    assert json.loads((short / "summary_000002.json").read_text())["steps"] == 2
    assert json.loads((short / "prediction.json").read_text())["steps"] == STEPS
    with pytest.raises(RunError, match="optim.lr"):
        resume(short, changes={"optim.lr": 1.0})


def test_a_longer_run_shows_nothing_of_its_old_end(models, tmp_path):
    """Stopped on its way to the new end: its model is the newest checkpoint, its test is none."""
    path = go(small(models / "tiny", steps=2), tmp_path / "run").run.path
    assert resolve_model(str(path)) == path / "model"
    longer = Experiment.resume(path, Listener(step=stop_after(3)), {"steps": STEPS})
    assert longer.run_all().summary is None
    assert resolve_model(str(path)) == latest_checkpoint(path / "checkpoints")
    assert not (path / "completions/after.jsonl").exists()
    assert (path / "after_000002.jsonl").is_file()
    resume(path)
    assert resolve_model(str(path)) == path / "model"


def test_a_budget_is_that_of_the_process(models, tmp_path):
    """What earlier processes took, and a test that they made, is not counted again."""
    path = tmp_path / "run"
    go(small(models / "tiny"), path, step=stop_after(1))
    experiment = Experiment.resume(path, Listener(), budget="10min")
    experiment.elapsed_before += 3_600.0
    assert experiment.run_all().summary is not None


def test_the_price_of_the_beginning_is_told_on_another_machine(models, tmp_path):
    path = tmp_path / "run"
    go(small(models / "tiny"), path, step=stop_after(1))
    here, said = json.loads((path / "environment.json").read_text()), []
    resume(Path(shutil.copytree(path, tmp_path / "same")), said)
    assert not any("an hour" in line for line in said)
    (path / "environment.json").write_text(json.dumps(here | {"machine": "another"}))
    resume(path, said)
    assert any("counts as $0.08 an hour" in line for line in said)


def test_files_of_one_name_have_a_digest_each(models, tmp_path):
    for name in ("train", "test"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rows.jsonl").write_text(f"{name}\n")
    one, other = tmp_path / "train/rows.jsonl", tmp_path / "test/rows.jsonl"
    assert set(digests_by_name([one, other])) == {"train/rows.jsonl", "test/rows.jsonl"}
    assert set(digests_by_name([one])) == {"rows.jsonl"}


def test_the_test_before_is_made_once(stopped, straight):
    stages = []
    Experiment.resume(stopped, Listener(stage=stages.append)).run_all()
    assert [stage.split()[0] for stage in stages] == ["training", "after"]
    same_runs(straight, stopped)


@pytest.mark.parametrize("name", ["before.json", "completions/before.jsonl"])
def test_a_test_before_that_is_damaged_is_made_again(stopped, straight, name):
    path = stopped / name
    path.write_bytes(path.read_bytes()[:-20])
    resume(stopped)
    same_runs(straight, stopped)


def test_all_weights_in_the_checkpoint_need_no_base(models, tmp_path, straight):
    base, path = Path(shutil.copytree(models / "tiny", tmp_path / "tiny")), tmp_path / "run"
    go(small(base), path, step=stop_after(2))
    shutil.rmtree(base)
    said = []
    outcome = resume(path, said)
    assert any("the base has gone" in line for line in said)
    assert outcome.before is not None and outcome.before.correct()
    same_runs(straight, path)


def test_adapters_need_their_base(models, tmp_path):
    base, path = Path(shutil.copytree(models / "tiny", tmp_path / "tiny")), tmp_path / "run"
    cfg = small(base, eval={"every": 0, "final": 0})
    cfg = cfg.model_copy(update={"model": cfg.model.model_copy(update={"lora_rank": 2})})
    go(cfg, path, step=stop_after(2))
    shutil.rmtree(base)
    with pytest.raises(ModelError, match="no model called"):
        resume(path)


# -- damage -------------------------------------------------------------------------------------


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_flipped_bit_in_the_newest_checkpoint_costs_steps_and_nothing_else(
    models, tmp_path, straight
):
    path, noticed, said = tmp_path / "run", [], []
    go(small(models / "tiny", checkpoint_every=1), path, step=stop_after(3))
    flip(path / "checkpoints" / "step_000003" / "model.safetensors")
    listener = Listener(finding=noticed.append, say=said.append)
    Experiment.resume(path, listener).run_all()
    assert noticed[0].check == "checkpoint_damage" and "step_000002" in noticed[0].message
    assert [row["check"] for row in read_rows(path / "findings.jsonl")] == ["checkpoint_damage"]
    same_runs(straight, path)


def test_a_run_that_died_before_its_first_checkpoint_begins_again(models, tmp_path, straight):
    path, said = tmp_path / "run", []
    Experiment.start(small(models / "tiny"), path, Listener()).close()
    resume(path, said)
    assert "no checkpoint yet" in said[0]
    same_runs(straight, path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("environment.json", None),
        ("environment.json", b"{"),
        ("prediction.json", None),
        ("prediction.json", b"[]"),
        ("prediction.json", b'{"machine": 1}'),
    ],
)
def test_a_record_that_is_lost_or_half_costs_no_run(stopped, name, content):
    path = stopped / name
    path.unlink() if content is None else path.write_bytes(content)
    said = []
    summary = resume(stopped, said).summary
    assert summary["steps"] == STEPS
    if name == "environment.json":
        assert json.loads(path.read_text())["python"] and name in said[0]
    if name == "prediction.json":
        assert summary["plan"] is None and (content is None or any(name in line for line in said))


def test_a_record_that_is_damaged_during_training_costs_no_run(stopped):
    experiment = Experiment.resume(stopped, Listener())
    (stopped / "environment.json").write_text("{")
    assert experiment.run_all().summary["commit"] is None


def test_a_config_that_is_half_comes_back_from_the_fingerprints(stopped, straight):
    (stopped / "config.json").write_text('{"steps":')
    said = []
    resume(stopped, said)
    assert "config.json was damaged" in said[0]
    same_runs(straight, stopped)


def test_folders_that_git_or_zip_dropped_are_made_again(stopped):
    shutil.rmtree(stopped / "completions")
    said = []
    assert resume(stopped, said).summary["steps"] == STEPS
    assert "completions was missing" in said[0]


@pytest.mark.parametrize(
    "name", ["checkpoints", "metrics.jsonl", "checkpoints/step_000002/model.safetensors"]
)
def test_a_run_with_a_link_out_of_it_is_refused_and_what_it_leads_to_stays(stopped, tmp_path, name):
    """An older checkpoint is removed after the next one: here it would be somebody else's."""
    target = tmp_path / "elsewhere"
    (stopped / name).rename(target)
    (stopped / name).symlink_to(target)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RunError, match=f"{name} is a link that leads out of the run"):
        resume(stopped)
    assert sorted(tmp_path.rglob("*")) == before


def test_half_lines_and_rows_of_later_steps_go(stopped, straight):
    for name in ("metrics.jsonl", "evals.jsonl", "findings.jsonl"):
        with (stopped / name).open("a") as out:
            out.write('{"step": 2, "twice": 1}\n' * (name != "findings.jsonl"))
            out.write('{"step": 3, "level": "warn"}\n{"step": 4, "rew')
    rows = (straight / "metrics.jsonl").read_text().splitlines(keepends=True)
    (stopped / "metrics.jsonl").write_text("".join(rows[:3]) + rows[3][:30])
    (stopped / "evals.jsonl").write_text("{")
    later = stopped / "completions" / "step_000099.jsonl"
    later.write_text("{}\n")
    resume(stopped)
    assert not later.exists() and list(read_rows(stopped / "findings.jsonl")) == []
    same_runs(straight, stopped)


def test_a_run_of_before_fingerprints_and_checksums_goes_on(stopped, straight):
    (stopped / "fingerprints.json").unlink()
    for path in checkpoints(stopped / "checkpoints"):
        (path / CHECKSUMS).unlink()
        state = torch.load(path / "trainer.pt")
        del state["has_checksums"]
        torch.save(state, path / "trainer.pt")
    said = []
    resume(stopped, said)
    assert sum("fingerprints.json" in line for line in said) == 1
    same_runs(straight, stopped)
    said.clear()
    resume(stopped, said)
    assert said == []


# -- an error during the run --------------------------------------------------------------------


def fail_once(monkeypatch, owner, name: str, at: int, error: BaseException, after: bool = False):
    """Make the `at`-th call of a method fail, before or after what it does."""
    real, calls = getattr(owner, name), []

    def failing(self, *args, **kwargs):
        calls.append(None)
        if len(calls) == at and not after:
            raise error
        result = real(self, *args, **kwargs)
        if len(calls) == at:
            raise error
        return result

    monkeypatch.setattr(owner, name, failing)


def newest(path: Path) -> int:
    saved = newest_whole(path / "checkpoints")
    return saved.step if saved else 0


POOL = {"algo": {"curriculum": "pools", "pool": 6}, "checkpoint_every": 0}
ENTROPY = {"algo": {"entropy_control": "adaptive", "entropy_limit": 99.0}}


@pytest.mark.parametrize(
    ("changes", "error"),
    [(POOL, MemoryError("no memory")), (ENTROPY | {"checkpoint_every": 0}, KeyboardInterrupt())],
)
def test_an_error_before_the_weights_change_saves_the_last_whole_step(
    models, tmp_path, monkeypatch, changes, error
):
    """The pool and the coefficient of the entropy had moved on already: they go back."""
    cfg, path = small(models / "tiny", **changes), tmp_path / "run"
    whole = go(cfg, tmp_path / "whole").run.path
    with monkeypatch.context() as patch:
        fail_once(patch, Objective, "begin_step", 3, error, after=True)
        said = []
        with pytest.raises(type(error)):
            go(cfg, path, say=said.append)
    assert newest(path) == 2 and "step 2 is saved; go on with" in said[-1]
    resume(path)
    same_runs(whole, path)


def test_an_error_in_the_middle_of_an_update_saves_nothing(models, tmp_path, monkeypatch, straight):
    path, said = tmp_path / "run", []
    cfg = small(models / "tiny")
    with monkeypatch.context() as patch:
        fail_once(patch, RLTrainer, "update", 4, MemoryError(), after=True)
        with pytest.raises(MemoryError):
            go(cfg, path, say=said.append)
    assert newest(path) == 2 and "nothing is saved" in said[-1]
    resume(path)
    same_runs(straight, path)


def test_a_step_whose_row_is_not_written_is_not_saved(models, tmp_path, monkeypatch, straight):
    """A full disk, say: a checkpoint of a step without its row could not make it again."""
    path = tmp_path / "run"
    full = RunError("cannot write metrics.jsonl: no space left on device")

    def refuse(target: Path, rows) -> None:
        if target.name == "metrics.jsonl" and rows[0]["step"] == 3:
            raise full
        append(target, rows)

    with monkeypatch.context() as patch:
        patch.setattr("aha.training.watchers.append", refuse)
        with pytest.raises(RunError, match="no space"):
            go(small(models / "tiny", checkpoint_every=0), path)
    assert newest(path) == 0
    resume(path)
    same_runs(straight, path)


def test_weights_that_are_no_numbers_are_not_saved(models, tmp_path, monkeypatch):
    """A fault that is noticed after its step: the checkpoint before it stays the newest."""
    path, said = tmp_path / "run", []
    experiment = Experiment.start(small(models / "tiny"), path, Listener(say=said.append))

    def spoiled(report) -> Finding | None:
        if report.version < 3:
            return None
        next(iter(experiment.trainer.policy.trainable())).data.fill_(float("nan"))
        return fail("a loss that is no number", "a smaller rate")

    monkeypatch.setitem(step_checks, "spoiled", spoiled)
    with pytest.raises(RunStopped):
        experiment.run_all()
    assert newest(path) == 2 and "nothing is saved of step 3" in said[-1]
    assert list(read_rows(path / "findings.jsonl"))[-1]["check"] == "spoiled"


@pytest.mark.parametrize("after", [False, True])
def test_an_evaluation_that_fails_costs_no_step_and_is_made_up(
    models, tmp_path, monkeypatch, straight, after
):
    path = tmp_path / "run"
    with monkeypatch.context() as patch:
        fail_once(patch, Evaluate, "evaluate", 1, MemoryError(), after)
        with pytest.raises(MemoryError):
            go(small(models / "tiny"), path)
    assert newest(path) == 2
    assert len(list(read_rows(path / "evals.jsonl"))) == after
    resume(path)
    same_runs(straight, path)


def test_a_checkpoint_that_fails_is_not_tried_twice(models, tmp_path, monkeypatch):
    tries = []

    def refuse(*args) -> None:
        tries.append(args)
        raise RunError("cannot save the checkpoint of step 2: no space left on device")

    monkeypatch.setattr("aha.training.watchers.save_checkpoint", refuse)
    said = []
    with pytest.raises(RunError, match="no space left"):
        go(small(models / "tiny"), tmp_path / "run", say=said.append)
    assert len(tries) == 1 and said[-1].startswith("step 2 is not saved; go on with")


def test_a_change_takes_along_what_the_run_had_set_for_what_it_takes_off(tmp_path):
    """A run has every setting in its config.json, so each is one of the file."""
    begun = load_recipe(None, {"algo.kl": "loss", "algo.kl_coef": 0.1}).model_dump(mode="json")
    run = Run.create(tmp_path / "run", begun)
    cfg = config_of(run, {}, {"algo.kl": "none"}, print)
    assert (cfg.algo.kl, cfg.algo.kl_coef) == ("none", type(cfg.algo)().kl_coef)
    with pytest.raises(ConfigError, match="--algo.loss ppo_clip"):
        config_of(run, {}, {"algo.updates": 2}, print)
    assert config_of(run, {}, {}, print).algo.kl_coef == 0.1
