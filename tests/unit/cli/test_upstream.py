"""What upstreams say, asked of real servers on loopback."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from talos_registry_cache.cli import upstream
from talos_registry_cache.registry.client import RateLimit

LIMIT = {"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "76;w=21600"}


class Hub(BaseHTTPRequestHandler):
    """Docker Hub, as far as its limit goes."""

    status = 200
    headers_sent: Mapping[str, str] = {}
    token = json.dumps({"token": "secret"}).encode()
    realm: str | None = None
    endless = False

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        if self.path.startswith("/token?service=hub&scope=repository%3Aratelimitpreview%2Ftest"):
            return self._send(200, {}, self.token)
        if self.endless:
            return self._send_without_end()
        return self._send(self.status, {})

    def do_HEAD(self) -> None:
        if self.headers.get("Authorization") == "Bearer secret":
            return self._send(200, self.headers_sent)
        realm = f"http://{self.headers['Host']}/token" if self.realm is None else self.realm
        challenge = f'Bearer realm="{realm}",service="hub",scope="repository:x:pull"'
        return self._send(401, {"WWW-Authenticate": challenge})

    def _send_without_end(self) -> None:
        self.send_response(200)
        self.end_headers()
        with suppress(OSError):
            while True:
                self.wfile.write(bytes(1 << 16))

    def _send(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def hub(
    status: int = 200, headers: Mapping[str, str] = LIMIT, **misbehaviour: object
) -> Iterator[str]:
    handler = type("Own", (Hub,), {"status": status, "headers_sent": headers, **misbehaviour})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = False
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_an_upstream_that_answers_anything_but_its_own_failure_is_reachable() -> None:
    with hub(200) as well, hub(401) as asks, hub(503) as broken:
        remotes = {"well": well, "asks": f"{asks}/", "broken": broken}
        remotes |= {"gone": "http://127.0.0.1:1", "nonsense": "http://[no"}

        assert asyncio.run(upstream.reachable(remotes)) == {
            "well": True,
            "asks": True,
            "broken": False,
            "gone": False,
            "nonsense": False,
        }


def test_the_limit_of_docker_hub_is_asked_for_with_a_token() -> None:
    with hub() as url:
        found = asyncio.run(upstream.limits({"docker.io": url, "quay.io": "http://127.0.0.1:1"}))

    assert found == {"docker.io": RateLimit(76, 100, 21600)}


def test_a_docker_hub_that_names_no_limit_has_none() -> None:
    with hub(headers={}) as url:
        found = asyncio.run(upstream.limits({"docker.io": url}))

    assert found == {"docker.io": "it has no limit for this address"}


def test_a_docker_hub_that_is_away_is_said_to_be() -> None:
    found = asyncio.run(upstream.limits({"docker.io": "http://127.0.0.1:1"}))

    assert str(found["docker.io"]).startswith("its limit is not known: ")


def test_nobody_else_is_asked_for_a_limit() -> None:
    assert asyncio.run(upstream.limits({"quay.io": "http://127.0.0.1:1"})) == {}


def limit_of(**misbehaviour: object) -> str:
    """What is said about the limit of a Docker Hub that misbehaves."""
    with hub(**misbehaviour) as url:  # type: ignore[arg-type]
        return str(asyncio.run(upstream.limits({"docker.io": url}))["docker.io"])


def test_an_upstream_whose_answer_never_ends_is_reachable() -> None:
    with hub(endless=True) as url:
        assert asyncio.run(upstream.reachable({"endless": url})) == {"endless": True}


def test_an_upstream_whose_headers_never_end_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "WITHIN_S", 0.3)
    with dripping() as url:
        assert asyncio.run(upstream.reachable({"dripping": url})) == {"dripping": False}
        said = asyncio.run(upstream.limits({"docker.io": url}))

    assert said == {"docker.io": "its limit is not known: no answer within 1 s"}


@contextmanager
def dripping() -> Iterator[str]:
    """A server that sends a byte of a header now and then."""
    ended = threading.Event()

    def drip(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
            while not ended.wait(0.05):
                connection.sendall(b"x")

    def serve() -> None:
        with suppress(OSError):
            while True:
                thread = threading.Thread(target=drip, args=(server.accept()[0],))
                thread.start()
                threads.append(thread)

    threads: list[threading.Thread] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        accepting = threading.Thread(target=serve)
        accepting.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            ended.set()
            server.shutdown(socket.SHUT_RDWR)
            accepting.join()
            for thread in threads:
                thread.join()


@pytest.mark.parametrize(
    "token",
    [
        b"",
        b"no JSON",
        b"[]",
        b'["token"]',
        b"{}",
        b'{"token": 1}',
        b'{"token": ""}',
        b'{"token": "a\\nX-Other: b"}',
        '{"token": "\u00e9"}'.encode(),
        b"[" * 60_000,
        b"\xff",
    ],
)
def test_a_token_that_is_none_is_said_to_be(token: bytes) -> None:
    assert limit_of(token=token) == "its limit is not known: 127.0.0.1 sends no token"


def test_a_token_that_is_too_large_is_not_read() -> None:
    said = limit_of(token=json.dumps({"token": "x" * (1 << 20)}).encode())

    assert said == "its limit is not known: 127.0.0.1 sends a token of more than 65536 bytes"


@pytest.mark.parametrize(
    "realm", ["", "token", "/token", "ftp://127.0.0.1/", "http://", "http://[no", "http://a:port/"]
)
def test_a_realm_that_is_no_url_is_said_to_be(realm: str) -> None:
    assert limit_of(realm=realm).startswith("its limit is not known: ")


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "169.254.1.1:8080",
        "2852039166",
        "0xa9fea9fe",
        "[fe80::1]",
        "[::ffff:169.254.169.254]",
        "[fd00:ec2::254]",
        "100.100.100.200",
    ],
)
def test_a_realm_at_a_link_local_or_metadata_address_is_not_followed(host: str) -> None:
    said = limit_of(realm=f"http://{host}/token")

    assert "link-local and metadata addresses are not allowed" in said
