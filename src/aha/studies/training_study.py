"""What the studies that train have in common: conditions, cells for every seed, claims, a page.

A study of this kind names its conditions and the chain of each, says which settings it varies, and
which claims its results are judged by. `Chain` says what a cell does.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from aha.core.errors import ConfigError
from aha.core.recipe_layers import flattened
from aha.plan.speed import Card
from aha.pretrain.settings import PretrainJob
from aha.studies.cell_files import Cell, Result
from aha.studies.judgement import MIN_SEEDS, Measured, Reproduction, reproduction
from aha.studies.study_bases import base_seconds, is_for_all, made_before, work_of
from aha.studies.study_page import StudyPage, StudyTable
from aha.studies.training_cells import Chain, base_of, carry_chain, chain_seconds
from aha.studies.training_results import Outcomes
from aha.web.svg_curves import Figure

FOR_ALL, BASE, CONDITION = "base for all", "base", "condition"  # kinds of cells
INFINITE = float("inf")


@dataclass(frozen=True)
class Claim:
    """A claim of the field and what is measured of it here; see `reproduction` for the rule.

    `row`: its number in docs/studies.md, or who claims it where it has none. `ours` None: not
    measured yet. `least` and `most`: the range that reproduces it. `seeds`: how many finished ones
    were compared.
    """

    row: int | str
    text: str
    published: str
    ours: Measured | None
    seeds: int
    least: float = -INFINITE
    most: float = INFINITE

    @property
    def verdict(self) -> Reproduction | None:
        """None with too few seeds, and where nothing is measured."""
        if self.ours is None or self.seeds < MIN_SEEDS:
            return None
        return reproduction(self.ours.interval, self.least, self.most)

    @property
    def range_text(self) -> str:
        """`at least 0.15`."""
        if self.most == INFINITE:
            return f"at least {self.least:g}"
        if self.least == -INFINITE:
            return f"at most {self.most:g}"
        return f"{self.least:g} to {self.most:g}"


class TrainingStudy(ABC):
    """Implements `Study`, in processes of its own. `seeds` each run all conditions."""

    name: str
    title: str
    claim: str
    varies: tuple[str, ...]  # beginnings of dotted keys of a chain's settings, besides the seeds

    def __init__(self, seeds: Sequence[int], quick: bool = False):
        if not seeds or len({*seeds}) < len(seeds):
            raise ConfigError(f"seeds {list(seeds)}", "each once, three for a verdict")
        self.seeds, self.quick = tuple(seeds), quick

    # -- what a study says -------------------------------------------------------------------

    @property
    @abstractmethod
    def conditions(self) -> tuple[str, ...]:
        """The names of what is compared, in the order of the table."""

    @abstractmethod
    def chain(self, condition: str, seed: int) -> Chain:
        """What a cell does."""

    @abstractmethod
    def claims(self, outcomes: Outcomes) -> list[Claim]:
        """The claims, with what is measured so far."""

    @abstractmethod
    def tables(self, outcomes: Outcomes) -> list[StudyTable]:
        """The tables of results."""

    @abstractmethod
    def figures(self, outcomes: Outcomes) -> list[Figure]:
        """The figures."""

    def about(self) -> list[str]:
        """Lines on settings for the page."""
        return []

    # -- the grid ----------------------------------------------------------------------------

    @cached_property
    def chains(self) -> dict[str, Chain]:
        """The chain of every cell by the cell's name; bases first, seed by seed, those that take
        longest before the others: nothing that needs them can begin meanwhile."""
        chains: dict[str, Chain] = {}
        for seed in self.seeds:
            own = {f"{c}-seed{seed}": self.chain(c, seed) for c in self.conditions}
            jobs = [c.base for c in own.values() if isinstance(c.base, PretrainJob)]
            for job in sorted(jobs, key=work_of, reverse=True):
                if before := made_before(job):
                    chains.setdefault(before.out.name, Chain(before))
                chains.setdefault(job.out.name, Chain(job))
            chains |= own
        return chains

    @cached_property
    def cells(self) -> list[Cell]:
        """A cell for every base and for every condition with every seed."""
        cells = []
        for name, chain in self.chains.items():
            is_base = isinstance(chain.base, PretrainJob) and chain.base.out.name == name
            settings = flattened(chain.settings) | {"name": name}
            varied = {key: value for key, value in settings.items() if self.is_varied(key)}
            shared = {key: value for key, value in settings.items() if key not in varied}
            kind = kind_of(chain.base) if is_base else CONDITION
            needs = needs_of(chain, is_base)
            cells.append(Cell(name, varied, shared, kind, needs, alone=kind == FOR_ALL))
        return cells

    def is_varied(self, key: str) -> bool:
        """Whether the study varies this setting; the seeds of a cell always."""
        ours = (*self.varies, "name", "recipe.seed", "base.pretraining.seed")
        return any(key == one or key.startswith(f"{one}.") for one in ours)

    def seconds_of(self, cell: Cell, card: Card) -> float:
        chain = self.chains[cell.name]
        if cell.kind != CONDITION:
            assert isinstance(chain.base, PretrainJob), "a cell that makes a base has its job"
            return base_seconds(chain.base, card)
        return self.planned(chain, card)

    def planned(self, chain: Chain, card: Card) -> float:
        """How long a condition takes, without its base."""
        return chain_seconds(chain, card)

    def run(self, cell: Cell, out: Path) -> Result:
        chain, runs = self.chains[cell.name], out / "runs"
        if cell.kind != CONDITION:
            model = base_of(chain, runs, print)
            return {"model": str(model.relative_to(out) if out in model.parents else model)}
        return self.carry(chain, runs, cell.name)

    def carry(self, chain: Chain, runs: Path, name: str) -> Result:
        """Do a condition."""
        return carry_chain(chain, runs, name)

    # -- the page ----------------------------------------------------------------------------

    def page(self, done: Mapping[str, Result]) -> StudyPage:
        outcomes = Outcomes(self.conditions, self.seeds, done)
        claims = self.claims(outcomes)
        notes = []
        if few := list(dict.fromkeys(str(c.row) for c in claims if c.seeds < MIN_SEEDS)):
            notes.append(f"no verdict for rows {', '.join(few)}: fewer than {MIN_SEEDS} seeds")
        if empty := list(dict.fromkeys(str(c.row) for c in claims if c.seeds and not c.ours)):
            why = "too few completions, or a ratio to a count of 0"
            notes.append(f"no value for rows {', '.join(empty)}: {why}")
        if self.quick:
            notes.append("a smoke run: too small for any claim, whatever it says")
        tables = [claims_table(claims), *self.tables(outcomes), settings_table(self)]
        return StudyPage(
            self.title,
            self.claim,
            self.about(),
            notes,
            [verdict_line(claim) for claim in claims if claim.verdict],
            self.figures(outcomes),
            tables,
            {"claims": [claim_json(claim) for claim in claims], **outcomes.summary()},
        )


def kind_of(base: str | PretrainJob) -> str:
    """The kind of the cell that makes a base."""
    return FOR_ALL if isinstance(base, PretrainJob) and is_for_all(base) else BASE


def needs_of(chain: Chain, is_base: bool) -> tuple[str, ...]:
    """The cell that has to be done before one of this chain."""
    if not isinstance(chain.base, PretrainJob):
        return ()
    before = made_before(chain.base) if is_base else chain.base
    return () if before is None else (before.out.name,)


def claim_json(claim: Claim) -> dict[str, Any]:
    """A claim in study.json; `ours` is None where it was not measured."""
    ours = claim.ours
    return {
        "row": claim.row,
        "claim": claim.text,
        "published": claim.published,
        "ours": ours and ours.value,
        "interval": ours and list(ours.interval),
        "range": claim.range_text,
        "seeds": claim.seeds,
        "verdict": claim.verdict,
    }


def verdict_line(claim: Claim) -> str:
    """A verdict in a line."""
    assert claim.ours is not None, "a verdict is about a number"
    return f"row {claim.row}, {claim.text}: {claim.ours.text()}, {claim.verdict}"


def claims_table(claims: Sequence[Claim]) -> StudyTable:
    """Claim, published, ours."""
    header = ("row", "claim", "published", "ours, 95 %", "reproduced if", "seeds", "verdict")
    rows = [
        (
            str(claim.row),
            claim.text,
            claim.published,
            claim.ours.text() if claim.ours else "no value" if claim.seeds else "not run",
            claim.range_text,
            str(claim.seeds),
            claim.verdict or "-",
        )
        for claim in claims
    ]
    note = "Rows as numbered in docs/studies.md. Differences are over the same seeds and problems."
    return StudyTable("Claims", header, rows, note)


def settings_table(study: TrainingStudy) -> StudyTable:
    """What all conditions share, and what each varies. The recipe's own model is left out: a cell
    puts that of the stage before in its place."""
    cells = [cell for cell in study.cells if cell.kind == CONDITION]
    shared = {key: value for key, value in cells[0].shared.items() if key != "recipe.model.path"}
    rows = [(key, "all", text_of(value)) for key, value in shared.items() if value]
    seen = set()
    for cell in cells:
        for key, value in cell.varied.items():
            if key != "name" and (key, text_of(value)) not in seen:
                seen.add((key, text_of(value)))
                rows.append((key, cell.name, text_of(value)))
    return StudyTable("Settings", ("setting", "cell", "value"), rows, folded=True)


def text_of(value: Any) -> str:
    """A setting in one line of a table."""
    text = str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
