"""The order of a micro-batch's tokens in the model: each prompt once for its group, no padding.

A row is a prompt with a completion, and all rows of a group have the same prompt. Linear layers,
norms and the MLP work on N flat tokens: first the P prompts, each once, then the completions row by
row. A completion's last token predicts nothing and is left out. Only attention needs rows: a table
of R rows and W columns, in which every token is at its own position. So the causal mask of a row
over its prompt and itself is one triangle, although prompts differ in length.

Shapes: B rows, P prompts, N flat tokens, R rows and W columns of a table, M predicted tokens.
"""

from dataclasses import dataclass, fields, replace

import torch


@dataclass(frozen=True)
class Table:
    """R rows of W positions: which flat token is where."""

    index_RW: torch.Tensor  # the flat token at each position, or -1
    start: int  # position of the first queries; those before it have keys and values only
    ends: tuple[int, ...]  # of each row: no queries from this position on

    @property
    def num_queries(self) -> int:
        """Positions of a row that may have a query."""
        return self.index_RW.shape[1] - self.start


@dataclass(frozen=True)
class Layout:
    """Both tables, the places of the flat tokens in them, and the columns that are predicted.

    Example. Rows 0 and 2 continue prompt 0 (3 tokens) by 5 and 3 tokens, row 1 continues prompt
    1 (2 tokens) by 2. Each completion's last token predicts nothing and is left out: N = 12.

        flat token    0  1  2 | 3  4 | 5  6  7  8 | 9 | 10 11
        of            prompt 0| pr. 1| row 0      |r 1| row 2
        positions_N   0  1  2   0  1   3  4  5  6   2    3  4
        places_N      0  1  2   3  4   3  4  5  6   9   17 18
        tokens_N      0  1  2   8  9   3  4  5  6  10   19 20

    places_N = row of the table * its width + position. The prompts' table is S = 3 wide, the
    rows' table W = 7: token 4 is at 1 * 3 + 1 = 4, token 10 at 2 * 7 + 3 = 17.
    tokens_N = row of the batch * (W + 1) + position. A prompt is read in the first row that has
    it: token 4 is in row 1, at 1 * 8 + 1 = 9.
    columns_M = row * (W + 1 - start) + predicted position - start, where the batch's columns
    begin at `start` = 2, the shortest prompt, so there are 6. A completion's first token is
    predicted by its prompt's last: of row 2, at position 3, that is 2 * 6 + 3 - 2 = 13. Flat
    token 11, at position 4 of row 2, predicts position 5: 2 * 6 + 5 - 2 = 15.
    """

    prompts: Table
    rows: Table
    num_prompt_tokens: int  # they are the first of the N tokens
    edges: torch.Tensor  # [P + B + 1]: first token of each prompt, of each completion, and N
    positions_N: torch.Tensor
    places_N: (
        torch.Tensor
    )  # in the flattened table: of prompts for the first `num_prompt_tokens`, else of rows
    tokens_N: torch.Tensor  # places in the flattened tokens of the batch
    prompt_B: torch.Tensor  # the prompt of each row
    order_B: torch.Tensor  # the rows sorted by prompt ...
    bounds_P: torch.Tensor  # ... [P + 1]: those of prompt p are order[bounds[p] : bounds[p + 1]]
    last_P: torch.Tensor  # the last flat token of each prompt
    # Where the M predicted tokens are among the batch's flattened columns: first the first token of
    # every completion (predicted by `last_P`), then the others in flat order.
    columns_M: torch.Tensor

    @classmethod
    def whole(cls, rows: int, width: int, device: torch.device) -> "Layout":
        """The layout of rows without padding that share nothing: `rows` prompts, no completions."""
        index_RW = torch.arange(rows * width, device=device).view(rows, width)
        none = index_RW.new_empty(0)
        return cls(
            Table(index_RW, 0, (width,) * rows),
            Table(none.view(0, 0), 0, ()),
            rows * width,
            torch.arange(rows + 1, device=device) * width,
            torch.arange(width, device=device).repeat(rows),
            index_RW.flatten(),
            index_RW.flatten(),
            none,
            none,
            none.new_zeros(rows + 1),
            index_RW[:, -1],
            none,
        )

    @classmethod
    def of(cls, keys: list[int], prompts: list[int], completions: list[int]) -> "Layout":
        """The layout of B rows, from each row's prompt key, prompt length and completion length."""
        first = {key: row for row, key in reversed(list(enumerate(keys)))}
        places = {key: place for place, key in enumerate(dict.fromkeys(keys))}
        B, P = len(keys), len(places)
        prompt_B = torch.tensor([places[key] for key in keys])
        source_P = torch.tensor([first[key] for key in places])
        s_B, own_B = torch.tensor(prompts), torch.tensor(completions) - 1
        s_P, end_B = s_B[source_P], s_B + own_B
        start, S, W = int(s_B.min()), int(s_P.max()), int(end_B.max())
        # Flat tokens come in P + B runs.
        sizes = torch.cat([s_P, own_B])
        begin = sizes.cumsum(0) - sizes
        run_N = torch.arange(P + B).repeat_interleave(sizes)
        positions_N = torch.arange(len(run_N)) - begin[run_N]
        positions_N += torch.cat([torch.zeros_like(s_P), s_B])[run_N]
        num_prompt_tokens = int(s_P.sum())
        table_N = run_N.clone()
        table_N[num_prompt_tokens:] -= P
        places_N = positions_N + table_N * torch.where(run_N < P, S, W)
        begin_P, begin_B = begin.split([P, B])
        at_W = torch.arange(W)
        index_BW = torch.where(
            at_W < s_B[:, None], begin_P[prompt_B, None] + at_W, (begin_B - s_B)[:, None] + at_W
        ).masked_fill_(at_W >= end_B[:, None], -1)
        at_S = at_W[:S]
        index_PS = (begin_P[:, None] + at_S).masked_fill_(at_S >= s_P[:, None], -1)
        columns = W + 1 - start
        first_B = torch.arange(B) * columns + s_B - start
        rest = run_N[num_prompt_tokens:] - P
        columns_M = torch.cat(
            [first_B, rest * columns + positions_N[num_prompt_tokens:] + 1 - start]
        )
        counts_P = torch.bincount(prompt_B, minlength=P)
        return cls(
            Table(index_PS, 0, tuple(s_P.tolist())),
            Table(index_BW, start, tuple(end_B.tolist())),
            num_prompt_tokens,
            torch.cat([begin, sizes.sum()[None]]),
            positions_N,
            places_N,
            torch.cat([source_P, torch.arange(B)])[run_N] * (W + 1) + positions_N,
            prompt_B,
            prompt_B.argsort(stable=True),
            torch.cat([counts_P.new_zeros(1), counts_P.cumsum(0)]),
            begin_P + s_P - 1,
            columns_M,
        )

    @property
    def tokens(self) -> int:
        """N, the tokens that are computed."""
        return len(self.positions_N)

    def to(self, device: torch.device | str) -> "Layout":
        """The same layout with every tensor on `device`."""
        moved = {
            field.name: getattr(self, field.name).to(device)
            for field in fields(self)
            if isinstance(getattr(self, field.name), torch.Tensor)
        }
        for name in ("prompts", "rows"):
            table = getattr(self, name)
            moved[name] = replace(table, index_RW=table.index_RW.to(device))
        return replace(self, **moved)

    def scatter(self, values_M: torch.Tensor) -> torch.Tensor:
        """[B, T] in the batch's columns: one number for each own token, 0 elsewhere."""
        columns = self.rows.num_queries + 1
        values_BT = values_M.new_zeros(len(self.prompt_B) * columns)
        return values_BT.index_put((self.columns_M,), values_M).view(-1, columns)
