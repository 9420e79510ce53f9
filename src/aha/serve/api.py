"""OpenAI's interface to one model: /v1/models, /v1/completions, /v1/chat/completions."""

import asyncio
import json
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from aha.core.errors import AhaError
from aha.core.records import Completion, Prompt
from aha.serve.open_models import OpenModel
from aha.serve.openai_format import ApiResponse, error_of, told
from aha.serve.prompts import TrainingTask, prompt_of_messages, prompts_of_text
from aha.serve.request_fields import RequestError, RequestSettings, check_fields, read_settings
from aha.serve.scheduler import Job, Piece, Scheduler
from aha.web.access import Guard

MOST_BYTES = 1_000_000  # of a request


class Api:
    """The endpoints. Requests share one engine and take turns."""

    def __init__(self, opened: OpenModel, name: str, trained: TrainingTask, created: int):
        self.opened, self.name, self.trained, self.created = opened, name, trained, created
        self.turns = Scheduler()

    def routes(self) -> list[Route]:
        return [
            Route("/v1/models", self.list_models),
            Route("/v1/models/{name:path}", self.one_model),
            Route("/v1/completions", self.complete, methods=["POST"]),
            Route("/v1/chat/completions", self.converse, methods=["POST"]),
        ]

    # -- models ------------------------------------------------------------------------------

    async def list_models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self.model()]})

    async def one_model(self, request: Request) -> Response:
        self.check_name(request.path_params["name"])
        return JSONResponse(self.model())

    def model(self) -> dict:
        return {"id": self.name, "object": "model", "created": self.created, "owned_by": "aha"}

    def check_name(self, name: object) -> None:
        if name != self.name:
            raise RequestError(
                f"the model {name!r}",
                f"{self.name!r}, the one that is served",
                param="model",
                status=404,
                code="model_not_found",
            )

    # -- completions -------------------------------------------------------------------------

    async def complete(self, request: Request) -> Response:
        body = await self.read(request, "prompt")
        prompts = prompts_of_text(body, self.opened.tokenizer)
        return await self.answer(request, prompts, body, chat=False)

    async def converse(self, request: Request) -> Response:
        body = await self.read(request, "messages")
        prompt = prompt_of_messages(body, self.opened.tokenizer, self.trained)
        return await self.answer(request, [prompt], body, chat=True)

    async def read(self, request: Request, content: str) -> dict:
        """The body of a request, its fields known and its model ours."""
        raw = bytearray()
        async for part in request.stream():
            raw += part
            if len(raw) > MOST_BYTES:
                raise RequestError(
                    f"a request of more than {MOST_BYTES} bytes", "a shorter one", status=413
                )
        try:
            body = json.loads(raw)
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            raise RequestError(f"{bytes(raw[:60])!r}", f"a JSON object with model and {content}")
        check_fields(body, content)
        self.check_name(body.get("model"))
        return body

    async def answer(
        self, request: Request, prompts: list[Prompt], body: dict, chat: bool
    ) -> Response:
        wanted = read_settings(body, prompts, self.opened)
        loop, news = asyncio.get_running_loop(), asyncio.Queue()

        def tell(piece: Piece | Exception | None) -> None:
            loop.call_soon_threadsafe(news.put_nowait, piece)

        job = self.turns.ask(self.opened.engine, prompts, wanted.sampling, tell, wanted.stop)
        answer = ApiResponse(chat, self.name, prompts, wanted.sampling.group_size)
        if wanted.stream:
            lines = events(answer, wanted, pieces(news), job)
            return StreamingResponse(lines, media_type="text/event-stream")
        done: dict[int, Completion] = {}
        try:
            async for piece in pieces(news):
                if piece.completion is not None:
                    done[piece.index] = piece.completion
                if await request.is_disconnected():
                    break
        finally:
            job.stop()
        return JSONResponse(answer.whole(done))


async def pieces(news: asyncio.Queue) -> AsyncIterator[Piece]:
    """What a job tells; raises what went wrong in it."""
    while (piece := await news.get()) is not None:
        if isinstance(piece, Exception):
            raise piece
        yield piece


async def events(
    answer: ApiResponse, wanted: RequestSettings, told_pieces: AsyncIterator[Piece], job: Job
) -> AsyncIterator[bytes]:
    """Chunks as server-sent events. A fault on the way is told as the last one."""
    done: dict[int, Completion] = {}
    try:
        for chunk in answer.opening():
            yield event(chunk)
        async for piece in told_pieces:
            if piece.completion is not None:
                done[piece.index] = piece.completion
            for chunk in answer.chunks(piece):
                yield event(chunk)
        if wanted.with_usage:
            yield event(answer.last(done))
        yield b"data: [DONE]\n\n"
    except Exception as error:  # the status has been sent long ago
        yield event(error_of(error)[0])
    finally:
        job.stop()


def event(content: dict) -> bytes:
    return b"data: " + json.dumps(content).encode() + b"\n\n"


async def _refuse(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        got = f"{request.method} {request.url.path}: {error.detail}"
        return refusal(got, error.status_code)
    content, status = error_of(error)
    return JSONResponse(content, status)


def refusal(message: str, status: int) -> Response:
    kind = "authentication_error" if status in (401, 403) else "invalid_request_error"
    return JSONResponse(told(message, kind=kind), status)


def make_api(api: Api, host: str = "127.0.0.1", token: str | None = None) -> Starlette:
    """The server's application; with a token, what comes must bring it as its API key."""
    door = Middleware(Guard, host=host, token=token, methods=("GET", "HEAD", "POST"), say=refusal)
    return Starlette(
        routes=api.routes(),
        middleware=[door],
        exception_handlers={HTTPException: _refuse, AhaError: _refuse, Exception: _refuse},
    )
