"""A run says once that its draws are not from its policy; it goes on."""

import pytest

from aha.core.findings import Finding
from aha.store.run_folder import Run, read_rows
from aha.training.draw_checks import check_draws, check_duplicates, check_effective
from aha.training.experiment import Experiment
from aha.training.outcome import Listener

from ..tiny import answering_folder
from .test_experiment import config


@pytest.mark.parametrize(
    ("finding", "level"),
    [
        (check_draws(-0.03, -7.0, 1.0), "fail"),
        (check_draws(0.03, 7.0, 1.0), "fail"),
        (check_draws(0.3, 5.0, 1.0), "ok"),  # few tokens: chance
        (check_draws(0.003, 50.0, 1.0), "ok"),  # very many: rounding
        (check_duplicates(60, 20.0), "fail"),
        (check_duplicates(45, 20.0), "ok"),
        (check_duplicates(9, 0.0), "ok"),
        (check_effective(0.95), "ok"),
        (check_effective(0.7), "warn"),
        (check_effective(0.2), "fail"),
    ],
)
def test_the_bounds(finding: Finding, level: str):
    assert finding.level == level and bool(finding.fix) == (level != "ok")


def test_shared_seeds_are_told_once_and_the_run_goes_on(tmp_path):
    noticed: list[Finding] = []
    cfg = config(answering_folder(tmp_path / "tiny"), eval={"every": 0, "final": 0}, steps=3)
    experiment = Experiment.start(cfg, tmp_path / "run", Listener(finding=noticed.append))
    generate = experiment.trainer.engine.generate

    def shared(prompts, sampling):
        return [group[:1] * len(group) for group in generate(prompts, sampling)]

    experiment.trainer.engine.generate = shared
    outcome = experiment.run_all()
    assert [(finding.check, finding.level) for finding in noticed] == [("duplicates", "warn")]
    assert len(outcome.rows) == 3
    rows = list(read_rows(Run.open(tmp_path / "run").findings))
    assert [(row["step"], row["check"]) for row in rows] == [(1, "duplicates")]
