"""The commit of a run is Aha's own, wherever the package lies."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from aha.store import provenance
from aha.store.provenance import CUT, code_diff, commit, package_list, source_tree, write_provenance

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is what is asked")
WHO = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", *WHO, *words], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def repository(folder: Path) -> str:
    """A repository of everything in the folder; its commit."""
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "all")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> tuple[Path, str]:
    """Aha's source tree, with the rooms that this module needs, as a repository; its commit."""
    root = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, root / name)
    for name in ("__init__.py", "core", "store"):
        place, copy = ROOT / "src/aha" / name, root / "src/aha" / name
        ignored = shutil.ignore_patterns("__pycache__")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(place, copy, ignore=ignored) if place.is_dir() else shutil.copy(place, copy)
    return root, repository(root)


def build(root: Path, out: Path, target: str) -> Path:
    words = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(out)]
    subprocess.run(words, cwd=root, check=True, capture_output=True)
    (made,) = out.glob("aha-*")
    return made


def commit_seen_from(site: Path) -> str:
    """The commit that the package in this folder names, in a process of its own."""
    code = "from aha.store.provenance import PACKAGE, commit; print(PACKAGE, commit())"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(site)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    place, seen = done.stdout.split()
    assert Path(place) == (site / "aha").resolve(), "another package was asked"
    return seen


def test_a_wheel_in_somebodys_repository_names_the_commit_it_was_built_from(source, tmp_path):
    root, built_from = source
    wheel = build(root, tmp_path / "dist", "wheel")
    thesis = tmp_path / "thesis"
    site = thesis / ".venv" / "lib"
    site.mkdir(parents=True)
    zipfile.ZipFile(wheel).extractall(site)
    (thesis / "pyproject.toml").write_text('[project]\nname = "thesis"\n')
    assert repository(thesis) != built_from
    assert commit_seen_from(site) == built_from


def test_an_archive_of_the_source_hands_the_commit_on_to_its_wheel(source, tmp_path):
    root, built_from = source
    archive = build(root, tmp_path / "dist", "sdist")
    shutil.unpack_archive(archive, tmp_path / "unpacked")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    assert not (unpacked / ".git").exists()
    wheel = build(unpacked, tmp_path / "wheels", "wheel")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    assert commit_seen_from(tmp_path / "site") == built_from


def test_pip_from_a_repository_says_the_commit_itself(source, tmp_path):
    wheel = build(source[0], tmp_path / "dist", "wheel")
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    (facts,) = site.glob("aha-*.dist-info")
    named = {"url": "https://x", "vcs_info": {"vcs": "git", "commit_id": "c" * 40}}
    (facts / "direct_url.json").write_text(json.dumps(named))
    assert commit_seen_from(site) == "c" * 40
    (facts / "direct_url.json").write_text('{"url": "file:///x", "dir_info": {}}')
    assert commit_seen_from(site) == source[1]
    shutil.rmtree(facts)
    assert commit_seen_from(site) == "None"


def test_the_source_tree_is_aha_itself_and_no_folder_around_it(source, tmp_path):
    root, _ = source
    assert source_tree(root / "src/aha") == root
    # A copy within somebody's repository, whose src/ it is in.
    (tmp_path / "src").mkdir()
    shutil.copytree(root / "src/aha", tmp_path / "src/aha")
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "thesis"\n')
    repository(tmp_path)
    assert source_tree(tmp_path / "src/aha") is None
    (tmp_path / "pyproject.toml").write_text("not toml =")
    assert source_tree(tmp_path / "src/aha") is None


@pytest.fixture
def changed(source, monkeypatch, tmp_path) -> tuple[Path, str]:
    """A copy of the source tree, which the module takes for its own."""
    root = tmp_path / "copy"
    shutil.copytree(source[0], root)
    monkeypatch.setattr(provenance, "PACKAGE", root / "src/aha")
    return root, source[1]


def test_changes_are_kept_as_a_diff_that_git_applies(changed, source, tmp_path):
    root, head = changed
    assert commit() == head and code_diff() == ""
    (root / "README.md").write_text("of no consequence")
    assert commit() == head
    with (root / "src/aha/__init__.py").open("a") as file:
        file.write("\nCHANGED = True\n")
    (root / "src/aha/new file.py").write_text("NEW = 1\n")
    assert commit() == head + "+"
    write_provenance(tmp_path)
    clean = tmp_path / "clean"
    shutil.copytree(source[0], clean)
    git(clean, "apply", str(tmp_path / "code.diff"))
    for name in ("__init__.py", "new file.py"):
        assert (clean / "src/aha" / name).read_bytes() == (root / "src/aha" / name).read_bytes()


def test_a_diff_has_an_end(changed, monkeypatch):
    root, _ = changed
    monkeypatch.setattr(provenance, "LONGEST_DIFF", 100)
    (root / "src/aha/large.py").write_text("X = 1\n" * 100)
    assert code_diff().endswith(CUT) and len(code_diff()) == 100 + len(CUT)


def test_a_hooks_variables_lead_to_no_other_repository(changed, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").write_text("")
    repository(other)
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    assert commit() == changed[1]


def test_all_packages_are_listed_as_pip_reads_them():
    lines = package_list().splitlines()
    names = {line.partition("==")[0].lower() for line in lines}
    assert names >= {"torch", "numpy", "rich", "pydantic"} and lines == sorted(lines, key=str.lower)
    assert all(line.partition("==")[2] for line in lines)
