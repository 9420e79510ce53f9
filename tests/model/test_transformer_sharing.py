"""Prompts that are computed once and padding that is not: the same log-probs and gradients."""

from collections.abc import Iterator

import pytest
import torch

from aha.batching.batch import MicroBatch, TrainingRow, pack
from aha.batching.layout import Layout
from aha.core.records import Completion, Graded, Problem, Prompt

from ..tiny import IN_C, TOKENIZER, computed_by, tiny_transformer

# Tokens of a prompt and of its completions: groups of unequal prompts, one row alone, a completion
# that is nothing but a stop token, one that is longer than two blocks of attention.
GROUPS = [(9, (4, 1, 30)), (5, (1,)), (12, (130, 3, 17, 66)), (5, (20, 2))]


@pytest.fixture(params=[pytest.param(None, id="torch"), *IN_C])
def side(request) -> Iterator[None]:
    with computed_by(request.param):
        yield


def made(groups, seed: int = 3) -> MicroBatch:
    generator = torch.Generator().manual_seed(seed)

    def draw(count: int) -> tuple[int, ...]:
        drawn = torch.randint(0, TOKENIZER.vocab_size, (count,), generator=generator)
        return tuple(drawn.tolist())

    rows = []
    for size, completions in groups:
        prompt = Prompt(Problem("", "", {}), "", draw(size))
        for own in completions:
            logprobs = (0.0,) * own
            completion = Completion(prompt, draw(own), logprobs, "", "length")
            rows.append(TrainingRow.of(Graded(1.0, True, "", completion=completion), 1.0))
    order = torch.randperm(len(rows), generator=generator).tolist()
    return pack([rows[place] for place in order], TOKENIZER.pad_id)


def weighted(values_BT, part: MicroBatch) -> torch.Tensor:
    """One number of which every own token has another share."""
    weights_BT = torch.linspace(-1, 2, part.mask_BT.numel()).view_as(part.mask_BT)
    return (values_BT * weights_BT * part.mask_BT).sum()


def same(policy, part: MicroBatch, dtype=torch.float32, tolerance: float = 1e-5) -> None:
    """Log-probs, entropies and every gradient with a layout and without."""
    found = []
    for layout in (None, part.layout):
        logprobs_BT, entropies_BT = policy.logprobs_and_entropy(
            part.tokens_BT, part.start, dtype, 0.8, entropy=True, layout=layout
        )
        (weighted(logprobs_BT, part) + 0.5 * weighted(entropies_BT, part)).backward()
        own_BT = part.mask_BT > 0
        gradients = {
            name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None
        }
        found.append((logprobs_BT[own_BT], entropies_BT[own_BT], gradients))
        policy.zero_grad()
    (plain, plain_entropies, wanted), (shared, entropies, gradients) = found
    torch.testing.assert_close(shared, plain, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(entropies, plain_entropies, rtol=tolerance, atol=tolerance)
    assert gradients.keys() == wanted.keys()
    for name, gradient in wanted.items():
        scale = gradient.abs().max().clamp(min=1e-6)
        torch.testing.assert_close(
            gradients[name] / scale, gradient / scale, rtol=tolerance, atol=tolerance, msg=name
        )


@pytest.mark.parametrize("recompute", [False, True])
def test_the_results_are_those_of_whole_rows(side, recompute):
    policy = tiny_transformer()
    policy.recompute = recompute
    same(policy, made(GROUPS))


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"tie_word_embeddings": False}, id="untied head"),
        pytest.param({"model_type": "qwen3", "head_dim": 16}, id="norms on q and k"),
        pytest.param({"num_attention_heads": 2, "head_dim": 16}, id="heads of 16"),
        pytest.param({"num_key_value_heads": 4}, id="a key for every head"),
    ],
)
def test_of_every_shape(side, changes):
    same(tiny_transformer(**changes), made(GROUPS))


def test_to_the_last_digits_in_float64():
    same(tiny_transformer().double(), made(GROUPS), torch.float64, 1e-9)


def test_the_numbers_of_the_example_in_the_layout_are_its_own():
    """What `Layout` and attention.c explain with: prompts of 3 and 2 tokens."""
    layout = Layout.of([7, 8, 7], [3, 2, 3], [5, 2, 3])
    assert layout.tokens == 12 and layout.rows.start == 2
    assert layout.edges.tolist() == [0, 3, 5, 9, 10, 12]
    assert layout.order_B.tolist() == [0, 2, 1] and layout.bounds_P.tolist() == [0, 2, 3]
    assert layout.positions_N.tolist() == [0, 1, 2, 0, 1, 3, 4, 5, 6, 2, 3, 4]
    assert layout.places_N.tolist() == [0, 1, 2, 3, 4, 3, 4, 5, 6, 9, 17, 18]
    assert layout.tokens_N.tolist() == [0, 1, 2, 8, 9, 3, 4, 5, 6, 10, 19, 20]
    assert layout.columns_M.tolist() == [1, 6, 13, 2, 3, 4, 5, 7, 14, 15]
