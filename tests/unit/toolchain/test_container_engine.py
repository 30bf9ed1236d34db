"""The module is toolchain/engine.py; two test files of one name cannot be collected together."""

import http.server
import json
import os
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.toolchain.fakes import Commands, Processes, programs
from toolchain import engine
from toolchain.report import SetupError

OWN = "tcp://192.0.2.1:2375"
CONTEXT = "unix:///home/me/.colima/docker.sock"


# Which engine is used


class Machine:
    """A machine on which some engines answer; what is done to it is noted down."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answering: set[str] = set()
        self.context = ""
        self.commands = Commands()
        self.done: list[str] = []
        monkeypatch.setattr(engine, "answers", self.answers)
        monkeypatch.setattr(engine, "_context_host", lambda: self.context)
        monkeypatch.setattr(engine, "_install", lambda: self.done.append("install"))
        monkeypatch.setattr(engine, "_start", lambda: self.done.append("start"))
        monkeypatch.delenv("DOCKER_HOST")
        self._monkeypatch = monkeypatch
        self.is_like(system="Linux", debian=True, user=0)

    def answers(self, host: str) -> bool:
        assert host, "there is no engine without an address"
        return host in self.answering

    def is_like(self, *, system: str, debian: bool, user: int, has: tuple[str, ...] = ()) -> None:
        self._monkeypatch.setattr("platform.system", lambda: system)
        self._monkeypatch.setattr(engine, "_is_debian", lambda: debian)
        self._monkeypatch.setattr("os.geteuid", lambda: user)
        self._monkeypatch.setattr("shutil.which", programs(*has))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def test_an_engine_that_answers_is_used_as_it_is(machine: Machine) -> None:
    machine.answering = {engine.DEFAULT_HOST}

    assert engine.ensure() == engine.DEFAULT_HOST
    assert machine.done == []


def test_docker_host_wins_over_the_default(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", OWN)
    machine.answering = {engine.DEFAULT_HOST, OWN}

    assert engine.ensure() == OWN


def test_an_empty_docker_host_is_none(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "")
    machine.answering = {engine.DEFAULT_HOST}

    assert engine.ensure() == engine.DEFAULT_HOST


def test_the_engine_of_the_docker_context_comes_next(machine: Machine) -> None:
    machine.context = CONTEXT
    machine.answering = {CONTEXT}

    assert engine.ensure() == CONTEXT
    assert machine.done == []


def test_a_dead_docker_host_is_not_replaced_by_another_engine(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", OWN)
    machine.answering = {engine.DEFAULT_HOST}

    with pytest.raises(SetupError, match=f"no engine answers at DOCKER_HOST={OWN}"):
        engine.ensure()

    assert machine.done == []


def test_on_debian_as_root_an_engine_is_installed_and_started(machine: Machine) -> None:
    assert engine.ensure() == engine.DEFAULT_HOST
    assert machine.done == ["install", "start"]


def test_an_installed_engine_is_only_started(machine: Machine) -> None:
    machine.is_like(system="Linux", debian=True, user=0, has=("dockerd",))

    assert engine.ensure() == engine.DEFAULT_HOST
    assert machine.done == ["start"]


@pytest.mark.parametrize(
    ("system", "debian", "user", "has", "advice"),
    [
        ("Linux", True, 1000, (), "Install one: sudo apt-get install docker.io iptables"),
        ("Linux", True, 1000, ("dockerd",), "Start it: sudo systemctl start docker"),
        ("Linux", False, 0, ("dockerd",), "Start it: sudo systemctl start docker"),
        ("Linux", False, 0, (), "Install Docker: https://docs.docker.com/engine/install/"),
        ("Darwin", False, 501, (), "Install Docker: https://docs.docker.com/engine/install/"),
        ("Darwin", False, 501, ("dockerd",), "Install Docker: https://docs.docker.com/"),
    ],
)
def test_elsewhere_the_person_is_told_what_to_do(
    machine: Machine, system: str, user: int, has: tuple[str, ...], advice: str, *, debian: bool
) -> None:
    machine.is_like(system=system, debian=debian, user=user, has=has)

    with pytest.raises(SetupError) as advised:
        engine.ensure()

    assert str(advised.value).startswith("no container engine answers on this machine. ")
    assert advice in str(advised.value)
    assert machine.done == []


@pytest.mark.parametrize(
    ("release", "debian"),
    [
        ({"ID": "debian"}, True),
        ({"ID": "ubuntu", "ID_LIKE": "debian"}, True),
        ({"ID": "linuxmint", "ID_LIKE": "ubuntu debian"}, True),
        ({"ID": "fedora"}, False),
        ({"ID": "rocky", "ID_LIKE": "rhel centos fedora"}, False),
        (None, False),
    ],
)
def test_debian_and_what_is_like_it_is_recognised(
    monkeypatch: pytest.MonkeyPatch, release: dict[str, str] | None, *, debian: bool
) -> None:
    def read() -> dict[str, str]:
        if release is None:
            raise OSError
        return release

    monkeypatch.setattr("platform.freedesktop_os_release", read)

    assert engine._is_debian() is debian


def test_installing_asks_nobody_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = Commands()
    monkeypatch.setattr(engine, "run", commands)

    engine._install()

    assert [line.split()[:2] for line in commands.lines] == [
        ["apt-get", "update"],
        ["apt-get", "install"],
    ]
    assert "--yes" in commands.lines[1]
    assert commands.lines[1].endswith(" docker.io iptables")


@pytest.mark.parametrize(
    ("has", "code", "printed", "host"),
    [
        (("docker",), 0, f"{CONTEXT}\n", CONTEXT),
        (("docker",), 1, "no such context", ""),
        ((), 0, f"{CONTEXT}\n", ""),
    ],
)
def test_the_context_is_the_one_that_the_docker_command_has(
    monkeypatch: pytest.MonkeyPatch, has: tuple[str, ...], code: int, printed: str, host: str
) -> None:
    monkeypatch.setattr("shutil.which", programs(*has))
    monkeypatch.setattr("subprocess.run", Processes(code=code, printed=printed))

    assert engine._context_host() == host


@pytest.mark.parametrize(
    ("has", "code", "answers"),
    [(("docker",), 0, True), (("docker",), 1, False), ((), 0, False)],
)
def test_an_engine_elsewhere_is_asked_by_the_docker_command(
    monkeypatch: pytest.MonkeyPatch, has: tuple[str, ...], code: int, *, answers: bool
) -> None:
    processes = Processes(code=code)
    monkeypatch.setattr("shutil.which", programs(*has))
    monkeypatch.setattr("subprocess.run", processes)

    assert engine.answers("ssh://me@engine.test") is answers
    assert len(processes.lines) == len(has)


def test_an_engine_that_ends_at_once_is_an_error_with_the_end_of_its_log(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    dockerd = tmp_path / "bin" / "dockerd"
    dockerd.parent.mkdir()
    dockerd.write_text("#!/bin/sh\necho no iptables here >&2\nexit 1\n")
    dockerd.chmod(0o755)
    monkeypatch.setenv("PATH", str(dockerd.parent))
    monkeypatch.setattr(engine, "STATE", tmp_path / "state")
    monkeypatch.setattr(engine, "answers", lambda _: False)

    with pytest.raises(SetupError, match=r"did not start; .*dockerd\.log ends with:\nno iptables"):
        engine._start_in_background()


# What is asked of an engine


class FakeApi(http.server.BaseHTTPRequestHandler):
    """Answers with what the server has for a path, and notes what it was asked."""

    server: "Server"

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(body)

    def _answer(self, body: bytes) -> None:
        self.server.asked.append((f"{self.command} {self.path}", body))
        status, answer = self.server.answers.get(self.path.partition("?")[0], (404, b"{}"))
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def address_string(self) -> str:
        return "a test"

    def log_message(self, *_: Any) -> None:
        pass


class Server(socketserver.UnixStreamServer):
    """An engine on a socket of its own."""

    def __init__(self, socket: Path) -> None:
        self.answers: dict[str, tuple[int, bytes]] = {}
        self.asked: list[tuple[str, bytes]] = []
        self.host = f"unix://{socket}"
        super().__init__(str(socket), FakeApi)


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    # A socket's path is short, which that of a test's folder may not be.
    monkeypatch.chdir(tmp_path)
    with Server(Path("api.sock")) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("status", "answers"), [(200, True), (500, False), (404, False)])
def test_an_engine_answers_if_it_says_ok(api: Server, status: int, *, answers: bool) -> None:
    api.answers["/_ping"] = (status, b"OK")

    assert engine.answers(api.host) is answers


def test_no_socket_is_no_answer(tmp_path: Path) -> None:
    assert engine.answers(f"unix://{tmp_path / 'none.sock'}") is False


def test_what_is_no_engine_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Babbler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.rfile.readline()
            self.wfile.write(b"220 mail.test ESMTP\r\n")

    monkeypatch.chdir(tmp_path)
    with socketserver.UnixStreamServer("mail.sock", Babbler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()

        assert engine.answers("unix://mail.sock") is False
        thread.join()


def test_an_image_is_there_if_the_engine_knows_it(api: Server) -> None:
    api.answers["/images/registry%3A3.1.2/json"] = (200, b"{}")

    assert engine.has_image(api.host, "registry:3.1.2")
    assert not engine.has_image(api.host, "registry:2.5")


def test_an_image_tells_its_labels(api: Server) -> None:
    api.answers["/images/a/json"] = (200, b'{"Config": {"Labels": {"made": "here"}}}')
    api.answers["/images/b/json"] = (200, b'{"Config": {"Labels": null}}')

    assert engine.image_labels(api.host, "a") == {"made": "here"}
    assert engine.image_labels(api.host, "b") == {}
    assert engine.image_labels(api.host, "c") is None


def test_an_image_can_have_one_more_name(api: Server) -> None:
    api.answers["/images/a%3A1/tag"] = (201, b"")
    api.answers["/images/b/tag"] = (409, b'{"message": "it is taken"}')

    engine.tag_image(api.host, "a:1", "me/registry", "1")

    assert api.asked == [("POST /images/a%3A1/tag?repo=me%2Fregistry&tag=1", b"")]
    with pytest.raises(SetupError, match="the engine refused the name me/registry:1: it is taken"):
        engine.tag_image(api.host, "b", "me/registry", "1")


def test_an_image_is_pulled_by_repository_and_tag(api: Server) -> None:
    api.answers["/images/create"] = (200, b'{"status":"Pulling"}\n{"status":"Done"}\n')

    engine.pull_image(api.host, "me/registry", "3.1.2", timeout_s=5)

    assert api.asked == [("POST /images/create?fromImage=me%2Fregistry&tag=3.1.2", b"")]


@pytest.mark.parametrize(
    ("status", "body", "problem"),
    [
        (200, b'{"status":"Pulling"}\n{"error":"no such host"}\n', "no such host"),
        (500, b'{"message":"i/o timeout"}', "i/o timeout"),
        (502, b"bad gateway\n", "bad gateway"),
        (500, b'["odd"]', "odd"),
    ],
)
def test_an_image_that_cannot_be_pulled_is_an_error_with_the_reason(
    api: Server, status: int, body: bytes, problem: str
) -> None:
    api.answers["/images/create"] = (status, body)

    with pytest.raises(OSError, match=problem):
        engine.pull_image(api.host, "registry", "3.1.2", timeout_s=5)


@pytest.mark.parametrize("tar", [b"an archive", [b"an ", b"archive"]])
def test_an_image_is_made_from_an_archive_and_changes(api: Server, tar: Any) -> None:
    api.answers["/images/create"] = (200, b'{"status":"sha256:0123"}')

    engine.import_image(api.host, tar, "registry", "3.1.2", ["USER 5", "EXPOSE 5000"])

    ((asked, body),) = api.asked
    path, *options = asked.split("&")
    assert path == "POST /images/create?fromSrc=-"
    assert options == ["repo=registry", "tag=3.1.2", "changes=USER%205", "changes=EXPOSE%205000"]
    assert body == b"an archive"


@pytest.mark.parametrize(
    ("status", "body"), [(200, b'{"error":"disk full"}'), (500, b'{"message":"disk full"}')]
)
def test_an_image_that_the_engine_refuses_is_an_error_with_the_reason(
    api: Server, status: int, body: bytes
) -> None:
    api.answers["/images/create"] = (status, body)

    with pytest.raises(SetupError, match=r"refused the image registry:3\.1\.2: disk full"):
        engine.import_image(api.host, b"", "registry", "3.1.2", [])


def test_an_engine_of_another_kind_is_refused() -> None:
    with pytest.raises(SetupError, match=r"DOCKER_HOST=ssh://me@engine\.test is neither"):
        engine.request("ssh://me@engine.test", "GET", "/_ping")


def test_an_engine_on_tcp_is_asked_as_well() -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), FakeApi) as server:
        server.answers, server.asked = {"/info": (200, json.dumps({}).encode())}, []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.handle_request)
        thread.start()

        answer = engine.request(f"tcp://127.0.0.1:{server.server_port}", "GET", "/info")
        thread.join()

    assert answer == (200, b"{}")


def test_unit_tests_reach_no_engine() -> None:
    assert not engine.answers(os.environ["DOCKER_HOST"])
