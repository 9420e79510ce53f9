"""Rows and problems that a model cannot read: named, left out or skipped, and never the end of a
run."""

import json
import os
from itertools import islice
from pathlib import Path

import pytest
from tokenizers import AddedToken, decoders, normalizers
from tokenizers import Tokenizer as FastTokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from aha.core.errors import DataError, ModelError, RunStopped
from aha.core.records import Problem, Prompt
from aha.eval import file_check
from aha.eval.prompt_check import MAX_SKIPS, ReadableTask, readable
from aha.eval.prompt_limits import PromptLimits
from aha.eval.suite import EvalSettings, evaluate_model, held_out
from aha.model.tokenizer import Tokenizer
from aha.tasks.catalog import make_task
from aha.tasks.countdown import Countdown
from aha.tasks.math_files import split_of

from ..tiny import TOKENIZER, StartsWith, tiny_folder

NFD = ["He has a cafe\u0301 and 3 pens", "A wire of 5 \u2126 and 2 more", "Zoe\u0308 has 7"]
SPLITS = ("train", "validation", "test")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("AHA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(file_check, "_checked", {})
    return tmp_path / "cache" / "prompts"


def limits(tokenizer: Tokenizer = TOKENIZER, **changes) -> PromptLimits:
    settings = {"positions": 160, "max_new_tokens": 16, "model": "tiny"} | changes
    return PromptLimits(tokenizer, **settings)


def byte_tokenizer(normalizer=None) -> Tokenizer:
    """Every byte is a token, as in the vocabularies of Qwen and Llama."""
    vocabulary = {char: place for place, char in enumerate(sorted(ByteLevel.alphabet()))}
    fast = FastTokenizer(BPE(vocab=vocabulary, merges=[]))
    fast.pre_tokenizer = ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    if normalizer:
        fast.normalizer = normalizer
    fast.add_special_tokens([AddedToken("<|endoftext|>", normalized=False)])
    return Tokenizer(fast)


def math_file(path: Path, questions: list[str]) -> Path:
    rows = [{"question": text, "answer": "#### 3"} for text in questions]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def questions(*bad: str, good: int = 40) -> list[str]:
    return [*(f"Mia has {n} pens and buys 2. How many?" for n in range(good)), *bad]


def opened(path: Path, rule="refuse", splits=SPLITS, **changes):
    settings = {"data": str(path)}
    return readable(make_task("math", settings), limits(**changes), settings, splits, rule)


# -- a file -----------------------------------------------------------------------------------


def test_a_file_without_a_fault_passes_as_it_is(tmp_path):
    path = math_file(tmp_path / "rows.jsonl", questions())
    task, findings = opened(path)
    assert findings == []
    plain = make_task("math", {"data": str(path)})
    for split in SPLITS:
        assert list(task.problems(split, 3)) == list(plain.problems(split, 3))


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (["word " * 60], "rollout.max_new_tokens 16 after a prompt of 30"),
        (NFD, "characters this tokenizer cannot hold"),
    ],
)
@pytest.mark.parametrize("splits", [SPLITS, ("train",)])
def test_one_bad_row_is_named_with_its_cause_whatever_its_split(tmp_path, bad, words, splits):
    path = math_file(tmp_path / "rows.jsonl", questions(*bad))
    ids = {
        problem.id
        for split in SPLITS
        for problem in make_task("math", {"data": str(path)}).problems(split, 0)
        if problem.given["question"] in bad
    }
    with pytest.raises(DataError) as error:
        opened(path, splits=splits)
    assert words in str(error.value) and f"{len(bad)} of {40 + len(bad)} rows" in str(error.value)
    assert any(f"row {n}, {name}" in str(error.value) for name in ids for n in (41, 42, 43))
    assert "--task.bad_rows drop" in error.value.fix

    task, findings = opened(path, "drop", splits)
    left = [problem.id for split in SPLITS for problem in task.problems(split, 0)]
    assert len(left) == 40 and not ids & set(left)
    assert [f.level for f in findings] == ["warn"] and words in findings[0].message
    assert f"{len(bad)} of {40 + len(bad)} rows" in findings[0].message


