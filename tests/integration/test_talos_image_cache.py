"""Image caches of talosctl, exchanged with talosctl itself in both directions."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
import requests
from docker import DockerClient

from tests.integration.support import docker_cli, host, http_pull, processes
from tests.integration.support.cachectl import Cachectl
from tests.integration.support.containerd import Containerd
from tests.integration.support.polling import PATIENCE, eventually
from tests.integration.support.stack import stack, upstreams
from tests.integration.support.upstream import Pushed, Upstream
from tests.support import newest_talosctl

HUB, QUAY = "docker.io", "quay.io"
OK, FAILED, USAGE = range(3)
WITHIN_S = 60

OLD = "talosctl-1.13"
NEW = pytest.param(newest_talosctl.NAME, marks=newest_talosctl.IF_BUILT)
EACH = pytest.mark.parametrize("talosctl", [OLD, NEW])


@dataclass(frozen=True, slots=True)
class Caches:
    """Caches that are up, cachectl for them, and the registry that only talosctl asks itself.

    Attributes:
        asked: host and port of the upstream, which is a registry of its own in the caches.
    """

    cachectl: Cachectl
    asked: str


@pytest.fixture(scope="module")
def caches(
    tmp_path_factory: pytest.TempPathFactory, engine: DockerClient, upstream: Upstream
) -> Iterator[Caches]:
    folder = tmp_path_factory.mktemp("caches")
    asked = upstream.url.removeprefix("http://")
    settings = {"upstreams": upstreams(upstream.url, HUB, QUAY, asked)}
    with stack(folder, engine, settings) as made:
        made.up()
        yield Caches(Cachectl(made.name, folder), asked)


@contextmanager
def served(talosctl: str, cache: Path, folder: Path) -> Iterator[str]:
    """Run `talosctl image cache-serve`, which also writes a file; return its URL."""
    address = f"{host.LOOPBACK}:{host.free_port()}"
    with (folder / "serve.log").open("wb") as log:
        server = subprocess.Popen(
            [talosctl, "image", "cache-serve", "--image-cache-path", cache, "--address", address],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,
        )
    url = f"http://{address}"
    try:
        eventually(lambda: _answers(url), within_s=WITHIN_S, what="talosctl serves the cache")
        yield url
    finally:
        server.terminate()
        server.wait(PATIENCE * WITHIN_S)


def _answers(url: str) -> bool:
    try:
        return requests.get(f"{url}/healthz", timeout=2).ok
    except requests.RequestException:
        return False


def create(talosctl: str, folder: Path, layout: str, *names: str) -> Path:
    """Run `talosctl image cache-create` for images of a registry."""
    path = folder / f"created-{layout}"
    processes.run(
        talosctl, "image", "cache-create",
        "--image-cache-path", path,
        "--layout", layout,
        "--platform", f"linux/{host.architecture()}",
        "--images", ",".join(names),
        "--insecure",
        within_s=WITHIN_S,
    )  # fmt: skip
    return path


@EACH
def test_talosctl_serves_what_was_exported(
    caches: Caches, upstream: Upstream, containerd: Containerd, tmp_path: Path, talosctl: str
) -> None:
    hub, quay, asked = (upstream.push_index() for _ in range(3))
    docker_format = upstream.push_docker_image()
    pushed = ((HUB, hub), (HUB, docker_format), (QUAY, quay), (caches.asked, asked))
    warmed = caches.cachectl("warm", *(f"{registry}/{one.name}" for registry, one in pushed))
    folder = tmp_path / "cache"

    with upstream.away():
        exported = caches.cachectl("export", "--format", "talos-cache", folder, "--json")
        again = caches.cachectl("export", "--format", "talos-cache", folder)

    assert (warmed.code, exported.code, again.code) == (OK, OK, USAGE)
    assert f"{folder} is there already" in again.err
    assert set(exported.result["caches"]) == {HUB, QUAY, caches.asked}
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    with served(talosctl, folder, tmp_path) as url:
        for registry, one in pushed:
            assert _pulled(url, registry, one) == one.digest
            assert containerd.pull(registry, one, {registry: url}) == one.digest
        assert docker_cli.pull(url, hub) == hub.digest


def _pulled(url: str, registry: str, image: Pushed) -> str:
    """Pull with plain requests, which name the registry as containerd does."""
    with httpx2.Client(trust_env=False, timeout=WITHIN_S, params={"ns": registry}) as http:
        return http_pull.pull(url, image, http).digest


@EACH
@pytest.mark.parametrize("layout", ["flat", "oci"])
def test_import_reads_what_talosctl_created(
    caches: Caches, upstream: Upstream, tmp_path: Path, layout: str, talosctl: str
) -> None:
    tagged, by_digest = (upstream.push_index() for _ in range(2))
    attached = upstream.refer_to(tagged)
    names = (
        f"{caches.asked}/{tagged.name}",
        f"{caches.asked}/{by_digest.repository}@{by_digest.digest}",
    )
    created = create(talosctl, tmp_path, layout, *names)

    with upstream.away():
        imported = caches.cachectl("import", created, "--json")
        verified = caches.cachectl("verify", *names, "--json")
        again = caches.cachectl("import", created, "--json")

    assert (imported.code, verified.code, again.code) == (OK, OK, OK), imported.err
    assert [image["digest"] for image in verified.result] == [tagged.digest, by_digest.digest]
    # talosctl gives the tag `latest` to an image that is asked for by its digest alone.
    assert set(imported.result[caches.asked]["images"]) == {
        f"{caches.asked}/{name}"
        for name in (tagged.name, attached.name, f"{by_digest.repository}:latest")
    }
    assert again.result == imported.result


def test_a_damaged_cache_of_talosctl_is_refused_and_changes_nothing(
    caches: Caches, upstream: Upstream, tmp_path: Path
) -> None:
    image = upstream.push_index()
    name = f"{caches.asked}/{image.name}"
    created = create(OLD, tmp_path, "flat", name)
    largest = max((created / "blob").iterdir(), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)

    ended = caches.cachectl("import", created)
    with upstream.away():
        verified = caches.cachectl("verify", name)

    assert ended.code == FAILED
    assert "is damaged" in ended.err
    assert verified.code not in {OK, USAGE}


def test_an_export_that_fails_leaves_no_folder(
    caches: Caches, upstream: Upstream, tmp_path: Path
) -> None:
    caches.cachectl("warm", upstream.push_index().name)
    process = caches.cachectl.start("export", "--format", "talos-cache", tmp_path / "cache")
    eventually(
        lambda: list(tmp_path.glob(".cachectl-export-*/blob/*")),
        within_s=WITHIN_S,
        what="the export has begun",
    )
    process.kill()
    process.communicate(timeout=PATIENCE * WITHIN_S)
    left = list(tmp_path.iterdir())

    exported = caches.cachectl("export", "--format", "talos-cache", tmp_path / "cache")

    assert len(left) == 1
    assert exported.code == OK
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
