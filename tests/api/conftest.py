"""Runs of a few steps on a random model, in an empty folder."""

from pathlib import Path
from typing import Any

import pytest

import aha

from ..tiny import tiny_folder

ROWS = [{"prompt": f"{a}+{b}=", "answer": str(a + b)} for a in range(1, 10) for b in range(1, 8)]


def digits(completion: str) -> float:
    """A reward that a random model gets now and then: the share of digits."""
    return sum(c.isdigit() for c in completion) / max(1, len(completion))


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def small(model, tmp_path, monkeypatch) -> dict[str, Any]:
    """Settings of a short run, which is made in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return {
        "recipe": "demo",
        "model": model,
        "steps": 2,
        "checkpoint_every": 0,
        "rollout": {"prompts": 2, "group_size": 3, "max_new_tokens": 6, "max_rows": 8},
        "optim": {"dtype": "float32"},
        "eval": {"every": 0, "final": 3},
    }


@pytest.fixture
def train(small):
    """`aha.train` with those settings, on rows of sums; other arguments over them."""

    def call(**changes):
        rows = {} if "resume" in changes else {"data": ROWS, **small}
        return aha.train(**{"reward": digits, **rows, **changes})

    return call
