"""The pages: their size, their links, the commands and figures that they show, and the example."""

import importlib
import io
import json
import pkgutil
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from cyclopts import CycloptsError

import aha.doctor
from aha.cli.main import app, run
from aha.core.findings import Checklist
from aha.model.folders import resolve_model
from aha.model.weights import load_model
from aha.tasks import audit

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
DOCS = ROOT / "docs"
RESULTS = ROOT / "results"
PAGES = sorted(
    [
        README,
        ROOT / "CONTRIBUTING.md",
        RESULTS / "README.md",
        ROOT / "src/aha/models/aha-tiny/README.md",
        *DOCS.rglob("*.md"),
    ]
)

MAX_README_LINES = 120
MAX_README_WORDS = 1_100
EXAMPLE_LINES = range(15, 31)


def shown(path: Path) -> str:
    """The path as the repository names it."""
    return path.relative_to(ROOT).as_posix()


def complain(faults: list[str], rule: str) -> None:
    """Fail with the rule and every breach of it, one a line."""
    if faults:
        pytest.fail("\n  ".join([rule, *faults]), pytrace=False)


@cache
def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


# --- Markdown ---------------------------------------------------------------------------------

FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
INDENTED = re.compile(r"(?:(?<=\n\n)|\A)(?:(?: {4}.*)?\n)+", re.MULTILINE)
INLINE_CODE = re.compile(r"`[^`\n]+`")
LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^()\s]+)\)|(?:href|src)=\"([^\"]+)\"")


def links(page: str) -> list[str]:
    """The targets of a page's links and pictures; what stands in code is no link."""
    text = INLINE_CODE.sub("", FENCE.sub("", page))
    return [target or other for target, other in LINK.findall(text)]


def anchors(page: str) -> set[str]:
    """The anchors of a page's headings, as code browsers and MkDocs both make them."""
    slugs = set()
    for heading in re.findall(r"^#{1,6} (.+)$", FENCE.sub("", page), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        slugs.add(re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-"))
    return slugs


def code_lines(page: str) -> Iterator[str]:
    """The lines of a page's code blocks, fenced or indented; one that ends in a backslash with
    the next."""
    blocks = FENCE.findall(page) + INDENTED.findall(FENCE.sub("", page))
    for block in blocks:
        for line in block.replace("\\\n", " ").splitlines():
            if line.strip() and not line.startswith("```"):
                yield line.strip()


def commands(page: str) -> list[str]:
    """The commands in a page's code blocks, one by one and without their comments."""
    lines = [re.sub(r"\s+#.*$", "", line) for line in code_lines(page)]
    parts = [part.strip() for line in lines for part in line.split("&&")]
    return [part for part in parts if re.match(r"(aha|make|git|python|pip|\S*/python)\b", part)]


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
# A measurement on a GPU would be filed there, one file an item and a card.
NOT_YET = ("results/gpu",)


def test_every_path_in_backticks_exists():
    faults = [
        f"{shown(page)}: {path}"
        for page in PAGES
        for path in PATHS.findall(read(page))
        if not path.startswith(NOT_YET) and not any(ROOT.glob(path.rstrip("/")))
    ]
    complain(faults, "No such file or folder:")


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


def test_the_dashboard_of_readme_opens(tmp_path):
    (tmp_path / "runs").mkdir()
    (words,) = [words for words in aha_commands(read(README)) if words[0] == "dash"]
    line = [sys.executable, "-m", "aha", *words, "--port", "0"]
    with subprocess.Popen(line, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert "http://127.0.0.1:" in process.stdout.readline()
        finally:
            process.terminate()


def rate(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


def span(low: float, high: float, digits: int) -> str:
    """The smallest and the largest of some numbers; one where they look alike."""
    first, last = f"{low:.{digits}f}", f"{high:.{digits}f}"
    return first if first == last else f"{first}-{last}"


def test_the_table_of_readme_has_the_figures_of_results():
    rows = re.findall(
        r"^\| \[[^\]]+\]\(results/README\.md#([\w-]+)\).*$", read(README), re.MULTILINE
    )
    assert rows == ["demo", "demo-avx2", "laptop-3to4", "multiply"]
    for name in rows:
        (row,) = re.findall(rf"^\| \[[^\]]+\]\(results/README\.md#{name}\).*$", read(README), re.M)
        seeds = json.loads(read(RESULTS / name / "seeds.json"))
        minutes = [seconds / 60 for seconds in seeds["training_s"]]
        cents = [100 * usd for usd in seeds["cost_usd"]]
        whole = 0 if min(minutes) > 20 else 1
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[2:] == [
            rate(seeds["before"][0]),
            " ".join(map(rate, seeds["after"])),
            span(min(minutes), max(minutes), whole),
            span(min(cents), max(cents), 1) + " cents",
        ], name
        assert len(set(seeds["before"])) == 1


# --- results ----------------------------------------------------------------------------------


def section(page: str, heading: str) -> str:
    return re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE)[1]


def test_the_results_page_links_every_file_that_is_filed():
    linked = {(RESULTS / link).resolve() for link in links(read(RESULTS / "README.md"))}
    filed = {path for path in RESULTS.rglob("*.*") if path.is_file()} - {RESULTS / "README.md"}
    complain(sorted(map(shown, filed - linked)), "results/README.md does not link:")


@pytest.mark.parametrize("name", ["demo", "demo-avx2", "laptop-3to4", "multiply"])
def test_the_results_page_quotes_what_is_filed(name):
    page = section(read(RESULTS / "README.md"), name)
    seeds = json.loads(read(RESULTS / name / "seeds.json"))
    assert all(commit[:7] in page for commit in seeds["commit"])
    for i in range(len(seeds["seeds"])):
        low, high = seeds["after_interval"][i]
        seconds = round(seeds["training_s"][i])
        figures = [f"{seeds['before'][i]:.3f}", f"{seeds['after'][i]:.3f}"]
        figures += [f"[{low:.3f}, {high:.3f}]", f"{seconds // 60}:{seconds % 60:02}"]
        figures += [f"{100 * seeds['cost_usd'][i]:.1f} cents"]
        if "held_out_targets" in seeds:
            figures += [f"{seeds['held_out_targets'][i]:.3f}"]
        assert [figure for figure in figures if figure not in page] == []


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


# --- the example ------------------------------------------------------------------------------


def test_the_example_takes_one_step(capsys):
    path = ROOT / "examples" / "rl_step.py"
    lines = read(path).split("import Countdown\n")[1].splitlines()
    assert len([line for line in lines if line.strip()]) in EXAMPLE_LINES
    names = runpy.run_path(str(path))
    before = load_model(resolve_model("aha-tiny")).policy.weights()
    after = names["policy"].weights()
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    assert moved == list(before), "every weight of the policy gets a gradient"
    # The engine has the new weights, and what was rewarded is likelier under them.
    batch, engine = names["batch"], names["engine"]
    assert engine.version == 1
    with torch.no_grad():
        now_BT = names["policy"].token_logprobs(batch.tokens_BT, batch.start, layout=batch.layout)
    gain = ((now_BT - names["logprobs_BT"].detach()) * batch.advantages_BT * batch.mask_BT).sum()
    assert gain > 0
    right, completions = names["rewards_PG"].mean(), names["rewards_PG"].numel()
    assert capsys.readouterr().out.startswith(
        f"{right:.3f} of {completions} completions right; loss "
    )
    assert 0 < right < 1 and completions == 128
