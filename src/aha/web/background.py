"""The dashboard beside a run: a process of its own, which ends with the one that started it.

Not a thread: it would take turns with the training loop at one interpreter. A process of its own at
a lower priority takes what the training leaves over, and nothing at all while nobody looks. The
socket is opened here and handed on, so that the address is known at once and nobody waits for the
process to come up.
"""

import asyncio
import logging
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import quote

import uvicorn

from aha.core.errors import ConfigError
from aha.web.dashboard import make_app
from aha.web.server import browser_url, make_server, open_socket

HOST, PORT = "127.0.0.1", 8765
PATIENCE_S = 5.0
LOWER = 5  # of the priority, in the units of `nice`: beside two busy threads a quarter of a core


class BackgroundDashboard:
    """A context manager: `with BackgroundDashboard(path) as dashboard: print(dashboard.url)`."""

    def __init__(self, run: Path, port: int = PORT):
        if os.name != "posix":
            raise ConfigError("--dash on this system", "a POSIX one", "`aha dash` beside the run")
        run, listener = run.absolute(), open_socket(HOST, port)
        self.url = browser_url(HOST, listener.getsockname()[1], None) + f"#/run/{quote(run.name)}"
        words = [sys.executable, "-m", "aha.web.background", str(run.parent)]
        with listener:
            number = listener.fileno()
            # A session of its own: the first Ctrl-C asks the training to finish its step, and
            # must not take away what people are looking at.
            self.process = subprocess.Popen(
                [*words, str(number)],
                pass_fds=[number],
                stdin=subprocess.PIPE,
                start_new_session=True,
            )

    def __enter__(self) -> "BackgroundDashboard":
        return self

    def __exit__(self, *unused) -> None:
        self.process.stdin.close()
        try:
            self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def stay(root: Path, number: int) -> None:
    """Serve on an inherited socket until standard input ends, as it does with whoever holds it."""
    os.nice(LOWER)
    server = make_server(make_app(root))
    threading.Thread(target=leave_with_parent, args=(server,), daemon=True).start()
    asyncio.run(server.serve(sockets=[socket.socket(fileno=number)]))


def leave_with_parent(server: uvicorn.Server) -> None:
    sys.stdin.buffer.read()
    # Pages that are still open are hung up on, which uvicorn would report as errors on a terminal
    # that shows the end of the run.
    logging.disable(logging.CRITICAL)
    server.should_exit = True


if __name__ == "__main__":
    stay(Path(sys.argv[1]), int(sys.argv[2]))
