r"""The columns of a file of questions: under which names they stand, and which rows can be used.

{"question": "...", "answer": "3+4=7\n#### 7"}                                  GSM8K
{"problem": "...", "solution": "... $\boxed{7}$"}                    MATH, AIME, AMC
{"prompt": [{"role": "user", "content": "..."}], "solution": "\\boxed{7}"}       TRL
{"prompt": [...], "reward_model": {"ground_truth": "7"}}                        veRL
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aha.core.findings import Finding
from aha.core.seeds import seed_for
from aha.tasks.answers import same_answer, true_answer
from aha.tasks.bad_rows import BadRows
from aha.tasks.files import (
    UnreadableRow,
    cell_text,
    last_message,
    media_of,
    read_rows,
    verl_truth,
)

QUESTIONS = ("question", "problem", "prompt", "instruction", "input")
ANSWERS = ("answer", "final_answer", "expected_answer", "ground_truth", "target", "solution")
EXPECTED = "JSON lines or Parquet with 'question' and 'answer' (or 'problem' and 'solution')"

Question = tuple[str, str]  # the question, and the column that holds its answer


def question_key(question: str) -> str:
    """What makes two questions the same: their words, whatever the spaces and capitals."""
    return " ".join(question.lower().split())


def question_id(question: str) -> str:
    """The id of a question: a hash of its key."""
    return f"{seed_for(question_key(question)):016x}"


def load_questions(path: Path, rule: str = "refuse") -> tuple[list[Question], list[Finding]]:
    """The question and answer of every row, each question once, and notes on rows left out.

    A row without a question, or without an answer that a completion can be compared with, is bad;
    so are both rows of a question that has two answers. Raises `DataError` for a bad row where
    `rule` refuses it, with its number, and for a file without any.
    """
    rows: dict[str, tuple[int, Question]] = {}
    bad = BadRows(path, rule)
    for number, row in read_rows(path, EXPECTED):
        pair = question_and_answer(row)
        if isinstance(pair, str):
            bad.add(number, pair)
            continue
        first, earlier = rows.setdefault(question_key(pair[0]), (number, pair))
        if first == number:
            continue
        answers = [true_answer(text) or "" for text in (pair[1], earlier[1])]
        if same_answer(*answers):
            bad.repeat(number)
        else:
            one, other = (repr(text[:40]) for text in answers)
            bad.add(first, f"answers {other}, and the same question in row {number} answers {one}")
            bad.add(number, f"answers {one}, and the same question in row {first} answers {other}")
    kept = [pair for number, pair in rows.values() if number not in bad.reasons]
    return kept, bad.settle(len(kept), EXPECTED)


def question_and_answer(row: object) -> Question | str:
    """The two columns of a row under any of their names, or the reason why it cannot be used."""
    if isinstance(row, UnreadableRow):
        return row.reason
    if not isinstance(row, dict):
        return f"{str(row)[:60]!r} is no object with columns"
    cells = {str(name).lower(): cell for name, cell in row.items()}
    if media := media_of(cells):
        return f"has {media}, and the models here read text"
    extra = cells.get("extra_info")
    questions = [extra.get("question")] if isinstance(extra, dict) else []
    questions += [last_message(cells[name]) for name in QUESTIONS if name in cells]
    question = next((text for cell in questions if (text := cell_text(cell))), None)
    if question is None:
        return f"no question: {str(row)[:60]}"
    answers = answer_cells(cells)
    if not answers:
        return f"no column with an answer, only {', '.join(map(str, row))[:80]}"
    texts = {name: text for name, cell in answers.items() if (text := cell_text(cell))}
    if not texts:
        name, cell = next(iter(answers.items()))
        shown = "null" if cell is None else repr(str(cell)[:40])
        return f"no answer: {name} is {shown}"
    readable = (text for text in texts.values() if true_answer(text) is not None)
    answer = next(readable, None)
    if answer is None:
        name, text = next(iter(texts.items()))
        shown = " ".join(text.split())[:60]
        return f"{name} {shown!r} has no answer to compare with: no \\boxed{{}}, no last ####"
    return question, answer


def answer_cells(cells: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that may hold the answer, the best first."""
    answers = {name: cells[name] for name in ANSWERS if name in cells}
    reward_model = cells.get("reward_model")
    if isinstance(reward_model, dict) and "ground_truth" in reward_model:
        answers = {"reward_model.ground_truth": verl_truth(cells)} | answers
    return answers
