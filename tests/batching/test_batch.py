"""Packing: which tokens count, and that no way of cutting a batch changes its gradient.

The policy here is a table of bigram logits, so that these tests need no decoder.
"""

from dataclasses import replace

import pytest
import torch

from aha.algo.aggregation import AGGREGATIONS, Totals, token_mean, token_weights
from aha.algo.losses import LOSSES
from aha.batching.batch import (
    PlacedRow,
    TrainingRow,
    gather_rows,
    pack,
    pack_parts,
    scatter_rows,
    split_rows,
    totals_of,
)
from aha.core.records import Completion, Graded, Problem, Prompt

PAD = STOP = 0  # the same id on purpose: a mask made by comparing ids would lose the stop token
VOCABULARY = 9


def graded(prompt: tuple[int, ...], tokens: tuple[int, ...]) -> Graded:
    problem = Problem("a", "made up", {})
    logprobs = tuple(-0.1 * (place + 1) for place in range(len(tokens)))
    finish = "stop" if tokens[-1] == STOP else "length"
    return Graded(
        1.0,
        True,
        "",
        completion=Completion(Prompt(problem, "", prompt), tokens, logprobs, "", finish),
    )


PAIRS = [
    (graded((1, 2), (3, 4, STOP)), 0.5),
    (graded((1, 2, 3), (5, STOP)), -0.5),
    (graded((4,), (6, 7, 8, 1, 2)), 1.0),  # cut off: no stop token
    (graded((1, 2), (STOP,)), -1.0),
    (graded((5, 6, 7, 8), (1, 1, 2, STOP)), 0.25),
    (graded((2,), (3, 3)), -0.75),
    (graded((2, 2), (8, 7, 6, 5, 4, STOP)), 0.1),
]
ROWS = [TrainingRow.of(*pair) for pair in PAIRS]


def table() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((VOCABULARY, VOCABULARY), generator=generator, dtype=torch.float64)
    return logits.requires_grad_()


def token_logprobs(logits_VV, part) -> torch.Tensor:
    """log p(token | the one before) for the columns of a batch."""
    logprobs_VV = torch.log_softmax(logits_VV, -1)
    return logprobs_VV[part.tokens_BT[:, part.start - 1 : -1], part.tokens_BT[:, part.start :]]


def gradient(parts, loss: str, aggregation: str) -> torch.Tensor:
    logits_VV = table()
    totals = totals_of(ROWS, 8)
    for part in parts:
        losses_BT = LOSSES[loss](
            token_logprobs(logits_VV, part),
            part.old_logprobs_BT,
            part.advantages_BT,
            mask_BT=part.mask_BT,
        )
        weights_BT = token_weights(part.mask_BT, aggregation, totals, part.prompt_keys)
        (losses_BT * weights_BT).sum().backward()
    return logits_VV.grad


def by_hand(aggregation: str) -> torch.Tensor:
    """The policy-gradient step one token at a time, without any tensor of rows."""
    logits_VV = table()
    tokens = sum(len(one.completion.tokens) for one, _ in PAIRS)
    loss = torch.zeros((), dtype=torch.float64)
    for one, credit in PAIRS:
        own = one.completion.tokens
        denominator = {
            "token_mean": tokens,
            "sequence_mean": len(ROWS) * len(own),
            "sequence_sum": len(ROWS) * 8,
            "sequence_total": len(ROWS),
            "prompt_mean": len(ROWS) * len(own),  # here every completion has its own prompt
        }[aggregation]
        before = one.completion.prompt.tokens[-1]
        for token in own:
            loss = loss - credit * torch.log_softmax(logits_VV[before], -1)[token] / denominator
            before = token
    loss.backward()
    return logits_VV.grad


def test_rows_are_prompt_and_completion_padded_on_the_right():
    batch = pack(ROWS[:3], PAD)
    assert batch.start == 1  # the shortest prompt
    assert batch.tokens_BT.tolist() == [
        [1, 2, 3, 4, STOP, PAD],
        [1, 2, 3, 5, STOP, PAD],
        [4, 6, 7, 8, 1, 2],
    ]


