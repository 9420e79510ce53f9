"""Files of questions in the layouts that are about, and the rows that cannot be used."""

import json

import pytest

from aha.core.errors import DataError
from aha.tasks.catalog import make_task
from aha.tasks.problem_lines import problem_row
from aha.tasks.question_rows import load_questions

LAYOUTS = {
    "GSM8K": {"question": "1+2?", "answer": "1+2=3\n#### 3"},
    "MATH": {"problem": "1+2?", "solution": "so $\\boxed{3}$"},
    "MATH-500": {"problem": "1+2?", "solution": "so $\\boxed{3}$", "answer": "3"},
    "AIME": {"ID": 1, "Problem": "1+2?", "Solution": "Add them. It is easy.", "Answer": 3},
    "AIME with zeros": {"problem": "1+2?", "answer": "003"},
    "AMC": {"problem": "1+2?", "answer": 3.0},
    "TRL": {"prompt": [{"role": "user", "content": "1+2?"}], "solution": "\\boxed{3}"},
    "veRL": {
        "prompt": [{"role": "system", "content": "x"}, {"role": "user", "content": "1+2?"}],
        "reward_model": {"style": "rule", "ground_truth": "3"},
    },
    "veRL with a frame around the question": {
        "prompt": [{"role": "user", "content": "User: 1+2?\nAssistant:"}],
        "reward_model": {"style": "rule", "ground_truth": "so\n#### 3"},
        "extra_info": {"split": "train", "question": "1+2?"},
        "images": None,
    },
    "parts": {"prompt": [{"role": "user", "content": [{"type": "text", "text": "1+2?"}]}]}
    | {"answer": "3"},
    "a list of one": {"question": "1+2?", "final_answer": ["3"]},
    "no braces": {"problem": "1+2?", "solution": "Adding, we get $\\boxed 3$."},
    "fbox": {"problem": "1+2?", "solution": "Adding, we get $\\fbox{3}$."},
    "Markdown": {"problem": "1+2?", "solution": "#### Add\n2+1=3\n#### So\nIt is $\\boxed{3}$."},
    "null answer": {"problem": "1+2?", "answer": None, "solution": "so $\\boxed{3}$"},
    "empty answer": {"problem": "1+2?", "answer": "", "solution": "so $\\boxed{3}$"},
    "nan answer": {"problem": "1+2?", "answer": float("nan"), "solution": "so $\\boxed{3}$"},
}


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_read(tmp_path, layout, kind):
    path, row = tmp_path / f"rows.{kind}", LAYOUTS[layout]
    if kind == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist([row]), path)
    else:
        path.write_text(json.dumps([row], indent=2) if kind == "json" else json.dumps(row))
    task = make_task("math", {"data": str(path)})
    (problem,) = task.problems("all", 0)
    assert problem.given["question"] == "1+2?" and task.notes == []
    assert task.grade(problem, "<answer>3</answer>").correct
    assert not task.grade(problem, "<answer>4</answer>").correct


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_what_the_task_writes_it_reads(tmp_path, kind):
    first, second = tmp_path / "first.jsonl", tmp_path / f"second.{kind}"
    rows = [{"question": f"{n}?", "answer": f"so\n#### {n}"} for n in range(20)]
    first.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    problems = list(make_task("math", {"data": str(first)}).problems("all", 0))
    rows = list(map(problem_row, problems))
    if kind == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), second)
    else:
        second.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    again = make_task("math", {"data": str(second)}).problems("all", 0)
    by_id = {problem.id: problem for problem in again}
    assert len(by_id) == 20 and all(by_id[p.id].given == p.given for p in problems)


def test_floats_are_read_as_they_are_written(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"question": "a", "answer": 1e-05}\n{"question": "b", "answer": 0.1}\n')
    assert [answer for _, answer in load_questions(path)[0]] == ["1e-05", "0.1"]
    task = make_task("math", {"data": str(path)})
    (small,) = (p for p in task.problems("all", 0) if p.given["question"] == "a")
    assert task.grade(small, "<answer>0.00001</answer>").correct
    assert not task.grade(small, "<answer>0.0001</answer>").correct


