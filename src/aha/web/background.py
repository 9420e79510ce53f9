"""The dashboard during a run: a process of its own, which ends with the process that started it.

Not a thread: a thread would compete with the training loop for one interpreter. A process of lower
priority takes the processor time that the training leaves over, and none while no page is open. The
socket is opened here and inherited, so that the address is known at once and nobody has to wait
until the process has started.
"""

import asyncio
import logging
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

import uvicorn

from aha.core.errors import ConfigError
from aha.web.dashboard import make_app
from aha.web.server import browser_url, make_server, open_socket

HOST, PORT = "127.0.0.1", 8765
STOP_TIMEOUT_S = 5.0
NICENESS = 5  # in the units of `nice`: beside two busy threads it gets a quarter of a core


class BackgroundDashboard:
    """A context manager: `with BackgroundDashboard(path) as dashboard: print(dashboard.url)`.

    Raises ConfigError on a system without POSIX processes, and where no port is free.
    """

    def __init__(self, run: Path, port: int = PORT):
        if os.name != "posix":
            raise ConfigError("--dash on this system", "a POSIX one", "`aha dash` beside the run")
        run, listener = run.absolute(), open_socket(HOST, port)
        self.url = browser_url(HOST, listener.getsockname()[1], None) + f"#/run/{quote(run.name)}"
        command = [sys.executable, "-m", "aha.web.background", str(run.parent)]
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
