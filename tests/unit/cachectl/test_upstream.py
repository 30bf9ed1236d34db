"""What upstreams say, asked of real servers on loopback."""

import asyncio
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cachectl import upstream
from registry.client import RateLimit

LIMIT = {"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "76;w=21600"}


class Hub(BaseHTTPRequestHandler):
    """Docker Hub, as far as its limit goes."""

    status = 200
    headers_sent: Mapping[str, str] = {}

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        if self.path.startswith("/token?service=hub&scope=repository%3Aratelimitpreview%2Ftest"):
            return self._send(200, {}, json.dumps({"token": "secret"}).encode())
        return self._send(self.status, {})

    def do_HEAD(self) -> None:
        if self.headers.get("Authorization") == "Bearer secret":
            return self._send(200, self.headers_sent)
        realm = f"http://{self.headers['Host']}/token"
        challenge = f'Bearer realm="{realm}",service="hub",scope="repository:x:pull"'
        return self._send(401, {"WWW-Authenticate": challenge})

    def _send(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def hub(status: int = 200, headers: Mapping[str, str] = LIMIT) -> Iterator[str]:
    handler = type("Own", (Hub,), {"status": status, "headers_sent": headers})
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
