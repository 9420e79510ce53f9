"""A rank that keeps the others waiting in step after step: told once, with its phase."""

from collections.abc import Callable
from statistics import median

from aha.core.findings import Finding
from aha.core.records import StepReport
from aha.dist.world import World
from aha.store.run_folder import Run

STEPS = 5  # in a row: one slow step may be a long completion
RATIO = 1.5  # of the median of the other ranks
LEAST_S = 0.2  # a step: below, nobody would notice


class StragglerWatch:
    """Called with the report of each step: compares the seconds that the ranks have worked.

    A rank that needs `RATIO` times as long as the others in each of `STEPS` steps in a row is told,
    once for each phase. Groups are shared by number and rows by tokens, so chance makes another
    rank the last one in each step; a slow machine, or one that somebody else uses, is always last.
    """

    def __init__(self, world: World, run: Run, on_finding: Callable[[Finding], None]):
        self.world, self.run, self.on_finding = world, run, on_finding
        self.slow: dict[str, list[tuple[int, float]]] = {}  # by phase: (rank, ratio) of each step
        self.reported: set[str] = set()

    def __call__(self, report: StepReport) -> None:
        for phase, seconds in self.world.work_s.items():
            row = self.slow.setdefault(phase, [])
            rank, ratio = slowest(seconds)
            if not ratio or (row and row[-1][0] != rank):
                row.clear()
            if ratio:
                row.append((rank, ratio))
            if len(row) >= STEPS and phase not in self.reported:
                self.reported.add(phase)
                self.tell(report.version, phase, rank, median(r for _, r in row[-STEPS:]))

    def tell(self, step: int, phase: str, rank: int, ratio: float) -> None:
        finding = Finding(
            "warn",
            f"rank {rank} needs {ratio:.1f} times as long as the others for the {phase}, in "
            f"{STEPS} steps in a row: they wait for it",
            "look at what else runs on its machine (`aha doctor` there), or leave that machine out",
            "straggler",
        )
        self.run.tell(step, finding)
        self.on_finding(finding)


def slowest(seconds: list[float]) -> tuple[int, float]:
    """(the rank that has worked longest, how many times as long as the median of the others); 0
    times where that is nothing to speak of."""
    rank = max(range(len(seconds)), key=seconds.__getitem__)
    others = [value for other, value in enumerate(seconds) if other != rank]
    usual = median(others) if others else seconds[rank]
    ratio = seconds[rank] / max(usual, 1e-9)
    return rank, ratio if ratio >= RATIO and seconds[rank] - usual >= LEAST_S else 0.0
