"""The stages of a whole distillation, stopped and gone on with, from an endpoint and from a
model."""

import json
import shutil
from dataclasses import replace

import pytest

from aha.core.errors import ConfigError, DataError, ModelError
from aha.distill.distill_job import DistillJob, RewriteSettings, TeacherSettings
from aha.distill.distillation import ANSWERS, LOST, Distillation, check_student
from aha.model.weights import save_model
from aha.sft.data_cost import cost_of_data
from aha.sft.examples import load_examples
from aha.tasks.countdown import Countdown

from ..tiny import TOKENIZER, first_edition, tiny_transformer
from .fake_teacher import problem_in

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


@pytest.mark.parametrize("fault", ["400", "500"])
def test_what_a_working_teacher_did_not_answer_is_not_asked_again(teach, student, tmp_path, fault):
    """The same command goes on without them, where they are all that is left too."""
    problems = TASK.problems("train", 0)
    bad = [next(problems), next(problems)][1].id
    fake = teach(lambda before, text: fault if problem_in(text).id == bad else None)
    settings = job(fake.url, student)
    rows = collect(make(settings, tmp_path / "one"))
    asked = len(fake.bodies)
    assert len(rows) == 3
    made = make(settings, tmp_path / "one")
    assert collect(made) == rows and len(fake.bodies) == asked
    assert made.stages.stages[0].dropped == {"without an answer": 1}
    (tmp_path / "one" / LOST).unlink()  # as the manual says, to ask once more
    fake.misbehave = lambda before, text: None
    assert len(collect(make(settings, tmp_path / "one"))) == 4 and len(fake.bodies) == asked + 1


def test_answers_without_an_end_are_not_rewritten_and_counted_as_what_they_are(
    teach, student, tmp_path
):
    fake = teach(lambda before, text: "cut" if before == 0 else "empty" if before == 1 else None)
    rewriter = teach(answer=lambda text: text.split("~~~~~~~~\n")[1])
    for name, by in (("model", rewriter.url), ("rule", "rule")):
        settings = job(fake.url, student, rewrite=RewriteSettings(by), reuse=None)
        fake.bodies.clear()
        made = make(settings, tmp_path / name)
        assert len(collect(made)) == 2 and not rewriter.bodies
        assert made.stages.stages[2].dropped == {"truncated": 1, "empty": 1}


def test_what_cannot_be_rewritten_is_not_paid_for_again(teach, student, tmp_path):
    form = "thought\n</think>\n<answer>1</answer>"
    rewriter = teach(answer=lambda text: form if len(rewriter.bodies) == 1 else "no tags")
    settings = job(teach(answer=lambda text: f"1 for {text}").url, student, keep="all")
    settings = replace(settings, rewrite=RewriteSettings(rewriter.url))
    rows = collect(make(settings, tmp_path / "one"))
    asked = len(rewriter.bodies)
    assert len(rows) == 1 and asked == 1 + 3 * 2
    made = make(settings, tmp_path / "one")
    assert collect(made) == rows and len(rewriter.bodies) == asked
    assert made.stages.stages[1].dropped == {"not rewritten": 3}


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        ("plain", {"system": "Think, then answer."}),
        ("r1", {"template_args": {"enable_thinking": False}}),
        (None, {"lead_in": "Well:"}),
    ],
)
def test_words_of_the_student_are_left_out_where_a_frame_has_no_place_for_them(
    teach, student, tmp_path, frame, words
):
    """The tests are compared in the plain frame, and the teacher has one of its own."""
    folder = tmp_path / "instruct"
    shutil.copytree(student, folder)
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    (folder / "chat_template.jinja").write_text(template)
    settings = job(teach().url, folder, teacher={"template": frame})
    settings = replace(settings, task_settings={"template": "instruct", **words})
    rows = collect(make(settings, tmp_path / "one"))
    assert len(rows) == 4 and all(row["prompt"].startswith("<|im_start|>") for row in rows)
    if "system" in words:
        assert all(words["system"] in row["prompt"] for row in rows)


OWN_TASK = """
from aha.core.records import Graded, Problem

class Own:
    name = "own"

    def __init__(self, template="own"):
        if template == "plain":
            raise ValueError("no plain frame")

    def problems(self, split, seed):
        yield Problem("1", "own", {"question": "1+1="})

    def ask(self, problem):
        return problem.given["question"]

    def grade(self, problem, text):
        return Graded(1.0, True, "right")
"""


def test_tests_that_nothing_can_be_compared_with_are_an_error_before_a_question(
    teach, student, tmp_path
):
    (tmp_path / "own.py").write_text(OWN_TASK)
    fake = teach()
    settings = replace(job(fake.url, student), task=str(tmp_path / "own.py"), n=1)
    settings = replace(settings, teacher=replace(settings.teacher, api="text"))
    with pytest.raises(ConfigError, match="no plain frame"):
        make(settings, tmp_path / "one").collect()
    assert fake.bodies == [] and not (tmp_path / "one").exists()


def test_a_folder_to_reuse_has_to_have_answers(teach, student, tmp_path):
    fake, findings = teach(), []
    settings = job(fake.url, student, reuse=str(tmp_path / "typo"))
    with pytest.raises(ConfigError, match="--reuse .*typo: no answers in it"):
        make(settings, tmp_path / "one").collect()
    assert fake.bodies == []
    collect(make(job(fake.url, student, seed=1), tmp_path / "other"))
    settings = job(fake.url, student, reuse=str(tmp_path / "other"))
    collect(make(settings, tmp_path / "two", findings=findings))
    assert "none of the 4 answers" in findings[0].message


def test_prices_and_patience_may_change(teach, student, tmp_path):
    settings = job(teach().url, student)
    collect(make(settings, tmp_path / "one"))
    changes = {"usd_per_hour": 1.0, "watts": 2.0, "rewrite": RewriteSettings(prices=(1.0, 1.0))}
    patient = replace(settings, **changes, teacher=replace(settings.teacher, tries=9))
    assert len(collect(make(patient, tmp_path / "one"))) == 4


def test_a_file_to_mix_without_an_example_is_refused_before_a_question(teach, student, tmp_path):
    fake, path = teach(), tmp_path / "mix.jsonl"
    for content in ("", '{"prompt": "a"}\n'):
        path.write_text(content)
        with pytest.raises(DataError, match="no example in"):
            make(job(fake.url, student, mix=(str(path),)), tmp_path / "one").collect()
    assert fake.bodies == []


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
