"""A container engine is found, or installed and started, and its API is called.

The module is toolchain/engine.py; pytest cannot collect two test files named test_engine.py.
"""

import http.server
import os
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from talos_registry_cache.engine import selection
from tests.unit.toolchain.fakes import programs
from toolchain import engine
from toolchain.report import SetupError

DEFAULT = selection.DEFAULT_HOST
OWN = "tcp://192.0.2.1:2375"


class Machine:
    """A machine with some running engines, and a home directory of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
        self.running: set[str] = set()
        self.done: list[str] = []
        monkeypatch.setattr(engine, "answers", lambda host: host in self.running)
        monkeypatch.setattr(engine, "_install", lambda: self.done.append("install"))
        monkeypatch.setattr(engine, "_start", lambda: self.done.append("start"))
        monkeypatch.setattr(engine, "PODMAN_SOCKET", home / "podman.sock")
        for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HOME", str(home))
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(home / "run"))
        self.home = home
        self._monkeypatch = monkeypatch

    def is_like(self, release: dict[str, str], user: int, *has: str) -> None:
        self._monkeypatch.setattr("platform.system", lambda: "Linux" if release else "Darwin")
        self._monkeypatch.setattr("platform.freedesktop_os_release", lambda: release)
        self._monkeypatch.setattr("os.geteuid", lambda: user)
        self._monkeypatch.setattr("shutil.which", programs(*has))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    return Machine(monkeypatch, tmp_path)


def test_the_selected_engine_is_used_also_by_child_processes(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", OWN)
    monkeypatch.setenv("DOCKER_CONTEXT", "colima")
    machine.running = {DEFAULT, OWN}

    assert engine.ensure() == OWN == os.environ["DOCKER_HOST"]
    assert "DOCKER_CONTEXT" not in os.environ


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("DOCKER_HOST", OWN, rf"answers at {OWN} \(DOCKER_HOST\)$"),
        (
            "DOCKER_CONTEXT",
            "colima",
            "context colima, which DOCKER_CONTEXT .* does not exist",
        ),
    ],
)
def test_another_engine_does_not_replace_the_selected_one(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, name: str, value: str, problem: str
) -> None:
    monkeypatch.setenv(name, value)
    machine.running = {DEFAULT}
    machine.is_like(DEBIAN, 0)

    with pytest.raises(SetupError, match=problem):
        engine.ensure()
    assert machine.done == []


@pytest.mark.parametrize("socket", [".colima/default/docker.sock", "run/docker.sock"])
def test_no_engine_is_installed_if_another_one_answers(machine: Machine, socket: str) -> None:
    machine.is_like(DEBIAN, 0)
    other = f"unix://{machine.home / socket}"
    machine.running = {other}

    with pytest.raises(SetupError, match=rf"answers at {DEFAULT}; .*set DOCKER_HOST={other}$"):
        engine.ensure()
    assert machine.done == []


@pytest.mark.parametrize("has", ["program", "socket"])
def test_no_engine_is_installed_beside_podman(machine: Machine, has: str) -> None:
    machine.is_like(DEBIAN, 0, *(["podman"] if has == "program" else []))
    if has == "socket":
        (machine.home / "podman.sock").touch()

    with pytest.raises(SetupError, match="Podman is installed, so Docker is not"):
        engine.ensure()
    assert machine.done == []


def test_a_socket_that_the_user_may_not_open_is_reported(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The path of a socket must be short.
    monkeypatch.chdir(machine.home)
    with socketserver.UnixStreamServer("docker.sock", socketserver.BaseRequestHandler):
        monkeypatch.setattr(engine, "DEFAULT_HOST", "unix://docker.sock")
        monkeypatch.setattr(selection, "DEFAULT_HOST", "unix://docker.sock")
        monkeypatch.setattr("os.access", lambda *_: False)
        machine.is_like(DEBIAN, 1000)

        with pytest.raises(SetupError, match=r"may not use docker\.sock: sudo usermod -aG docker"):
            engine.ensure()


DEBIAN, MINT = {"ID": "debian"}, {"ID": "linuxmint", "ID_LIKE": "ubuntu debian"}


@pytest.mark.parametrize(
    ("release", "has", "done"),
    [(MINT, (), ["install", "start"]), (DEBIAN, ("dockerd",), ["start"])],
)
def test_root_on_debian_gets_an_engine_installed_and_started(
    machine: Machine, release: dict[str, str], has: tuple[str, ...], done: list[str]
) -> None:
    machine.is_like(release, 0, *has)

    assert engine.ensure() == DEFAULT
    assert machine.done == done


@pytest.mark.parametrize(
    ("release", "user", "has", "advice"),
    [
        (DEBIAN, 1000, (), "install one: sudo apt-get install docker.io iptables"),
        (DEBIAN, 1000, ("dockerd",), "start it: sudo systemctl start docker"),
        ({"ID": "rocky", "ID_LIKE": "rhel centos fedora"}, 0, (), "install Docker: https://"),
        ({}, 501, ("dockerd",), "install Docker: https://"),
    ],
)
def test_other_users_and_systems_get_advice(
    machine: Machine, release: dict[str, str], user: int, has: tuple[str, ...], advice: str
) -> None:
    machine.is_like(release, user, *has)

    with pytest.raises(SetupError, match=rf"^no container engine answers at .*{advice}"):
        engine.ensure()

    assert machine.done == []


def test_engine_that_fails_to_start_is_an_error_with_the_end_of_its_log(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    dockerd = tmp_path / "dockerd"
    dockerd.write_text("#!/bin/sh\necho no iptables here >&2\nexit 1\n")
    dockerd.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(engine, "STATE", tmp_path / "state")
    monkeypatch.setattr(engine, "answers", lambda _: False)

    with pytest.raises(SetupError, match=r"did not start; .*dockerd\.log ends with:\nno iptables"):
        engine._start_in_background()


# Its API


class FakeApi(http.server.BaseHTTPRequestHandler):
    """Returns the server's preset response for a path, and notes the request."""

    server: "Server"

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.requests.append((f"{self.command} {self.path}", body))
        status, answer = self.server.responses.get(self.path.partition("?")[0], (404, b"{}"))
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass


