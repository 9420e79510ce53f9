"""`aha verify-resume`: it kills a run, resumes it, and tells whether a bit differs."""

import pytest

from aha.core.config import RunConfig
from aha.core.errors import RunError
from aha.studies.resume_trial import Life, TrialReport

from ..tiny import answering_folder, write_recipe


@pytest.fixture
def recipe(aha, tmp_path):
    answering_folder(tmp_path / "base")
    write_recipe(tmp_path / "mine.toml", eval={"every": 20, "problems": 4})
    return aha


@pytest.mark.parametrize("differences", [[], ["metrics.jsonl: step 3, loss: 1 and 2"]])
def test_the_verdict_is_the_exit_code(recipe, monkeypatch, differences):
    requests = []

    def trial(cfg, kills, seed, folder, say) -> TrialReport:
        requests.append((cfg.steps, cfg.eval.every, kills, seed, folder.is_dir()))
        return TrialReport(compared={"rows": 5}, differences=differences)

    monkeypatch.setattr("aha.studies.resume_trial.try_resume", trial)
    words = ("--steps", "5", "--kills", "2", "--kill-seed", "9", "--eval.every", "1")
    done = recipe("verify-resume", "mine.toml", *words)
    assert requests == [(5, 3, 2, 9, True)]
    if differences:
        assert done.code == 1 and f"  {differences[0]}\n" in done.out
    else:
        assert (done.code, done.out) == (0, "bit-equal after 2 kills: 5 rows\n")


def test_a_folder_that_exists_is_left_alone(recipe, tmp_path):
    (tmp_path / "trial").mkdir()
    assert "trial exists already" in recipe("verify-resume", "mine.toml", "--out", "trial").err


@pytest.mark.slow
def test_a_run_that_is_killed_is_bit_equal(recipe):
    words = ("--steps", "6", "--kills", "3", "--out", "trial")
    done = recipe("verify-resume", "mine.toml", *words)
    assert done.code == 0, done.err
    assert "bit-equal after 3 kills: 6 rows of metrics.jsonl, 2 rows of evals.jsonl" in done.out


@pytest.mark.slow
def test_a_program_that_resumes_wrongly_is_told(recipe, monkeypatch):
    """Planted: the killed run goes on with another learning rate."""
    real = Life.__init__

    def planted(self, config, path):
        if path.exists():
            for name in ("config.json", "fingerprints.json"):
                text = (path / name).read_text()
                assert '"lr": 0.001' in text
                (path / name).write_text(text.replace('"lr": 0.001', '"lr": 0.01', 1))
        real(self, config, path)

    monkeypatch.setattr(Life, "__init__", planted)
    monkeypatch.setattr("random.Random.uniform", lambda self, low, high: 0.0)
    done = recipe("verify-resume", "mine.toml", "--steps", "4", "--kills", "1")
    assert done.code == 1 and "differences after 1 kills" in done.out
    assert "metrics.jsonl: step " in done.out and "lr: " in done.out


@pytest.mark.slow
def test_a_run_that_fails_by_itself_is_an_error(tmp_path):
    config = tmp_path / "config.json"
    config.write_text(RunConfig().model_dump_json())
    (tmp_path / "run").mkdir()
    with pytest.raises(RunError, match="failed: .*no run in"):
        Life(config, tmp_path / "run").to_the_end()
