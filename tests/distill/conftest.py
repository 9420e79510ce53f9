"""Teachers that end with their test, and a small student."""

from pathlib import Path

import pytest

from ..fake_endpoint import started
from ..tiny import tiny_folder
from .fake_teacher import FakeTeacher

teach = started(FakeTeacher)


@pytest.fixture(scope="session")
def student(tmp_path_factory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("models") / "student", std=0.1)
