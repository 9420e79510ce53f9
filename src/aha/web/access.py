"""Access control: which requests are answered, and the security headers of every answer.

Any page on the web can make a browser send requests to this machine, and can make its own host name
mean 127.0.0.1. So the Host header must name this server, and another Origin is refused. On any
address but the loopback a random token is required: once in the address, then as a cookie, or as
the API key of a program.
"""

import hmac
import ipaddress
import secrets
import socket
from collections.abc import Callable
from urllib.parse import parse_qs, quote, urlencode, urlsplit

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
    """Whether a host name or address is this machine's loopback."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def new_token() -> str:
    """A random token of 192 bits, with characters that an address may have."""
    return secrets.token_urlsafe(24)


class AccessControl:
    """ASGI middleware: refuses requests that must not be served, adds the security headers.

    `host` is the address that the server listens on, `token` what a request must bring (None: no
    token is needed), `error_response(message, status)` makes the answer to a refused request.
    """

    def __init__(
        self,
        app: ASGIApp,
        host: str = "127.0.0.1",
        token: str | None = None,
        methods: tuple[str, ...] = ("GET", "HEAD"),
        error_response: Callable[[str, int], Response] = PlainTextResponse,
    ):
        self.app, self.host, self.token = app, host, token
        self.methods, self.error_response = methods, error_response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name for name, _ in message["headers"]}
                message["headers"] += [(k, v) for k, v in HEADERS.items() if k not in present]
            await send(message)

        headers = {name.decode("latin-1"): value for name, value in scope["headers"]}
        response = self.check_request(scope, headers) or self.check_token(scope, headers)
        await (response or self.app)(scope, receive, send_with_headers)

    def check_request(self, scope: Scope, headers: dict[str, bytes]) -> Response | None:
        """The answer to a request with a wrong method, Host or Origin; None for all others."""
        if scope["method"] not in self.methods:
            allowed = " or ".join(self.methods)
            return self.error_response(
                f"aha does not take {scope['method']}: wanted {allowed}", 405
            )
        host = headers.get("host", b"").decode("latin-1")
        if not self.is_own_host(host):
            return self.error_response(f"aha does not answer to the Host {host!r}", 403)
        origin = headers.get("origin", b"").decode("latin-1")
        if origin and host_of(origin) != host:
            return self.error_response(f"aha does not answer pages of {origin!r}", 403)
        return None

    def is_own_host(self, host: str) -> bool:
        """Whether a Host header names this server.

        With a token any numeric address is accepted, because a page with another host name has no
        cookie.
        """
        name = host_of(f"http://{host}", name_only=True)
        if name is None:
            return False
        if self.token is None:
            return is_loopback(name)
        # A browser writes a name in lower case, also the one of DESKTOP-A1B2C3.
        own = (self.host.lower(), socket.gethostname().lower())
        if name in own or is_loopback(name):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def check_token(self, scope: Scope, headers: dict[str, bytes]) -> Response | None:
        """None for a request with the token as cookie or key.

        A GET or HEAD with the token in its address is redirected to the same address without it,
        with the cookie; another method is accepted, because a redirect would lose its body. Any
        other request is refused.
        """
        if self.token is None:
            return None
        if self._is_token(cookie_of(headers)) or self._is_token(key_of(headers)):
            return None
        fields = parse_qs(scope["query_string"].decode("latin-1"))
        if not self._is_token(fields.pop("token", [""])[0]):
            return self.error_response(
                "aha wants the token that it has printed: in the address, or as the API key", 403
            )
        if scope["method"] not in ("GET", "HEAD"):
            return None
        # Two slashes at the beginning would lead to another host.
        path, rest = "/" + quote(scope["path"].lstrip("/")), urlencode(fields, doseq=True)
        response = RedirectResponse(path + (f"?{rest}" if rest else ""), 303)
        name = cookie_name(headers)
        response.set_cookie(name, self.token, httponly=True, samesite="strict")
        return response

    def _is_token(self, given: str) -> bool:
        # In constant time: the time of a plain comparison depends on how many characters are right.
        return hmac.compare_digest(given.encode(), (self.token or "").encode())


def cookie_of(headers: dict[str, bytes]) -> str:
    """The token in the cookie; empty where there is none."""
    for part in headers.get("cookie", b"").decode("latin-1").split(";"):
        name, _, value = part.strip().partition("=")
        if name == cookie_name(headers):
            return value
    return ""


def cookie_name(headers: dict[str, bytes]) -> str:
    """The cookie's name, with the port that the browser sees.

    A browser sends a cookie to all ports of a host: two servers with one name would take each
    other's token away. Raises ValueError for a Host header that `is_own_host` refuses.
    """
    host = headers.get("host", b"").decode("latin-1")
    return f"{COOKIE}_{urlsplit(f'http://{host}').port or 80}"


def key_of(headers: dict[str, bytes]) -> str:
    """The API key of a program (`Authorization: Bearer KEY`); empty where there is none."""
    scheme, _, key = headers.get("authorization", b"").decode("latin-1").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def host_of(address: str, name_only: bool = False) -> str | None:
    """host:port of an address, or its host name alone; None for what is no address."""
    try:
        parts = urlsplit(address)
        _ = parts.port  # `.port` raises for a port that is no number; urlsplit accepts it
        return parts.hostname if name_only else parts.netloc
    except ValueError:
        return None
