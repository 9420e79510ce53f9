"""`aha serve`: serves a model through OpenAI's interface."""

import time
from pathlib import Path

from aha.cli.parameters import Host, ModelName, Port
from aha.cli.terminal_text import say_line


def serve(
    model: ModelName,
    *,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    name: str | None = None,
) -> None:
    """Serve a model to OpenAI's clients: chat and text completions, streamed or whole.

    On an address other than 127.0.0.1, the printed token is the API key.

    Parameters
    ----------
    name
        Name of the model for clients; without it, the last part of MODEL.
    """
    from aha.serve.api import Api, make_api
    from aha.serve.open_models import ModelCache, run_config
    from aha.serve.prompts import TrainingTask
    from aha.tasks.problem_lines import countdown_from_config
    from aha.web.access import is_loopback, new_token
    from aha.web.server import browser_url, open_socket, run_server

    opened = ModelCache().get(model)
    task = run_config(model).get("task")
    task_name = task.get("name") if isinstance(task, dict) else None
    name = name or Path(model).resolve().name
    listener = open_socket(host, port)
    token = None if is_loopback(host) else new_token()
    url = browser_url(host, listener.getsockname()[1], None) + "v1"
    key = "any text" if token is None else token
    say_line(f"aha serve: {url}  model {name!r} ({opened.origin}), API key: {key}")
    api = Api(opened, name, TrainingTask(task_name, countdown_from_config(task)), int(time.time()))
    run_server(make_api(api, host, token), listener)
