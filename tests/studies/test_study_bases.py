"""The bases of the studies: one for all, made once, and those that go on from it."""

from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch

from aha.cli.training_studies import study_of
from aha.core.errors import RunError
from aha.corpus.bases import GUESSES
from aha.corpus.shards import documents
from aha.dist.local_ranks import choose_ranks
from aha.plan.machines import load_cards
from aha.pretrain.make_base import keep_settings
from aha.studies.study_bases import (
    START_SECONDS,
    base_model,
    base_seconds,
    goes_on_from_guesser,
    guesser,
    is_for_all,
    made_before,
    ranks_for_all,
)

from ..tiny import answering_folder

CARD = load_cards()[1]["cpu-2-cores"]
say_nothing = partial(str)


@pytest.fixture
def made(tmp_path, monkeypatch):
    """The folder of the base for all, with some model in it."""
    monkeypatch.chdir(tmp_path)
    folder = guesser().out
    keep_settings(folder, guesser().settings)
    answering_folder(tmp_path / "tiny").rename(folder / "model")
    return folder


def test_the_base_for_all_is_not_made_twice_and_costs_nothing_then(made):
    assert base_model(guesser(), Path("study/runs"), say_nothing) == made / "model"
    assert base_seconds(guesser(), CARD) == START_SECONDS
    assert not Path("study").exists()


def test_a_base_of_other_settings_is_refused(made):
    (made / "settings.json").unlink()
    keep_settings(made, guesser().settings | {"start": "aha-tiny"})
    with pytest.raises(RunError, match="start None in runs/base-guesses.*mv runs/base"):
        base_model(guesser(), Path("study/runs"), say_nothing)
    (made / "settings.json").unlink()
    with pytest.raises(RunError, match="is no base"):
        base_model(guesser(), Path("study/runs"), say_nothing)


def test_a_lesson_starts_no_ranks_and_a_cell_as_many_as_suit_the_machine(tmp_path, monkeypatch):
    """As `aha pretrain --ranks auto`: one for each core that may be used, and on a GPU one."""
    with get_context("spawn").Pool(1) as pool:
        assert pool.apply(ranks_for_all) is None
    assert ranks_for_all() == 1
    monkeypatch.chdir(tmp_path)
    asked = []
    monkeypatch.setattr("aha.studies.study_bases.ranks_for_all", lambda: None)
    monkeypatch.setattr(
        "aha.studies.training_stages.pretrain_base",
        lambda job, machine, say: asked.append(machine.ranks),
    )
    base_model(guesser(), Path("study/runs"), say_nothing)
    gpu = choose_ranks(asked[0], torch.device("cuda"), 2_000_000, guesser().most_ranks)
    assert asked == [None] and gpu == 1, "a number of cores is refused on a GPU"


def test_a_base_that_goes_on_needs_the_one_for_all(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = goes_on_from_guesser("mine", 3, replace(GUESSES, search=0.2), 4_000_000)
    assert made_before(job) == guesser() and not is_for_all(job) and is_for_all(guesser())
    assert job.cfg.seed == 3 and job.cfg.mix.search == 0.2 and made_before(guesser()) is None
    assert base_seconds(guesser(), CARD) > base_seconds(job, CARD) > START_SECONDS


@pytest.mark.parametrize(
    ("name", "needs"),
    [
        ("priming", {"dots-seed1": ("base-guesses",)}),
        ("sharpen", {"direct-seed2": ("base-guesses",), "search-seed2": ()}),
        (
            "corpus",
            {
                "base-5-percent-seed1": ("base-guesses",),
                "5-percent-seed1": ("base-5-percent-seed1",),
            },
        ),
        (
            "search",
            {
                "base-solutions-seed0": ("base-guesses",),
                "solutions-rl-seed0": ("base-solutions-seed0",),
            },
        ),
    ],
)
def test_studies_share_it(name, needs):
    cells = {cell.name: cell for cell in study_of(name, None, False).cells}
    assert sum(cell.kind == "base for all" for cell in cells.values()) == 1
    assert {cell: cells[cell].needs for cell in needs} == needs
    quick = study_of(name, None, True).cells
    assert all(cell.kind != "base for all" for cell in quick), "a smoke run makes a tiny one"


def test_bases_that_take_longest_come_first():
    bases = [cell.name for cell in study_of("size", None, False).cells if cell.kind == "base"]
    assert bases[0] == "base-2.3M-tokens" and bases[-1] == "base-0.1M-tokens" and len(bases) == 7


def test_the_base_for_all_reads_no_behaviour_and_what_a_right_result_is():
    stream = documents(GUESSES, 0, lambda numbers, target: True)
    verdicts = 0
    for _ in range(300):
        document = next(stream)
        words = {*document.completion.split()}
        assert not {"need", "aim", "back"} & words
        if document.prompt:
            lines = document.completion.partition("</think>")[0].splitlines()
            assert len(lines) in (0, 2) and not {"yes", "no"} & words, "one attempt, unchecked"
        else:
            verdicts += {"yes", "no"} <= words
    assert verdicts > 80, "on pages of arithmetic alone"
