"""The pages: their size, their links, the commands that they show, and what they have to name."""

import importlib
import io
import pkgutil
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest
from cyclopts import CycloptsError

import aha.doctor
from aha.api.recipe_names import find_recipe, packaged_recipes
from aha.cli.main import app, run
from aha.cli.recipes import recipe_row
from aha.core.findings import Checklist
from aha.store import run_folder
from aha.tasks import audit

from .pages import (
    DOCS,
    FENCE,
    PAGES,
    README,
    ROOT,
    anchors,
    commands,
    complain,
    links,
    read,
    section,
    shown,
)
from .test_fixes import is_option, options

MAX_README_LINES = 120
MAX_README_WORDS = 1_100


# --- Markdown ---------------------------------------------------------------------------------


def test_links_are_read_outside_code_alone():
    page = "[a](b.md) `[c](d.md)`\n```\n[e](f.md)\n```\n![g](h.png) [`i`](j.md#k) [l\nm](n.md)\n"
    assert links(page) == ["b.md", "h.png", "j.md#k", "n.md"]


def test_anchors_are_those_of_code_browsers():
    page = "# A `b_c`: d's, e\n```\n# no\n```\n## 2. F-g [h](i.md)\n"
    assert anchors(page) == {"a-b_c-ds-e", "2-f-g-h"}


def test_commands_are_read_from_both_kinds_of_code_blocks():
    page = "x\n\n    git clone <it> && cd it && make demo\n\n"
    page += "```\naha eval a \\\n  --n 3  # why\n46+32=78\n```\n"
    assert sorted(commands(page)) == ["aha eval a    --n 3", "git clone <it>", "make demo"]


# --- links, paths and navigation --------------------------------------------------------------


def dead_links(path: Path) -> Iterator[str]:
    for link in links(read(path)):
        if re.match(r"[a-z]+:", link):  # the web is not asked
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        if not target.is_file():  # a folder has no page on the site
            yield f"{shown(path)}: {link} is no file"
        elif anchor and anchor not in anchors(read(target)):
            yield f"{shown(path)}: {link} has no such heading"


def test_no_link_is_dead():
    complain([fault for page in PAGES for fault in dead_links(page)], "Links lead to a file:")


PATHS = re.compile(
    r"`((?:src|docs|tests|results|examples|scripts|benchmarks|\.ci)/[^`\s]*|[\w.-]+/\.\./[^`\s]*)`"
)
# A whole measurement on a GPU would be filed so, one file an item and a card.
NOT_YET = ("results/gpu/ITEM.",)


def test_every_path_in_backticks_exists():
    faults = [
        f"{shown(page)}: {path}"
        for page in PAGES
        for path in PATHS.findall(read(page))
        if not path.startswith(NOT_YET) and not any(ROOT.glob(path.rstrip("/")))
    ]
    complain(faults, "No such file or folder:")


OF_THE_CLONE = re.compile(
    r"(?<![\w/.])(?:docs|results|scripts|benchmarks|deploy|examples)/[\w./-]*\w"
)


def test_every_path_that_the_code_names_exists():
    """In its comments, docstrings and messages; names in capitals are to be filled in."""
    faults = [
        f"{shown(source)}: {path}"
        for suffix in ("py", "toml", "c", "h", "md")
        for source in sorted((ROOT / "src/aha").rglob(f"*.{suffix}"))
        for path in OF_THE_CLONE.findall(read(source))
        if not ((ROOT / path).exists() or re.search(r"[A-Z]{3}|^docs/source/", path))  # TRL's docs
    ]
    complain(faults, "No such file or folder:")


# These pages are about names that are gone, or that the code may not use.
OTHER_NAMES = {DOCS / "log.md", DOCS / "decisions/house.md", DOCS / "glossary.md"}
FOLDERS = ("src/aha", "tests", "benchmarks", "scripts", "examples")