def test_the_mask_covers_exactly_the_completion_with_its_stop_token():
    batch = pack(ROWS[:3], PAD)
    # columns speak about positions 1 .. 5
    assert batch.mask_BT.tolist() == [[0, 1, 1, 1, 0], [0, 0, 1, 1, 0], [1, 1, 1, 1, 1]]
    assert batch.num_tokens == 3 + 2 + 5


def test_logprobs_and_advantages_stand_where_the_mask_does():
    batch = pack(ROWS, PAD)
    for b, (one, credit) in enumerate(PAIRS):
        own = batch.mask_BT[b].bool()
        assert batch.tokens_BT[b, batch.start :][own].tolist() == list(one.completion.tokens)
        wanted = torch.tensor(one.completion.logprobs)
        assert torch.equal(batch.old_logprobs_BT[b][own], wanted)
        assert batch.advantages_BT[b][own].tolist() == pytest.approx([credit] * len(wanted))
        assert not batch.old_logprobs_BT[b][~own].any() and not batch.advantages_BT[b][~own].any()


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_the_gradient_is_the_one_worked_out_token_by_token(aggregation):
    found = gradient(pack_parts(ROWS, PAD, 10_000), "pg", aggregation)
    torch.testing.assert_close(found, by_hand(aggregation), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_no_way_of_cutting_changes_the_gradient(loss, aggregation):
    whole = gradient([pack(ROWS, PAD)], loss, aggregation)
    assert whole.abs().max() > 0
    cuts = [
        [pack(ROWS[first : first + size], PAD) for first in range(0, 7, size)] for size in (1, 3)
    ]
    cuts += [pack_parts(ROWS, PAD, max_tokens) for max_tokens in (1, 12, 20, 30, 10_000)]
    for parts in cuts:
        found = gradient(parts, loss, aggregation)
        torch.testing.assert_close(found, whole, rtol=1e-6, atol=1e-9)


def test_the_order_of_rows_does_not_matter():
    forwards, backwards = (
        gradient([pack(rows, PAD)], "pg", "token_mean") for rows in (ROWS, ROWS[::-1])
    )
    torch.testing.assert_close(forwards, backwards)


def test_the_stop_token_is_trained_and_what_follows_it_is_not():
    """One completion that is nothing but a stop token, beside a long one that pads it."""
    logits_VV = table()
    rows = [(graded((3,), (STOP,)), 1.0), (graded((1,), (2, 4, 5)), 0.0)]
    batch = pack([TrainingRow.of(*row) for row in rows], PAD)
    losses_BT = LOSSES["pg"](
        token_logprobs(logits_VV, batch), batch.old_logprobs_BT, batch.advantages_BT
    )
    (losses_BT * token_weights(batch.mask_BT, "token_mean", Totals(2, 4, 4))).sum().backward()
    # Stopping after a 3 becomes likelier; after the stop, where padding stands, nothing moves.
    assert logits_VV.grad[3, STOP] < 0
    assert not logits_VV.grad[STOP].any()


def test_parts_keep_to_the_budget_and_hold_every_row_once():
    for budget in (1, 8, 12, 16, 40, 1_000):
        parts = pack_parts(ROWS, PAD, budget)
        assert all(len(p.tokens_BT) == 1 or p.layout.tokens <= budget for p in parts)
        assert sum(len(p.tokens_BT) for p in parts) == len(ROWS)
        assert sum(p.num_tokens for p in parts) == sum(len(g.completion.tokens) for g, _ in PAIRS)
    assert len(pack_parts(ROWS, PAD, 1)) == len(ROWS) and len(pack_parts(ROWS, PAD, 1_000)) == 1


def test_no_rows_no_parts():
    assert pack_parts([], PAD, 100) == []


def test_the_text_of_a_completion_is_never_read():
    """What another decoder made of the drawn tokens changes nothing that is trained."""
    others = [
        TrainingRow.of(replace(one, completion=replace(one.completion, text="other words")), credit)
        for one, credit in PAIRS
    ]
    ours, theirs = pack(ROWS, PAD), pack(others, PAD)
    for name in ("tokens_BT", "mask_BT", "old_logprobs_BT", "advantages_BT"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name))