class Server(socketserver.UnixStreamServer):
    """An engine on a socket of its own."""

    responses: dict[str, tuple[int, bytes]]
    requests: list[tuple[str, bytes]]

    @property
    def host(self) -> str:
        return f"unix://{self.server_address!s}"


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    # The path of a socket must be short.
    monkeypatch.chdir(tmp_path)
    with Server("api.sock", FakeApi) as server:
        server.responses, server.requests = {}, []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("status", "answers"), [(200, True), (500, False)])
def test_engine_is_running_if_it_answers_ok(api: Server, status: int, *, answers: bool) -> None:
    api.responses["/_ping"] = (status, b"OK")

    assert engine.answers(api.host) is answers
    assert not engine.answers("unix://missing.sock")


def test_server_that_is_not_http_is_no_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class MailServer(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.rfile.readline()
            self.wfile.write(b"220 mail.test ESMTP\r\n")

    monkeypatch.chdir(tmp_path)
    with socketserver.UnixStreamServer("mail.sock", MailServer) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()

        assert engine.answers("unix://mail.sock") is False
        thread.join()


def test_images_are_found_pulled_and_imported(api: Server) -> None:
    api.responses["/images/me%2Fregistry%3A3/json"] = (200, b"{}")
    api.responses["/images/create"] = (200, b'{"status":"Pulling"}\n{"status":"Done"}\n')

    assert engine.has_image(api.host, "me/registry:3")
    assert not engine.has_image(api.host, "registry:2.5")
    engine.pull_image(api.host, "me/registry", "3", timeout_s=5)
    engine.import_image(api.host, b"an archive", "registry", "3", ["USER 5", "EXPOSE 5000"])

    changes = "changes=USER%205&changes=EXPOSE%205000"
    assert api.requests[2:] == [
        ("POST /images/create?fromImage=me%2Fregistry&tag=3", b""),
        (f"POST /images/create?fromSrc=-&repo=registry&tag=3&{changes}", b"an archive"),
    ]


@pytest.mark.parametrize(
    ("status", "body", "problem"),
    [
        (200, b'{"status":"Pulling"}\n{"error":"no such host"}\n', "no such host"),
        (500, b'{"message":"i/o timeout"}', "i/o timeout"),
        (502, b"bad gateway\n", "bad gateway"),
        (500, b'["odd"]', "odd"),
    ],
)
def test_error_has_the_engines_reason(api: Server, status: int, body: bytes, problem: str) -> None:
    api.responses["/images/create"] = (status, body)

    with pytest.raises(OSError, match=problem):
        engine.pull_image(api.host, "registry", "3.1.2", timeout_s=5)
    with pytest.raises(SetupError, match=rf"(?s)rejected the image registry:3\.1\.2: .*{problem}"):
        engine.import_image(api.host, b"", "registry", "3.1.2", [])


def test_unit_tests_reach_no_engine_and_an_unknown_scheme_is_refused() -> None:
    assert not engine.answers(os.environ["DOCKER_HOST"])
    with pytest.raises(SetupError, match=r"found ssh://me@engine\.test; allowed: unix://"):
        engine.request("ssh://me@engine.test", "GET", "/_ping")
