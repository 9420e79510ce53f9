"""What a model descends from, read from records written by hand."""

import json
from pathlib import Path

import pytest

from aha.model.parents import chain_of, cost_of_chain


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def run_folder(path: Path, summary: dict | None = None, parents: object = None) -> Path:
    """A run of 36 seconds at a dollar an hour and 100 W, with a checkpoint of step 1."""
    config = {"model": {"path": "aha-tiny"}, "usd_per_hour": 1.0, "watts": 100.0}
    write(path / "config.json", config)
    fingerprints = {"base_cost": {"cost_usd": 0.5}} | (
        {} if parents is None else {"parents": parents}
    )
    write(path / "fingerprints.json", fingerprints)
    rows = [{"step": 1, "elapsed_s": 18.0}, {"step": 2, "elapsed_s": 36.0}]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for folder in ("model", "checkpoints/step_000001"):
        (path / folder).mkdir(parents=True)
    if summary is not None:
        write(path / "summary.json", summary)
    return path


def test_of_a_strange_model_nothing_is_known(tmp_path):
    (parent,) = chain_of(tmp_path)
    assert parent == {"name": str(tmp_path), "kind": "model", "cost_usd": None, "kwh": None}
    assert cost_of_chain([parent]) == {}


def test_a_base_with_the_one_it_started_from(tmp_path):
    write(tmp_path / "pretraining.json", {"cost_usd": 2.0, "kwh": 3.0})
    assert cost_of_chain(chain_of(tmp_path)) == {"cost_usd": 2.0, "kwh": 3.0}
    start = {"start": "old", "start_cost": {"cost_usd": 0.5}}
    write(tmp_path / "pretraining.json", {"cost_usd": 2.0, "kwh": 3.0} | start)
    assert [one["name"] for one in chain_of(tmp_path)] == ["old", tmp_path.name]
    assert cost_of_chain(chain_of(tmp_path)) == {"cost_usd": 2.5, "kwh": 3.0}


@pytest.mark.parametrize(
    ("folder", "summary", "usd", "kwh"),
    [
        ("model", {"cost_usd": 0.25, "kwh": 0.125}, 0.25, 0.125),  # with its tests
        ("model", None, 0.01, 0.001),  # 36 s: a hundredth of an hour
        ("checkpoints/step_000001", {"cost_usd": 0.25}, 0.005, 0.0005),  # half of the training
        ("checkpoints/step_000009", None, None, None),  # no such row: not known, not 0
    ],
)
def test_a_run_costs_what_it_took_up_to_this_model(tmp_path, folder, summary, usd, kwh):
    run = run_folder(tmp_path / "run", summary, parents=[])
    (own,) = chain_of(run / folder)
    assert (own["name"], own["kind"]) == ("run", "rl")
    assert (own["cost_usd"], own["kwh"]) == (pytest.approx(usd), pytest.approx(kwh))


def test_a_run_of_an_older_version_has_its_base_alone(tmp_path):
    run = run_folder(tmp_path / "run", {"cost_usd": 0.25, "kwh": 0.1})
    assert [one["name"] for one in chain_of(run / "model")] == ["aha-tiny", "run"]
    assert cost_of_chain(chain_of(run / "model")) == {"cost_usd": 0.75, "kwh": 0.1}


def test_a_damaged_record_is_no_cost(tmp_path):
    run = run_folder(tmp_path / "run", {"cost_usd": "much", "kwh": None}, parents="none")
    assert chain_of(run / "model")[-1]["cost_usd"] is None
