"""Teachers: a model of ours that generates here, or an endpoint that is asked.

Each answer is appended to a file at once, under a key that says all it depends on: teacher, prompt,
limits, seed. So an answer is paid for once, whatever stops the process.
"""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol

from aha.core.errors import ModelError
from aha.core.records import Completion, Problem, Prompt
from aha.core.seeds import seed_for
from aha.distill.ledger import LedgerEntry, machine_entry
from aha.distill.problem_rows import Row, bare_request, problem_row
from aha.endpoints.chat_requests import (
    TEXT,
    Endpoint,
    Resumed,
    TryAgain,
    chat_answer,
    send_all,
)
from aha.machine.device import gpu_name
from aha.model.folders import resolve_model
from aha.model.own_words import CHATML, ONE_TURN
from aha.model.parents import Parent, chain_of
from aha.model.weights import load_model
from aha.plan.machines import price_of
from aha.rollout.engine import Sampling
from aha.rollout.native import open_engine
from aha.store.checksums import digests
from aha.tasks.protocol import Task
from aha.tasks.tags import THINK_CLOSE

PART = 64  # problems that go to our engine together, and whose answers are kept together
WHAT = "teacher's generation"
UNANSWERED, UNREADABLE = "without an answer", "that the teacher cannot read"
OUT_OF_CONTEXT = "longer than the teacher's context"
CUT = ("content_filter", "abort", "error", "tool_calls", "function_call")  # an end, and no own one
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Questions:
    """What a teacher is asked: problems of a task, `per_problem` answers to each."""

    task: Task
    problems: Sequence[Problem]
    sampling: Sampling  # its group size is the number of answers to each problem


class Request(NamedTuple):
    """One answer to be given: to a problem, number `member` of it. `key` says what it depends
    on."""

    key: str
    problem: Problem
    prompt: str
    member: int


@dataclass(frozen=True)
class KeptAnswers:
    """Where a teacher's answers go as they come: `rows`; and requests that a working endpoint has
    not answered: `lost`. `some`: whether it has answered in an earlier call."""

    rows: Callable[[list[Row]], object]
    lost: Callable[[Row], object] = bool
    some: bool = False


@dataclass
class TeacherAnswers:
    """How many requests were answered now, and why others were not."""

    new: int = 0
    lost: list[tuple[str, str]] = field(default_factory=list)  # (reason, details)


class Teacher(Protocol):
    """Answers questions, and says what that has cost."""

    name: str

    def requests(self, questions: Questions) -> list[Request]:
        """A request for each answer, in the order of the problems."""

    def answer(
        self,
        requests: Sequence[Request],
        questions: Questions,
        kept: KeptAnswers,
        progress: Progress,
    ) -> TeacherAnswers:
        """Answer these; `kept` gets the rows of answers as they come."""

    def cost(self, rows: Sequence[Row]) -> LedgerEntry:
        """What these answers have cost."""

    def chain(self) -> list[Parent]:
        """What made the teacher, as far as it is known."""


def key_of(*parts: object) -> str:
    """A hash of all that an answer depends on."""
    text = "\x1f".join(map(str, parts))
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def requests_of(questions: Questions, identity: str) -> list[Request]:
    """The requests to the teacher of this identity."""
    task, sampling = questions.task, questions.sampling
    limits = (sampling.temperature, sampling.max_new_tokens, sampling.seed, sampling.group_size)
    requests = []
    for problem in questions.problems:
        prompt = task.ask(problem)
        for member in range(sampling.group_size):
            key = key_of(identity, prompt, *limits, member)
            requests.append(Request(key, problem, prompt, member))
    return requests


def answer_row(request: Request, teacher: str, text: str, finish: str) -> Row:
    """An answer as one row of its file, without its costs."""
    row: Row = {"key": request.key, "problem": problem_row(request.problem)}
    return row | {
        "member": request.member,
        "teacher": teacher,
        "text": text,
        "finish": finish,
    }


def lost_row(key: str, reason: str, details: str) -> Row:
    """A request without an answer as one row of its file: it is not sent again."""
    return {"key": key, "reason": reason, "details": details}


def tokens_of(rows: Sequence[Row]) -> int | None:
    """The tokens of all answers; None where one of them was not counted."""
    counts = [row.get("tokens") for row in rows]
    return None if None in counts else sum(int(count or 0) for count in counts)


# -- a model of ours ------------------------------------------------------------------------------


