"""Gradients as float32 vectors of a bounded size, one after the other, as ranks add them up.

One buffer for all gradients would be a second copy of them, in memory that a GPU does not have to
spare. Here at most a bucket is copied, and a large float32 gradient is not copied at all.
"""

from collections.abc import Callable, Iterator, Sequence

import torch

BUCKET = 16 * 2**20  # numbers, 64 MiB: few enough to hold a copy of, enough to use a link


@torch.no_grad()
def add_up_in_buckets(
    gradients: Sequence[torch.Tensor], add_up: Callable[[torch.Tensor], None], most: int = BUCKET
) -> None:
    """Replace each gradient by its sum over all ranks: `add_up` makes it of a float32 vector, in
    place. A gradient of another type is rounded after the sum.

    The vectors have the same lengths in every rank, however a gradient lies in its memory.
    """
    # One that lies in another order, as that of a transposed weight may, is copied as a whole.
    ordered = [gradient.contiguous() for gradient in gradients]
    for bucket in buckets([gradient.view(-1) for gradient in ordered], most):
        if len(bucket) == 1 and bucket[0].dtype == torch.float32:
            add_up(bucket[0])
            continue
        numbers = torch.cat([piece.float() for piece in bucket])
        add_up(numbers)
        totals = numbers.split([len(piece) for piece in bucket])
        for piece, total in zip(bucket, totals, strict=True):
            piece.copy_(total)
    for gradient, summed in zip(gradients, ordered, strict=True):
        if summed is not gradient:
            gradient.copy_(summed)


def buckets(vectors: Sequence[torch.Tensor], most: int) -> Iterator[list[torch.Tensor]]:
    """The vectors in their order, in lists of at most `most` numbers; longer ones in pieces, which
    are views of them. None of no length."""
    bucket: list[torch.Tensor] = []
    room = most
    for vector in vectors:
        for piece in vector.split(most):
            if len(piece) > room:
                yield bucket
                bucket, room = [], most
            if len(piece):
                bucket.append(piece)
                room -= len(piece)
    if bucket:
        yield bucket
