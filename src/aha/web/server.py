"""The dashboard's server: `serve` for `aha dash`, or a process of its own during a run."""

import asyncio
import errno
import logging
import os
import socket
import subprocess
import sys
import threading
import webbrowser
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

import uvicorn
from starlette.types import ASGIApp

from aha.core.errors import ConfigError
from aha.web.access import is_loopback, new_token
from aha.web.chat_page import StreamCompletion
from aha.web.dashboard import make_app

# Of an address that this machine has not, whatever the port.
NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


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
    # A warning for each write to a client that has gone, until the server notices it.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    settings = uvicorn.Config(
        app,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=1,  # without it an open event stream keeps the server alive
    )
    return uvicorn.Server(settings)


def open_socket(host: str, port: int) -> socket.socket:
    """A listening socket on the port, or on the next free one of the ten after it; port 0 is any.

    Raises ConfigError where none of them is free, and for an address of another machine.
    """
    last = None
    for candidate in range(port, port + 10) if port else [0]:
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            return socket.create_server((host, candidate), family=family)
        except (OSError, OverflowError) as error:
            last = error
        if isinstance(last, socket.gaierror) or getattr(last, "errno", None) in NOT_HERE:
            expected, fix = "an address of this machine", "--host 127.0.0.1, or 0.0.0.0 for all"
            break  # no other port helps, and a name takes seconds to look up
    else:
        expected, fix = "a free port", "--port 0 takes any"
    raise ConfigError(f"cannot listen on {host} port {port}: {last}", expected, fix)


def browser_url(host: str, port: int, token: str | None) -> str:
    """The address to open in a browser, with the token where there is one."""
    if host in ("0.0.0.0", "::"):
        host = socket.gethostname()
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}/" + (f"?token={token}" if token else "")


# -- during a run: a process of its own --------------------------------------------------------

HOST, PORT = "127.0.0.1", 8765
STOP_TIMEOUT_S = 5.0
NICENESS = 5  # in the units of `nice`: with two busy threads it gets a quarter of a core


class BackgroundDashboard:
    """Serves the dashboard in another process: `with BackgroundDashboard(path) as dashboard: ...`.

    `dashboard.url` is its address; leaving the block ends the process.

    Raises ConfigError on a system without POSIX processes, and where no port is free.
    """

    def __init__(self, run: Path, port: int = PORT):
        if os.name != "posix":
            raise ConfigError(
                "--dash on this system", "a POSIX one", "`aha dash` in another terminal"
            )
        run, listener = run.absolute(), open_socket(HOST, port)
        self.url = browser_url(HOST, listener.getsockname()[1], None) + f"#/run/{quote(run.name)}"
        command = [sys.executable, "-m", "aha.web.server", str(run.parent)]
        with listener:
            descriptor = listener.fileno()
            # A session of its own: the first Ctrl-C asks the training to finish its step, and must
            # not close the pages that people are looking at.
            self.process = subprocess.Popen(
                [*command, str(descriptor)],
                pass_fds=[descriptor],
                stdin=subprocess.PIPE,
                start_new_session=True,
            )

    def __enter__(self) -> "BackgroundDashboard":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def serve_until_parent_ends(root: Path, descriptor: int) -> None:
    """Serve on an inherited socket until standard input ends, as it does with the parent."""
    os.nice(NICENESS)
    server = make_server(make_app(root))
    threading.Thread(target=stop_with_parent, args=(server,), daemon=True).start()
    asyncio.run(server.serve(sockets=[socket.socket(fileno=descriptor)]))


def stop_with_parent(server: uvicorn.Server) -> None:
    """Wait for the end of standard input, then stop the server."""
    sys.stdin.buffer.read()
    # uvicorn would report the streams of open pages as errors, on a terminal that shows the end of
    # the run.
    logging.disable(logging.CRITICAL)
    server.should_exit = True


if __name__ == "__main__":
    serve_until_parent_ends(Path(sys.argv[1]), int(sys.argv[2]))