def test_a_fix_by_length_works_when_it_is_obeyed(tmp_path):
    path = math_file(tmp_path / "rows.jsonl", questions("word " * 20))
    with pytest.raises(DataError) as error:
        opened(path, max_new_tokens=100)
    option, _, value = error.value.fix.partition("--rollout.max_new_tokens ")
    assert opened(path, max_new_tokens=int(value))[1] == []
    with pytest.raises(ModelError) as error:
        opened(path, max_new_tokens=500)
    assert "every row" in str(error.value) and "160 positions of tiny" in str(error.value)
    value = error.value.fix.removeprefix("--rollout.max_new_tokens ")
    assert opened(path, max_new_tokens=int(value))[1] == []
    with pytest.raises(DataError):
        opened(path, max_new_tokens=int(value) + 1)


def test_a_split_of_which_nothing_is_left_is_refused(tmp_path):
    accented = [f"caf\u00e9 number {n}" for n in range(60)]
    tests = [text for text in accented if split_of(text) == "test"]
    sound = [text for text in questions() if split_of(text) == "train"]
    path = math_file(tmp_path / "rows.jsonl", [*tests, *sound])
    with pytest.raises(DataError, match="split 'test', all of whose rows are dropped"):
        opened(path, "drop", ("test",))


def test_what_a_check_has_seen_is_remembered_and_forgotten_when_anything_changes(
    tmp_path, cache, monkeypatch
):
    calls = []
    check = file_check.check_rows
    monkeypatch.setattr(file_check, "check_rows", lambda *args: calls.append(1) or check(*args))
    path = math_file(tmp_path / "rows.jsonl", questions("caf\u00e9"))

    def fresh(**changes):
        file_check._checked.clear()  # as another process
        return opened(path, "drop", **changes)

    first, again = fresh(), fresh()
    assert len(calls) == 1 and first[1] == again[1] and first[0].bad == again[0].bad
    fresh(max_new_tokens=17)
    fresh(tokenizer=byte_tokenizer(), positions=1_000)
    math_file(path, questions("caf\u00e9", "ol\u00e9"))
    fresh()
    assert len(calls) == 4 and len(list(cache.iterdir())) == 4
    for damaged in cache.iterdir():
        damaged.write_text('{"rows": {"train": 1}, "faults": [{"x": 1}]}')
    assert len(fresh()[0].bad) == 2 and len(calls) == 5


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/proc/1").exists(), reason="needs /proc")
def test_a_cache_folder_that_cannot_be_written_is_no_fault(tmp_path, monkeypatch):
    monkeypatch.setenv("AHA_CACHE", "/proc/1/no-such-folder")
    path = math_file(tmp_path / "rows.jsonl", questions())
    assert opened(path)[1] == []


# -- a tokenizer that normalises ----------------------------------------------------------------


def test_what_the_tokenizers_own_normaliser_rewrites_is_no_fault(tmp_path):
    path = math_file(tmp_path / "rows.jsonl", questions(*NFD))
    nfc = byte_tokenizer(normalizers.NFC())
    task, findings = opened(path, tokenizer=nfc, positions=1_000)
    assert findings == [] and sum(len(list(task.problems(s, 0))) for s in SPLITS) == 43


def test_a_completion_with_such_characters_raises_nothing():
    nfc = byte_tokenizer(normalizers.NFC())
    plain = byte_tokenizer()
    for text in NFD:
        ids = plain.encode(text)  # what the model may write, character by character
        assert nfc.decode(ids) == text and "".join(nfc.pieces(ids)) == text


# -- problems that are drawn --------------------------------------------------------------------


class Drawn(StartsWith):
    """A generator's prompts: one in `every` cannot be read."""

    def __init__(self, every: int, fault: str = "caf\u00e9"):
        super().__init__("0")
        self.every, self.fault = every, fault

    def ask(self, problem: Problem) -> str:
        bad = sum(problem.given["numbers"]) % self.every == 0
        return self.fault if bad else super().ask(problem)