def test_a_batch_moves_whole():
    rows = [row._replace(selected_T=torch.ones(len(row.advantages_T))) for row in ROWS]
    for batch in (pack(ROWS, PAD), pack(rows, PAD)):
        moved = batch.to("meta")
        assert moved.tokens_BT.device.type == moved.advantages_BT.device.type == "meta"
        assert (moved.start, moved.prompt_keys) == (batch.start, batch.prompt_keys)
        assert (moved.selected_BT is None) == (batch.selected_BT is None)
    assert moved.selected_BT.device.type == "meta"


def test_what_is_chosen_stands_where_the_tokens_do():
    """And none of it on the padding: a 1 there would be one token more."""
    rows = [row._replace(selected_T=torch.arange(1.0, 1 + len(row.advantages_T))) for row in ROWS]
    for part in (pack(rows, PAD), *pack_parts(rows, PAD, 12)):
        assert not part.selected_BT[part.mask_BT == 0].any()
        for own in gather_rows(part.selected_BT, part.mask_BT):
            assert own.tolist() == list(range(1, 1 + len(own)))
    assert pack(ROWS, PAD).selected_BT is None


def test_an_advantage_may_differ_from_token_to_token():
    """One tensor a row lands on the row's own tokens, wherever its prompt ends, and comes back."""
    credits = [
        torch.arange(1.0, 1 + len(one.completion.tokens)) + 10 * place
        for place, (one, _) in enumerate(PAIRS)
    ]
    rows = [row._replace(advantages_T=own) for row, own in zip(ROWS, credits, strict=True)]
    part = pack(rows, PAD)
    assert torch.equal(part.advantages_BT, scatter_rows(credits, part.mask_BT))
    assert part.advantages_BT[part.mask_BT == 0].abs().max() == 0
    for place, ((one, credit, _), back) in enumerate(
        zip(rows, gather_rows(part.advantages_BT, part.mask_BT), strict=True)
    ):
        assert torch.equal(back, credit)
        first = len(one.completion.prompt.tokens) - part.start
        assert part.advantages_BT[place, first] == 1 + 10 * place


def test_what_stands_beside_a_row_travels_with_it():
    for size in (1, 9, 1000):
        parts = split_rows([PlacedRow(one, place) for place, (one, _) in enumerate(PAIRS)], size)
        flat = [row for part in parts for row in part]
        assert sorted(place for _, place in flat) == list(range(len(ROWS)))
        assert all(one is PAIRS[place][0] for one, place in flat)


# -- forced tokens ----------------------------------------------------------------------------


def with_forced(one: Graded, *places: int) -> Graded:
    return replace(one, completion=replace(one.completion, forced=places))


def test_a_forced_token_has_no_part_in_the_update():
    """Its mask is 0; so are its weight in the loss, its advantage, and its share of the sums."""
    one, advantage = PAIRS[0]  # three tokens, of which the first and the last are forced
    row = TrainingRow.of(with_forced(one, 0, 2), advantage)
    rows = [row, *ROWS[1:]]
    batch, totals = pack(rows, PAD), totals_of(rows, 8)
    own = slice(len(one.completion.prompt.tokens) - batch.start, None)
    assert batch.mask_BT[0, own][:3].tolist() == [0, 1, 0]
    assert batch.advantages_BT[0, own][:3].tolist() == [0, 0.5, 0]
    assert row.advantages_T.tolist() == [0.5]
    assert totals.tokens == totals_of(ROWS, 8).tokens - 2 == batch.num_tokens
    logprobs_BT = torch.zeros(batch.mask_BT.shape, requires_grad=True)
    losses_BT = LOSSES["pg"](logprobs_BT, batch.old_logprobs_BT, batch.advantages_BT)
    (losses_BT * token_mean(batch.mask_BT, totals)).sum().backward()
    gradient_T = logprobs_BT.grad[0, own][:3]
    assert gradient_T[0] == 0 == gradient_T[2] and gradient_T[1] != 0


def test_numbers_by_token_leave_forced_ones_out_in_both_directions():
    rows = [TrainingRow.of(with_forced(PAIRS[0][0], 1), 2.0), *ROWS[1:]]
    batch = pack(rows, PAD)
    numbers = [torch.arange(1.0, len(row.advantages_T) + 1) for row in rows]
    back = gather_rows(scatter_rows(numbers, batch.mask_BT), batch.mask_BT)
    assert all(torch.equal(one, other) for one, other in zip(numbers, back, strict=True))
