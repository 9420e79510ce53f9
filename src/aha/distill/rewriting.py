"""The stage that puts a teacher's words into the student's form, by rule or by another model.

Sky-T1 had a small model rewrite each trace "almost word for word" for about $100, after which its
parser read over 90 % of them and not 25 %. A rule costs nothing, and changes no word.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from aha.distill.ledger import LedgerEntry
from aha.distill.problem_rows import Row
from aha.distill.stages import Stage
from aha.distill.tag_writer import in_tags
from aha.distill.teachers import count_in, endpoint_cost, key_of, lost_row
from aha.endpoints.chat_requests import Endpoint, Resumed, TryAgain, chat_answer, send_all
from aha.tasks.tags import well_formed

NO_FORM = "without an answer that can be put into the tags"
NOT_REWRITTEN = "not rewritten"
REQUEST = """\
Below, between two lines of tildes, stands somebody's solution of a problem. Write it again in \
this form:

the thoughts, in full and almost word for word
</think>
<answer>the final answer alone</answer>

Keep every step, also those that turn out to be wrong. Do not solve the problem yourself, add \
nothing, and write nothing outside of this form.
~~~~~~~~
{text}
~~~~~~~~"""


@dataclass(frozen=True)
class Rewriter(Endpoint):
    """The endpoint of a model that rewrites. `prices` as of a teacher."""

    role: ClassVar[str] = "rewriter"
    option: ClassVar[str] = "--rewrite"
    key_variable: ClassVar[str] = "AHA_REWRITE_KEY"

    max_tokens: int = 4_096
    prices: tuple[float, float] | None = None

    def body_of(self, text: str, retry: int) -> Row:
        """The request about a completion."""
        content = REQUEST.format(text=text.replace("~~~", "~ ~"))
        return {
            **self.model_field(),
            "messages": [{"role": "user", "content": content}],
            "temperature": 0,
            "max_tokens": self.max_tokens,
            "seed": self.seed + retry,
        }

    def key_of(self, row: Row) -> str:
        """What a rewritten answer depends on."""
        return key_of("rewritten", self.model, self.max_tokens, self.seed, row["text"])


def has_no_end(row: Row) -> bool:
    """Whether an answer is truncated or empty: nothing to rewrite, and the grading counts it as
    what it is."""
    return row["finish"] == "length" or not row["text"].strip()


def rewrite_by_rule(answers: Sequence[Row]) -> Stage:
    """Each answer in the tags, its words unchanged."""
    stage = Stage("rewritten")
    for row in answers:
        text = row["text"] if has_no_end(row) else in_tags(row["text"])
        if text is None:
            stage.drop(NO_FORM, row["text"][-80:])
        else:
            stage.keep({**row, "text": text})
    return stage


def rewrite_by_model(
    answers: Sequence[Row],
    rewriter: Rewriter,
    earlier: tuple[Mapping[str, Row], Mapping[str, Row]],
    keep: tuple[Callable[[Row], object], Callable[[Row], object]],
    progress: Callable[[int, int], None],
) -> tuple[Stage, list[Row]]:
    """(the stage, the rows of the rewriter's answers). What is in the form already is not sent, nor
    what has no end.

    `earlier` has the rewriter's answers by their keys, and what it could not rewrite; `keep` takes
    the new ones of both. Raises `ConfigError` as `send_all` does.
    """
    (known, given_up), (keep_row, lose) = earlier, keep
    plain = {
        rewriter.key_of(row): row["text"]
        for row in answers
        if not has_no_end(row) and not well_formed(row["text"])
    }
    left = {k: text for k, text in plain.items() if k not in known and k not in given_up}
    rows = {key: known[key] for key in plain if key in known}

    def keep_reply(key: str, reply: tuple[str, Row]) -> None:
        rows[key] = {"key": key, "text": reply[0], **reply[1]}
        keep_row(rows[key])

    lost = {key: str(row.get("details", "")) for key, row in given_up.items()}
    lost |= send_all(
        rewriter,
        left,
        rewriter.body_of,
        read_rewritten,
        keep_reply,
        progress,
        Resumed(bool(rows), lambda key, why: lose(lost_row(key, NOT_REWRITTEN, why))),
    ).lost
    stage = Stage("rewritten")
    for row in answers:
        key = rewriter.key_of(row)
        if key not in plain:
            stage.keep(row)
        elif key in rows:
            stage.keep({**row, "text": rows[key]["text"]})
        else:
            stage.drop(NOT_REWRITTEN, lost.get(key, ""))
    return stage, list(rows.values())


def read_rewritten(content: Any) -> tuple[str, Row]:
    """(the completion in the tags, its tokens). Raises `TryAgain` for one in another form."""
    answer = chat_answer(content)
    text = None if answer is None else in_tags(answer)
    if text is None or content["choices"][0].get("finish_reason") == "length":
        raise TryAgain("an answer without the tags, or one that was cut")
    usage = content.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    return text, {
        "tokens": count_in(counts, "completion_tokens"),
        "prompt_tokens": count_in(counts, "prompt_tokens"),
    }


def rewriting_cost(rewriter: Rewriter, rows: Sequence[Row]) -> LedgerEntry:
    """What the rewriter's answers have cost."""
    return endpoint_cost("rewriting", rows, rewriter.prices, "--rewrite-price")