def test_a_bad_problem_is_skipped_and_the_next_of_the_stream_takes_its_place():
    task = Drawn(every=5)
    first: list = []
    checked = ReadableTask(
        *(task, limits(), None),
        on_first_skip=lambda split, fault: first.append((split, fault.problem, fault.reason)),
    )
    stream = checked.problems("train", 1)
    given = list(islice(stream, 100))
    drawn = list(islice(task.problems("train", 1), 200))
    good = [problem for problem in drawn if sum(problem.given["numbers"]) % 5]
    assert given == good[:100]
    skipped = drawn.index(given[-1]) + 1 - 100
    assert checked.skipped == {"train": skipped} and stream.take_skipped() == skipped > 5
    assert stream.take_skipped() == 0
    assert len(first) == 1 and first[0][0] == "train" and "cannot hold" in first[0][2]
    assert all(Prompt.of(problem, checked, TOKENIZER) for problem in given)


def test_a_generator_with_a_few_bad_problems_is_told_and_used():
    task, findings = readable(Drawn(every=5), limits(), {}, SPLITS)
    assert [f.level for f in findings] == ["warn"] and "will be skipped" in findings[0].message
    assert len(held_out(task, TOKENIZER, "test", 20, 0)) == 20


def test_a_generator_whose_prompts_do_not_fit_is_refused_with_a_limit_that_fits():
    with pytest.raises(ModelError) as error:
        readable(Countdown(), limits(max_new_tokens=150), {}, SPLITS)
    value = int(error.value.fix.removeprefix("--rollout.max_new_tokens "))
    assert readable(Countdown(), limits(max_new_tokens=value), {}, SPLITS)[1] == []


def test_a_generator_without_a_readable_problem_ends_with_the_cause():
    with pytest.raises(ModelError, match="cannot hold"):
        readable(Drawn(every=1), limits(), {}, SPLITS)
    stream = ReadableTask(Drawn(every=1), limits(), None).problems("train", 0)
    with pytest.raises(RunStopped, match=f"{MAX_SKIPS:,} problems .* cannot hold"):
        next(stream)


def test_a_task_of_another_author_that_raises_for_one_problem_is_skipped_there(tmp_path):
    (tmp_path / "odd.py").write_text(
        "from aha.core.records import Problem, Graded\n"
        "def problems(split, seed):\n"
        "    for n in range(30):\n"
        "        yield Problem(f'{split}/{n}', 'odd', {'n': n})\n"
        "def ask(problem):\n"
        "    n = problem.given['n']\n"
        "    return [f'{n}?', '', None, 'x' * 500][n % 4 if n > 20 else 0]\n"
        "def grade(problem, text):\n"
        "    return 0.0\n"
    )
    task, _ = readable(make_task(str(tmp_path / "odd.py")), limits(), {}, ("train",))
    assert [p.id for p in task.problems("train", 0)] == [
        f"train/{n}" for n in range(30) if n <= 20 or n % 4 == 0
    ]
    assert task.skipped == {"train": 7}


# -- `aha eval` ---------------------------------------------------------------------------------


def test_an_evaluation_counts_what_it_left_out(tmp_path):
    path = math_file(tmp_path / "rows.jsonl", questions("word " * 60))
    model = tiny_folder(tmp_path / "model")
    sizes = {"split": "test", "n": 2, "seed": 0, "group_size": 1, "temperature": 1.0}
    for rule in ("refuse", "drop"):
        task_settings = {"data": str(path), "bad_rows": rule}
        chosen = EvalSettings(task="math", task_settings=task_settings, max_new_tokens=9, **sizes)
        if rule == "refuse":
            with pytest.raises(DataError, match="1 of 41 rows") as error:
                evaluate_model(str(model), chosen, None)
            assert "bad_rows" in error.value.fix
            continue
        findings = []
        row = evaluate_model(str(model), chosen, None, findings.append)
        assert row["dropped"] == 1 and "skipped" not in row and row["problems"] == 2
        assert len(findings) == 1 and "1 of 41 rows" in findings[0].message
