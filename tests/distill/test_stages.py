"""Counts of what a stage keeps and drops."""

import json

from aha.distill.stages import STAGES, Stage, StageFolder, read_object


def test_a_stage_counts_by_reason_and_shows_the_first(tmp_path):
    stage = Stage("graded")
    stage.keep({"a": 1})
    stage.drop("truncated")
    for details in ("makes 8,\nnot 9", "makes 1"):
        stage.drop("wrong", details)
    assert stage.line().split() == "graded 1 kept, 3 dropped:".split() + [
        *"2 wrong (first: makes 8, not 9); 1 truncated".split()
    ]
    folder = StageFolder(tmp_path)
    assert folder.write(stage).read_text() == '{"a": 1}\n'
    folder.note(Stage("mixed", added=2), "else.jsonl")
    counts = json.loads((tmp_path / STAGES).read_text())
    assert [row["stage"] for row in counts] == ["graded", "mixed"]
    assert counts[0]["dropped"] == {"wrong": 2, "truncated": 1} and counts[0]["kept"] == 1
    assert [row["file"] for row in counts] == ["graded.jsonl", "else.jsonl"]
    assert "2 of them added" in folder.lines()[1]


def test_an_object_that_is_none_is_nothing(tmp_path):
    assert read_object(tmp_path / "none.json") is None
    for text in ("", "[1]", "{"):
        (tmp_path / "a.json").write_text(text)
        assert read_object(tmp_path / "a.json") is None
