"""`aha lab`: what it prints, what it leaves, what it refuses."""

import io
import json

import pytest
from rich.console import Console

from aha.cli.lab import MORE, RESULT, print_columns
from aha.studies.lab_page import HEADER

from ..tiny import answering_folder

SMALL = ["--model.path", "base", "--rollout.prompts", "2", "--rollout.max_new_tokens", "8"]
SMALL += ["--eval.problems", "2", "--eval.final", "3", "--eval.every", "1", "--algo.updates", "1"]
LAB = [
    "lab",
    "--recipes",
    "dr_grpo,rloo",
    "--seeds",
    "0",
    "--steps",
    "1",
    "--out",
    "my lab",
    *SMALL,
]


def test_a_lab_prints_a_table_and_goes_on(aha, tmp_path):
    answering_folder(tmp_path / "base")
    done = aha(*LAB, "--dry-run")
    assert done.code == 0 and "dr_grpo-seed0: to do" in done.out
    assert not (tmp_path / "my lab").exists()
    done = aha(*LAB)
    words = " ".join(done.out.split())
    assert done.code == 0 and "2/2 rloo-seed0" in words and "held-out: solved" in words
    assert "no verdict: fewer than 3 finished seeds: dr_grpo, rloo" in words
    found = json.loads((tmp_path / "my lab" / "lab.json").read_text())
    assert [one["recipe"] for one in found["recipes"]] == ["dr_grpo", "rloo"]
    assert found["planned"] == ["dr_grpo-seed0", "rloo-seed0"] and found["environment"]["python"]
    assert "rloo-seed0: done" in aha(*LAB, "--dry-run").out
    again = aha(*LAB)
    assert again.code == 0 and "2/2" not in again.out and "no verdict" in again.out
    assert aha("report", "my lab/runs/rloo-seed0").code == 0


def test_a_run_that_fails_takes_no_other_down(aha, tmp_path):
    """Of three recipes the second one wants an engine that a CPU does not have."""
    answering_folder(tmp_path / "base")
    (tmp_path / "fast.toml").write_text('[rollout]\nengine = "vllm"\n')
    words = ["rloo,fast.toml,dr_grpo" if word == "dr_grpo,rloo" else word for word in LAB]
    done = aha(*words)
    assert done.code == 1 and "failed: fast-seed0; the same command" in done.out
    found = json.loads((tmp_path / "my lab" / "lab.json").read_text())
    assert [one["recipe"] for one in found["recipes"]] == ["rloo", "dr_grpo"]
    assert found["failed"].keys() == {"fast-seed0"} and "vllm" in found["failed"]["fast-seed0"]
    page = (tmp_path / "my lab" / "lab.html").read_text()
    assert "the run fast-seed0 failed: " in page and "2 of 3 runs are done" in page


def test_a_large_lab_fits_eighty_columns(monkeypatch):
    out = io.StringIO()
    screen = Console(file=out, width=80, color_system=None, highlight=False)
    monkeypatch.setattr("aha.cli.lab.console", screen)
    row = dict.fromkeys(HEADER, "100.0%") | {
        "recipe": "reinforce_pp_baseline",
        "solved after, 95 %": "0.842 [0.818, 0.863]",
        "verdict": "learnt; above reinforce, rloo, dr_grpo, gspo",
    }
    for columns in (RESULT, MORE):
        print_columns([row, row], columns)
    lines = out.getvalue().splitlines()
    assert all(len(line) <= 80 for line in lines)
    # No name and no number is broken over two lines.
    assert sum("reinforce_pp_baseline" in line for line in lines) == 4
    assert sum("0.842 [0.818, 0.863]" in line for line in lines) == 2
    assert {*RESULT, *MORE} == {*HEADER}


@pytest.mark.parametrize(
    "words",
    [
        ("--recipes", "grpo"),
        ("--recipes", "grpo,nosuch"),
        ("--seeds", "a,b"),
        ("--tokens", "0"),
        ("--tokens", "-1"),
        ("--recipes", "grpo,laptop-3to4"),
        ("--critic.lr", "1e-3"),
    ],
)
def test_what_cannot_be_compared_is_one_line_and_code_2(aha, words):
    done = aha("lab", *words)
    assert done.code == 2 and done.err.startswith("aha: ") and len(done.err.splitlines()) == 1


def test_help_says_what_each_flag_is(aha):
    out = " ".join(aha("lab", "--help").out.replace("│", " ").split())
    assert "a verdict needs three" in out and "until the tokens are spent" in out


def test_the_default_lab_can_be_planned(aha):
    """Nine named methods on the same base and problems, three seeds."""
    done = aha("lab", "--dry-run")
    assert done.code == 0 and len(done.out.split("to do")) == 28
