"""Puts the commit that a package is built from into its metadata, where a run reads it.

`aha.store.provenance` is the reader. An archive of the source keeps it in a file COMMIT, because a
wheel may be built from that archive, far from the repository.
"""

import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ARCHIVED = "COMMIT"


def commit_in(root: Path) -> str:
    """The commit of the source tree at `root`, with "+" where files of the package differ; of an
    unpacked archive what its COMMIT says; empty where neither is there."""
    if not (root / ".git").exists():
        archived = root / ARCHIVED
        return archived.read_text(encoding="utf-8").strip() if archived.is_file() else ""
    try:
        head, changed = (
            subprocess.run(
                ["git", "-C", str(root), *words], capture_output=True, text=True, check=True
            ).stdout.strip()
            for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "--", "src/aha"))
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return head + ("+" if changed else "")


class CommitHook(BuildHookInterface):
    """Of wheels and source archives; an editable install asks git when it runs."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        commit = commit_in(Path(self.root))
        if version == "editable" or not commit:
            return
        self.folder = tempfile.TemporaryDirectory()
        path = Path(self.folder.name) / ARCHIVED
        path.write_text(commit + "\n", encoding="utf-8")
        if self.target_name == "wheel":
            build_data["extra_metadata"][str(path)] = "commit.txt"
        elif self.target_name == "sdist":
            build_data["force_include"][str(path)] = ARCHIVED

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()
