"""A rank that is always last is told once with its phase; chance is not."""

from aha.core.records import StepReport
from aha.dist.world import World
from aha.store.run_folder import Run, read_rows
from aha.training.straggler_watch import STEPS, StragglerWatch


class Told:
    def __init__(self, folder):
        self.world, self.findings = World(), []
        self.watch = StragglerWatch(self.world, Run(folder), self.findings.append)
        self.step = 0

    def see(self, rollout: list[float], update: list[float]) -> None:
        self.step += 1
        self.world.work_s = {"rollout": rollout, "update": update}
        self.watch(StepReport(self.step, (), (), {}, {}))


def test_one_rank_that_is_always_last_is_told_once(tmp_path):
    told = Told(tmp_path)
    for _ in range(STEPS - 1):
        told.see([1.0, 2.1, 1.0], [1.0, 1.0, 1.1])
    assert told.findings == []
    for _ in range(4):
        told.see([1.0, 2.1, 1.0], [1.0, 1.0, 1.1])
    (finding,) = told.findings
    assert finding.level == "warn" and finding.check == "straggler"
    assert "rank 1 needs 2.1 times as long as the others for the rollout" in finding.message
    (row,) = read_rows(tmp_path / "findings.jsonl")
    assert row["step"] == STEPS and row["check"] == "straggler"


def test_another_rank_each_time_or_a_short_time_is_chance(tmp_path):
    told = Told(tmp_path)
    for step in range(4 * STEPS):
        told.see([1.0 + 2 * (step % 2), 1.0 + 2 * (step % 2 == 0)], [0.1, 0.25])
    told.see([1.0, 1.0], [1.0, 1.0])
    for _ in range(STEPS - 1):
        told.see([3.0, 1.0], [1.0, 1.0])
    told.see([1.2, 1.0], [1.0, 1.0])
    told.see([3.0, 1.0], [1.0, 1.0])
    assert told.findings == []


def test_a_world_of_one_has_nobody_to_wait_for(tmp_path):
    told = Told(tmp_path)
    told.watch(StepReport(1, (), (), {}, {}))
    assert told.findings == [] and list(told.watch.slow) == []
