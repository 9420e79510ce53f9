"""House rules that a test can check: layers, sizes, names, the tree, words, quick help."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from .pages import ROOT, complain, shown

AHA = ROOT / "src" / "aha"
MODULES = sorted(AHA.rglob("*.py"))

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_STEP_LINES = 30
MAX_RECIPE_LINES = 12
MAX_HELP_SECONDS = 1.0  # alone on a machine
MAX_HELP_MODULES = 800  # 523 with Python 3.11


@cache
def parsed(path: Path) -> ast.Module:
    """The module's syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


# --- layers -----------------------------------------------------------------------------------


def test_rooms_import_only_what_lies_below_them():
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"\n{done.stdout}{done.stderr}"


def test_every_room_is_a_package():
    """A folder of modules without an __init__.py is invisible to the layers."""
    faults = {shown(path.parent) for path in MODULES if not (path.parent / "__init__.py").exists()}
    complain(sorted(faults), "An __init__.py with a line of docstring is missing in:")


def test_a_room_opens_without_importing_anything():
    """An import in a room's __init__.py would load on every use of the room, torch included."""
    package = AHA / "__init__.py"  # gives names away that it imports when they are used
    faults = [
        f"{shown(path)}:{node.lineno}"
        for path in MODULES
        if path.name == "__init__.py" and path != package
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    imports = [
        node for node in parsed(package).body if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert [ast.unparse(node) for node in imports] == ["from typing import TYPE_CHECKING, Any"]
    complain(faults, "__init__.py imports nothing; import from the module itself:")


# --- sizes ------------------------------------------------------------------------------------


def functions(path: Path) -> Iterator[tuple[str, int, int]]:
    """Qualified name, first line and number of lines of every function of a module."""
    todo: list[tuple[ast.AST, str]] = [(parsed(path), "")]
    while todo:
        parent, prefix = todo.pop()
        for node in ast.iter_child_nodes(parent):
            name = prefix
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                name = f"{prefix}.{node.name}".lstrip(".")
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                yield name, node.lineno, node.end_lineno - node.lineno + 1
            todo.append((node, name))


def test_files_are_short():
    sources = [*MODULES, *AHA.rglob("*.[ch]")]
    sizes = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in sources}
    faults = [f"{shown(path)}: {n}" for path, n in sizes.items() if n > MAX_FILE_LINES]
    complain(faults, f"A file has at most {MAX_FILE_LINES} lines:")


def test_functions_are_short():
    faults = [
        f"{shown(path)}:{line} {name}: {n}"
        for path in MODULES
        for name, line, n in functions(path)
        if n > (MAX_STEP_LINES if name == "RLTrainer.step" else MAX_FUNCTION_LINES)
    ]
    rule = f"A function has at most {MAX_FUNCTION_LINES} lines, RLTrainer.step {MAX_STEP_LINES}:"
    complain(faults, rule)


def settings_of(recipe: str) -> list[str]:
    """The lines of a recipe that set something: no blank line, comment or [table] heading."""
    lines = [line.strip() for line in recipe.splitlines()]
    return [line for line in lines if line and not re.match(r"#|\[[^=]*\]\s*(#.*)?$", line)]


def test_recipes_are_short():
    faults = []
    for path in sorted(AHA.glob("recipes/*.toml")):
        text = path.read_text(encoding="utf-8")
        tomllib.loads(text)  # a recipe that is no TOML fails here, with its line
        if (n := len(settings_of(text))) > MAX_RECIPE_LINES:
            faults.append(f"{shown(path)}: {n}")
    complain(faults, f"A recipe sets at most {MAX_RECIPE_LINES} things, one a line:")


def test_settings_of_leaves_out_blanks_comments_and_headings():
    assert settings_of('# a recipe\n[rl]  # table\n\nlr = 1e-4  # why\nx = ["a"]\n') == [
        "lr = 1e-4  # why",
        'x = ["a"]',
    ]


# --- one name, one thing ----------------------------------------------------------------------


def test_no_two_files_share_a_name():
    stems = [path.stem for path in MODULES if not path.name.startswith("__")]
    complain(sorted({stem for stem in stems if stems.count(stem) > 1}), "Two files are called:")


def test_no_two_classes_share_a_name():
    names = [
        node.name
        for path in MODULES
        for node in parsed(path).body
        if isinstance(node, ast.ClassDef)
    ]
    complain(sorted({name for name in names if names.count(name) > 1}), "Two classes are called:")


# --- tests have the name of what they test ------------------------------------------------------

# Tests of more than one module, by room: the topic after `test_`, or its beginning.
TOPICS = {
    "algo": ("bandit", "outside_package", "peers"),
    "cli": ("run_pages", "tasks"),  # several commands
    "model": ("aha_tiny",),  # the packaged weights
    "plan": ("computed_rows",),  # the plan against the trainer
    "training": ("hf_run", "lora_run", "ranks", "vllm_run"),  # whole runs, several processes
    "web": ("browser", "large", "static"),  # the pages in a browser, and their files
}


def test_a_test_file_has_the_name_of_a_module_of_its_room():
    faults = []
    for path in sorted((ROOT / "tests").glob("*/test_*.py")):
        room, topic = path.parent.name, path.stem.removeprefix("test_")
        if not (AHA / room).is_dir():
            continue
        names = [module.stem for module in (AHA / room).glob("*.py")] + [*TOPICS.get(room, ())]
        if not any(topic == name or topic.startswith(f"{name}_") for name in names):
            faults.append(shown(path))
    complain(faults, "Call it test_<module>.py or test_<module>_<topic>.py, or name its topic:")


# --- the tree in docs/architecture.md ---------------------------------------------------------


def tree_paths(block: str) -> list[str]:
    """The paths of a drawn tree: one path a line, its folder the nearest line further left.

    Folders end with "/". Spaces or drawn branches both do; what follows the path is a comment.
    """
    paths: list[str] = []
    parents: list[tuple[int, str]] = [(-1, "")]
    for line in block.splitlines():
        text = line.lstrip(" \t│├└─")
        if not text:
            continue
        indent = len(line) - len(text)
        while parents[-1][0] >= indent:
            parents.pop()
        path = parents[-1][1] + text.split()[0]
        paths.append(path)
        if path.endswith("/"):
            parents.append((indent, path))
    return paths


def test_tree_paths_reads_both_ways_of_drawing():
    plain = "src/aha/\n  core/    records\n    seeds.py   names\n  cli/\ntests/\n"
    drawn = "src/aha/\n├── core/   records\n│   └── seeds.py\n└── cli/\ntests/\n"
    want = ["src/aha/", "src/aha/core/", "src/aha/core/seeds.py", "src/aha/cli/", "tests/"]
    assert tree_paths(plain) == tree_paths(drawn) == want


def test_the_architecture_page_draws_the_real_tree():
    readme = ROOT / "docs" / "architecture.md"
    assert readme.exists(), "docs/architecture.md is missing, and with it the tree of the house"
    text = readme.read_text(encoding="utf-8")
    found = re.search(r"<!-- tree -->\s*```\w*\n(.*?)```\s*<!-- /tree -->", text, re.DOTALL)
    assert found, (
        "docs/architecture.md needs a fenced tree between <!-- tree --> and <!-- /tree -->"
    )
    listed = tree_paths(found[1])
    modules = {shown(path) for path in MODULES if not path.name.startswith("__")}
    rooms = {f"{shown(path.parent)}/" for path in MODULES}
    # A pattern such as tests/<room>/test_<module>.py names no single file.
    gone = [path for path in listed if not re.search(r"[<*]", path) and not (ROOT / path).exists()]
    faults = [f"{path}: listed, but does not exist" for path in gone]
    faults += [f"{path}: exists, but is not listed" for path in (modules | rooms) - set(listed)]
    faults += [f"{path}: listed twice" for path in set(listed) if listed.count(path) > 1]
    complain(sorted(faults), "The tree in docs/architecture.md is not the tree of src/aha:")


# --- one word, one idea -----------------------------------------------------------------------

GLOSSARY = ROOT / "docs" / "glossary.md"
STRAY_WORDS = re.compile(
    r"\b(rollout[_ -]texts?|resp_ids|responses?|episodes?)\b", flags=re.IGNORECASE
)
# Where a name is right, by the start of the file's path, with the reason.
ALLOWED_NAMES = {
    "web/": {"response", "responses", "query", "queries"},  # HTTP
    "serve/": {"response", "responses", "query", "queries"},  # HTTP
    "model/": {"query", "queries", "decoder"},  # attention; the architecture
    "rollout/": {"decoder"},  # the architecture
    "pretrain/": {"decoder"},  # the architecture
    "export/": {"decoder"},  # the architecture
    "training/critic.py": {"decoder"},  # the architecture
    "core/errors.py": {"wanted"},  # got / wanted / fix
    "plan/prediction.py": {"wanted"},  # got / wanted / fix
    "serve/request_body.py": {"wanted"},  # got / wanted / fix
    "corpus/bases.py": {"judged"},  # a key of a base's record
    "plan/calibration.py": {"asked"},  # a key of calibration files
}


def allowed_names(path: Path) -> set[str]:
    """The stray names that this file may use."""
    name = path.relative_to(AHA).as_posix()
    return {
        word for where, words in ALLOWED_NAMES.items() if name.startswith(where) for word in words
    }


def table_after(heading: str) -> list[list[str]]:
    """The cells of the first table of the glossary after a heading, without its two head lines."""
    text = GLOSSARY.read_text(encoding="utf-8").partition(heading)[2]
    rows = text.partition("\n|")[2].partition("\n\n")[0].strip().split("\n")[2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]


@cache
def stray_names() -> frozenset[str]:
    """The names that the last table of the glossary rules out."""
    rows = table_after("## Names that the code does not use")
    return frozenset(name for row in rows for name in re.findall(r"`(\w+)`", row[0]))


def test_the_glossary_says_each_word_once():
    rows = table_after("# Glossary")
    words = [row[0] for row in rows]
    faults = [f"{word}: twice" for word in set(words) if words.count(word) > 1]
    faults += [
        f"{row[0]}: a word, the field's word and a sentence" for row in rows if len(row) != 3
    ]
    faults += [f"{row[0]}: no sentence" for row in rows if not row[-1].endswith(".")]
    complain(faults, "docs/glossary.md:")
    assert len(words) > 40 and {"found", "told", "credit", "cut_off"} <= stray_names()


def metric_names() -> set[str]:
    """The keys of the dictionaries in `step_row` and in the `numbers` of every trainer part."""
    names = set()
    for path in [*AHA.glob("training/*.py"), *AHA.glob("machine/*.py")]:
        for function in ast.walk(parsed(path)):
            if isinstance(function, ast.FunctionDef) and function.name in ("step_row", "numbers"):
                for node in ast.walk(function):
                    keys = node.keys if isinstance(node, ast.Dict) else []
                    names |= {key.value for key in keys if isinstance(key, ast.Constant)}
    return names


def test_the_glossary_has_every_number_of_the_metrics():
    rows = table_after("## The numbers of metrics.jsonl")
    listed = [name for row in rows for name in re.findall(r"`(\w+)`", row[0])]
    assert len(listed) == len(set(listed)) and len(metric_names()) > 15
    complain(sorted(metric_names() - set(listed)), "Not in docs/glossary.md:")


def own_names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """The names a module gives itself: variables, arguments, attributes it sets, functions.

    What it calls by others' names (`rng.sample(...)`, `query=` in a call) is theirs.
    """
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name, node.lineno
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name, node.lineno
            case ast.ClassDef(name=name) | ast.arg(arg=name) | ast.alias(asname=str(name)):
                yield name, node.lineno
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
                yield name, node.lineno
            case ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name)):
                yield name, node.lineno


