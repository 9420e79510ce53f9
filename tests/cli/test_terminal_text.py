"""Control characters of models, data and files are shown, and never sent to the terminal."""

import ast
import io
import json
import re
from pathlib import Path

import pytest
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

import aha.cli
from aha.cli.terminal_text import VisibleConsole, say, say_json, say_line
from aha.model.weights import save_model

from ..eval.test_prompt_check import byte_tokenizer
from ..tiny import tiny_transformer
from ..web.conftest import make_run

HOSTILE = (
    "\x1b[2J\x1b[31mred\x1b]0;title\x07\x1b]8;;http://x\x1b\\link\x1bPq\x1b\\ over\rwritten"
    " \x08\x08\x9b31m \x9d0;t\x9c \u202egnp.exe\u2066 \u200f \x7f \ud800 \x0b\x0c\x00\x85 end"
)
FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def harmless(text: str) -> bool:
    return not FORBIDDEN.search(text) and text == text.encode(errors="ignore").decode()


def test_no_command_has_another_door():
    """Whoever adds a `print` or a console of rich's own finds this test."""
    folder = Path(aha.cli.__path__[0])
    ways_out = []
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            used = node.func if isinstance(node, ast.Call) else node
            name = ast.unparse(used) if isinstance(used, ast.Name | ast.Attribute) else ""
            called = isinstance(node, ast.Call) and name in ("Console", "sys.stdout.write")
            if path.stem != "terminal_text" and (called or name in ("print", "rich.print")):
                ways_out.append(f"{path.name}:{node.lineno} {name}")
    assert ways_out == []


@pytest.mark.parametrize("colours", [None, "truecolor"])
def test_whatever_is_printed_on_the_console_shows_its_control_characters(colours):
    table = Table(HOSTILE, title=HOSTILE)
    table.add_row(HOSTILE)
    things = (HOSTILE, Text(HOSTILE), Panel(HOSTILE, title=HOSTILE, subtitle=HOSTILE), table)
    for thing in things:
        out = io.StringIO()
        console = VisibleConsole(file=out, width=200, color_system=colours, force_terminal=True)
        console.print(thing, style="bold")
        console.print("plain", soft_wrap=True)
        sent = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue()) if colours else out.getvalue()
        assert harmless(sent) and "plain" in sent
        assert "\x1b[31m" not in out.getvalue().replace("\x1b[1;31m", "")


def test_lines_keep_what_is_harmless(capsys):
    say("caf\u00e9\t1\n2 \u4e2d", end="")
    say_line("a\nb")
    say(HOSTILE)
    out = capsys.readouterr().out
    assert out.startswith("caf\u00e9\t1\n2 \u4e2da\u240ab\n") and harmless(out)


def test_json_keeps_every_character_as_an_escape(capsys):
    say_json({"text": HOSTILE})
    out = capsys.readouterr().out
    assert harmless(out) and json.loads(out) == {"text": HOSTILE}


# -- every command that prints text of others ------------------------------------------------------


@pytest.fixture(scope="module")
def writes_bytes(tmp_path_factory) -> Path:
    """A model that writes any byte: one token in ten or so is a control character."""
    folder = tmp_path_factory.mktemp("models") / "bytes"
    tokenizer = byte_tokenizer()
    sizes = {"vocab_size": tokenizer.vocab_size, "max_position_embeddings": 600}
    save_model(folder, tiny_transformer(**sizes), tokenizer)
    return folder


@pytest.fixture
def hostile_runs(tmp_path) -> Path:
    """Two finished runs whose every text is hostile, in folders with such names."""
    for seed, name in enumerate(("a\x1b[31m", "b\x07")):
        run = make_run(tmp_path / "runs" / name, seed=seed, right_after=4 * seed)
        config = json.loads((run / "config.json").read_text())
        config["model"]["path"] = config["task"]["name"] = f"{HOSTILE[:30]}{seed}"
        config[HOSTILE[:20]] = HOSTILE
        (run / "config.json").write_text(json.dumps(config))
        for path in (run / "completions").glob("*.jsonl"):
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            changes = {"reason": HOSTILE, "completion": HOSTILE, "prompt": HOSTILE}
            path.write_text("".join(json.dumps(row | changes) + "\n" for row in rows))
    return tmp_path / "runs"


