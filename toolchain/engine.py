"""Finds or installs a container engine, and makes the few API calls that setting up needs."""

import http.client
import json
import os
import platform
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

from talos_registry_cache.engine import selection, supported
from talos_registry_cache.engine.selection import DEFAULT_HOST, Selection, SelectionError
from toolchain.paths import STATE
from toolchain.report import SetupError, run, step

PACKAGES = ("docker.io", "iptables")
# Sockets of engines that are not at the default address, in the home directory.
HOME_SOCKETS = (
    ".docker/run/docker.sock",
    ".docker/desktop/docker.sock",
    ".colima/default/docker.sock",
    ".orbstack/run/docker.sock",
    ".rd/docker.sock",
)
ROOTLESS_SOCKET = "docker.sock"
PODMAN_SOCKET = Path("/run/podman/podman.sock")
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
    """Find the engine that the docker CLI would use, or install and start one.

    This process and its children then use that engine.

    Returns:
        The address of the engine, as in DOCKER_HOST.

    Raises:
        SetupError: none answers, and it cannot or should not be installed on this machine.
    """
    selected = select()
    selected.export()
    if answers(selected.host):
        return selected.host
    if problem := why_not_started(selected):
        raise SetupError(problem)
    if not is_installed():
        _install()
    _start()
    return DEFAULT_HOST


def select() -> Selection:
    """Return the engine that the docker CLI would use.

    Raises:
        SetupError: the selected Docker context does not exist.
    """
    try:
        return selection.select()
    except SelectionError as error:
        raise SetupError(str(error)) from error


def why_not_started(selected: Selection) -> str:
    """Return why an engine that does not answer is not installed or started; empty if it is."""
    if selected.host != DEFAULT_HOST:
        return f"no container engine answers at {selected}"
    problem = _why_not_installed()
    return f"no container engine answers at {DEFAULT_HOST}; {problem}" if problem else ""


def is_installed() -> bool:
    """Whether an engine is installed, which may not be running."""
    return shutil.which("dockerd") is not None


def refuse_unsupported(host: str) -> str:
    """Refuse an engine on which `up` could not work, before any image is prepared.

    Returns:
        The version of the engine.

    Raises:
        SetupError: the engine is not supported.
    """
    if problem := supported.why_not_at(host):
        raise SetupError(problem)
    version = json.loads(request(host, "GET", "/version")[1])
    if problem := supported.why_not(version):
        raise SetupError(problem)
    return str(version["Version"])


def answers(host: str) -> bool:
    """Whether an engine is running at an address."""
    try:
        return request(host, "GET", "/_ping")[0] == http.HTTPStatus.OK
    except OSError:
        return False


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
        case "tcp" | "https" if certificates := os.environ.get("DOCKER_CERT_PATH"):
            tls = _tls(Path(certificates))
            connection = http.client.HTTPSConnection(address, timeout=timeout_s, context=tls)
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


def _tls(certificates: Path) -> ssl.SSLContext:
    """Return the TLS settings of DOCKER_CERT_PATH and DOCKER_TLS_VERIFY."""
    authority = certificates / "ca.pem"
    context = ssl.create_default_context(cafile=authority if authority.exists() else None)
    if not os.environ.get("DOCKER_TLS_VERIFY"):
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if (certificates / "cert.pem").exists():
        context.load_cert_chain(certificates / "cert.pem", certificates / "key.pem")
    return context


def _other_engine() -> str:
    """Return the address of an engine that runs but is not selected; empty if there is none."""
    sockets = [Path.home() / name for name in HOME_SOCKETS]
    if folder := os.environ.get("XDG_RUNTIME_DIR"):
        sockets.append(Path(folder) / ROOTLESS_SOCKET)
    return next(filter(answers, (f"unix://{socket}" for socket in sockets)), "")


def _is_debian() -> bool:
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return False
    return "debian" in f"{release.get('ID')} {release.get('ID_LIKE', '')}"


def _why_not_installed() -> str:
    """Return why no engine is installed or started here, and what to do; empty if one should be."""
    socket = Path(DEFAULT_HOST.removeprefix("unix://"))
    if socket.is_socket() and not os.access(socket, os.R_OK | os.W_OK):
        return f"this user may not use {socket}: sudo usermod -aG docker $USER, and log in again"
    if other := _other_engine():
        return f"another one answers, so none is installed: set DOCKER_HOST={other}"
    is_linux, is_root = platform.system() == "Linux", os.geteuid() == 0
    if is_linux and is_installed():
        return "" if is_root else "start it: sudo systemctl start docker"
    if shutil.which("podman") or PODMAN_SOCKET.exists():
        return "Podman is installed, so Docker is not: install it yourself, or set DOCKER_HOST"
    if is_linux and _is_debian():
        return "" if is_root else f"install one: sudo apt-get install {' '.join(PACKAGES)}"
    return "install Docker: https://docs.docker.com/engine/install/"


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
