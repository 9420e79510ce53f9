"""OpenAI's response objects: whole, in chunks, and errors."""

import secrets
import time
from typing import Any

import aha
from aha.core.errors import AhaError
from aha.core.records import Completion, Prompt
from aha.serve.request_body import RequestError
from aha.serve.scheduler import Busy, Piece


class ApiResponse:
    """The response to one request, at the endpoint for chats or for texts.

    `n` is the number of completions of each prompt. Completions are numbered over all prompts:
    those of the first prompt, then those of the second.
    """

    def __init__(self, chat: bool, model: str, prompts: list[Prompt], n: int):
        self.chat, self.prompts, self.n = chat, prompts, n
        kind, self.object = ("chatcmpl", "chat.completion") if chat else ("cmpl", "text_completion")
        self.head = {
            "id": f"{kind}-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": f"aha-{aha.__version__}",
        }

    def whole(self, completions: dict[int, Completion]) -> dict[str, Any]:
        """The response to a request that is not streamed."""
        choices = []
        for index, completion in sorted(completions.items()):
            message = {"role": "assistant", "content": completion.text, "refusal": None}
            content = {"message": message} if self.chat else {"text": completion.text}
            choices.append(
                {"index": index, **content, "logprobs": None, "finish_reason": completion.finish}
            )
        usage = self.usage(completions)
        return {"object": self.object, **self.head, "choices": choices, "usage": usage}

    def first_chunks(self) -> list[dict[str, Any]]:
        """A streamed chat begins with the role of each message."""
        delta = {"role": "assistant", "content": ""}
        return [self.chunk(index, delta, None) for index in range(self.n)] if self.chat else []

    def chunks(self, piece: Piece) -> list[dict[str, Any]]:
        """One chunk for new text, one for the end of the completion."""
        finish = piece.completion.finish if piece.completion else None
        if not self.chat:
            return [self.chunk(piece.index, piece.text, finish)]
        chunks = [self.chunk(piece.index, {"content": piece.text}, None)] if piece.text else []
        return chunks + ([self.chunk(piece.index, {}, finish)] if finish else [])

    def chunk(
        self, index: int, content: dict[str, str] | str, finish: str | None
    ) -> dict[str, Any]:
        """A chunk of one completion."""
        field = "delta" if self.chat else "text"
        choice = {"index": index, field: content, "logprobs": None, "finish_reason": finish}
        return self.envelope([choice], None)

    def usage_chunk(self, completions: dict[int, Completion]) -> dict[str, Any]:
        """The last chunk, if the request asks for the usage."""
        return self.envelope([], self.usage(completions))

    def envelope(
        self, choices: list[dict[str, Any]], usage: dict[str, int] | None
    ) -> dict[str, Any]:
        """The outer object of every chunk."""
        kind = "chat.completion.chunk" if self.chat else self.object
        return {"object": kind, **self.head, "choices": choices, "usage": usage}

    def usage(self, completions: dict[int, Completion]) -> dict[str, int]:
        """Tokens, as OpenAI counts them: a prompt once, however many completions it has."""
        prompt_tokens = sum(len(prompt.tokens) for prompt in self.prompts)
        completion_tokens = sum(len(completion.tokens) for completion in completions.values())
        return {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        }


def error_response(error: Exception) -> tuple[dict[str, Any], int]:
    """(body, HTTP status) of the response to a request that failed."""
    if isinstance(error, RequestError):
        return error_body(str(error), error.param, error.code), error.status
    if isinstance(error, Busy):
        return error_body(str(error), kind="rate_limit_error", code="rate_limit_exceeded"), 429
    if isinstance(error, AhaError):
        return error_body(str(error)), 400
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return error_body(text, kind="server_error"), 500


def error_body(
    message: str,
    param: str | None = None,
    code: str | None = None,
    kind: str = "invalid_request_error",
) -> dict[str, Any]:
    """An error in OpenAI's form; `param` is the field of the request that is wrong."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
