"""Caches and their attackers: another container, another user, or a stranger on the network."""

import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from docker import DockerClient

from tests.integration.support import http_pull, processes
from tests.integration.support.stack import ROOT, CacheStack, stack, upstreams
from tests.integration.support.upstream import FRONT_IMAGE, Pushed, Upstream

HUB = "docker.io"
DIGEST = "sha256:" + "0" * 64
ANSWER_WITHIN_S = 10
SEARCH_WITHIN_S = 60
PIECE = 65_536
UP, UP_ENCODED = "../" * 9, "%2e%2e%2f" * 9
# A file of each container, and how it begins.
FILE, ITS_CONTENT = "etc/passwd", b"root:"
STORED = "docker/registry/v2/repositories"


@pytest.fixture(scope="module")
def cache(
    tmp_path_factory: pytest.TempPathFactory, engine: DockerClient, upstream: Upstream
) -> Iterator[CacheStack]:
    folder = tmp_path_factory.mktemp("attacked")
    with stack(folder, engine, {"upstreams": upstreams(upstream.url, HUB)}) as made:
        made.up()
        yield made


@pytest.fixture(scope="module")
def image(cache: CacheStack, upstream: Upstream) -> Pushed:
    """An image that the cache holds."""
    pushed = upstream.push_index()
    http_pull.pull(cache.endpoint(HUB), pushed)
    return pushed


# Content of a terabyte is refused by its headers, so that none of it has to be kept.
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("framing", [f"Content-Length: {1 << 40}", "Transfer-Encoding: chunked"])
def test_a_cache_is_read_only(cache: CacheStack, image: Pushed, method: str, framing: str) -> None:
    target = f"/v2/{image.repository}/manifests/{image.tag}"

    answer = _answer(cache, f"{method} {target}", framing)

    assert _status(answer) == HTTPStatus.METHOD_NOT_ALLOWED
    assert http_pull.pull(cache.endpoint(HUB), image).digest == image.digest


def test_a_refused_push_says_why(cache: CacheStack) -> None:
    name = f"{cache.endpoint(HUB).removeprefix('http://')}/pushed:1"
    processes.run("docker", "tag", FRONT_IMAGE, name)

    try:
        pushed = processes.finish(["docker", "push", name], within_s=60)
    finally:
        processes.run("docker", "rmi", name)

    assert pushed.returncode != 0
    assert "read-only cache: push to its upstream" in pushed.stderr


@pytest.mark.parametrize(
    "target",
    [
        f"/{UP}{FILE}",
        f"/v2/{UP}{FILE}",
        f"/v2/{UP_ENCODED}{FILE}",
        f"/v2/{UP}{FILE}/blobs/{DIGEST}",
        f"/v2/{UP}{FILE}/manifests/1",
        f"/v2/app/blobs/{DIGEST}/{UP}{FILE}",
        f"/v2/app/manifests/{UP_ENCODED}{FILE}",
        f"/v2/app/referrers/{UP_ENCODED}{FILE}",
        f"http://localhost/{UP}{FILE}",
        f"/{STORED}/app/_manifests/tags/1/current/link",
    ],
)
def test_no_path_leads_to_a_file_of_the_container(cache: CacheStack, target: str) -> None:
    answer = _answer(cache, f"GET {target}")

    assert _status(answer) in {HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND}
    assert ITS_CONTENT not in answer


@pytest.mark.parametrize("port", [5001, 5002])
def test_a_container_of_another_network_reaches_no_other_port(
    cache: CacheStack, engine: DockerClient, port: int
) -> None:
    container = engine.containers.get(cache.outputs()["caches"][HUB]["name"])
    [network] = container.attrs["NetworkSettings"]["Networks"].values()
    command = f"busybox nc -w 2 {network['IPAddress']} {port} </dev/null || echo closed"

    said = engine.containers.run(
        FRONT_IMAGE, ["-c", command], entrypoint=["/bin/sh"], remove=True, stderr=True
    )

    assert "closed" in said.decode()


# The password of an upstream, that of a reader, and the beginning of a key.
SECRETS = UPSTREAMS, READERS, _ = "upstreams-Qz8wLk2v", "readers-Vr5tYn7c", "PRIVATE KEY"
PLACES = ("/tmp", "/var/tmp", "/run", "/dev/shm", ROOT / ".state")  # noqa: S108 - they are searched
# The secrets are read from standard input, since command lines are searched as well.
SEARCH = "grep --recursive --files-with-matches --no-messages --devices=skip --file=- -- "
AS_ANOTHER_USER = ("setpriv", "--reuid=65533", "--regid=65533", "--clear-groups", "sh", "-c")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
def test_another_user_of_this_machine_finds_no_secret_while_a_stack_comes_up(
    engine: DockerClient, upstream: Upstream
) -> None:
    registries = upstreams(upstream.url.replace("http:", "https:"), HUB)
    registries[HUB]["username"] = "robot"
    settings = {"upstreams": registries, "tls": {"kind": "own"}}
    with (
        tempfile.TemporaryDirectory(prefix="it-", dir="/var/tmp") as name,
        stack(open_to_all(Path(name)), engine, settings) as made,
    ):
        made.set_password(HUB, UPSTREAMS)
        made.set_secret("readers.nodes", READERS)
        up = made.start_up(Path(name) / "up.log")
        found: set[str] = set()
        while up.poll() is None:
            found |= _found_by_another_user(made.folder)

        assert up.returncode == 0, (Path(name) / "up.log").read_text()
        assert found | _found_by_another_user(made.folder) == set()
        # The search finds what is open to all.
        (made.folder / "open").write_text(READERS)
        assert _found_by_another_user(made.folder) == {str(made.folder / "open")}


def open_to_all(folder: Path) -> Path:
    """Let everyone enter a folder, as many home directories do."""
    folder.chmod(0o755)
    return folder


def _found_by_another_user(folder: Path) -> set[str]:
    """Where another user finds secrets: in files, command lines and environments of processes."""
    places = [*PLACES, folder, "/proc/[0-9]*/cmdline", "/proc/[0-9]*/environ"]
    search = subprocess.run(
        [*AS_ANOTHER_USER, SEARCH + " ".join(map(str, places))],
        input="\n".join(SECRETS),
        capture_output=True,
        text=True,
        check=False,
        timeout=SEARCH_WITHIN_S,
    )
    return set(search.stdout.splitlines())


def _answer(cache: CacheStack, request: str, *headers: str) -> bytes:
    """The answer to a request that a client would not send; its content, if any, does not come."""
    url = urlsplit(cache.endpoint(HUB))
    lines = (f"{request} HTTP/1.1", "Host: cache", "Connection: close", *headers, "", "")
    with socket.create_connection((url.hostname, url.port), timeout=ANSWER_WITHIN_S) as attacker:
        attacker.sendall("\r\n".join(lines).encode())
        return attacker.recv(PIECE)


def _status(answer: bytes) -> int:
    return int(answer.split()[1])
