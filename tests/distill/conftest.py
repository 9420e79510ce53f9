"""Teachers that end with their test, and a small student."""

from pathlib import Path

import pytest

from ..tiny import tiny_folder
from .fake_teacher import FakeTeacher


@pytest.fixture
def teach():
    """Starts endpoints that are stopped after the test."""
    fakes = []

    def start(*args, **more) -> FakeTeacher:
        fakes.append(FakeTeacher(*args, **more))
        return fakes[-1]

    yield start
    for fake in fakes:
        fake.stop()


@pytest.fixture(scope="session")
def student(tmp_path_factory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("models") / "student", std=0.1)
