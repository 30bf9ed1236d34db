"""A gate before the upstream: it checks credentials, counts requests and injects faults."""

import base64
import http.client
import json
import secrets
import ssl
import tempfile
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

from components import certificate_authority
from tests.integration.support import host
from tests.integration.support.upstream import Server

Scheme = Literal["none", "basic", "bearer"]

TIMEOUT_S = 150
CHUNK = 65_536
TOKEN_PATH = "/token"  # noqa: S105 - a path, not a secret
FORWARDED = ("Accept", "Range", "If-None-Match")
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding"}

Fault = Callable[["Handler", http.client.HTTPResponse], None]
"""Answers a request instead of the gate, given the answer of the upstream."""


class Gate:
    """A reverse proxy that clients see as a registry with accounts.

    Attributes:
        scheme: the authentication scheme: none, basic, or a bearer token.
        username, password: its only account.
        served: the forwarded requests, in order.
        is_gone: whether it closes every connection without an answer.
        port: its port.
        ca: the CA certificate in PEM; None without TLS. It uses TLS if it asks for a password, or
            if its certificate is to have names.
    """

    def __init__(
        self,
        upstream: Server,
        scheme: Scheme,
        username: str,
        password: str,
        names: Sequence[str] = (),
    ) -> None:
        self.upstream = upstream
        self.scheme = scheme
        self.username = username
        self.password = password
        self.served: list[str] = []
        self.is_gone = False
        self._answers = threading.Event()
        self._answers.set()
        self._faults: defaultdict[str, deque[Fault]] = defaultdict(deque)
        self._tokens: set[str] = set()
        self._server = _Server(self)
        self.port = self._server.server_port
        self.url = f"http://{upstream.address}:{self.port}"
        self.ca: str | None = None
        if names or scheme != "none":
            self._close_to_listeners([self.upstream.address, *names])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def _close_to_listeners(self, names: Sequence[str]) -> None:
        """Use TLS: stacks never send a password over plain HTTP."""
        now = datetime.now(UTC)
        authority = certificate_authority.issue_authority("tests", now)
        issued = certificate_authority.issue_server(authority, names, now)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.NamedTemporaryFile("w") as pem:
            pem.write(issued.certificate + issued.key)
            pem.flush()
            context.load_cert_chain(pem.name)
        # The thread that answers does the handshake, so that no client waits for another.
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.ca = authority.certificate
        self.url = self.url.replace("http:", "https:")

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(TIMEOUT_S)

    def fail(self, target: str, *faults: Fault, methods: tuple[str, ...] = ("GET",)) -> None:
        """Inject faults into the next requests for a tag or a digest, one for each request."""
        for method in methods:
            self._faults[f"{method} {target}"].extend(faults)

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Accept connections, and answer nothing until the end of the block."""
        self._answers.clear()
        try:
            yield
        finally:
            self._answers.set()

    def wait(self) -> None:
        """Wait until it is not silent."""
        self._answers.wait(TIMEOUT_S)

    def recover(self) -> None:
        """Remove all faults."""
        self.is_gone = False
        self._faults.clear()

    def fault(self, method: str, path: str) -> Fault | None:
        """The fault for a request, if any."""
        faults = self._faults[f"{method} {path.rpartition('/')[2]}"]
        return faults.popleft() if faults else None

    def blobs_served(self) -> list[str]:
        """The digests of the blobs that were forwarded with their content."""
        return [
            request.rpartition("/")[2]
            for request in self.served
            if request.startswith("GET ") and "/blobs/" in request
        ]

    def challenge(self) -> str:
        """The authentication challenge for anonymous requests."""
        if self.scheme == "bearer":
            return f'Bearer realm="{self.url}{TOKEN_PATH}",service="upstream"'
        return 'Basic realm="upstream"'

    def lets_in(self, authorization: str) -> bool:
        """Whether a request with this header is authorized."""
        match self.scheme:
            case "none":
                return True
            case "basic":
                return self.knows(authorization)
            case "bearer":
                return authorization.removeprefix("Bearer ") in self._tokens

    def knows(self, authorization: str) -> bool:
        """Whether a header has the correct user name and password."""
        account = f"{self.username}:{self.password}".encode()
        return authorization == f"Basic {base64.b64encode(account).decode()}"

    def new_token(self) -> str:
        """Create a valid token."""
        token = secrets.token_hex(16)
        self._tokens.add(token)
        return token


@contextmanager
def guarding(
    upstream: Server,
    scheme: Scheme,
    username: str = "somebody",
    password: str = "",
    names: Sequence[str] = (),
) -> Iterator[Gate]:
    """Run a gate for an upstream, with TLS if its certificate is to have names."""
    gate = Gate(upstream, scheme, username, password, names)
    try:
        yield gate
    finally:
        gate.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        super().__init__((gate.upstream.address, host.free_port()), Handler)


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    # One request for each connection (HTTP/1.0), so that no connection stays open.
    timeout = TIMEOUT_S
    server: _Server

    def do_GET(self) -> None:
        gate = self.server.gate
        authorization = self.headers.get("Authorization", "")
        if self.path.startswith(f"{TOKEN_PATH}?"):
            if gate.knows(authorization):
                self._answer(HTTPStatus.OK, {"token": gate.new_token(), "expires_in": 300})
            else:
                self._answer(HTTPStatus.UNAUTHORIZED, {"details": "wrong user or password"})
        elif gate.lets_in(authorization):
            self._forward(gate)
        else:
            self._answer(HTTPStatus.UNAUTHORIZED, {"errors": [{"code": "UNAUTHORIZED"}]})

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Log nothing; `served` has the requests."""

    def _answer(self, status: HTTPStatus, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        if status is HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", self.server.gate.challenge())
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _forward(self, gate: Gate) -> None:
        connection = http.client.HTTPConnection(
            gate.upstream.address, gate.upstream.port, timeout=TIMEOUT_S
        )
        headers = {
            name: ", ".join(values)
            for name in FORWARDED
            if (values := self.headers.get_all(name)) is not None
        }
        try:
            connection.request(self.command, self.path, headers=headers)
            answer = connection.getresponse()
            gate.served.append(f"{self.command} {self.path}")
            fault = gate.fault(self.command, self.path) or Handler.pass_on
            fault(self, answer)
        finally:
            connection.close()

    def pass_on(self, answer: http.client.HTTPResponse, pause_s: float = 0) -> None:
        """Forward an answer unchanged, with a pause before each chunk."""
        self.start(answer)
        while chunk := answer.read(CHUNK):
            time.sleep(pause_s)
            self.wfile.write(chunk)

    def start(self, answer: http.client.HTTPResponse) -> None:
        """Send the status and headers of an answer."""
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        self.end_headers()

    def handle(self) -> None:
        # Clients may disconnect at any time, and refuse the certificate.
        with suppress(ConnectionError, ssl.SSLError):
            self.server.gate.wait()
            if not self.server.gate.is_gone:
                super().handle()


def status(code: HTTPStatus, **headers: str) -> Fault:
    """A fault that answers with an error."""

    def answer(handler: Handler, _: http.client.HTTPResponse) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def without_length(handler: Handler, answer: http.client.HTTPResponse) -> None:
    """Answer a HEAD request without the length of the content, as registry.istio.io does."""
    handler.send_response(answer.status)
    handler.end_headers()


def slow(pause_s: float) -> Fault:
    """A fault that pauses before each chunk of an answer."""
    return lambda handler, answer: handler.pass_on(answer, pause_s)


def cut(handler: Handler, answer: http.client.HTTPResponse) -> None:
    """Close the connection in the middle of the content."""
    content = answer.read()
    handler.start(answer)
    handler.wfile.write(content[: len(content) // 2])


def altered(handler: Handler, answer: http.client.HTTPResponse) -> None:
    """Send the content with its last byte changed."""
    content = answer.read()
    handler.start(answer)
    handler.wfile.write(content[:-1] + bytes([content[-1] ^ 1]))


def respaced(handler: Handler, answer: http.client.HTTPResponse) -> None:
    """Send equivalent JSON of the same length, with its spaces moved."""
    content = answer.read()
    handler.start(answer)
    handler.wfile.write(content.replace(b", ", b" ,"))


def vanish(handler: Handler, answer: http.client.HTTPResponse) -> None:
    """Close the connection in the middle of the content, and answer no more requests."""
    handler.server.gate.is_gone = True
    cut(handler, answer)
