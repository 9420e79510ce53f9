"""A folder for veRL: its files, its script, and what it says of itself."""

import re
import shlex
import subprocess

import pytest

from aha.algo.recipe import load_recipe
from aha.api.recipe_names import find_recipe, packaged_recipes
from aha.cli.recipe_keys import toml_value
from aha.core.errors import ConfigError, RunError
from aha.export.verl_folder import export_to_verl, tinyzero_settings
from aha.tasks.catalog import make_task

from .test_verl_rows import base_folder

parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra [parquet]")

SMALL = {
    "steps": 2,
    "rollout.prompts": 4,
    "rollout.group_size": 2,
    "task.template": "r1",
    "eval.problems": 3,
    "eval.final": 5,
    "optim.final_lr": 1,
}
PYTHON = """#!/bin/sh
[ "$1" = -c ] && { echo "$VERL_HERE"; exit 0; }
for word in "$@"; do printf '%s\\n' "$word"; done
printf 'metrics %s\\n' "$VERL_FILE_LOGGER_PATH"
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return base_folder(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="module")
def handed(base, tmp_path_factory):
    """A small run handed over, in a folder whose name has a space."""
    out = tmp_path_factory.mktemp("out") / "for veRL"
    cfg = load_recipe(None, SMALL | {"model.path": str(base)})
    return export_to_verl(cfg, "mine", out, gpus=2)


def test_the_files_and_their_rows(handed):
    names = {path.name for path in handed.folder.iterdir()}
    rows = {"train": 8, "validation": 3, "test": 5}
    texts = {"reward.py", "overrides.txt", "train.sh", "README.md"}
    assert names == texts | {f"{split}.parquet" for split in rows}
    for split, count in rows.items():
        table = parquet.read_table(handed.folder / f"{split}.parquet").to_pylist()
        assert len(table) == count and {row["extra_info"]["split"] for row in table} == {split}
    drawn = {row["extra_info"]["id"] for row in table}
    test = make_task("countdown", {}).problems("test", 0)
    assert drawn == {next(test).id for _ in range(5)}


def test_no_prompt_is_longer_than_veRL_is_told(handed):
    (line,) = re.findall(r"^data.max_prompt_length=(\d+)$", overrides(handed), re.MULTILINE)
    rows = parquet.read_table(handed.folder / "train.parquet").to_pylist()
    lengths = [len(row["prompt"][0]["content"]) for row in rows]  # a token a byte in this model
    assert max(lengths) <= int(line) < max(lengths) + 20


def overrides(handed) -> str:
    return (handed.folder / "overrides.txt").read_text(encoding="utf-8")


def test_a_taken_folder_is_left_alone(base, tmp_path):
    out = tmp_path / "taken"
    out.mkdir()
    (out / "mine").write_text("x")
    cfg = load_recipe(None, SMALL | {"model.path": str(base)})
    with pytest.raises(RunError, match="exists already"):
        export_to_verl(cfg, "x", out)
    assert [path.name for path in out.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [({"optim.final_lr": 0.1}, "optim.final_lr"), ({"steps": 0}, "steps 0")],
)
def test_nothing_is_left_where_the_recipe_is_refused(base, tmp_path, settings, reason):
    cfg = load_recipe(None, SMALL | {"model.path": str(base)} | settings)
    with pytest.raises(ConfigError, match=reason):
        export_to_verl(cfg, "x", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_recipe_without_a_test_has_no_file_of_one(base, tmp_path):
    cfg = load_recipe(None, SMALL | {"model.path": str(base), "eval.final": 0})
    folder = export_to_verl(cfg, "x", tmp_path / "out").folder
    assert not (folder / "test.parquet").exists() and (folder / "validation.parquet").exists()
    page = (folder / "README.md").read_text(encoding="utf-8")
    assert "The model that comes out, back here:\n" in page and "verl.model_merger" in page
    assert "test.parquet" not in page and "aha eval" not in page


# -- the script --------------------------------------------------------------------------------


def run_script(handed, tmp_path, version, *words):
    """train.sh with a `python3` that says what version of verl it has, and what it was given."""
    (tmp_path / "python3").write_text(PYTHON)
    (tmp_path / "python3").chmod(0o755)
    return subprocess.run(
        ["bash", str(handed.folder / "train.sh"), *words],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "VERL_HERE": version},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_script_gives_every_override_with_this_folder_in_it(handed, tmp_path):
    done = run_script(handed, tmp_path, "0.9.1", "trainer.nnodes=2")
    assert done.returncode == 0, done.stderr
    words = done.stdout.splitlines()
    assert words[:2] == ["-m", "verl.trainer.main_ppo"]
    assert words[-2:] == ["trainer.nnodes=2", f"metrics {handed.folder}/metrics.jsonl"]
    lines = [line for line in overrides(handed).splitlines() if not line.startswith("#")]
    assert words[2:-2] == [line.replace("$HERE", str(handed.folder)) for line in lines]
    assert f"data.train_files='{handed.folder}/train.parquet'" in words


@pytest.mark.parametrize("version", ["0.8.0", ""])
def test_the_script_refuses_another_version_of_verl(handed, tmp_path, version):
    done = run_script(handed, tmp_path, version)
    assert done.returncode == 2 and "wanted verl 0.9.1" in done.stderr and done.stdout == ""


def test_the_command_that_is_printed_works_when_it_is_pasted(handed):
    words = shlex.split(handed.command)
    assert words == ["bash", str(handed.folder / "train.sh")]
    assert subprocess.run(["bash", "-n", words[1]]).returncode == 0


# -- what it says ------------------------------------------------------------------------------


def test_the_page_says_what_was_not_run_and_how_the_model_comes_back(handed):
    page = " ".join((handed.folder / "README.md").read_text(encoding="utf-8").split())
    assert "Nothing was trained" in page and "8 prompts in train.parquet" in page
    (command,) = re.findall(r"aha eval model [^`]*?--seed 0", page)
    words = shlex.split(command)
    assert words[words.index("--options") + 1] == 'template = "r1"'
    assert words[words.index("--n") + 1] == "5"
    assert any("vLLM" in note for note in handed.notes)


@pytest.mark.parametrize("name", [n for n in packaged_recipes() if n.startswith("tinyzero-")])
def test_the_settings_of_tinyzero_are_those_that_the_recipe_names(name):
    """Its header has them for `aha train`; for veRL they are set, and both are the same."""
    path = find_recipe(name)
    header = " ".join(line[1:] for line in path.read_text().splitlines() if line.startswith("#"))
    words = shlex.split(header.partition("by hand: ")[2])
    pairs = zip(words[::2], words[1::2], strict=True)
    named = {key.removeprefix("--"): toml_value(value) for key, value in pairs}
    assert tinyzero_settings(name, load_recipe(path)) == named and len(named) == 6
    assert tinyzero_settings("demo", load_recipe(path)) == {}
