"""The shapes of OpenAI's answers: whole, in chunks, and errors."""

import secrets
import time

import aha
from aha.core.errors import AhaError
from aha.core.records import Completion, Prompt
from aha.serve.request_fields import RequestError
from aha.serve.scheduler import Busy, Piece


class ApiResponse:
    """The answers to one request, at the endpoint for conversations or for texts."""

    def __init__(self, chat: bool, model: str, prompts: list[Prompt], n: int):
        self.chat, self.prompts, self.n = chat, prompts, n
        kind, self.object = ("chatcmpl", "chat.completion") if chat else ("cmpl", "text_completion")
        self.head = {
            "id": f"{kind}-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": f"aha-{aha.__version__}",
        }

    def whole(self, done: dict[int, Completion]) -> dict:
        choices = []
        for index, completion in sorted(done.items()):
            said = {"role": "assistant", "content": completion.text, "refusal": None}
            content = {"message": said} if self.chat else {"text": completion.text}
            choices.append(
                {"index": index, **content, "logprobs": None, "finish_reason": completion.finish}
            )
        return {"object": self.object, **self.head, "choices": choices, "usage": self.usage(done)}

    def opening(self) -> list[dict]:
        """A conversation's stream begins with who speaks."""
        said = {"role": "assistant", "content": ""}
        return [self.chunk(index, said, None) for index in range(self.n)] if self.chat else []

    def chunks(self, piece: Piece) -> list[dict]:
        """One chunk for new text, one for the end."""
        finish = piece.completion and piece.completion.finish
        if not self.chat:
            return [self.chunk(piece.index, piece.text, finish)]
        parts = [self.chunk(piece.index, {"content": piece.text}, None)] if piece.text else []
        return parts + ([self.chunk(piece.index, {}, finish)] if finish else [])

    def chunk(self, index: int, said: dict | str, finish: str | None) -> dict:
        content = {"delta": said} if self.chat else {"text": said}
        choice = {"index": index, **content, "logprobs": None, "finish_reason": finish}
        return self.frame([choice], None)

    def last(self, done: dict[int, Completion]) -> dict:
        return self.frame([], self.usage(done))

    def frame(self, choices: list[dict], usage: dict | None) -> dict:
        kind = "chat.completion.chunk" if self.chat else self.object
        return {"object": kind, **self.head, "choices": choices, "usage": usage}

    def usage(self, done: dict[int, Completion]) -> dict:
        """Tokens, as OpenAI counts them: a prompt once, however many completions it has."""
        read = sum(len(prompt.tokens) for prompt in self.prompts)
        written = sum(len(completion.tokens) for completion in done.values())
        return {
            "prompt_tokens": read,
            "completion_tokens": written,
            "total_tokens": read + written,
        }


def error_of(error: Exception) -> tuple[dict, int]:
    """The content and the status of an error's answer."""
    if isinstance(error, RequestError):
        return told(str(error), error.param, error.code), error.status
    if isinstance(error, Busy):
        return told(str(error), kind="rate_limit_error", code="rate_limit_exceeded"), 429
    if isinstance(error, AhaError):
        return told(str(error)), 400
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return told(text, kind="server_error"), 500


def told(
    message: str,
    param: str | None = None,
    code: str | None = None,
    kind: str = "invalid_request_error",
) -> dict:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
