"""The engine is selected as the real docker CLI selects it."""

import http.server
import os
import ssl
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from components.certificate_authority import Issued, issue_authority, issue_server
from talos_registry_cache.engine import selection
from toolchain import engine

VARIABLES = ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY")
LOOPBACK = "127.0.0.1"


@pytest.fixture(autouse=True)
def _own_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in VARIABLES:
        # Set first, so that a variable that a test exports is unset afterwards.
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))


def docker(*arguments: str) -> str:
    return subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"DOCKER_HOST": "tcp://192.0.2.9:2375"},
        {"DOCKER_CONTEXT": "other"},
        {"DOCKER_CONTEXT": "default"},
        {"DOCKER_HOST": "tcp://192.0.2.9:2375", "DOCKER_CONTEXT": "other"},
    ],
    ids=str,
)
@pytest.mark.parametrize("used", [None, "mine", "default"])
def test_docker_ps_uses_the_same_engine(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], used: str | None
) -> None:
    docker("context", "create", "mine", "--docker", "host=unix:///mine.sock")
    docker("context", "create", "other", "--docker", "host=tcp://192.0.2.1:2375")
    if used:
        docker("context", "use", used)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    cli = docker("context", "inspect", "--format", "{{.Endpoints.docker.Host}}")

    assert selection.select().host == cli


@pytest.fixture
def authority() -> Issued:
    return issue_authority("engines", datetime.now(UTC))


@pytest.fixture
def tls_engine(authority: Issued, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that answers like an engine, over TLS."""

    class Pong(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(http.HTTPStatus.OK)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    issued = issue_server(authority, [LOOPBACK], datetime.now(UTC))
    file = tmp_path_factory.mktemp("server") / "both.pem"
    file.write_text(issued.certificate + issued.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    with http.server.ThreadingHTTPServer((LOOPBACK, 0), Pong) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"tcp://{LOOPBACK}:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.parametrize(
    ("trusts", "options", "answers"),
    [("its", "", True), ("another", "", False), ("another", ",skip-tls-verify=true", True)],
)
def test_the_engine_of_a_tls_context_is_verified_unless_the_context_says_otherwise(
    authority: Issued,
    tls_engine: str,
    tmp_path: Path,
    trusts: str,
    options: str,
    *,
    answers: bool,
) -> None:
    trusted = authority if trusts == "its" else issue_authority("others", datetime.now(UTC))
    file = tmp_path / "authority.pem"
    file.write_text(trusted.certificate)
    docker("context", "create", "tls", "--docker", f"host={tls_engine},ca={file}{options}")
    docker("context", "use", "tls")

    selection.select().export()

    assert os.environ["DOCKER_HOST"] == tls_engine
    assert engine.answers(tls_engine) is answers
