"""What every test shares: no network, no luck, and a line of reason for each test left out."""

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

# Set before any test imports transformers: a test that needs a download fails at once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
from hypothesis import settings

# derandomize: the same examples on every machine. No deadline: a busy machine is not a bug.
settings.register_profile("house", deadline=None, derandomize=True)
settings.load_profile("house")

REASONS = {
    "gpu": "they need a CUDA GPU",
    "slow": "they take long",
    "fuzz": "they try 100,000 inputs each; FUZZ_SHARE=0.1 for a tenth",
    "bench": "they measure, or need the bench extra",
}
left_out: Counter[str] = Counter()


@pytest.fixture(autouse=True, scope="session")
def no_waiting_for_the_disk() -> Iterator[None]:
    """No test takes the power away: what a process has written outlives it in the memory of the
    system. A run of two steps would wait some eighty times."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a gpu test that was asked for on a machine without a GPU."""
    if item.get_closest_marker("gpu"):
        import torch  # only here: most of the house opens without torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA GPU, and torch sees none")


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Count the tests that -m left out, by the marker that did it."""
    for item in items:
        left_out.update([mark for mark in REASONS if item.get_closest_marker(mark)][:1])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """With several processes: each one collects all tests, so the counts of any one hold."""
    left_out.update(getattr(node, "workeroutput", {}).get("left_out", {}) if not left_out else {})


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In a process of several: hand the counts to the one that writes the summary."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = dict(left_out)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was left out, why, and how to run it."""
    for mark, count in left_out.items():
        terminalreporter.write_line(
            f"LEFT OUT [{count}] {mark}: {REASONS[mark]} (run: pytest -m {mark})"
        )
