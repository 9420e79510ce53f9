"""A budget for thinking: how many tokens a thought may have, how many it must have, and what is
written where the model would decide otherwise.

    maximum   at `max_tokens` the thought is closed and the answer begun, both in forced tokens
    minimum   the end of a thought is suppressed, and `wait_text` stands in its place
    total     thought, close and answer together have at most `Sampling.max_new_tokens`

A thought begins with the completion: its prompt ends inside an open `<think>`. Its tokens are those
before `</think>`, the forced ones of `wait_text` included.

Source: budget forcing of s1 (arXiv 2501.19393). There the answer begins with "Final Answer:", here
with the tag that the tasks read.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from aha.core.errors import ConfigError
from aha.tasks.tags import ANSWER_OPEN, THINK_CLOSE, THINK_OPEN

ANSWER_ROOM = 32  # tokens that the close and the answer of a puzzle need
TAG_LEAD = f"\n{ANSWER_OPEN}"  # after a forced `</think>`, for answers in tags
CHAT_LEAD = "\n\n"  # for answers in plain text
WAIT, WAIT_IN_SEARCH = "Wait", "back "  # for models of language; for our bases


@dataclass(frozen=True)
class ThinkingBudget:
    """The budget of every thought of a rollout, in tokens.

    `max_tokens` None: what `max_new_tokens` leaves after ANSWER_ROOM. An end of the thought is
    suppressed while the thought has fewer than `min_tokens` (None: however many it has), and at
    most `waits` times (None: without a limit where there is a `min_tokens`, else never).
    `wait_text` None: WAIT_IN_SEARCH for a vocabulary that has it as a token, else WAIT.
    `answer_lead` is written behind a forced `</think>`.

    Raises `ConfigError` for numbers that contradict each other.
    """

    max_tokens: int | None = None
    min_tokens: int | None = None
    waits: int | None = None
    wait_text: str | None = None
    answer_lead: str = TAG_LEAD

    def __post_init__(self) -> None:
        for name, value in (("max", self.max_tokens), ("min", self.min_tokens)):
            if value is not None and value < 0:
                raise ConfigError(f"a thinking {name} of {value} tokens", "0 or more")
        if self.waits is not None and self.waits < 0:
            raise ConfigError(f"{self.waits} waits", "0 or more")
        if None not in (self.min_tokens, self.max_tokens) and self.least > self.most(10**15):
            raise ConfigError(
                f"at least {self.min_tokens} tokens of thinking and at most {self.max_tokens}",
                "a minimum that is not above the maximum",
                f"a minimum of {self.max_tokens}",
            )
        if self.waits == 0 and self.least:
            raise ConfigError(
                f"at least {self.min_tokens} tokens of thinking and 0 waits",
                "waits, by which a thought becomes longer",
                "leave the number of waits out",
            )
        if self.wait_text is not None and (not self.wait_text or self.wait_text.endswith("\n")):
            raise ConfigError(
                f"the wait text {self.wait_text!r}", "a text that a line can go on after", "Wait"
            )
        if self.wait_text is not None and THINK_CLOSE in self.wait_text:
            raise ConfigError(
                f"the wait text {self.wait_text!r}", f"a text without {THINK_CLOSE}", "Wait"
            )

    @property
    def least(self) -> int:
        """The minimum, 0 where there is none."""
        return self.min_tokens or 0

    @property
    def suppresses(self) -> bool:
        """Whether any end of a thought may be suppressed."""
        return bool(self.waits or (self.waits is None and self.min_tokens))

    def most(self, max_new_tokens: int) -> int:
        """The most tokens of a thought, in a completion of at most `max_new_tokens`.

        Raises `ConfigError` where they leave no room for the answer.
        """
        room = max_new_tokens - ANSWER_ROOM
        largest = room if self.max_tokens is None else self.max_tokens
        if largest > room or room < self.least:
            thinking = max(self.max_tokens or 0, self.least)
            raise ConfigError(
                f"{thinking} tokens of thinking in a completion of at most {max_new_tokens}",
                f"{ANSWER_ROOM} tokens more than the thought, for the answer",
                f"--rollout.max_new_tokens {thinking + ANSWER_ROOM}",
            )
        return largest


def lead_for(prompts: Iterable[str], has_answer_token: bool) -> str:
    """What follows a forced close: the answer's tag, where the vocabulary has it as a token or each
    prompt asks for it."""
    texts = list(prompts)
    in_tags = has_answer_token or (bool(texts) and all(ANSWER_OPEN in text for text in texts))
    return TAG_LEAD if in_tags else CHAT_LEAD


def check_thought_is_open(prompt: str) -> None:
    """Raises `ConfigError` where a prompt does not end inside an open thought: what a completion
    then begins with is an answer, and closing a thought would only spoil it."""
    if prompt.rfind(THINK_OPEN) <= prompt.rfind(THINK_CLOSE):
        raise ConfigError(
            f"a thinking budget for a prompt that opens no {THINK_OPEN}",
            f"a prompt that ends inside {THINK_OPEN}, as those of the tasks do",
            "leave the budget out",
        )
