"""Finds or installs a container engine, and makes the few API calls that setting up needs."""

import http.client
import json
import os
import platform
import shutil
import socket
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

from talos_registry_cache.engine import supported
from toolchain.paths import STATE
from toolchain.report import SetupError, run, step

DEFAULT_HOST = "unix:///var/run/docker.sock"
PACKAGES = ("docker.io", "iptables")
START_TIMEOUT_S = 60


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ensure() -> str:
    """Find a running engine, or install and start one; return its address as for DOCKER_HOST.

    Raises:
        SetupError: none is running, and it cannot be installed on this machine.
    """
    for host in (os.environ.get("DOCKER_HOST") or DEFAULT_HOST, _context_host()):
        if host and answers(host):
            return host
    if os.environ.get("DOCKER_HOST"):
        raise SetupError(f"no container engine at DOCKER_HOST={os.environ['DOCKER_HOST']}")
    if not (_is_debian() and os.geteuid() == 0):
        raise SetupError(_advice())
    if not shutil.which("dockerd"):
        _install()
    _start()
    return DEFAULT_HOST


def refuse_unsupported(host: str) -> None:
    """Refuse an engine on which `up` could not work, before any image is prepared.

    Raises:
        SetupError: the engine is not supported.
    """
    problem = supported.why_not_at(host)
    if not problem:
        _, body = request(host, "GET", "/version")
        problem = supported.why_not(json.loads(body))
    if problem:
        raise SetupError(problem)


def answers(host: str) -> bool:
    """Whether an engine is running at an address."""
    if host.startswith("unix://"):
        try:
            return request(host, "GET", "/_ping")[0] == http.HTTPStatus.OK
        except OSError:
            return False
    if not shutil.which("docker"):
        return False
    command = ["docker", "--host", host, "version", "--format", "{{.Server.Version}}"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def has_image(host: str, reference: str) -> bool:
    """Whether the engine has an image."""
    status, _ = request(host, "GET", f"/images/{quote(reference, safe='')}/json")
    return status == http.HTTPStatus.OK


def pull_image(host: str, repository: str, tag: str, *, timeout_s: float) -> None:
    """Pull an image.

    Raises:
        OSError: it cannot be pulled, or not in time.
    """
    path = f"/images/create?fromImage={quote(repository, safe='')}&tag={quote(tag)}"
    status, body = request(host, "POST", path, timeout_s=timeout_s)
    problems = [line for line in body.splitlines() if b'"error"' in line]
    if status != http.HTTPStatus.OK or problems:
        raise OSError(_message(problems[-1] if problems else body))


def import_image(
    host: str, tar: bytes | Iterable[bytes], repository: str, tag: str, changes: list[str]
) -> None:
    """Create an image with one layer from a tar archive of its file system.

    Raises:
        SetupError: the engine rejects it.
    """
    options = "".join(f"&changes={quote(change)}" for change in changes)
    path = f"/images/create?fromSrc=-&repo={quote(repository)}&tag={quote(tag)}{options}"
    status, body = request(host, "POST", path, body=tar, timeout_s=300)
    if status != http.HTTPStatus.OK or b'"error"' in body:
        raise SetupError(f"the engine rejected the image {repository}:{tag}: {_message(body)}")


def request(
    host: str,
    method: str,
    path: str,
    *,
    body: bytes | Iterable[bytes] | None = None,
    timeout_s: float = 10,
) -> tuple[int, bytes]:
    """Send a request to the engine's API; return the status and body of the response.

    Raises:
        OSError: there is no response, or it is not HTTP.
        SetupError: the address has another scheme than unix, tcp or http.
    """
    scheme, _, address = host.partition("://")
    connection: http.client.HTTPConnection
    match scheme:
        case "unix":
            connection = _UnixConnection(address, timeout_s)
        case "tcp" | "http":
            connection = http.client.HTTPConnection(address, timeout=timeout_s)
        case _:
            raise SetupError(f"DOCKER_HOST: found {host}; allowed: unix://… or tcp://…")
    try:
        headers = {"Content-Type": "application/x-tar"} if body is not None else {}
        connection.request(method, path, body=body, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except http.client.HTTPException as error:
        raise OSError(f"{host} is not a container engine: {error!r}") from error
    finally:
        connection.close()


def _message(body: bytes) -> str:
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    known = answer if isinstance(answer, dict) else {}
    text = body.decode(errors="replace").strip()
    return str(known.get("error") or known.get("message") or text)


def _context_host() -> str:
    """Return the address in the current Docker context, which Docker Desktop and Colima set."""
    if not shutil.which("docker"):
        return ""
    command = ["docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    return shown.stdout.strip() if shown.returncode == 0 else ""


def _is_debian() -> bool:
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return False
    return "debian" in f"{release.get('ID')} {release.get('ID_LIKE', '')}"


def _advice() -> str:
    line = "no container engine is running on this machine. "
    if platform.system() == "Linux":
        if shutil.which("dockerd"):
            return line + "Start it: sudo systemctl start docker"
        if _is_debian():
            return line + f"Install one: sudo apt-get install {' '.join(PACKAGES)}"
    return line + "Install Docker: https://docs.docker.com/engine/install/"


def _install() -> None:
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    with step(f"container engine: apt-get install {' '.join(PACKAGES)}"):
        run(["apt-get", "update", "--quiet=2"], env=env)
        install = ["apt-get", "install", "--quiet=2", "--yes", "--no-install-recommends"]
        run([*install, *PACKAGES], env=env)


def _start() -> None:
    with step("start the container engine"):
        if Path("/run/systemd/system").is_dir():
            run(["systemctl", "start", "docker"])
        else:
            _start_in_background()


def _start_in_background() -> None:
    STATE.mkdir(exist_ok=True)
    log = STATE / "dockerd.log"
    with log.open("ab") as output:
        engine = subprocess.Popen(
            ["dockerd"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_TIMEOUT_S
    while not answers(DEFAULT_HOST):
        if engine.poll() is not None or time.monotonic() > deadline:
            last = "\n".join(log.read_text(errors="replace").splitlines()[-10:])
            raise SetupError(f"the container engine did not start; {log} ends with:\n{last}")
        time.sleep(0.2)
