"""The reward file of an export to veRL: alone in a process without Aha, it grades as Aha does."""

import json
import subprocess
import sys
from random import Random

import pytest

from aha.core.config import TaskSection
from aha.core.records import Problem
from aha.export.verl_reward import reward_file
from aha.export.verl_rows import ground_truth
from aha.tasks.countdown import Countdown, as_problem
from aha.tasks.math_files import MathFiles
from aha.tasks.multiply import Multiply
from aha.tasks.multiply import as_problem as as_product

# Grades rows in the threads of one process, as veRL's workers do.
ALONE = """
import importlib.util, json, sys
from concurrent.futures import ThreadPoolExecutor
assert importlib.util.find_spec("aha") is None and importlib.util.find_spec("torch") is None
spec = importlib.util.spec_from_file_location("reward", sys.argv[1])
reward = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reward)
def grade(row):
    text, truth, extra = row
    return reward.compute_score(data_source="x", solution_str=text, ground_truth=truth,
                                extra_info=extra, reward_router_address=None)
with ThreadPoolExecutor(8) as threads:
    print(json.dumps(list(threads.map(grade, json.load(sys.stdin)))))
"""
COUNT = 1_700  # completions of each of the six graders

# Pieces that completions of both kinds are made of: what a verifier may be taken in by.
TAGS = ["<answer>", "</answer>", "<think>", "</think>", "<answer", "answer>", "</ANSWER>"]
ODD = [
    "\n",
    " ",
    "",
    "\0",
    "\ud800",
    "\u202e",
    "٣",
    "²",
    "½",
    "１２",
    "Assistant:",
    "User:",
    "\\boxed{",
]
ODD += [
    "}",
    "#### ",
    "\\frac{1}{2}",
    "**",
    "//",
    "9**9**9**9",
    "0x1F",
    "1e3",
    "True",
    "__import__('os')",
]
ODD += [
    "(" * 300,
    "-" * 999,
    "9" * 400,
    "=",
    "= 24",
    " yes",
    "no",
    ".",
    ",",
    "%",
    "$",
    "1_0",
    "007",
]
ODD += ["<|im_end|>", "<|endoftext|>", "</think>\n<answer>24</answer>", "A", "7 dozens", "x = "]


def completions(rng: Random, right: str, wrong: list[str]) -> list[str]:
    """Right answers, wrong ones, and every mixture of pieces."""
    answers = [right, f"({right})", f" {right}\n", right.replace(" ", ""), *wrong]
    texts = []
    for _ in range(COUNT):
        if rng.random() < 0.5:
            answer = rng.choice(answers)
            text = f"so</think>\n<answer>{answer}</answer>" + rng.choice(
                ["", "\n", "\nDone.", ODD[3]]
            )
            if rng.random() < 0.5:
                place = rng.randrange(len(text))
                text = text[:place] + rng.choice(TAGS + ODD) + text[place + rng.randrange(3) :]
        else:
            text = "".join(rng.choice([*TAGS, *ODD, *answers]) for _ in range(rng.randrange(1, 12)))
        texts.append(text)
    return texts


