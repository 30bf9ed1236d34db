"""A small registry on a loopback port that behaves like distribution 3.1.2, and fails on demand.

It is a plain registry, or a cache that answers range requests only for blobs it has stored. It
records all requests.
"""

import json
import ssl
import sys
import threading
import time
from base64 import b64encode
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import parse_qs, urlsplit

from components.certificate_authority import Issued
from tests.unit.registry.support.images import Blob, Built

PIECE = 1 << 20
FETCH_S = 0.02

Fault = Callable[["Handler", Blob], None]
"""Answers a request in place of the registry; receives the content to send."""


class TinyRegistry:
    """The content of a registry, the requests it received, and its faults.

    Attributes:
        caches: whether it is a cache, which fetches a blob for each repository.
        keeps: whether the cache stores fetched blobs.
        headers: headers of every answer.
        reader: user name and password of the only reader; None for an open registry.
        referrers: the indexes of its referrers API, by repository and digest; it has none without.
        requests: method, path and range of each request.
        fetched: how often the cache fetched a blob, by digest.
        at_once: the number of requests that are fetching a blob now, by digest.
        waiting, most_waiting: the number of requests that wait for a fetch, now and at most.
    """

    def __init__(self, *, caches: bool = False) -> None:
        self.caches = caches
        self.keeps = True
        self.url = ""
        self.headers: dict[str, str] = {}
        self.reader: tuple[str, str] | None = None
        self.requests: list[str] = []
        self.fetched: Counter[str] = Counter()
        self.at_once: Counter[str] = Counter()
        self.waiting = self.most_waiting = 0
        self.manifests: dict[tuple[str, str], Blob] = {}
        self.blobs: dict[tuple[str, str], Blob] = {}
        self.referrers: dict[tuple[str, str], Blob] = {}
        self.kept: set[tuple[str, str]] = set()
        self.faults: defaultdict[str, deque[Fault]] = defaultdict(deque)
        self.lock = threading.Lock()

    def hold(self, repository: str, tag: str, built: Built) -> None:
        """Add an image."""
        self.manifests[repository, tag] = built.manifests[0]
        for manifest in built.manifests:
            self.manifests[repository, manifest.digest] = manifest
        for blob in built.blobs:
            self.blobs[repository, blob.digest] = blob

    def fail(self, target: str, *faults: Fault) -> None:
        """Make the next requests for a tag or digest fail, one fault each."""
        self.faults[target].extend(faults)

    def asked(self, target: str) -> list[str]:
        """Method and range of the requests for a tag or digest."""
        return [
            " ".join((method, *part))
            for method, path, *part in map(str.split, self.requests)
            if path.endswith(f"/{target}")
        ]


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    registry: TinyRegistry

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer with content."""
        self._answer()

    def do_HEAD(self) -> None:
        """Answer with headers."""
        self._answer()

    def do_POST(self) -> None:
        """Mount a blob."""
        registry, url = self.registry, urlsplit(self.path)
        self._note()
        query = parse_qs(url.query)
        repository = url.path.removeprefix("/v2/").removesuffix("/blobs/uploads/")
        digest = query["mount"][0]
        source = query["from"][0], digest
        if source not in registry.kept:
            return self.send(202, b"")
        registry.kept.add((repository, digest))
        return self.send(201, b"")

    def _answer(self) -> None:
        registry = self.registry
        self._note()
        if registry.reader and self.headers.get("Authorization") != basic(*registry.reader):
            challenge = {"WWW-Authenticate": 'Basic realm="tiny"'}
            return self.refuse(401, "UNAUTHORIZED", "authentication required", challenge)
        if self.path == "/v2/":
            return self.send(200, b"{}")
        repository, kind, target = self.path.removeprefix("/v2/").rsplit("/", 2)
        held = {"manifests": registry.manifests, "referrers": registry.referrers}.get(
            kind, registry.blobs
        )
        key = repository, target
        if registry.faults[target]:
            return registry.faults[target].popleft()(self, held.get(key, Blob(b"")))
        if key not in held:
            code = "MANIFEST_UNKNOWN" if kind == "manifests" else "BLOB_UNKNOWN"
            return self.refuse(404, code, f"{target} is unknown")
        if kind == "blobs" and registry.caches and key not in registry.kept:
            return self._fetch(key)
        return self.serve(held[key])

    def _fetch(self, key: tuple[str, str]) -> None:
        registry, blob = self.registry, self.registry.blobs[key]
        with registry.lock:
            registry.fetched[blob.digest] += 1
            registry.at_once[blob.digest] += 1
            in_flight = registry.at_once[blob.digest]
            registry.waiting += 1
            registry.most_waiting = max(registry.waiting, registry.most_waiting)
        time.sleep(FETCH_S)
        with registry.lock:
            registry.waiting -= 1
        self.send(200, blob.content, {"Docker-Content-Digest": blob.digest})
        with registry.lock:
            registry.at_once[blob.digest] -= 1
            # Only the first of several concurrent fetches is stored.
            if registry.keeps and in_flight == 1:
                registry.kept.add(key)

    def serve(self, blob: Blob) -> None:
        """Send a blob or the requested range of it."""
        headers = {"Content-Type": blob.media_type, "Docker-Content-Digest": blob.digest}
        size = len(blob.content)
        part = self.headers.get("Range")
        if part is None:
            return self.send(200, blob.content, headers)
        first, last = part.removeprefix("bytes=").split("-")
        end = int(last) + 1 if last else size
        headers["Content-Range"] = f"bytes {first}-{end - 1}/{size}"
        return self.send(206, blob.content[int(first) : end], headers)

    def refuse(
        self, status: int, code: str, message: str, headers: dict[str, str] | None = None
    ) -> None:
        """Send an error in the format of the specification."""
        body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
        self.send(status, body, {"Content-Type": "application/json"} | (headers or {}))

    def send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        """Send an answer."""
        self.start(status, len(content), headers)
        if self.command != "HEAD":
            for offset in range(0, len(content), PIECE):
                self.wfile.write(content[offset : offset + PIECE])

    def start(self, status: int, length: int, headers: dict[str, str] | None = None) -> None:
        """Send the headers of an answer."""
        self.send_response(status)
        all_headers = {"Content-Length": str(length)} | self.registry.headers | (headers or {})
        for name, value in all_headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _note(self) -> None:
        part = self.headers.get("Range")
        with self.registry.lock:
            self.registry.requests.append(" ".join(filter(None, (self.command, self.path, part))))


class _Kept(dict[tuple[str, str], Blob]):
    """The blobs that a cache has stored."""

    def __init__(self, cache: TinyRegistry) -> None:
        super().__init__()
        self._cache = cache

    def __contains__(self, key: object) -> bool:
        return key in self._cache.kept

    def __getitem__(self, key: tuple[str, str]) -> Blob:
        return self._cache.blobs[key]


def storage_of(cache: TinyRegistry) -> TinyRegistry:
    """A registry without an upstream on the storage of a cache; it has all manifests."""
    plain = TinyRegistry()
    plain.kept = cache.kept
    plain.manifests = cache.manifests
    plain.blobs = _Kept(cache)
    return plain


def status(code: int, name: str = "UNAVAILABLE", words: str = "", **headers: str) -> Fault:
    """Answer with an error."""
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return lambda handler, _: handler.refuse(code, name, words, named)


def text(code: int, body: bytes) -> Fault:
    """Answer with an error in another format."""
    return lambda handler, _: handler.send(code, body)


def cut(after: int) -> Fault:
    """Break the connection after some bytes of content."""

    def answer(handler: Handler, blob: Blob) -> None:
        part = handler.headers.get("Range", "bytes=0-")
        first = int(part.removeprefix("bytes=").split("-")[0])
        if first:
            span = f"bytes {first}-{len(blob.content) - 1}/{len(blob.content)}"
            handler.start(206, len(blob.content) - first, {"Content-Range": span})
        else:
            handler.start(200, len(blob.content))
        handler.wfile.write(blob.content[first : first + after])
        handler.close_connection = True

    return answer


def cut_with_words(after: int) -> Fault:
    """Break the connection after some bytes of content and an error message, as a cache does."""
    words = b'{"errors":[{"code":"UNKNOWN","message":"no space left on device"}]}\n'

    def answer(handler: Handler, blob: Blob) -> None:
        handler.start(200, len(blob.content))
        handler.wfile.write(blob.content[:after] + words)
        handler.close_connection = True

    return answer


def whole(handler: Handler, blob: Blob) -> None:
    """Send the whole blob, ignoring the range."""
    handler.send(200, blob.content)


def altered(handler: Handler, blob: Blob) -> None:
    """Send the right number of bytes, one of them wrong."""
    handler.send(200, bytes([blob.content[0] ^ 1]) + blob.content[1:])


def longer(handler: Handler, blob: Blob) -> None:
    """Announce and send a byte too many."""
    handler.send(200, blob.content + b"!")


def unbounded(handler: Handler, blob: Blob) -> None:
    """Send a byte too many, without a length."""
    handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.wfile.write(blob.content + b"!")


def silent(seconds: float) -> Fault:
    """Send nothing for a while, then close the connection."""

    def answer(handler: Handler, _: Blob) -> None:
        time.sleep(seconds)
        handler.close_connection = True

    return answer


def _tls(certificate: Issued) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with TemporaryDirectory() as folder:
        chain = Path(folder, "chain.pem")
        chain.write_text(certificate.certificate + certificate.key)
        context.load_cert_chain(chain)
    return context


class Server(ThreadingHTTPServer):
    """Waits for its threads at the end, and ignores closed connections."""

    daemon_threads = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report errors other than closed connections."""
        if not isinstance(sys.exception(), ConnectionError | ssl.SSLError):
            super().handle_error(request, client_address)


def basic(username: str, password: str) -> str:
    """The Authorization header of a user name and password."""
    return f"Basic {b64encode(f'{username}:{password}'.encode()).decode()}"


@contextmanager
def serving(registry: TinyRegistry, certificate: Issued | None = None) -> Iterator[TinyRegistry]:
    """Serve a registry on a free port, with TLS if it has a certificate."""
    handler = type("OwnHandler", (Handler,), {"registry": registry})
    server = Server(("127.0.0.1", 0), handler)
    if certificate:
        # The handshake is done in the connection's thread.
        server.socket = _tls(certificate).wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    scheme = "https" if certificate else "http"
    registry.url = f"{scheme}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