def test_floats_of_32_bits_have_the_digits_that_were_meant(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "rows.parquet"
    answers = pyarrow.array([0.1, 1e-5], pyarrow.float32())
    parquet.write_table(pyarrow.table({"question": ["a", "b"], "answer": answers}), path)
    task = make_task("math", {"data": str(path)})
    expected = {"a": "0.1", "b": "0.00001"}
    for problem in task.problems("all", 0):
        text = f"<answer>{expected[problem.given['question']]}</answer>"
        assert task.grade(problem, text).correct


def test_a_column_that_parquet_keeps_as_a_dictionary(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "rows.parquet"
    answers = pyarrow.array(["#### 3", "#### 3"]).dictionary_encode()
    parquet.write_table(pyarrow.table({"question": ["a", "b"], "answer": answers}), path)
    assert load_questions(path)[0] == [("a", "#### 3"), ("b", "#### 3")]


BAD_ROWS = {
    "no answer column": ('{"question": "?"}', "only question"),
    "no question": ('{"answer": "1"}', "no question"),
    "blank question": ('{"question": " ", "answer": "1"}', "no question"),
    "null": ('{"question": "b", "answer": null}', "answer is null"),
    "nan": ('{"question": "b", "answer": NaN}', "answer is 'nan'"),
    "infinite": ('{"question": "b", "answer": Infinity}', "answer is 'inf'"),
    "nan as text": ('{"question": "b", "answer": "nan"}', "no answer to compare"),
    "empty": ('{"question": "b", "answer": ""}', "no answer"),
    "bool": ('{"question": "b", "answer": true}', "answer is 'True'"),
    "prose": ('{"problem": "b", "solution": "Add. The total is 3 pens."}', "no answer to compare"),
    "cut solution": ('{"problem": "b", "solution": "so $\\\\boxed{3"}', "no answer to compare"),
    "half a pair": ('{"question": "\\ud800", "answer": "1"}', "no question"),
    "a list": ("[1]", "no object"),
    "not json": ("{", "no JSON"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_bad_row_is_named_or_dropped_and_counted(tmp_path, name):
    path, (line, words) = tmp_path / "rows.jsonl", BAD_ROWS[name]
    path.write_text('{"question": "a", "answer": "1"}\n' + line + "\n")
    with pytest.raises(DataError, match="row 2") as caught:
        load_questions(path)
    assert words in str(caught.value) and "--task.bad_rows drop" in caught.value.fix
    rows, (note,) = load_questions(path, "drop")
    assert rows == [("a", "1")] and "row 2" in note.message and note.level == "warn"


def test_a_question_with_two_answers_is_told_with_both_rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [{"question": "What  is 2?", "answer": "#### 2"}, {"question": "b", "answer": 1}]
    rows += [{"question": "what is 2? ", "answer": 3}]
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match="row 1: answers '2', .* row 3 answers '3'"):
        load_questions(path)
    kept, (note,) = load_questions(path, "drop")
    assert kept == [("b", "1")] and "row 1" in note.message and "row 3" in note.message


def test_a_question_twice_with_one_answer_counts_once(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"question": "A b", "answer": "0.5"}\n{"problem": "a  b", "answer": "1/2"}\n')
    kept, (note,) = load_questions(path)
    assert kept == [("A b", "0.5")] and note.level == "ok" and "row 2" in note.message


VERL_ROW = {
    "prompt": [{"role": "user", "content": "1+2?"}],
    "reward_model": {"style": "rule", "ground_truth": "3"},
}
OF_ANOTHER_TASK = {"reward_model": {"ground_truth": '{"numbers": [3, 7], "target": 21}'}}


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"images": [{"bytes": "x"}]}, "has images"), (OF_ANOTHER_TASK, "no answer")],
)
def test_rows_of_verl_that_no_completion_can_answer_are_refused(tmp_path, change, reason):
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{json.dumps(VERL_ROW)}\n{json.dumps(VERL_ROW | change)}\n")
    with pytest.raises(DataError, match=f"row 2: .*{reason}"):
        load_questions(path)
