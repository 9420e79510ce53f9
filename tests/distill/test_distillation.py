"""The stages of a whole distillation, stopped and gone on with, from an endpoint and from a
model."""

import json
from dataclasses import replace

import pytest

from aha.core.errors import ConfigError, DataError, ModelError
from aha.distill.distill_job import DistillJob, RewriteSettings, TeacherSettings
from aha.distill.distillation import ANSWERS, Distillation, check_student
from aha.model.weights import save_model
from aha.sft.data_cost import cost_of_data
from aha.sft.examples import load_examples
from aha.tasks.countdown import Countdown

from ..tiny import TOKENIZER, first_edition, tiny_transformer

TASK = Countdown()


def job(name: str, student, **changes) -> DistillJob:
    settings = TeacherSettings(name, "big", workers=1, tries=2, prices=(1.0, 2.0))
    settings = replace(settings, **changes.pop("teacher", {}))
    return DistillJob(settings, str(student), "countdown", {}, n=4, tests=3, **changes)


def collect(made: Distillation) -> list[dict]:
    return [json.loads(line) for line in made.collect().read_text().splitlines()]


def make(settings: DistillJob, path, limit: int = 60, findings: list | None = None) -> Distillation:
    return Distillation(
        settings, path, (limit, None), [].append if findings is None else findings.append
    )


def test_right_answers_become_examples_that_the_student_reads(teach, student, tmp_path):
    wrong = {"n": 0}

    def answer(text: str) -> str:
        from .fake_teacher import solve

        wrong["n"] += 1
        return "</think>\n<answer>1</answer>" if wrong["n"] == 2 else solve(text)

    fake = teach(answer=answer)
    made = make(job(fake.url, student), tmp_path / "one")
    rows = collect(made)
    assert len(rows) == 3 and all(row["correct"] for row in rows)
    examples = load_examples(tmp_path / "one" / "examples.jsonl", TOKENIZER, 160)
    assert len(examples.examples) == 3 and not examples.notes
    stages = json.loads((tmp_path / "one" / "stages.json").read_text())
    names = ["answers", "graded", "chosen", "mixed", "examples"]
    assert [stage["stage"] for stage in stages] == names
    assert stages[1]["dropped"] == {"wrong": 1}
    for name in names:
        assert (tmp_path / "one" / f"{name}.jsonl").is_file()
    # 4 answers of 50 tokens after 100: (400 * 1 + 200 * 2) / 1e6
    (parent,) = cost_of_data(tmp_path / "one" / "examples.jsonl")
    assert parent["cost_usd"] == pytest.approx(0.0008) and parent["name"] == "answers of big"
    ledger = json.loads((tmp_path / "one" / "ledger.json").read_text())
    assert ledger["own_usd"] == pytest.approx(0.0008) and ledger["with_teacher_usd"] is None


def test_a_stopped_one_goes_on_and_no_answer_is_paid_for_twice(teach, student, tmp_path):
    fake = teach(lambda before, text: "404" if before == 2 else None)
    settings = job(fake.url, student)
    with pytest.raises(ConfigError, match="refuses with status 404"):
        make(settings, tmp_path / "one").collect()
    assert len((tmp_path / "one" / ANSWERS).read_text().splitlines()) == 2
    with (tmp_path / "one" / ANSWERS).open("a") as lines:
        lines.write('{"key": "half a li')  # as a process leaves it that is killed
    rows = collect(make(settings, tmp_path / "one"))
    assert len(rows) == 4 and len(fake.bodies) == 2 + 1 + 2
    again = collect(make(settings, tmp_path / "one"))
    assert again == rows and len(fake.bodies) == 5
    # Another distillation takes the answers where they fit.
    other = job(fake.url, student, keep="all", reuse=str(tmp_path / "one"))
    assert len(collect(make(other, tmp_path / "two"))) == 4 and len(fake.bodies) == 5
    hotter = replace(other, teacher=replace(other.teacher, temperature=0.5))
    collect(make(hotter, tmp_path / "three"))
    assert len(fake.bodies) == 9
    with pytest.raises(ConfigError, match=r"was made with keep 'all', not 'right'.*--reuse"):
        make(replace(other, keep="right"), tmp_path / "two").collect()


def test_a_model_of_ours_teaches_and_its_wrong_answers_are_refused(student, tmp_path):
    settings = job(str(student), student, teacher={"per_problem": 2})
    with pytest.raises(DataError, match="none of 8 answers of the teacher is left"):
        make(settings, tmp_path / "one", limit=8).collect()
    # With everything kept the truncated ones are dropped all the same.
    made = make(replace(settings, keep="all"), tmp_path / "two", limit=8)
    try:
        kept = len(collect(made))
    except DataError as error:
        kept = 0
        assert "truncated" in str(error)
    counts = json.loads((tmp_path / "two" / "stages.json").read_text())[0]
    assert counts["kept"] == 8 and kept <= 8


@pytest.mark.parametrize("by", ["rule", "endpoint"])
def test_free_words_are_put_into_the_tags(teach, student, tmp_path, by):
    def free(text: str) -> str:
        from .fake_teacher import solve

        thought, _, rest = solve(text).partition("</think>")
        expression = rest.split("<answer>")[1].split("</answer>")[0]
        return f"I think: {thought}\nSo it is \\boxed{{{expression}}}."

    fake = teach(answer=free)
    with pytest.raises(DataError, match="4 wrong"):
        make(job(fake.url, student), tmp_path / "none").collect()
    rewriter = teach(answer=lambda text: text.split("~~~~~~~~\n")[1])
    settings = RewriteSettings("rule" if by == "rule" else rewriter.url, "small", (1.0, 1.0))
    made = make(job(fake.url, student, rewrite=settings), tmp_path / "one")
    rows = collect(made)
    assert len(rows) == 4 and all("I think" in row["completion"] for row in rows)
    assert len(rewriter.bodies) == (0 if by == "rule" else 4)
    if by == "endpoint":
        assert any(entry.what == "rewriting" and entry.usd > 0 for entry in made.ledger.entries)
        collect(make(made.job, tmp_path / "one"))
        assert len(rewriter.bodies) == 4


def test_a_student_that_cannot_write_the_tags_costs_no_question(teach, tmp_path):
    digits = first_edition(characters="0123456789+-*/=() \n")
    folder = tmp_path / "digits"
    save_model(folder, tiny_transformer(vocab_size=digits.vocab_size), digits)
    fake = teach()
    with pytest.raises((ModelError, DataError)):
        make(job(fake.url, folder), tmp_path / "one").collect()
    assert fake.bodies == [] and not (tmp_path / "one").exists()


def test_a_student_without_tokens_for_the_tags_is_told_of():
    from tokenizers import Tokenizer as FastTokenizer
    from tokenizers.models import BPE

    from aha.model.tokenizer import END, Tokenizer

    characters = [END, *"</>thinkaswer"]
    fast = FastTokenizer(
        BPE(vocab={c: n for n, c in enumerate(dict.fromkeys(characters))}, merges=[])
    )
    (finding,) = check_student("s", Tokenizer(fast))
    assert "</think> (8 tokens)" in finding.message
    assert check_student("s", TOKENIZER) == []
    with pytest.raises(ModelError, match="the student s cannot write </think>"):
        few = FastTokenizer(BPE(vocab={END: 0, "a": 1}, merges=[]))
        check_student("s", Tokenizer(few))


def test_a_folder_of_something_else_is_left_alone(teach, student, tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="no such folder"):
        make(job(teach().url, student), tmp_path / "one").collect()
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["mine.txt"]
