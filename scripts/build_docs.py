"""Build the pages as a site: README, CONTRIBUTING, docs/ and results/, with the code they link to.

    python scripts/build_docs.py                # into build/site; needs the extra [docs]
    python scripts/build_docs.py build/other    # somewhere else

MkDocs reads one folder, and its pages may link only to what lies inside it. So the pages, and every
file that they may link to, are copied below build/docs under the same paths. A dead link, a dead
anchor or a page that the navigation of mkdocs.yml lacks ends the build with an error.
"""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "docs", "results")
CODE = (
    "src/aha",
    "examples",
    "scripts",
    "tests",
    "benchmarks",
    "deploy",
    "pyproject.toml",
    "Makefile",
)
# The model's weights are large, and no page links to them; the dashboard's page would pass for one
# of the site's.
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.safetensors", "static")


def stage(target: Path) -> None:
    """Copy what the site is made of, in place of what an earlier build left there."""
    shutil.rmtree(target, ignore_errors=True)
    for name in PAGES + CODE:
        source, copy = ROOT / name, target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, copy, ignore=LEFT_OUT)
        else:
            shutil.copy(source, copy)


def build(site: Path) -> int:
    """The exit status of MkDocs."""
    words = ("build", "--strict", "--config-file", ROOT / "mkdocs.yml", "--site-dir", site)
    return subprocess.run([sys.executable, "-m", "mkdocs", *map(str, words)]).returncode


if __name__ == "__main__":
    site = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build" / "site").resolve()
    stage(ROOT / "build" / "docs")
    code = build(site)
    if code == 0:
        print(f"open {site / 'index.html'}")
    sys.exit(code)