def test_every_name_in_backticks_is_in_the_code():
    """A function that was renamed keeps its old name nowhere."""
    suffixes = (".py", ".c", ".h", ".toml")
    below = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.*")]
    files = [path for path in below if path.suffix in suffixes] + [ROOT / "pyproject.toml"]
    words = {path.stem for path in files}.union(*(re.findall(r"\w+", read(f)) for f in files))
    faults = [
        f"{shown(page)}: {name}"
        for page in sorted(set(PAGES) - OTHER_NAMES)
        for name in re.findall(r"`([A-Za-z_][\w.]*)`", FENCE.sub("", read(page)))
        if not words.issuperset(name.strip(".").split(".")) and not name.isupper()
    ]
    complain(faults, "No such name in the code:")


def test_the_navigation_of_the_site_has_every_page():
    listed = re.findall(r"^ +- .+: (\S+\.md)$", read(ROOT / "mkdocs.yml"), re.MULTILINE)
    assert sorted(listed) == sorted(map(shown, PAGES))


def test_the_site_builds_without_a_dead_link(tmp_path):
    pytest.importorskip("mkdocs", reason="the site needs the extra [docs]")
    script = ROOT / "scripts" / "build_docs.py"
    done = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "index.html").is_file() and (tmp_path / "docs/traps.html").is_file()


# --- README -----------------------------------------------------------------------------------


def test_readme_is_short():
    lines, words = len(read(README).splitlines()), len(read(README).split())
    assert lines <= MAX_README_LINES and words <= MAX_README_WORDS, (lines, words)


# What makes a command of README small, by its first word.
SMALL = {
    "plan": "",
    "train": "--steps 1 --rollout.prompts 2 --rollout.group_size 2 --rollout.max_new_tokens 16 "
    "--eval.every 0 --eval.final 2 --no-dash",
    "eval": "--n 2 --max-new-tokens 16",
    "chat": "",
    "report": "",
    "doctor": "",
    "lab": "--dry-run",
}


def aha_commands(page: str) -> list[list[str]]:
    return [shlex.split(line)[1:] for line in commands(page) if line.startswith("aha ")]


def test_the_commands_of_readme_run(tmp_path, monkeypatch, capsys):
    """One after the other in an empty folder, as a reader would, with the smallest settings."""
    monkeypatch.chdir(tmp_path)
    rows = [words for words in aha_commands(read(README)) if words[0] != "dash"]
    assert len(rows) == 7 and {words[0] for words in rows} == set(SMALL)
    for words in rows:
        monkeypatch.setattr(sys, "argv", ["aha", *words, *SMALL[words[0]].split()])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
        code = 0
        try:
            run()
        except SystemExit as exit:
            code = exit.code or 0
        said = capsys.readouterr()
        # The doctor's 1: it found that this run did not learn, which is so.
        assert code == 0 or (words[0], code) == ("doctor", 1), (words, said.err)
    assert (tmp_path / "runs/first/report.html").is_file()


