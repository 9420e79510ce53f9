"""The packaged model: it loads here and in transformers, and it is a base worth starting from."""

import json
from importlib.resources import files
from itertools import islice
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from aha.behaviors.detector import count_behaviours
from aha.behaviors.trends import summarise
from aha.core.records import Prompt
from aha.corpus.bases import TraceMix
from aha.corpus.shards import documents
from aha.model.tokenizer import build_tokenizer
from aha.model.weights import LoadedModel, load_model
from aha.rollout.engine import Sampling
from aha.rollout.native import NativeEngine
from aha.tasks.countdown import Countdown

TOKENIZER = build_tokenizer()


FOLDER = Path(str(files("aha"))) / "models" / "aha-tiny"


@pytest.fixture(scope="module")
def tiny() -> LoadedModel:
    """The demo starts from it: a missing or broken folder is a failure, never a skip."""
    return load_model(FOLDER)


@pytest.fixture(scope="module")
def graded(tiny):
    """Sixty test puzzles of three numbers, one completion each."""
    task = Countdown((3,))
    problems = islice(task.problems("test", 0), 60)
    prompts = [Prompt.of(problem, task, tiny.tokenizer) for problem in problems]
    engine = NativeEngine(tiny.policy, tiny.tokenizer, "float32")
    groups = engine.generate(prompts, Sampling(320, 1, 1.0, 0))
    return [(one, task.grade(one.prompt.problem, one.text)) for (one,) in groups]


def test_it_is_small_enough_to_ship(tiny):
    assert tiny.policy.num_parameters() < 5_000_000
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 25_000_000


def test_its_card_says_what_it_cost(tiny):
    facts = json.loads((FOLDER / "pretraining.json").read_text())
    assert {"tokens", "hours", "cost_usd", "kwh"} <= facts.keys()
    assert all(facts[key] > 0 for key in ("tokens", "hours", "cost_usd", "kwh"))


def test_its_tokenizer_is_the_one_we_build_and_the_one_transformers_reads(tiny):
    theirs = AutoTokenizer.from_pretrained(FOLDER)
    drawn = islice(documents(TraceMix(), 1, lambda numbers, target: True), 50)
    for text in (document.prompt + document.completion for document in drawn):
        ids = TOKENIZER.encode(text)
        assert tiny.tokenizer.encode(text) == ids
        assert theirs.encode(text, add_special_tokens=False) == ids
    assert tiny.tokenizer.stop_ids == TOKENIZER.stop_ids


@torch.no_grad()
def test_transformers_computes_the_same_logits(tiny, graded):
    oracle = AutoModelForCausalLM.from_pretrained(FOLDER)
    completion, _ = max(graded, key=lambda pair: len(pair[0].tokens))
    row = torch.tensor([completion.prompt.tokens + completion.tokens])
    torch.testing.assert_close(tiny.policy(row), oracle(row).logits, rtol=1e-3, atol=1e-3)


def test_it_ends_what_it_begins_and_gives_an_answer(graded):
    stopped = [one for one, _ in graded if one.finish == "stop"]
    answered = [one for one, _ in graded if "</answer>" in one.text]
    assert len(stopped) > 0.9 * len(graded) and len(answered) > 0.9 * len(graded)


def test_it_calculates_well_and_solves_some(graded):
    """Some, so that a reward comes at all; not most, so that there is something to learn."""
    given = [one.prompt.problem.given for one, _ in graded]
    counts = [
        count_behaviours(one.text, puzzle["numbers"], puzzle["target"])
        for (one, _), puzzle in zip(graded, given, strict=True)
    ]
    assert summarise(counts)["line_accuracy"] > 0.8
    solved = sum(verdict.correct for _, verdict in graded) / len(graded)
    assert 0.02 < solved < 0.7
