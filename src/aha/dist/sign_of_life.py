"""What a rank shows the others each second, as text for a store."""

import itertools
import json
import socket
import threading
from typing import NamedTuple

import psutil

COUNTER = itertools.count()


class SignOfLife(NamedTuple):
    """`seat`: the meetings that the rank has come to. `signs`: a number that changes while it
    works. `running`: it wants a processor now. `number` is another one each time."""

    number: int
    seat: int
    signs: float
    running: bool
    pid: int
    host: str

    def as_text(self) -> str:
        return json.dumps(self)

    @classmethod
    def from_text(cls, text: str) -> "SignOfLife":
        return cls(*json.loads(text))

    def where(self) -> str:
        return f"process {self.pid} on {self.host}"


def sign_of_this(seat: int, pulses: int) -> SignOfLife:
    """That of this process. The thread that calls this is left out: it works all the time."""
    process = psutil.Process()
    own = threading.get_native_id()
    used = sum(t.user_time + t.system_time for t in process.threads() if t.id != own)
    running = process.status() == psutil.STATUS_RUNNING
    host = socket.gethostname()
    return SignOfLife(next(COUNTER), seat, used + pulses, running, process.pid, host)