class OwnTeacher:
    """A run, a model folder or a name on the hub, generated by our engine on this machine."""

    def __init__(self, name: str, usd_per_hour: float | None, watts: float | None):
        self.name = name
        self.folder = resolve_model(name)
        self.model = load_model(self.folder)
        self.engine = open_engine(self.model.policy, self.model.tokenizer)
        weights = sorted(self.folder.glob("*.safetensors"))
        self.identity = key_of("own", *digests(weights).values())
        self.price = price_of(gpu_name(self.model.policy.device), usd_per_hour, watts)

    def requests(self, questions: Questions) -> list[Request]:
        return requests_of(questions, self.identity)

    def answer(
        self,
        requests: Sequence[Request],
        questions: Questions,
        kept: KeptAnswers,
        progress: Progress,
    ) -> TeacherAnswers:
        """Generate them, some problems at a time."""
        left = {request.key: request for request in requests}
        known = {(r.problem.id, r.member): r.key for r in requests}
        members: dict[str, list[Request]] = {}
        for request in requests:
            members.setdefault(request.problem.id, []).append(request)
        answers, limit = TeacherAnswers(), questions.sampling.max_new_tokens
        prompts: list[Prompt] = []
        for group in members.values():
            prompt = self.readable(group[0], limit)
            if isinstance(prompt, Prompt):
                prompts.append(prompt)
            else:
                answers.lost += [prompt] * len(group)
        for first in range(0, len(prompts), PART):
            part = prompts[first : first + PART]
            started = time.perf_counter()
            groups = self.engine.generate(part, questions.sampling)
            seconds = (time.perf_counter() - started) / sum(map(len, groups))
            rows = [
                self.row_of(left[key], completion, seconds)
                for prompt, group in zip(part, groups, strict=True)
                for member, completion in enumerate(group)
                # Others of the group are kept already.
                if (key := known.get((prompt.problem.id, member))) is not None
            ]
            kept.rows(rows)
            answers.new += len(rows)
            progress(min(first + PART, len(prompts)), len(prompts))
        return answers

    def readable(self, request: Request, limit: int) -> Prompt | tuple[str, str]:
        """The prompt in tokens; (reason, details) where the teacher cannot read it."""
        positions = self.model.policy.config.max_position_embeddings
        try:
            text = self.model.tokenizer.say(request.prompt)
            prompt = Prompt(request.problem, text, tuple(self.model.tokenizer.encode(text)))
        except ModelError as error:
            return UNREADABLE, error.got
        if len(prompt.tokens) + limit > positions:
            return OUT_OF_CONTEXT, f"{len(prompt.tokens)} tokens and {limit} more, of {positions}"
        return prompt

    def row_of(self, request: Request, completion: Completion, seconds: float) -> Row:
        costs = {"tokens": len(completion.tokens), "prompt_tokens": len(completion.prompt.tokens)}
        row = answer_row(request, self.name, completion.text, completion.finish)
        return row | costs | {"seconds": seconds}

    def cost(self, rows: Sequence[Row]) -> LedgerEntry:
        seconds = sum(float(row.get("seconds") or 0.0) for row in rows)
        return machine_entry(WHAT, seconds, self.price, tokens_of(rows))

    def chain(self) -> list[Parent]:
        return chain_of(self.folder)


# -- an endpoint ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class TeacherEndpoint(Endpoint):
    """The endpoint of a teacher. `prices`: USD for a million tokens of prompts and of answers."""

    role: ClassVar[str] = "teacher"
    option: ClassVar[str] = "--teacher"
    key_variable: ClassVar[str] = "AHA_TEACHER_KEY"

    prices: tuple[float, float] | None = None


class Reply(NamedTuple):
    """What is read out of a reply; tokens None where the endpoint does not count them."""

    text: str
    finish: str
    prompt_tokens: int | None
    tokens: int | None


