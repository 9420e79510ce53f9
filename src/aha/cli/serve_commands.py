"""`aha serve`, `aha chat`."""

from typing import Annotated

from cyclopts import Parameter, validators

from aha.cli.app import Count, app


@app.command
def serve(
    model: str,
    *,
    host: str = "127.0.0.1",
    port: Annotated[int, Parameter(validator=validators.Number(gte=0, lte=65_535))] = 8000,
    name: str | None = None,
) -> None:
    """Serve a model to OpenAI's clients: chat and text completions, streamed or whole.

    Parameters
    ----------
    model
        aha-tiny, a run folder, a Hugging Face model folder or a name on the hub.
    host
        127.0.0.1 is seen from this machine alone; any other asks for a token that is
        printed, as the API key.
    port
        where to listen; the next free one if it is taken, 0 for any.
    name
        what clients call the model; the last part of MODEL unless given.
    """
    from aha.cli.talking import serve_model

    serve_model(model, host, port, name)


@app.command
def chat(
    model: str = "aha-tiny",
    *,
    base: str | None = None,
    seed: int = 0,
    temperature: Annotated[float, Parameter(validator=validators.Number(gte=0, lte=10))] = 1.0,
    max_new_tokens: Count = 1024,
) -> None:
    """Type your own puzzles: base and trained model answer side by side, judged at the end.

    Parameters
    ----------
    model
        a run folder, or any model.
    base
        the model beside it; a run's own base unless given.
    """
    from aha.cli.talking import chat_with

    how = {"seed": seed, "temperature": temperature, "max_new_tokens": max_new_tokens}
    chat_with(model, base, how)