def test_the_dashboard_of_readme_opens_before_there_is_a_run(tmp_path):
    (words,) = [words for words in aha_commands(read(README)) if words[0] == "dash"]
    line = [sys.executable, "-m", "aha", *words, "--port", "0"]
    with subprocess.Popen(line, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert "http://127.0.0.1:" in process.stdout.readline()
            assert (tmp_path / "runs").is_dir()
        finally:
            process.terminate()


# --- commands of every page -------------------------------------------------------------------


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", read(ROOT / "Makefile"), re.MULTILINE))


def wrong_command(line: str) -> str:
    """What is wrong with a command of a page; nothing where it is sound."""
    words = shlex.split(line)
    if words[0] == "aha":
        try:
            app.parse_args(words[1:], exit_on_error=False, print_error=False)
        except CycloptsError as error:
            return " ".join(str(error).split())
    if words[0] == "make":
        targets = [word for word in words[1:] if "=" not in word]
        return ", ".join(f"no target {name}" for name in targets if name not in make_targets())
    script = next((word for word in words[1:] if word.endswith(".py")), None)
    if words[0].endswith("python") and script and not (ROOT / script).is_file():
        return f"no file {script}"
    return ""


def test_every_command_on_a_page_is_one():
    """Parsed, not run: the name and the flags of each are known."""
    faults = [
        f"{shown(page)}: {line}: {fault}"
        for page in PAGES
        for line in commands(read(page))
        if (fault := wrong_command(line))
    ]
    complain(faults, "Commands that do not exist:")


SPAN = re.compile(r"`aha ([a-z][a-z-]*)([^`\n]*)`")
LESSONS = sorted(DOCS.glob("lessons/*.py"))


def wrong_options(text: str) -> list[str]:
    """Commands and options in the sentences of a text that do not exist."""
    faults = []
    for command, rest in SPAN.findall(FENCE.sub("", text)):
        named = re.findall(r"(?<![\w-])(--[A-Za-z][\w.-]*\w|--n)\b", rest)
        known = command in options()
        faults += [] if known else [f"aha {command}"]
        faults += [
            f"aha {command} {one}" for one in named if known and not is_option(one, {command})
        ]
    return [fault for fault in faults if not fault.endswith((" --section.key", " --help"))]


def test_every_command_in_a_sentence_is_one():
    """Those in tables and sentences, with VALUE and RUN in them, cannot be parsed as they stand."""
    texts = {page: read(page) for page in (*PAGES, *LESSONS) if page != DOCS / "log.md"}
    faults = [
        f"{shown(page)}: {one}" for page, text in texts.items() for one in wrong_options(text)
    ]
    complain(faults, "Commands that do not exist:")
    wrong = (
        "`aha evil`, `aha eval MODEL --nope`, `aha study size --quick`, `aha train --task.data F`"
    )
    assert wrong_options(wrong) == ["aha evil", "aha eval --nope"]


def test_the_page_of_all_commands_has_every_command_and_every_task_of_a_recipe():
    page = read(DOCS / "using.md")
    assert [name for name in options() if not re.search(rf"`aha {name}\b", page)] == []
    rows = [recipe_row(find_recipe(name)) for name in packaged_recipes()]
    listed = re.findall(r"`([\w.*-]+)`", page)
    tasks = [row["recipe"] for row in rows if not row["method"]]
    unnamed = [one for one in tasks if not any(fnmatch(one, pattern) for pattern in listed)]
    assert len(tasks) > 10 and unnamed == []


def test_a_wrong_command_is_found():
    assert "--nope" in wrong_command("aha eval aha-tiny --nope 3")
    assert wrong_command("make nope") and wrong_command("python scripts/nope.py")
    assert not any(map(wrong_command, ("aha eval aha-tiny --n 3", "make demo", "git clone x")))


def test_make_targets_in_the_text_exist():
    faults = [
        f"{shown(page)}: make {name}"
        for page in PAGES
        for name in re.findall(r"`make ([a-z]+)", read(page))
        if name not in make_targets()
    ]
    complain(faults, "No such target in the Makefile:")


# --- decisions, architecture, the doctor ------------------------------------------------------

DECISIONS = sorted(set((DOCS / "decisions").glob("*.md")) - {DOCS / "decisions/README.md"})
STATUS = r"\d{4}-\d\d-\d\d(, last change \d{4}-\d\d-\d\d)? · (in force|replaced by|open: )"


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem)
def test_a_decision_has_a_date_and_a_status_and_is_in_the_index(page):
    index = links(read(DOCS / "decisions/README.md"))
    entries = re.findall(r"^## (.+)\n(.*)$", read(page), re.MULTILINE)
    assert entries
    for heading, line in entries:
        assert re.match(STATUS, line), f"{heading}: {line}"
        (anchor,) = anchors(f"## {heading}\n")
        assert f"{page.name}#{anchor}" in index, f"{heading} is not in docs/decisions/README.md"


def rooms() -> set[str]:
    return {path.parent.name for path in (ROOT / "src/aha").glob("*/__init__.py")}


