"""OpenAI's interface to one model: /v1/models, /v1/completions, /v1/chat/completions."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from aha.core.errors import AhaError
from aha.core.records import Completion, Prompt
from aha.serve.open_models import OpenModel
from aha.serve.openai_format import ApiResponse, error_body, error_response
from aha.serve.prompts import TrainingTask, prompt_of_messages, prompts_of_text
from aha.serve.request_body import RequestError, object_of_body, short
from aha.serve.request_fields import RequestSettings, check_fields, read_settings
from aha.serve.scheduler import Event, Job, Piece, Scheduler
from aha.web.access import AccessControl

MAX_REQUEST_BYTES = 1_000_000


class Api:
    """The endpoints. All requests share one engine through a scheduler.

    `name` is the model's name for clients, `created` the time of its start in seconds since 1970.
    """

    def __init__(self, model: OpenModel, name: str, trained_on: TrainingTask, created: int):
        self.model, self.name, self.trained_on, self.created = model, name, trained_on, created
        self.scheduler = Scheduler()

    def routes(self) -> list[Route]:
        """Every address of the server."""
        return [
            Route("/v1/models", self.list_models),
            Route("/v1/models/{name:path}", self.describe_model),
            # With and without a slash: a client would have to send its body again elsewhere.
            *(
                Route(path + slash, endpoint, methods=["POST"])
                for slash in ("", "/")
                for path, endpoint in (
                    ("/v1/completions", self.text_completions),
                    ("/v1/chat/completions", self.chat_completions),
                )
            ),
        ]

    # -- models ------------------------------------------------------------------------------

    async def list_models(self, request: Request) -> Response:
        """The list of the one model."""
        return JSONResponse({"object": "list", "data": [self.model_object()]})

    async def describe_model(self, request: Request) -> Response:
        """The model by its name. Raises RequestError (404) for another name."""
        self.check_name(request.path_params["name"])
        return JSONResponse(self.model_object())

    def model_object(self) -> dict[str, Any]:
        """The model in OpenAI's form."""
        return {"id": self.name, "object": "model", "created": self.created, "owned_by": "aha"}

    def check_name(self, name: object) -> None:
        """Raise RequestError (404) where a request names another model; null names none."""
        if name is not None and name != self.name:
            raise RequestError(
                f"the model {short(name)}",
                f"{self.name!r}, the one that is served",
                param="model",
                status=404,
                code="model_not_found",
            )

    # -- completions -------------------------------------------------------------------------

    async def text_completions(self, request: Request) -> Response:
        """Completions of `prompt`, a text or a list of texts."""
        body = await self.read_body(request, "prompt")
        prompts = await run_in_threadpool(prompts_of_text, body, self.model.tokenizer)
        return await self.complete(request, prompts, body, chat=False)

    async def chat_completions(self, request: Request) -> Response:
        """Completions of `messages`."""
        body = await self.read_body(request, "messages")
        prompt = await run_in_threadpool(
            prompt_of_messages, body, self.model.tokenizer, self.trained_on
        )
        return await self.complete(request, [prompt], body, chat=True)

    async def read_body(self, request: Request, content: str) -> dict[str, Any]:
        """The request's JSON object. `content` is the field of the text: messages or prompt.

        Raises RequestError for too many bytes, no object, unknown fields or another model's name,
        ClientDisconnect where the client goes before all of it has come.
        """
        raw = bytearray()
        async for part in request.stream():
            raw += part
            if len(raw) > MAX_REQUEST_BYTES:
                raise RequestError(
                    f"a request of more than {MAX_REQUEST_BYTES} bytes", "a shorter one", status=413
                )
        body = object_of_body(bytes(raw), content)
        check_fields(body, content)
        self.check_name(body.get("model"))
        return body

    async def complete(
        self, request: Request, prompts: list[Prompt], body: dict[str, Any], chat: bool
    ) -> Response:
        """Generate and answer, streamed or whole. A client that disconnects ends the generation."""
        settings = read_settings(body, prompts, self.model)
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[Event] = asyncio.Queue()

        def enqueue(event: Event) -> None:  # called from the scheduler's thread
            loop.call_soon_threadsafe(queue.put_nowait, event)

        job = self.scheduler.submit(
            self.model.engine, prompts, settings.sampling, enqueue, settings.stop
        )
        response = ApiResponse(chat, self.name, prompts, settings.sampling.group_size)
        if settings.stream:
            return JobResponse(event_stream(response, settings, read_pieces(queue)), job)
        completions: dict[int, Completion] = {}
        departure = asyncio.create_task(end_with_client(request, queue))
        try:
            async for piece in read_pieces(queue):
                if piece.completion is not None:
                    completions[piece.index] = piece.completion
        finally:
            departure.cancel()
            job.stop()
        return JSONResponse(response.whole(completions))


class JobResponse(StreamingResponse):
    """A streamed response whose job ends with it, also where the client goes before the first
    byte: the stream itself is then never begun."""

    def __init__(self, lines: AsyncIterator[bytes], job: Job):
        super().__init__(lines, media_type="text/event-stream")
        self.job = job

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.job.stop()


async def end_with_client(request: Request, queue: asyncio.Queue[Event]) -> None:
    """Wait until the client has gone, then end the pieces: nobody reads the rest."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    queue.put_nowait(None)


async def read_pieces(queue: asyncio.Queue[Event]) -> AsyncIterator[Piece]:
    """The pieces of a job until its end; raises the error that ended it."""
    while (event := await queue.get()) is not None:
        if isinstance(event, Exception):
            raise event
        yield event


async def event_stream(
    response: ApiResponse, settings: RequestSettings, pieces: AsyncIterator[Piece]
) -> AsyncIterator[bytes]:
    """Chunks as server-sent events; an error during generation is the last one."""
    completions: dict[int, Completion] = {}
    try:
        for chunk in response.first_chunks():
            yield server_sent_event(chunk)
        async for piece in pieces:
            if piece.completion is not None:
                completions[piece.index] = piece.completion
            for chunk in response.chunks(piece):
                yield server_sent_event(chunk)
        if settings.with_usage:
            yield server_sent_event(response.usage_chunk(completions))
        yield b"data: [DONE]\n\n"
    except Exception as error:  # the HTTP status has been sent already
        yield server_sent_event(error_response(error)[0])


def server_sent_event(content: dict[str, Any]) -> bytes:
    """A JSON object as one event."""
    return b"data: " + json.dumps(content).encode() + b"\n\n"


async def _handle_error(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        got = f"{request.method} {request.url.path}: {error.detail}"
        return http_error(got, error.status_code)
    if isinstance(error, ClientDisconnect):  # nobody reads this, and it is no fault of ours
        return http_error("the client has gone", 400)
    content, status = error_response(error)
    return JSONResponse(content, status)


def http_error(message: str, status: int) -> Response:
    """An error of HTTP itself (address, method, access) in OpenAI's form."""
    kind = "authentication_error" if status in (401, 403) else "invalid_request_error"
    return JSONResponse(error_body(message, kind=kind), status)


def make_api(api: Api, host: str = "127.0.0.1", token: str | None = None) -> Starlette:
    """The server's application; with a token, every request must have it as its API key."""
    access = Middleware(
        AccessControl,
        host=host,
        token=token,
        methods=("GET", "HEAD", "POST"),
        error_response=http_error,
    )
    return Starlette(
        routes=api.routes(),
        middleware=[access],
        exception_handlers=dict.fromkeys(
            (HTTPException, AhaError, ClientDisconnect, Exception), _handle_error
        ),
    )
