"""Names and places of runs that cannot be, and what `--resume` takes."""

import pytest

from aha.api.recipe_names import new_run_path
from aha.core.errors import ConfigError


@pytest.mark.parametrize(
    "name",
    ["", " ", ".", "..", "../up", "a/b", "/tmp/x", ".hidden", "-x", "a\0b", "x" * 300, "a\nb"],
)
def test_a_name_that_is_no_single_folder_is_refused_with_one_that_is(name):
    with pytest.raises(ConfigError) as caught:
        new_run_path(name, "demo")
    assert "\n" not in str(caught.value)
    new = caught.value.fix.removeprefix("--name ")
    assert new_run_path(new, "demo").name == new


@pytest.mark.parametrize("name", ["mine", "a b", "größer", "v1.2", "x" * 200])
def test_other_names_are_taken(name):
    assert new_run_path(name, "demo").parts == ("runs", name)


def test_bad_names_and_places_are_one_line(aha, tmp_path):
    for name in ("..", "a/b", ""):
        for command in (("train", "demo"), ("demo",)):
            done = aha(*command, "--name", name)
            assert done.code == 2 and done.err.startswith("aha: --name") and done.out == ""
    (tmp_path / "runs").write_text("")
    done = aha("demo", "--name", "mine")
    assert done.code == 2 and "runs is a file" in done.err and done.err.count("\n") == 1


def test_what_is_no_run_is_not_resumed(aha, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "config.json").write_text("{}")
    for path, words in (("file", "file is a file"), ("mine", "fix: use runs/mine")):
        done = aha("train", "--resume", path)
        assert done.code == 2 and words in done.err
    for words in (("demo",), ("--name", "x"), ("--dry-run",), ("--probe",)):
        done = aha("train", "--resume", "runs/mine", *words)
        assert done.code == 2 and "--resume with" in done.err
    assert "without --resume" in aha("train", "demo", "--accept-changes").err
