"""An upstream with endless answers and manifests that exceed the memory of a cache."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from docker import DockerClient

from tests.integration.conftest import NewStack
from tests.integration.support import host
from tests.integration.support.cachectl import Cachectl
from tests.integration.support.stack import CacheStack, upstreams

HUB = "docker.io"
OK, _, _, NOT_ALL_THERE = range(4)
MANIFEST = 400 << 20


class Hostile(BaseHTTPRequestHandler):
    """Sends a huge manifest for any tag, and endless content for any other request."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def do_HEAD(self) -> None:
        self._begin()

    def do_GET(self) -> None:
        self._begin()
        with suppress(OSError):
            left = MANIFEST if "/manifests/" in self.path else float("inf")
            while left > 0:
                self.wfile.write(b" " * (1 << 20))
                left -= 1 << 20

    def _begin(self) -> None:
        self.close_connection = True
        self.send_response(200)
        if "/manifests/" in self.path:
            self.send_header("Content-Type", "application/vnd.oci.image.manifest.v1+json")
            self.send_header("Content-Length", str(MANIFEST))
            self.send_header("Docker-Content-Digest", f"sha256:{'1' * 64}")
        self.send_header("Connection", "close")
        self.end_headers()


@contextmanager
def _hostile(engine: DockerClient) -> Iterator[str]:
    address = host.bridge_gateway(engine)
    server = ThreadingHTTPServer((address, 0), Hostile)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://{address}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def hostile(new_stack: NewStack, engine: DockerClient) -> Iterator[CacheStack]:
    with _hostile(engine) as url:
        made = new_stack({"upstreams": upstreams(url, HUB), "memoryLimit": "128m"})
        made.up()
        yield made


def test_status_reports_a_cache_that_exceeded_its_memory_limit(hostile: CacheStack) -> None:
    cachectl = Cachectl(hostile.name, hostile.folder)

    before = cachectl("status", "--limits", "--json")
    warmed = cachectl("warm", "team/app:1")
    after = cachectl("status", "--json")
    table = cachectl("status")

    assert before.code == OK
    assert (before.result[HUB]["reachable"], before.result[HUB]["restarts"]) == (True, 0)
    assert warmed.code == NOT_ALL_THERE
    for said in (warmed.err, table.err):
        assert f"{HUB}: restarted" in said
        assert "it exceeded its memory limit" in said
    assert after.result[HUB]["outOfMemory"] is True
    assert after.result[HUB]["restarts"] > 0
