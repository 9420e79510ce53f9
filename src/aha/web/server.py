"""Runs the dashboard's server until Ctrl-C."""

import asyncio
import socket
import webbrowser
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from aha.core.errors import ConfigError
from aha.web.access import is_loopback, new_token
from aha.web.chat_page import StreamCompletion
from aha.web.dashboard import make_app


def serve(
    root: Path,
    host: str,
    port: int,
    open_browser: bool,
    stream_completion: StreamCompletion | None,
) -> None:
    """Serve the runs in a folder. On any address but the loopback a random token is required.

    Raises ConfigError where there is no such folder or no free port.
    """
    if not root.is_dir():
        raise ConfigError(f"no folder {root}", "a folder of runs, or one run", "aha dash runs")
    listener = open_socket(host, port)
    token = None if is_loopback(host) else new_token()
    url = browser_url(host, listener.getsockname()[1], token)
    print(f"aha dash: {url}  (Ctrl-C stops it)", flush=True)
    if open_browser:
        webbrowser.open(url)
    run_server(make_app(root, host, token, stream_completion), listener)


def run_server(app: ASGIApp, listener: socket.socket) -> None:
    """Serve an application on a socket until Ctrl-C."""
    asyncio.run(make_server(app).serve(sockets=[listener]))


def make_server(app: ASGIApp) -> uvicorn.Server:
    """The server of an application, with the settings that all our servers share."""
    settings = uvicorn.Config(
        app,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=1,  # without it an open event stream keeps the server alive
    )
    return uvicorn.Server(settings)


def open_socket(host: str, port: int) -> socket.socket:
    """A listening socket on the port, or on the next free one of the ten after it; port 0 is any.

    Raises ConfigError where none of them is free.
    """
    last = None
    for candidate in range(port, port + 10) if port else [0]:
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            return socket.create_server((host, candidate), family=family)
        except (OSError, OverflowError) as error:
            last = error
    raise ConfigError(
        f"cannot listen on {host} port {port}: {last}", "a free port", "--port 0 takes any"
    )


def browser_url(host: str, port: int, token: str | None) -> str:
    """The address to open in a browser, with the token where there is one."""
    if host in ("0.0.0.0", "::"):
        host = socket.gethostname()
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}/" + (f"?token={token}" if token else "")