TASK = f"""
from aha.core.records import Graded, Problem
HOSTILE = {HOSTILE!r}
def problems(split, seed):
    for n in range(40):
        yield Problem(split + str(n) + HOSTILE, "t", {{"text": HOSTILE + str(n)}})
def ask(problem):
    return "caf\\u00e9 " + problem.given["text"].replace("\\ud800", "")
def grade(problem, text):
    return Graded(float(len(text) % 2), len(text) % 2 == 0, HOSTILE, {{}})
"""

COMMANDS = """
ask --task hostile.py --model BYTES --max-new-tokens 120
eval BYTES --task hostile.py --n 2 --max-new-tokens 9
eval BYTES --task hostile.py --n 2 --max-new-tokens 9 --json
eval BYTES --task math --data long.jsonl --n 2 --options 'bad_rows="drop"' --max-new-tokens 9
eval BYTES --task math --data long.jsonl --n 2 --max-new-tokens 9
problems --task hostile.py --n 3
problems --task math --data questions.jsonl --n 3
grade
behaviors runs/A
behaviors runs/A --json
behaviors texts.jsonl
compare runs/A runs/B
doctor runs/A
doctor hostile.toml
report runs/A
train HOSTILE
train demo --model.path HOSTILE
train demo --HOSTILE 3
train demo --steps HOSTILE
train hostile.toml --dry-run
train hostile.toml --help
config show hostile.toml
config show demo --task.options.x HOSTILE
HOSTILE
eval HOSTILE
doctor HOSTILE.toml
problems --task HOSTILE
problems --data HOSTILE
problems --split HOSTILE
plan demo --model.path HOSTILE
export HOSTILE --out x
dash HOSTILE
chat HOSTILE
serve HOSTILE
lab --recipes HOSTILE
new-task HOSTILE
behaviors HOSTILE
train --resume HOSTILE
"""


@pytest.mark.parametrize("line", COMMANDS.strip().splitlines())
def test_no_command_sends_a_control_character(aha, writes_bytes, hostile_runs, tmp_path, line):
    (tmp_path / "hostile.py").write_text(TASK.replace("\ud800", "\\ud800"))
    toml = "".join(f"\\u{ord(char):04x}" for char in HOSTILE if not "\ud800" <= char < "\ue000")
    toml = toml.replace("\\u0000", "")
    (tmp_path / "hostile.toml").write_text(f'model.path = "{toml}"\n')
    questions = [{"question": f"{HOSTILE} {n}?", "answer": "3"} for n in range(60)]
    long = [
        {"question": f"{n}{HOSTILE[:20]}" * (1 + 60 * (n == 7)), "answer": "3"} for n in range(60)
    ]
    texts = [{"numbers": [3, 7], "target": 10, "completion": HOSTILE, "reason": HOSTILE}]
    for name, rows in (("questions", questions), ("long", long), ("texts", texts)):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    runs = {"runs/A": "runs/a\x1b[31m", "runs/B": "runs/b\x07"}
    words = []
    for word in line.replace("'", "").split():
        word = runs.get(word, word).replace("HOSTILE", HOSTILE.replace("\0", ""))
        words.append(word.replace("BYTES", str(writes_bytes)))
    done = aha(*words, stdin=json.dumps(texts[0]).encode() + b"\n")
    assert harmless(done.out + done.err), FORBIDDEN.findall(done.out + done.err)
    assert "Traceback" not in done.err, done.err
    assert len(done.out + done.err) > 10


def test_the_panels_of_a_run_send_none(aha, writes_bytes):
    words = ("train", "demo", "--model.path", writes_bytes, "--steps", 2, "--show_every", 1)
    sizes = ("--rollout.prompts", 2, "--rollout.group_size", 2, "--rollout.max_new_tokens", 120)
    done = aha(*words, *sizes, "--eval.every", 0, "--eval.final", 2, "--optim.dtype", "float32")
    assert done.code == 0 and "step 1: " in done.out and harmless(done.out + done.err)
    assert "\ufffd" in done.out or "\u241b" in done.out
