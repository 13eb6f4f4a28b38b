"""The local server answers this machine only, knows no files, and changes nothing without its token."""

import http.client
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from stg_tune.errors import StgTuneError
from stg_tune.web import ADDRESS, MAX_BODY, TOKEN_HEADER, LocalServer, Reply


class Guestbook:
    def __init__(self, token: str) -> None:
        self.token = token
        self.entries: list[Any] = []

    def get(self, path: str) -> Reply | None:
        return Reply.html("<p>hello") if path == "/" else None

    def post(self, path: str, data: Any) -> Reply | None:
        if path != "/sign":
            return None
        if data == "bad":
            raise StgTuneError("not that")
        self.entries.append(data)
        return Reply.json({"entries": len(self.entries)})


class Scene:
    def __init__(self) -> None:
        self.server = LocalServer(self._site, port=0)
        self.port = int(self.server.url.rstrip("/").rpartition(":")[2])

    def _site(self, token: str) -> Guestbook:
        self.book = Guestbook(token)
        return self.book

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes, Any]:
        """Header names are written with ``_`` in place of ``-``."""
        connection = http.client.HTTPConnection(ADDRESS, self.port, timeout=30)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            reply = connection.getresponse()
            return reply.status, reply.read(), reply.headers
        finally:
            connection.close()

    def sign(self, body: bytes = b'"Ada"', path: str = "/sign", **headers: str) -> int:
        allowed = {TOKEN_HEADER.replace("-", "_"): self.server.token}
        return self.ask("POST", path, body, **allowed | headers)[0]


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    scene = Scene()
    with scene.server:
        yield scene


def test_a_page_comes_with_its_guards(scene: Scene) -> None:
    status, body, headers = scene.ask("GET", "/")
    assert (status, body) == (200, b"<p>hello")
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize(
    "path", ["/no", "/../etc/passwd", "/%2e%2e/etc/passwd", "//etc/passwd", "/shell.js%00", "/./", "*"]
)
def test_nothing_but_the_table_of_addresses_is_answered(scene: Scene, path: str) -> None:
    assert scene.ask("GET", path)[0] == 404


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "evil.example:80", "", "a@localhost", "[::1"]
)
def test_other_host_names_are_refused(scene: Scene, host: str) -> None:
    assert scene.ask("GET", "/", Host=host)[0] == 421


@pytest.mark.parametrize("host", ["localhost", "localhost:9000", "127.0.0.1:1"])
def test_a_tunnel_may_end_at_another_port(scene: Scene, host: str) -> None:
    assert scene.ask("GET", "/", Host=host)[0] == 200


def test_a_page_of_the_server_may_change_something(scene: Scene) -> None:
    before = len(scene.book.entries)
    assert scene.sign(Origin=scene.server.url.rstrip("/")) == 200
    assert len(scene.book.entries) == before + 1


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"X_Stg_Tune_Token": ""}, 403),
        ({"X_Stg_Tune_Token": "0" * 43}, 403),
        ({"X_Stg_Tune_Token": "\xfc"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "evil.example"}, 421),
        ({"Content_Length": "-1"}, 413),
        ({"Content_Length": "1e3"}, 413),
        ({"Content_Length": str(MAX_BODY + 1)}, 413),
    ],
)
def test_nobody_else_changes_anything(scene: Scene, headers: dict[str, str], status: int) -> None:
    before = len(scene.book.entries)
    assert scene.sign(**headers) == status
    assert len(scene.book.entries) == before


@pytest.mark.parametrize("body", [b"{", b"\xff", b"[" * 9000])
def test_a_body_that_is_no_json_is_refused(scene: Scene, body: bytes) -> None:
    assert scene.sign(body) == 400


def test_what_the_site_refuses_is_a_message(scene: Scene) -> None:
    headers = {TOKEN_HEADER.replace("-", "_"): scene.server.token}
    status, body, _ = scene.ask("POST", "/sign", b'"bad"', **headers)
    assert (status, json.loads(body)) == (409, {"error": "not that"})
    assert scene.sign(path="/other") == 404


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "TRACE"])
def test_other_methods_are_unknown(scene: Scene, method: str) -> None:
    assert scene.ask(method, "/")[0] == 501


def test_it_listens_on_this_machine_only(scene: Scene) -> None:
    assert scene.server._server.server_address[0] == "127.0.0.1"


def test_two_host_headers_are_refused(scene: Scene) -> None:
    with socket.create_connection((ADDRESS, scene.port), timeout=30) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
        assert b" 421 " in connection.recv(100)


def test_a_browser_that_leaves_is_no_error(scene: Scene, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_connection((ADDRESS, scene.port), timeout=30) as connection:
        connection.sendall(b"GET / HT")
    assert scene.ask("GET", "/")[0] == 200
    assert capfd.readouterr().err == ""


def test_a_taken_port_says_what_to_type(scene: Scene) -> None:
    with pytest.raises(StgTuneError, match=f"{scene.port} is taken.*--port 0"):
        LocalServer(Guestbook, port=scene.port)


def test_without_a_port_the_first_free_one_is_taken() -> None:
    with LocalServer(Guestbook) as first, LocalServer(Guestbook) as second:
        assert first.url != second.url
