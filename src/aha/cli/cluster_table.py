"""The part of `aha plan` for several ranks: a row for each machine, and what the rows assume."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from aha.core.sizes import GB
from aha.plan.cluster import Cluster, ClusterPlan, plan_on, work_of_ranks
from aha.plan.estimate import Plan
from aha.plan.machines import money
from aha.plan.speed import Card, Workload

PHASES = ("rollout", "gather", "train", "all_reduce", "update")


@dataclass(frozen=True)
class ClusterTable:
    """The plans of a cluster of each machine, by the machine's name."""

    cluster: Cluster
    plans: dict[str, ClusterPlan]

    @classmethod
    def of(
        cls,
        load: Workload,
        cards: Mapping[str, Card],
        plans: Mapping[str, Plan],
        mean: float,
        cluster: Cluster,
    ) -> "ClusterTable":
        cluster.check(load.cfg.rollout.prompts)
        work = work_of_ranks(load, mean, cluster)
        rows = {
            name: plan_on(load, cards[name], plan, mean, cluster, work)
            for name, plan in plans.items()
        }
        return cls(cluster, rows)

    def as_record(self) -> dict[str, Any]:
        """For --json: seconds of a step by phase, hours and USD of the run."""
        rows = [
            {
                "card": name,
                "step_s": plan.step.seconds,
                **{f"{phase}_s": value for phase, value in asdict(plan.step).items()},
                "speedup": plan.speedup,
                "hours": plan.hours,
                "usd": plan.usd,
                "rank_gb": plan.whole / GB,
                "shard_gb": None if plan.in_shards is None else plan.in_shards / GB,
                "fits": plan.fits,
            }
            for name, plan in self.plans.items()
        ]
        for row in rows:
            row["waiting"] = row.pop("waiting_s")
        return {"cluster": asdict(self.cluster) | {"assumed": self.cluster.assumed(), "rows": rows}}

    def lines(self) -> list[str]:
        gpus, nodes = self.cluster.gpus, self.cluster.nodes
        heads = "".join(f"{phase.replace('_', '-'):>12}" for phase in PHASES)
        lines = [
            f"\n{nodes} x {gpus} ranks, seconds of a step, simulated:",
            f"{'machine':<18}{'step':>9}{heads}{'waiting':>9}{'speedup':>9}{'hours':>9}{'price':>13}"
            f"{'GB':>7}{'sharded':>9}  fits",
        ]
        for name, plan in self.plans.items():
            shard = "-" if plan.in_shards is None else f"{plan.in_shards / GB:.1f}"
            phases = "".join(f"{getattr(plan.step, phase):>12.4g}" for phase in PHASES)
            lines.append(
                f"{name:<18}{plan.step.seconds:>9.4g}{phases}{plan.step.waiting:>9.0%}"
                f"{plan.speedup:>9.2f}{plan.hours:>9.3f}{money(plan.usd):>13}"
                f"{plan.whole / GB:>7.1f}{shard:>9}  {plan.fits}"
            )
        return [*lines, "assumed, not measured:", *(f"  {text}" for text in self.cluster.assumed())]
