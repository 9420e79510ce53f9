"""What a base reads: which puzzles, which rows, which tokens weigh more."""

import re
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from aha.core.seeds import seed_for
from aha.corpus.bases import BASES, PretrainConfig, TraceMix
from aha.corpus.shards import CorpusTokenizer, documents, follows_line, write_shard
from aha.model.tokenizer import build_tokenizer
from aha.plan.pretrain_estimate import DOCUMENT_TOKENS, PADDING
from aha.tasks.countdown import HELD_OUT_TARGETS, split_of

TOKENIZER = build_tokenizer()


SMALL = PretrainConfig(batch_tokens=600, shard_documents=40)
LONGEST = 160
CORPUS_TOKENIZER = CorpusTokenizer.of(TOKENIZER)
PROMPT = re.compile(r"numbers ([\d ]+) target (\d+)\n<think>\n")


def rows_of(batches) -> list[tuple[list[int], list[float]]]:
    """Every document as its tokens and their weights, padding cut off."""
    found = []
    for batch in batches:
        for tokens, weights in zip(batch.tokens_BT, batch.weights_BT, strict=True):
            end = tokens.tolist().index(TOKENIZER.stop_ids[0]) + 1
            assert set(tokens[end:].tolist()) <= {TOKENIZER.pad_id} and not weights[end:].any()
            found.append((tokens[:end].tolist(), weights[:end].tolist()))
    return found


# -- what is read ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Three thousand documents as the model meets them, decoded from their tokens."""
    cfg = replace(SMALL, shard_documents=8_000, batch_tokens=5_000)
    return [
        TOKENIZER.decode(tokens)
        for tokens, _ in rows_of(write_shard(CORPUS_TOKENIZER, cfg, 0, 1_280))
    ]


def test_no_held_out_puzzle_is_ever_read(texts):
    found = [PROMPT.match(text) for text in texts]
    puzzles = [match for match in found if match]
    assert len(texts) > 2_900 and len(puzzles) > 1_000
    for match in puzzles:
        numbers, target = tuple(map(int, match[1].split())), int(match[2])
        assert target not in HELD_OUT_TARGETS
        assert split_of(numbers, target) == "train"


def test_what_is_no_puzzle_is_a_page_of_arithmetic(texts):
    pages = [text for text in texts if not PROMPT.match(text)]
    judged = [page for page in pages if page.startswith(" target ")]
    assert len(pages) > 300 and 0.5 < len(judged) / len(pages) < 0.8
    for page in pages:
        target, rest = re.fullmatch(r"(?: target (\d+)\n)?((?:.+\n)+)", page).groups()
        words = " (yes|no|need)" if target else ""
        line = rf"(\d+[-+*/]\d+=\d+{words}|\d+[-/]\d+)\n"
        assert re.fullmatch(rf"({line}){{6,15}}", rest), page
        for a, op, b in re.findall(r"^(\d+)([-/])(\d+)$", rest, re.MULTILINE):
            assert int(a) < int(b) if op == "-" else int(a) % int(b), f"{a}{op}{b} in {page}"
        assert target is None or int(target) not in HELD_OUT_TARGETS


def test_every_puzzle_ends_with_an_answer(texts):
    for text in texts:
        if PROMPT.match(text):
            assert re.search(r"</think>\n<answer>[-+*/()\d]+</answer>$", text), text


def test_documents_are_as_the_plan_of_a_base_takes_them():
    """Small shards, so padding is more than in the real ones, which are sorted by length too."""
    cfg = replace(BASES["tiny"].cfg, shard_documents=8_000)
    for mix in (BASES["tiny"].cfg.mix, BASES["10m"].cfg.mix):
        batches = write_shard(CORPUS_TOKENIZER, replace(cfg, mix=mix), 0, 1_280)
        lengths = [len(tokens) for tokens, _ in rows_of(batches)]
        seen = sum(length * length for length in lengths) / sum(lengths)
        assert seen == pytest.approx(DOCUMENT_TOKENS, rel=0.25)
        padded = sum(batch.tokens_BT.size for batch in batches) / sum(lengths)
        assert padded == pytest.approx(PADDING, abs=0.02)


def test_a_shard_is_a_function_of_seed_and_number():
    def tokens(cfg: PretrainConfig, number: int) -> list:
        return [
            batch.tokens_BT.tolist()
            for batch in write_shard(CORPUS_TOKENIZER, cfg, number, LONGEST)
        ]

    assert tokens(SMALL, 3) == tokens(SMALL, 3)
    assert tokens(SMALL, 3) != tokens(SMALL, 4)
    assert tokens(SMALL, 3) != tokens(replace(SMALL, seed=1), 3)


def test_a_shard_holds_each_document_once_and_leaves_out_those_too_long():
    stream = documents(SMALL.mix, seed_for(0, 5), lambda n, t: split_of(n, t) == "train")
    written = [d.prompt + d.completion for d in islice(stream, 40)]
    for longest in (60, LONGEST, 1_280):
        fit = sorted(text for text in written if len(TOKENIZER.encode(text)) + 1 <= longest)
        read = rows_of(write_shard(CORPUS_TOKENIZER, SMALL, 5, longest))
        assert sorted(TOKENIZER.decode(tokens) for tokens, _ in read) == fit
    assert 0 < len(fit)


