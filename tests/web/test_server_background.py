"""The dashboard beside a run: there at once, out of the way, and gone with whoever started it."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request

import pytest

from aha.core.errors import ConfigError
from aha.web.server import NICENESS, BackgroundDashboard, open_socket

pytestmark = pytest.mark.skipif(os.name != "posix", reason="hands a socket on to another process")
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def runs_at(url: str) -> list[str]:
    base = url.partition("#")[0]
    with DIRECT.open(f"{base}api/runs", timeout=200) as answer:
        return [run["name"] for run in json.load(answer)["runs"]]


def test_the_address_works_at_once_and_goes_with_the_run(run):
    with BackgroundDashboard(run, port=0) as dashboard:
        assert dashboard.url.startswith("http://127.0.0.1:") and dashboard.url.endswith(
            "/#/run/demo"
        )
        # The process may still be starting: the request waits at the socket.
        assert runs_at(dashboard.url) == ["demo"]
        child = dashboard.process.pid
        assert os.getpriority(os.PRIO_PROCESS, child) == min(
            19, os.getpriority(os.PRIO_PROCESS, 0) + NICENESS
        )
        # The terminal's Ctrl-C goes to a whole session, and is meant for the training.
        assert os.getsid(child) != os.getsid(0)
    assert dashboard.process.returncode == 0
    with pytest.raises(OSError):
        runs_at(dashboard.url)


def test_it_does_not_outlive_a_parent_that_is_killed(run):
    code = (
        "import sys, time; from pathlib import Path\n"
        "from aha.web.server import BackgroundDashboard\n"
        f"dashboard = BackgroundDashboard(Path({str(run)!r}), port=0)\n"
        "print(dashboard.url, dashboard.process.pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        url, _ = parent.stdout.readline().split()
        assert runs_at(url) == ["demo"]
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            runs_at(url)
        except OSError:
            return
        time.sleep(0.1)
    pytest.fail("it is still there")


def test_an_open_page_at_the_end_is_no_error(run, capfd):
    with BackgroundDashboard(run, port=0) as dashboard:
        stream = DIRECT.open(f"{dashboard.url.partition('#')[0]}api/runs/demo/events", timeout=200)
        assert stream.readline() == b"retry: 500\n"
    assert dashboard.process.returncode == 0 and capfd.readouterr().err == ""


def test_it_loads_no_torch():
    code = "import aha.web.server, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_address_of_another_machine_is_no_matter_of_ports():
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1.*an address of this machine.*--host 127"):
        open_socket("192.0.2.1", 0)  # of nobody: RFC 5737
    with open_socket("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with open_socket("127.0.0.1", port) as other:
            assert other.getsockname()[1] != port  # the next free one
    with pytest.raises(ConfigError, match=r"a free port.*--port 0"):
        open_socket("127.0.0.1", 99_999)