def docstrings(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """The docstrings of a module and of all in it, with the line where each begins."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node, clean=False)
            if text is not None:
                yield text, node.body[0].lineno


def strays(tree: ast.AST, allowed: set[str]) -> Iterator[tuple[int, str]]:
    """Line and word for each stray word in names and docstrings."""
    for name, line in own_names(tree):
        if name.lower() in stray_names() - allowed:
            yield line, name
    for text, first_line in docstrings(tree):
        for found in STRAY_WORDS.finditer(text):
            if found[0].lower() not in allowed:
                yield first_line + text[: found.start()].count("\n"), found[0]


def test_one_word_one_idea():
    faults = [
        f"{shown(path)}:{line} {word}"
        for path in MODULES
        for line, word in strays(parsed(path), allowed_names(path))
    ]
    complain(faults, "Names that docs/glossary.md rules out, with the word to use instead:")


def test_strays_are_found_in_names_and_docstrings_only():
    code = '''
def grade(resp_ids, x):
    """Judges.

    One response."""
    samples = rng.sample(x, query=1)
    for self.episode in x: ...
'''
    found = sorted(strays(ast.parse(code), set()))
    assert found == [(2, "resp_ids"), (5, "response"), (6, "samples"), (7, "episode")]
    assert (5, "response") not in strays(ast.parse(code), allowed_names(AHA / "web" / "server.py"))
    # What a call names, and an error's own field, are not names that this file gives.
    told = "found = 1\nfor told in found: ...\nfail(wanted=2, saw=error.asked)\n"
    assert sorted(strays(ast.parse(told), set())) == [(1, "found"), (2, "told")]


# --- quick help -------------------------------------------------------------------------------

HELP = """
import sys, time
start = time.process_time()
from aha.cli.main import run
sys.argv = ["aha", "--help"]
try:
    run()
except SystemExit as exit:
    assert not exit.code, exit.code
heavy = {"torch", "transformers", "vllm", "ray"} & set(sys.modules)
assert not heavy, f"aha --help imported {heavy}"
print(len(sys.modules), time.process_time() - start)
"""


@pytest.mark.skipif(not (AHA / "cli" / "main.py").exists(), reason="cli/main.py is not built yet")
def test_help_imports_little_and_no_torch():
    modules, _ = modules_and_seconds_of_help()
    assert modules < MAX_HELP_MODULES, f"aha --help imported {modules} modules"


@pytest.mark.bench
def test_help_is_quick():
    seconds = min(modules_and_seconds_of_help()[1] for _ in range(2))
    assert seconds < MAX_HELP_SECONDS, f"aha --help took {seconds:.2f} s"


def modules_and_seconds_of_help() -> tuple[int, float]:
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "train" in done.stdout, f"aha --help shows no commands:\n{done.stdout}"
    modules, seconds = done.stdout.split()[-2:]
    return int(modules), float(seconds)


# --- what others get --------------------------------------------------------------------------

# Joined here so that this file does not hold what it looks for.
TRACES = ["/wo" + "rk/", "/ro" + "ot/", "/opt/py" + "pi", "/opt/wh" + "eels"]
TRACES += ["pypi" + ".org", "python" + "hosted.org"]


def test_no_tracked_file_names_the_machine_it_was_made_on():
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout, so nothing says which files are tracked")
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    faults = []
    for name in done.stdout.decode().split("\0"):
        path = ROOT / name
        data = path.read_bytes() if path.is_file() else b""
        if b"\0" in data:  # weights and pictures
            continue
        for number, line in enumerate(data.decode(errors="replace").splitlines(), start=1):
            faults += [f"{name}:{number} {trace}" for trace in TRACES if trace in line]
    complain(faults, "These belong to one machine:")


def test_constraints_are_names_and_exact_versions_only():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    faults = [line for line in lines if not re.fullmatch(r"[\w.-]+==\d[\w.]*", line)]
    complain(faults, "constraints.txt holds name==version lines, without address or build tag:")
    assert "torch==2.13.0" in lines


def test_the_wheel_holds_code_recipes_and_models(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("aha-*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    data = [*AHA.glob("recipes/*.toml"), *AHA.glob("models/**/*"), *AHA.glob("**/native_c/*")]
    files = [path for path in [*MODULES, *data] if path.is_file()]
    wanted = {path.relative_to(AHA.parent).as_posix() for path in files}
    complain(sorted(wanted - packed), "Not in the wheel:")
