"""Who may look: the door in front of every page.

A page elsewhere on the web can make a browser send requests to this machine, and can point a name
of its own at 127.0.0.1. So the Host must be ours, a foreign Origin is refused, and on any address
but the loopback a random token is asked for: in the address once, as a cookie from then on, or as
the API key of a program.
"""

import hmac
import ipaddress
import secrets
import socket
from collections.abc import Callable
from urllib.parse import parse_qs, urlencode, urlsplit

from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "aha_token"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
HEADERS = {
    b"content-security-policy": POLICY.encode(),
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
    b"cross-origin-opener-policy": b"same-origin",
    b"cache-control": b"no-cache",
}


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def new_token() -> str:
    return secrets.token_urlsafe(24)


class Guard:
    """Refuses strangers, and puts the safety headers on whatever goes out."""

    def __init__(
        self,
        app: ASGIApp,
        host: str = "127.0.0.1",
        token: str | None = None,
        methods: tuple[str, ...] = ("GET", "HEAD"),
        say: Callable[[str, int], Response] = PlainTextResponse,
    ):
        self.app, self.host, self.token = app, host, token
        self.methods, self.say = methods, say

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                have = {name for name, _ in message["headers"]}
                message["headers"] += [(k, v) for k, v in HEADERS.items() if k not in have]
            await send(message)

        headers = {name.decode("latin-1"): value for name, value in scope["headers"]}
        answer = self.refusal(scope, headers) or self.token_answer(scope, headers)
        await (answer or self.app)(scope, receive, send_safely)

    def refusal(self, scope: Scope, headers: dict[str, bytes]) -> Response | None:
        """The answer to a request that must not be served; None where it may."""
        if scope["method"] not in self.methods:
            wanted = " or ".join(self.methods)
            return self.say(f"aha does not take {scope['method']}: wanted {wanted}", 405)
        host = headers.get("host", b"").decode("latin-1")
        if not self.knows(host):
            return self.say(f"aha does not answer to the Host {host!r}", 403)
        origin = headers.get("origin", b"").decode("latin-1")
        if origin and host_of(origin) != host:
            return self.say(f"aha does not answer pages of {origin!r}", 403)
        return None

    def knows(self, host: str) -> bool:
        """Whether a Host header names this server.

        With a token any address of this machine is fine: a foreign name lacks the cookie.
        """
        name = host_of(f"http://{host}", name_only=True)
        if name is None:
            return False
        if self.token is None:
            return is_loopback(name)
        if name in (self.host, socket.gethostname()) or is_loopback(name):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def token_answer(self, scope: Scope, headers: dict[str, bytes]):
        """None for those who may in; a redirect with a cookie for the token in the address."""
        if self.token is None or self._right(cookie_of(headers)) or self._right(key_of(headers)):
            return None
        fields = parse_qs(scope["query_string"].decode("latin-1"))
        if not self._right(fields.pop("token", [""])[0]):
            return self.say(
                "aha wants the token that it has printed: in the address, or as the API key", 403
            )
        rest = urlencode(fields, doseq=True)
        answer = RedirectResponse("/" + (f"?{rest}" if rest else ""), 303)
        answer.set_cookie(COOKIE, self.token, httponly=True, samesite="strict")
        return answer

    def _right(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), (self.token or "").encode())


def cookie_of(headers: dict[str, bytes]) -> str:
    for part in headers.get("cookie", b"").decode("latin-1").split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE:
            return value
    return ""


def key_of(headers: dict[str, bytes]) -> str:
    """The API key of a program: `Authorization: Bearer KEY`."""
    scheme, _, key = headers.get("authorization", b"").decode("latin-1").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def host_of(address: str, name_only: bool = False) -> str | None:
    """host:port of an address, or its bare name; None for what is no address."""
    try:
        parts = urlsplit(address)
        _ = parts.port  # asked for, because only then a port that is no number raises
        return parts.hostname if name_only else parts.netloc
    except ValueError:
        return None