def grades_alone(path, rows) -> list[dict]:
    """What the file says in a process that has neither Aha nor any other package."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", ALONE, path],
        input=json.dumps(rows),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


PUZZLE = as_problem((2, 3, 4), 24)
WRONG = ["2+3+4", "3*4", "2*3*4*1", "3**2", "3*4//2", "24", "03*8", "hello", "2.0*3*4"]
QUESTION = "How many pens does Mia have? Each box has a dozen."


@pytest.fixture(scope="module")
def math_task(tmp_path_factory):
    path = tmp_path_factory.mktemp("math") / "rows.jsonl"
    path.write_text(json.dumps({"question": QUESTION, "answer": "2*12=24\n#### 24"}) + "\n")
    return MathFiles(str(path))


TASKS = {
    "strict": (TaskSection(numbers=(3,)), PUZZLE, "2*3*4", WRONG),
    "with form": (TaskSection(format_reward=0.5), PUZZLE, "2*3*4", WRONG),
    "tinyzero": (TaskSection(verifier="tinyzero", template="r1"), PUZZLE, "2*3*4", WRONG),
    "tinyzero instruct": (
        TaskSection(verifier="tinyzero", template="instruct"),
        PUZZLE,
        "4*3*2",
        WRONG,
    ),
    "multiply": (
        TaskSection(name="multiply"),
        as_product(6, 4),
        "24",
        ["25", "0024", "24.0", "2,4"],
    ),
    "math": (
        TaskSection(name="math"),
        None,
        "24 pens",
        ["25", "2 dozens", "24%", "48/2", "$24", "x=24"],
    ),
}


@pytest.mark.parametrize("name", TASKS)
def test_ten_thousand_completions_get_the_same_grades_without_aha(name, tmp_path, math_task):
    """Six times 1,700 of them; the reasons are the same as well."""
    section, problem, right, wrong = TASKS[name]
    if name == "math":
        task = math_task
        (problem,) = task.problems("all", 0)
    else:
        settings = {k: v for k, v in section.settings().items() if k != "numbers"}
        task = (Multiply if name == "multiply" else Countdown)(**settings)
    texts = completions(Random(name), right, wrong)
    truth, extra = (
        ground_truth(problem),
        {"question": problem.given.get("question", ""), "index": 1},
    )
    (tmp_path / "reward.py").write_text(reward_file(section), encoding="utf-8")
    alone = grades_alone(tmp_path / "reward.py", [[text, truth, extra] for text in texts])
    ours = [task.grade(problem, text) for text in texts]
    assert alone == [{"score": g.reward, "acc": float(g.correct), "reason": g.reason} for g in ours]
    paid = sum(grade["acc"] for grade in alone)
    assert COUNT / 50 < paid < COUNT * 0.9, "completions of one kind alone show nothing"


@pytest.mark.parametrize("name", ["countdown", "multiply", "math"])
def test_the_file_names_no_module_of_ours_and_imports_only_what_python_brings(name):
    text = reward_file(TaskSection(name=name))
    imports = [line for line in text.splitlines() if line.startswith(("import ", "from "))]
    known = sys.stdlib_module_names
    assert imports and all(line.split()[1].split(".")[0] in known for line in imports)


@pytest.fixture
def reward():
    namespace = {}
    exec(compile(reward_file(TaskSection()), "reward.py", "exec"), namespace)
    return namespace["compute_score"]


def test_a_truth_is_read_as_json_and_as_a_table_of_any_kind(reward):
    """veRL hands over what the Parquet file has: a text here, a struct in TinyZero's files."""
    numpy = pytest.importorskip("numpy")
    text = "</think><answer>2*3*4</answer>"
    truths = ['{"numbers": [2, 3, 4], "target": 24}', {"numbers": [2, 3, 4], "target": 24}]
    truths.append({"numbers": numpy.array([2, 3, 4]), "target": numpy.int64(24)})
    assert [reward("x", text, truth)["score"] for truth in truths] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("truth", ["24", None, "{", '{"a": 1}', {"numbers": None, "target": 1}, 3])
def test_a_row_of_another_task_is_an_error_that_says_so(reward, truth):
    """A reward of 0 for it would teach that every answer is wrong."""
    with pytest.raises(ValueError, match="none of the task of this reward file"):
        reward("x", "</think><answer>2*3*4</answer>", truth, {})


def test_every_result_has_the_same_keys(reward):
    """veRL indexes all rows by the keys of the first."""
    truth = '{"numbers": [2, 3, 4], "target": 24}'
    texts = ["", "<answer>", "<answer>2*3*4</answer>", "<answer>1</answer>" * 3, "\0", None]
    assert {tuple(reward("x", text, truth)) for text in texts} == {("score", "acc", "reason")}


def test_a_problem_of_math_has_its_column_as_truth():
    assert ground_truth(Problem("x", "math", {"question": "?", "answer": "#### 3"})) == "#### 3"