def test_batches_keep_to_their_budget_and_count_their_tokens():
    batches = write_shard(CORPUS_TOKENIZER, SMALL, 0, LONGEST)
    assert all(batch.tokens_BT.size <= SMALL.batch_tokens for batch in batches)
    for batch in batches:
        assert batch.num_tokens == sum(len(tokens) for tokens, _ in rows_of([batch]))


# -- weights --------------------------------------------------------------------------------


def marked(text: str) -> str:
    """The characters of `text` that follow from their line, the others as dots."""
    ids = TOKENIZER.encode(text)
    follows = follows_line(np.array([ids]), CORPUS_TOKENIZER.marks)[0].tolist()
    shown = [TOKENIZER.decode([token]).replace("\n", "$") for token in ids]
    return "".join(
        piece if its_line else "." * len(piece)
        for piece, its_line in zip(shown, follows, strict=True)
    )


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        # the result and its newline, which says that there is no verdict; not the "=" itself
        ("25+7=32\n", ".....32$"),
        ("32*3=96 no\n", ".....96 no$"),
        ("25*3=75 yes\n", ".....75 yes$"),
        ("82-7=75 need\n", ".....75 need$"),
        # a division from its "/" on: whether it is whole, and the newline that leaves it
        ("84/2=42 yes\n", "...2=42 yes$"),
        ("60/18\n", "...18$"),
        # line by line, from the very first
        ("1+2=3\n3*4=12 no\n", "....3$....12 no$"),
        # what names no result weighs nothing more: goals, tags, answers
        ("aim 75\n", "......."),
        (
            "9-2=7\n</think>\n<answer>9-2</answer>",
            "....7$" + "." * len("</think>$<answer>9-2</answer>"),
        ),
        ("numbers 3 7 target 82\n<think>\n", "." * len("numbers 3 7 target 82$<think>$")),
        # a line that is not finished
        ("1+2=3\n4+5=", "....3$...."),
        ("1+2=", "...."),
        ("\n\n1=2", "....2"),
    ],
)
def test_exactly_the_results_weigh_more(text, wanted):
    assert marked(text) == wanted


def test_the_rows_of_a_batch_do_not_touch_one_another():
    """A line that ends one row must not mark the beginning of the next."""
    rows = ["1+2=3\n4+5=9 ", "\n4+5=9\n1+2=3", "aim 42\n31-1=30\n1+"]
    ids = [TOKENIZER.encode(row) for row in rows]
    together = follows_line(np.array(ids), CORPUS_TOKENIZER.marks)
    for row, weights in zip(ids, together, strict=True):
        assert np.array_equal(follows_line(np.array([row]), CORPUS_TOKENIZER.marks)[0], weights)


def test_a_prompt_is_given_and_not_learnt():
    for tokens, weights in rows_of(write_shard(CORPUS_TOKENIZER, SMALL, 0, LONGEST)):
        match = PROMPT.match(TOKENIZER.decode(tokens))
        start = len(TOKENIZER.encode(match[0])) if match else 0
        assert not any(weights[:start]) and all(weights[start:])
        assert set(weights[start:]) <= {1.0, SMALL.result_weight, SMALL.choice_weight}
        assert weights[-1] >= 1.0, "the stop token is not learnt"


def test_an_orderly_search_weighs_more_after_its_first_lines():
    mix = TraceMix(search=1.0, orderly=1.0, numbers=(3,), drill=0.0)
    cfg = replace(SMALL, mix=mix, result_weight=5.0, choice_weight=7.0)
    free = {
        d.prompt + d.completion: d
        for d in islice(documents(mix, seed_for(0, 0), lambda n, t: split_of(n, t) == "train"), 40)
    }
    results = 0
    for tokens, weights in rows_of(write_shard(CORPUS_TOKENIZER, cfg, 0, 1_280)):
        document = free[TOKENIZER.decode(tokens)]
        first, end = (
            len(TOKENIZER.encode(document.prompt + document.completion[:place]))
            for place in (document.follows.start, document.follows.stop)
        )
        # Where two lines solve it, no result is left: tags and answer alone.
        assert set(weights[first:end]) <= {5.0, 7.0}
        results += 5.0 in weights[first:end]
        assert 1.0 in weights[:first] and 7.0 not in weights[:first]
        assert 7.0 not in weights[end:]
    assert results > 20


def test_a_weight_of_one_is_no_weight():
    plain = replace(SMALL, result_weight=1.0, choice_weight=1.0)
    for batch in write_shard(CORPUS_TOKENIZER, plain, 0, LONGEST):
        assert set(np.unique(batch.weights_BT).tolist()) <= {0.0, 1.0}


def test_the_mix_decides_what_is_written():
    """A base for the priming study: with every rate at 0 a behaviour is never read."""
    cfg = replace(
        SMALL,
        shard_documents=300,
        mix=TraceMix(
            numbers=(3, 4), drill=0.0, backward=0.0, subgoal=0.0, verify=0.0, backtrack=0.0
        ),
    )
    read = [
        TOKENIZER.decode(tokens)
        for tokens, _ in rows_of(write_shard(CORPUS_TOKENIZER, cfg, 0, 1_280))
    ]
    assert len(read) > 250
    for text in read:
        assert not re.search("aim|need|yes| no\n", text), text