class EndpointTeacher:
    """A model behind OpenAI's interface."""

    def __init__(self, endpoint: TeacherEndpoint):
        endpoint.address()  # a wrong address is an error before anything else
        # A server of one model needs no name of it.
        self.endpoint, self.name = endpoint, endpoint.model or endpoint.url

    def requests(self, questions: Questions) -> list[Request]:
        return requests_of(questions, f"{self.endpoint.path} {self.name}")

    def answer(
        self,
        requests: Sequence[Request],
        questions: Questions,
        kept: KeptAnswers,
        progress: Progress,
    ) -> TeacherAnswers:
        """Send them, several at a time. Raises `ConfigError` where the endpoint refuses them all
        or does not answer any more."""
        by_key = {request.key: request for request in requests}
        sampling = questions.sampling
        replies = send_all(
            self.endpoint,
            by_key,
            lambda request, retry: self.body_of(request, sampling, retry),
            self.read,
            lambda key, reply: kept.rows([self.row_of(by_key[key], reply)]),
            progress,
            Resumed(kept.some, lambda key, why: kept.lost(lost_row(key, UNANSWERED, why))),
        )
        lost = [(UNANSWERED, why) for why in replies.lost.values()]
        return TeacherAnswers(len(replies.answers), lost)

    def body_of(self, request: Request, sampling: Sampling, retry: int) -> Row:
        """The JSON of a request."""
        seed = seed_for(sampling.seed, "teacher", request.problem.id, request.member)
        content: Row = {"messages": messages_of(request.prompt)}
        if self.endpoint.path == TEXT:
            content = {"prompt": request.prompt}
        return {
            **self.endpoint.model_field(),
            **content,
            "temperature": sampling.temperature,
            "max_tokens": sampling.max_new_tokens,
            "seed": (seed + retry) % 2**31,
        }

    def read(self, content: Any) -> Reply:
        """The reply's text, with the thought that some servers keep apart from it. A thought that
        the limit has cut has no text after it. Raises `TryAgain`."""
        chat = self.endpoint.path != TEXT
        text = chat_answer(content) if chat else text_answer(content)
        message = message_in(content) if chat else {}
        thought = thought_of(message)
        if text is None and (not thought or message.get("content") is not None):
            raise TryAgain("a reply without a completion")
        ended = content["choices"][0].get("finish_reason")
        if ended in CUT:
            raise TryAgain(f"a completion that ended by {ended!r}")
        text = text or ""
        if thought and THINK_CLOSE not in text:
            text = f"{thought}\n{THINK_CLOSE}\n{text}"
        finish = "length" if ended == "length" else "stop"
        usage = content.get("usage")
        counts = usage if isinstance(usage, dict) else {}
        return Reply(
            text, finish, count_in(counts, "prompt_tokens"), count_in(counts, "completion_tokens")
        )

    def row_of(self, request: Request, reply: Reply) -> Row:
        row = answer_row(request, self.name, reply.text, reply.finish)
        return row | {"tokens": reply.tokens, "prompt_tokens": reply.prompt_tokens}

    def cost(self, rows: Sequence[Row]) -> LedgerEntry:
        return endpoint_cost(WHAT, rows, self.endpoint.prices, "--teacher-price")

    def chain(self) -> list[Parent]:
        return [Parent(name=self.name, kind="model", cost_usd=None, kwh=None)]


def endpoint_cost(
    what: str, rows: Sequence[Row], prices: tuple[float, float] | None, option: str
) -> LedgerEntry:
    """The price of the tokens of an endpoint's answers; not known without prices, or where the
    endpoint has not counted."""
    tokens = tokens_of(rows)
    read = tokens_of([{"tokens": row.get("prompt_tokens")} for row in rows])
    if prices is None:
        return LedgerEntry(what, None, tokens=tokens, why=f"its price was not given: {option}")
    if tokens is None or read is None:
        return LedgerEntry(what, None, why="the endpoint counts no tokens")
    return LedgerEntry(what, (read * prices[0] + tokens * prices[1]) / 1e6, tokens=tokens)


def messages_of(prompt: str) -> list[dict[str, str]]:
    """A prompt as a chat model is asked: the turns of a conversation in ChatML, else one message.
    The begun answer is left out: no interface of this kind goes on with one."""
    match = CHATML.fullmatch(prompt)
    if match is None:
        return [{"role": "user", "content": bare_request(prompt)}]
    turns = ONE_TURN.findall(match["turns"])
    return [{"role": role, "content": content} for role, content in turns]


def text_answer(content: Any) -> str | None:
    """The text of the first choice; None if this is not a text completion."""
    try:
        answer = content["choices"][0]["text"]
    except (KeyError, IndexError, TypeError):
        return None
    return answer if isinstance(answer, str) else None


def message_in(content: Any) -> Mapping[str, Any]:
    """The message of a chat completion; empty if this is none."""
    try:
        message = content["choices"][0]["message"]
    except (KeyError, IndexError, TypeError):
        return {}
    return message if isinstance(message, dict) else {}


def thought_of(message: Mapping[str, Any]) -> str:
    """The thought that a server keeps apart from the answer, under either of its usual names."""
    names = ("reasoning_content", "reasoning")
    return next((text for name in names if isinstance(text := message.get(name), str)), "")


def count_in(usage: Mapping[str, Any], name: str) -> int | None:
    """A count of tokens; None where there is none."""
    value = usage.get(name)
    return value if type(value) is int and value >= 0 else None
