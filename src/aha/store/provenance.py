"""Where the code of a run comes from: its commit, its changes since then, the packages beside it.

A commit is only that of Aha. An installed package often lies within somebody's own repository, in
a .venv folder: asked there, git answers with the commit of that repository. So git is asked only
where the package is the src/aha of Aha's own source tree, and an installed one is asked for its
metadata: `direct_url.json` where pip installed from a repository (PEP 610), else the file that
hatch_build.py put into the wheel.
"""

import json
import os
import subprocess
import tomllib
from contextlib import suppress
from email.message import Message
from email.parser import HeaderParser
from importlib.metadata import Distribution, distributions
from pathlib import Path

import aha
from aha.store.durable import write_text

PACKAGE = Path(aha.__file__).resolve().parent
IN_METADATA = "extra_metadata/commit.txt"  # written by hatch_build.py
LONGEST_DIFF = 1_000_000  # characters
CUT = "\n... the rest is left out: more than 1,000,000 characters\n"
PACKAGES, DIFF = "packages.txt", "code.diff"


def commit() -> str | None:
    """The commit of Aha's code, with "+" where its files differ from it; None where nothing says
    it."""
    root = source_tree(PACKAGE)
    if root is None:
        return commit_of_metadata(PACKAGE)
    try:
        changed = git(root, "status", "--porcelain", "--", "src/aha")
        return git(root, "rev-parse", "HEAD").strip() + ("+" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None


def source_tree(package: Path) -> Path | None:
    """The root of Aha's own repository, where the package is its src/aha; None elsewhere."""
    root = package.parent.parent
    if package.parent.name != "src" or not (root / ".git").exists():
        return None
    try:
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
        return root if project["project"]["name"] == "aha" else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def git(root: Path, *arguments: str) -> str:
    """The output of a git command in Aha's source tree. Raises what `subprocess.run` raises."""
    # Within a hook, git names the repository of the hook to every git that it starts.
    environment = {name: text for name, text in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(root), *arguments]
    done = subprocess.run(
        command,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=True,
        timeout=10,
        env=environment,
    )
    return done.stdout


def commit_of_metadata(package: Path) -> str | None:
    """The commit that the metadata of the installed package names; None without one."""
    installed = distribution_of(package)
    if installed is None:
        return None
    with suppress(ValueError, LookupError, TypeError):
        named = json.loads(installed.read_text("direct_url.json") or "{}")
        return str(named["vcs_info"]["commit_id"])
    return (installed.read_text(IN_METADATA) or "").strip() or None


def distribution_of(package: Path) -> Distribution | None:
    """The installed distribution that this package is of: another `aha` may be installed too."""
    for installed in distributions(name="aha"):
        place = Path(str(installed.locate_file("aha")))
        if place.is_dir() and place.resolve() == package:
            return installed
    return None


def code_diff() -> str:
    """What differs from the commit in Aha's own files, new files too, as `git apply` reads it;
    empty where nothing does, and for an installed package."""
    root = source_tree(PACKAGE)
    if root is None:
        return ""
    try:
        text = git(root, "diff", "HEAD", "--binary", "--", "src/aha")
        new = git(root, "ls-files", "-z", "--others", "--exclude-standard", "--", "src/aha")
    except (OSError, subprocess.SubprocessError):
        return ""
    for name in filter(None, new.split("\0")):
        text += diff_of_new_file(root, name)
    return text if len(text) <= LONGEST_DIFF else text[:LONGEST_DIFF] + CUT


def diff_of_new_file(root: Path, name: str) -> str:
    """A file that git does not know, as a diff; empty where it cannot be read."""
    try:
        return git(root, "diff", "--no-index", "--binary", "--", os.devnull, name)
    except subprocess.CalledProcessError as error:  # 1: the two differ, as they must
        return str(error.stdout) if error.returncode == 1 else ""
    except (OSError, subprocess.SubprocessError):
        return ""


def package_list() -> str:
    """All installed packages, a line `name==version` each, as `pip install -r` reads it."""
    headers = map(headers_of, distributions())
    rows = {f"{one['Name']}=={one['Version']}" for one in headers if one["Name"]}
    return "".join(f"{row}\n" for row in sorted(rows, key=str.lower))


def headers_of(installed: Distribution) -> Message:
    """The headers of a distribution's metadata. Its `name` and `version` would each read and parse
    the whole file, whose body is a page."""
    text = (
        installed.read_text("METADATA")
        or installed.read_text("PKG-INFO")
        or installed.read_text("")
        or ""
    )
    return HeaderParser().parsestr(text.partition("\n\n")[0])


def write_provenance(folder: Path) -> None:
    """`packages.txt`, and `code.diff` where the code differs from its commit, into a run folder."""
    write_text(folder / PACKAGES, package_list())
    if diff := code_diff():
        write_text(folder / DIFF, diff)