def test_decisions_are_those_of_rooms():
    others = {"house", "benchmarks"}  # the whole tree, and what is measured beside it
    assert {page.stem for page in DECISIONS} - others <= rooms()


@pytest.mark.parametrize("room", sorted({page.stem for page in DECISIONS} & rooms()))
def test_a_room_names_the_page_of_its_decisions(room):
    assert f"Decisions: docs/decisions/{room}.md" in read(ROOT / f"src/aha/{room}/__init__.py")


def test_the_architecture_page_has_every_room_and_the_layers_of_pyproject():
    page = read(DOCS / "architecture.md")
    assert set(re.findall(r"^\| `(\w+)` \|", section(page, "The rooms"), re.MULTILINE)) == rooms()
    pyproject = tomllib.loads(read(ROOT / "pyproject.toml"))
    layers = pyproject["tool"]["importlinter"]["contracts"][0]["layers"]
    built = []
    for layer in layers:
        names = [name.strip(" ()") for name in layer.split("|")]
        if row := [name for name in names if name in rooms()]:
            built.append(" | ".join(row))
    drawn = re.findall(r"^    (.+)$", section(page, "The layers"), re.MULTILINE)
    assert drawn == built


def test_the_architecture_page_has_every_file_of_a_run():
    named = re.findall(r"^  ([\w/]+\.?\w*) {2,}\S", run_folder.__doc__, re.MULTILINE)
    table = re.findall(
        r"^\| (`.*?`) \|", section(read(DOCS / "architecture.md"), "A run on the disk"), re.M
    )
    listed = {name.partition("*")[0] for row in table for name in re.findall(r"`([^`]+)`", row)}
    assert len(named) > 25 and [name for name in named if name not in listed] == []


def test_every_benchmark_is_on_its_page():
    scripts = [path.name for path in ROOT.glob("benchmarks/[a-z]*.py")]
    page = read(DOCS / "benchmarks.md")
    assert len(scripts) > 8 and [name for name in scripts if f"| `{name}` |" not in page] == []


def test_every_trap_has_a_guard_that_can_be_looked_up():
    """Code, a test or a decision: "none is needed yet" is true until somebody makes it false."""
    traps = re.split(r"^### ", read(DOCS / "traps.md"), flags=re.MULTILINE)[1:]
    named = re.compile(r"`(?:src|tests)/|\(decisions/")
    open_ones = [trap for trap in traps if not named.search(trap.partition("* **Guard:**")[2])]
    assert len(traps) > 30 and [trap.splitlines()[0] for trap in open_ones] == []


def test_a_room_that_is_said_to_need_no_torch_is_held_to_it():
    rows = re.findall(
        r"^\| `(\w+)` \|.*\| no torch \|$", read(DOCS / "architecture.md"), re.MULTILINE
    )
    pyproject = tomllib.loads(read(ROOT / "pyproject.toml"))
    contracts = pyproject["tool"]["importlinter"]["contracts"]
    held = {
        name for one in contracts if one["type"] == "forbidden" for name in one["source_modules"]
    }
    assert len(rows) > 5 and [room for room in rows if f"aha.{room}.**" not in held] == []


def test_the_doctors_page_names_every_check():
    modules = [
        importlib.import_module(f"aha.doctor.{m.name}")
        for m in pkgutil.iter_modules(aha.doctor.__path__)
    ]
    lists = [
        value
        for m in [*modules, audit]
        for value in vars(m).values()
        if isinstance(value, Checklist)
    ]
    cells = re.findall(r"^\| ([a-z_, ]+) \|", read(DOCS / "doctor.md"), re.MULTILINE)
    named = {name.strip() for cell in cells for name in cell.split(",")} - {"check"}
    named |= set(re.findall(r"`([a-z_]+)`(?=[,. ]| and)", read(DOCS / "doctor.md")))
    checks = {name for checks in lists for name in checks}
    assert len(checks) > 40 and checks - named == set()
