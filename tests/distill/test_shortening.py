"""Pairs out of the completions of a run, or of a file."""

import json

import pytest

from aha.core.errors import ConfigError, DataError
from aha.distill.shortening import collect_pairs, completions_of, lengths_line
from aha.sft.pair_rows import PairRules


def row(prompt: str, tokens: int, correct: bool) -> dict:
    text = f"{prompt} {tokens} {correct}"
    return {"prompt": prompt, "completion": text, "tokens": tokens, "correct": correct}


def write(path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "runs" / "rl"
    (folder / "completions").mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("")
    for step in range(1, 4):
        rows = [row(f"p{step}", n, True) for n in (10, 30)] + [row(f"p{step}", 5, False)]
        write(folder / "completions" / f"step_{step:06d}.jsonl", rows)
    write(folder / "completions" / "eval_000003.jsonl", [row("test", 1, True)])
    return folder


def test_the_last_steps_of_a_run(run, tmp_path):
    assert len(list(completions_of(run, 2))) == 6
    path, stages = collect_pairs(run, PairRules(), 2, tmp_path / "data" / "one", {})
    pairs = [json.loads(line) for line in path.read_text().splitlines()]
    assert [pair["kind"] for pair in pairs] == ["shorter", "right"] * 2
    assert {pair["prompt"] for pair in pairs} == {"p2", "p3"}
    assert len(stages.lines()) == 1
    line = lengths_line(pairs)
    assert line == "2 of shorter (10 tokens over 30), 2 of right (10 tokens over 5)"


def test_a_file_of_pairs_is_taken_as_it_is(tmp_path):
    path = tmp_path / "pairs.jsonl"
    write(path, [{"prompt": "a", "chosen": "b", "rejected": "c"}])
    assert collect_pairs(path, PairRules(), 1, tmp_path / "data", {})[0] == path
    assert [one.name for one in (tmp_path / "data").iterdir()] == ["job.json"]


def test_nothing_to_choose_is_one_line(run, tmp_path):
    path = tmp_path / "completions.jsonl"
    write(path, [row("a", 1, False), {"prompt": "b"}])
    with pytest.raises(DataError, match="1 no completion; 1 no right completion"):
        collect_pairs(path, PairRules(), 1, tmp_path / "data", {})
    with pytest.raises(ConfigError, match="no file or run"):
        collect_pairs(tmp_path / "none", PairRules(), 1, tmp_path / "data", {})
    for file in (run / "completions").glob("step_*"):
        file.unlink()
    with pytest.raises(DataError, match=r"no completions/step_\*.jsonl"):
        collect_pairs(run, PairRules(), 1, tmp_path / "data", {})
