"""Access to a cluster that boots. Ends of talosctl are in test_cluster.py."""

import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml

from components.certificate_authority import issue_server
from talos_registry_cache.talos import waiting
from talos_registry_cache.talos.cluster_files import ClusterFiles
from talos_registry_cache.talos.errors import CommandError
from talos_registry_cache.talos.waiting import Access, Wait
from tests.unit.components.certificates import AUTHORITY, OTHER
from tests.unit.talos import programs

WITHIN_S = 30.0


class KubernetesApi(BaseHTTPRequestHandler):
    """Answers requests without credentials with the next of these statuses."""

    statuses: list[int]

    def do_GET(self) -> None:
        """Answer a request."""
        self.send_response(self.statuses.pop(0))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), KubernetesApi)
    issued = issue_server(AUTHORITY, ["127.0.0.1"], datetime.now(UTC))
    both = tmp_path / "server.pem"
    both.write_text(issued.certificate + issued.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"https://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def access(folder: Path, endpoint: str, ca: str = AUTHORITY.certificate) -> Access:
    """The access through a talosctl that fails at first."""
    files = ClusterFiles(folder, "demo")
    files.folder.mkdir()
    data = b64encode(ca.encode()).decode()
    entry = {"name": "demo", "cluster": {"server": "https://10.5.0.2:6443"}}
    entry["cluster"]["certificate-authority-data"] = data  # type: ignore[index]
    (folder / "source").write_text(yaml.safe_dump({"clusters": [entry]}))
    script = f"cd {folder}; if [ -e again ]; then cp source $2; else touch again; exit 1; fi"
    talosctl = programs.shell(folder / "talosctl", script)
    return Access(talosctl, files, "10.5.0.2", endpoint)


@pytest.mark.parametrize("answer", [200, 401])
def test_an_api_answers_when_it_accepts_or_refuses_a_request(
    tmp_path: Path, endpoint: str, answer: int
) -> None:
    KubernetesApi.statuses = [500, answer, answer]
    lines: list[str] = []
    made = access(tmp_path, endpoint)

    made.wait_for(Wait.API, time.monotonic() + WITHIN_S, lines.append)

    assert KubernetesApi.statuses == [answer]
    assert [line.rpartition(": ")[2] for line in lines if "Kubernetes API" in line] == [
        "...", "HTTP status 500", "OK",
    ]  # fmt: skip
    log = made.files.log.read_text()
    assert all(line in log for line in lines)
    assert f"server: {endpoint}" in made.files.kubeconfig.read_text()


def test_an_api_with_the_certificate_of_another_cluster_is_not_the_right_one(
    tmp_path: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "POLL_S", 0.05)
    made = access(tmp_path, endpoint, OTHER.certificate)

    with pytest.raises(CommandError, match=r"took too long: .*CERTIFICATE_VERIFY_FAILED"):
        made.wait_for(Wait.API, time.monotonic() + 1, print)


def test_a_kubeconfig_that_never_comes_is_a_failure_with_the_log(tmp_path: Path) -> None:
    made = access(tmp_path, "https://127.0.0.1:1")

    with pytest.raises(
        CommandError, match=r"the kubeconfig of 10.5.0.2 took too long: .*exit code"
    ):
        made.wait_for(Wait.NONE, time.monotonic(), print)
