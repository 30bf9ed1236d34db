"""Upstreams, played by real servers on loopback."""

import asyncio
import json
import socketserver
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from components.certificate_authority import issue_authority, issue_server
from talos_registry_cache.cli import upstream
from talos_registry_cache.registry.client import RateLimit
from talos_registry_cache.registry.upstream import Remote

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
    status: int = 200,
    headers: Mapping[str, str] = LIMIT,
    *,
    certificate: Path | None = None,
    **misbehaviour: object,
) -> Iterator[str]:
    handler = type("Own", (Hub,), {"status": status, "headers_sent": headers, **misbehaviour})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    server.daemon_threads = False
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_an_upstream_is_reachable_unless_it_answers_with_a_server_error() -> None:
    with hub(200) as well, hub(401) as asks, hub(503) as broken, hub(endless=True) as endless:
        urls = {"well": well, "asks": f"{asks}/", "endless": endless, "broken": broken}
        urls |= {"gone": "http://127.0.0.1:1", "nonsense": "http://[no"}

        found = asyncio.run(upstream.reachable({name: Remote(url) for name, url in urls.items()}))

    assert {name for name, is_reachable in found.items() if is_reachable} == {
        "well",
        "asks",
        "endless",
    }


def test_an_upstream_behind_a_private_ca_is_reachable_with_this_ca(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    authority = issue_authority("private", now)
    issued = issue_server(authority, ["127.0.0.1"], now)
    (tmp_path / "server.pem").write_text(issued.certificate + issued.key)
    with hub(certificate=tmp_path / "server.pem") as url:
        remotes = {"private": Remote(url, authority.certificate), "unknown": Remote(url)}

        found = asyncio.run(upstream.reachable(remotes))

    assert found == {"private": True, "unknown": False}


def test_an_upstream_is_reached_through_the_proxy_of_its_cache_and_of_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with hub() as proxy, hub() as direct:
        registries = {
            "proxied": {"REGISTRY_PROXY_REMOTEURL": "http://a.test", "HTTP_PROXY": proxy},
            "direct": {"REGISTRY_PROXY_REMOTEURL": direct},
            "excepted": {
                "REGISTRY_PROXY_REMOTEURL": direct,
                "HTTP_PROXY": "http://127.0.0.1:1",
                "NO_PROXY": "a.test,127.0.0.0/8",
            },
            "gone": {"REGISTRY_PROXY_REMOTEURL": direct, "HTTP_PROXY": "http://127.0.0.1:1"},
        }
        remotes = {name: Remote.of_registry(one) for name, one in registries.items()}

        found = asyncio.run(upstream.reachable({n: one for n, one in remotes.items() if one}))

    assert found == {"proxied": True, "direct": True, "excepted": True, "gone": False}


def test_the_limit_of_docker_hub_is_requested_with_a_token() -> None:
    with hub() as url:
        remotes = {"docker.io": Remote(url), "quay.io": Remote("http://127.0.0.1:1")}
        found = asyncio.run(upstream.limits(remotes))

    assert found == {"docker.io": RateLimit(76, 100, 21600)}


def test_a_missing_limit_has_a_reason() -> None:
    found = asyncio.run(upstream.limits({"docker.io": Remote("http://127.0.0.1:1")}))

    assert str(found["docker.io"]).startswith("its limit is unknown: ")
    assert limit_of(headers={}) == "no limit for this address"


def limit_of(**misbehaviour: object) -> str:
    """The message about the limit of a Docker Hub that misbehaves."""
    with hub(**misbehaviour) as url:  # type: ignore[arg-type]
        return str(asyncio.run(upstream.limits({"docker.io": Remote(url)}))["docker.io"])


def test_an_upstream_with_endless_headers_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "WITHIN_S", 0.3)
    with dripping() as url:
        assert asyncio.run(upstream.reachable({"dripping": Remote(url)})) == {"dripping": False}
        said = asyncio.run(upstream.limits({"docker.io": Remote(url)}))

    assert said == {"docker.io": "its limit is unknown: no answer within 1 s"}


@contextmanager
def dripping() -> Iterator[str]:
    """A server that sends a byte of a header now and then."""
    ended = threading.Event()

    class Drip(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):
                self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
                while not ended.wait(0.05):
                    self.wfile.write(b"x")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Drip) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            ended.set()
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    "token",
    [
        *(b"", b"no JSON", b"[]", b'["token"]', b"{}", b'{"token": 1}', b'{"token": ""}'),
        *(b'{"token": "a\\nX-Other: b"}', b'{"token": "\xc3\xa9"}', b"[" * 60_000, b"\xff"),
        b'{"token": "%s"}' % (b"x" * (1 << 20)),
    ],
)
def test_an_invalid_or_large_token_is_refused(token: bytes) -> None:
    sent = "more than 65536 bytes" if len(token) > 65536 else "no token"
    assert limit_of(token=token) == f"its limit is unknown: 127.0.0.1 sends {sent}"


@pytest.mark.parametrize(
    "realm", ["", "token", "/token", "ftp://127.0.0.1/", "http://", "http://[no", "http://a:port/"]
)
def test_an_invalid_realm_is_refused(realm: str) -> None:
    assert limit_of(realm=realm).startswith("its limit is unknown: ")


@pytest.mark.parametrize("host", ["169.254.169.254", "2852039166", "[fe80::1]", "100.100.100.200"])
def test_a_realm_at_a_link_local_or_metadata_address_is_not_followed(host: str) -> None:
    said = limit_of(realm=f"http://{host}/token")

    assert "link-local and metadata addresses are not allowed" in said
