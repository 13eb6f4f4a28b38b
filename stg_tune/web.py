"""A web server for the people at this machine: 127.0.0.1 only, no file named by an address, no change without a token.

What it refuses: other host names in ``Host`` or ``Origin`` (a page elsewhere that points its own name here, or that
posts here), changes without the token that only pages from this server know, long bodies, all methods but GET and POST.
"""

from __future__ import annotations

import errno
import hmac
import json
import re
import secrets
import sys
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from stg_tune.errors import StgTuneError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from types import TracebackType

ADDRESS = "127.0.0.1"
NAMES = ("127.0.0.1", "localhost")
"""What this machine may be called; any port, because a tunnel (``ssh -L``) may end at another one."""
_HERE = re.compile(rf"(?:{'|'.join(map(re.escape, NAMES))})(?::\d{{1,5}})?")
PORTS = range(8808, 8828)
"""Tried in this order when no port is asked for."""
TOKEN_HEADER = "X-Stg-Tune-Token"
MAX_BODY = 10_000
"""Greatest size of what a page may send, in bytes."""
SILENCE = 30.0
"""Seconds after which a connection that says nothing is closed."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; frame-src 'self'; img-src data:; "
    "media-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content-Security-Policy of pages whose scripts and styles have addresses of their own."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What an address answers."""

    body: bytes
    """The content."""
    kind: str
    """MIME type, with the character set of text."""
    status: int = 200
    """HTTP status."""
    policy: str = POLICY
    """Content-Security-Policy."""

    @classmethod
    def json(cls, data: Any, status: int = 200) -> Reply:
        """Data for a script."""
        body = json.dumps(data, ensure_ascii=False, allow_nan=False).encode()
        return cls(body=body, kind="application/json; charset=utf-8", status=status)

    @classmethod
    def html(cls, text: str, policy: str = POLICY) -> Reply:
        """A page."""
        return cls(body=text.encode(), kind="text/html; charset=utf-8", policy=policy)

    @classmethod
    def refuse(cls, status: HTTPStatus, reason: str) -> Reply:
        """A refusal in one line."""
        return cls(body=f"{reason}\n".encode(), kind="text/plain; charset=utf-8", status=status)


class Site(Protocol):
    """What is served. Both methods are called from several threads at a time."""

    def get(self, path: str) -> Reply | None:
        """Answer an address, or ``None`` when there is no such; nothing may change."""

    def post(self, path: str, data: Any) -> Reply | None:
        """Do something with JSON ``data`` from a page of this server; it is hostile until checked."""


class LocalServer:
    """Serves a site in threads of its own, from ``with`` to its end.

    Args:
        site: Makes the site when it is given the token that pages must send with what they post.
        port: Port, 0 for any that is free; ``None``: the first free one of ``PORTS``.

    Raises:
        StgTuneError: The port is taken.
    """

    def __init__(self, site: Callable[[str], Site], *, port: int | None = None) -> None:
        self.token = secrets.token_urlsafe(32)
        self._server = _bind(port)
        self._server.site, self._server.token = site(self.token), self.token
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True)

    @property
    def url(self) -> str:
        """Where the first page is."""
        return f"http://{ADDRESS}:{self._server.server_address[1]}/"

    def __enter__(self) -> LocalServer:
        """Begin to answer."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()

    def wait(self) -> None:
        """Answer until Ctrl-C."""
        while self._thread.is_alive():
            self._thread.join(1.0)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    site: Site
    token: str

    def handle_error(self, request: socket.socket | tuple[bytes, socket.socket], client_address: Any) -> None:
        """A browser that leaves in the middle of an answer is no error."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "stg-tune", ""
    timeout = SILENCE
    server: _Server

    def do_GET(self) -> None:
        """Answer an address."""
        self._send(self._refusal() or self.server.site.get(self._path()) or _UNKNOWN)

    def do_POST(self) -> None:
        """Take what a page sends."""
        reply = self._refusal() or self._mistrust()
        body = b"" if reply else self.rfile.read(self._length() or 0)
        self._send(reply or self._posted(body))

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet: the terminal belongs to the command."""

    def _posted(self, body: bytes) -> Reply:
        try:
            data = json.loads(body)
        except (ValueError, RecursionError):
            return Reply.refuse(HTTPStatus.BAD_REQUEST, "the body is not JSON")
        try:
            return self.server.site.post(self._path(), data) or _UNKNOWN
        except StgTuneError as error:
            return Reply.json({"error": str(error)}, HTTPStatus.CONFLICT)

    def _refusal(self) -> Reply | None:
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or not _HERE.fullmatch(hosts[0]):
            return Reply.refuse(HTTPStatus.MISDIRECTED_REQUEST, f"this server is {' or '.join(NAMES)} only")
        return None

    def _mistrust(self) -> Reply | None:
        origin = self.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != self.headers["Host"]:
            return Reply.refuse(HTTPStatus.FORBIDDEN, "this comes from another page")
        if not hmac.compare_digest(self.headers.get(TOKEN_HEADER, "").encode(), self.server.token.encode()):
            return Reply.refuse(HTTPStatus.FORBIDDEN, "the page is older than this server: load it again")
        if self._length() is None:
            return Reply.refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body must have 1 to {MAX_BODY} bytes")
        return None

    def _length(self) -> int | None:
        text = self.headers.get("Content-Length", "")
        length = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
        return length if 0 < length <= MAX_BODY else None

    def _path(self) -> str:
        return urlsplit(self.path).path

    def _send(self, reply: Reply) -> None:
        self.send_response(reply.status)
        headers = {
            "Content-Type": reply.kind,
            "Content-Length": str(len(reply.body)),
            "Content-Security-Policy": reply.policy,
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cross-Origin-Opener-Policy": "same-origin",
            # no request after the first: what was not read is not taken for one, and none outlives the server
            "Connection": "close",
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.body)


_UNKNOWN = Reply.refuse(HTTPStatus.NOT_FOUND, "there is no such page")


def _bind(port: int | None) -> _Server:
    for number in PORTS if port is None else (port,):
        try:
            return _Server((ADDRESS, number), _Handler)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
    taken = f"{PORTS[0]} to {PORTS[-1]} are" if port is None else f"{port} is"
    raise StgTuneError(f"port {taken} taken or not allowed; give another with --port, or --port 0 for any that is free")
