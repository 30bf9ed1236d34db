"""Signatures that only the referrers API of an upstream lists: cached, locked, carried, offline."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from docker import DockerClient

from talos_registry_cache.engine.cache_storage import InVolume
from talos_registry_cache.registry import referrers
from talos_registry_cache.registry.manifests import Descriptor
from tests.integration.support import cosign, host, referrers_registry
from tests.integration.support.cachectl import Cachectl
from tests.integration.support.cosign import Cosign
from tests.integration.support.gate import Gate, guarding
from tests.integration.support.stack import CacheStack, stack, upstreams
from tests.integration.support.upstream import IMAGE, Pushed, Server

HUB = "docker.io"
USER, PASSWORD = "robot", "f0urteen-Robots"
SIGNATURE = "application/vnd.dev.sigstore.bundle.v0.3+json"


@dataclass(frozen=True, slots=True)
class Site:
    """An upstream with the referrers API, which only knows one user, and the key of its images.

    Attributes:
        registry: the upstream, open to the tests.
        gate: the upstream as caches see it, which asks them for tokens.
        cosign: cosign with the key.
    """

    registry: Server
    gate: Gate
    cosign: Cosign

    @property
    def folder(self) -> Path:
        """The folder of the key."""
        return self.cosign.folder

    @property
    def policy(self) -> Path:
        """A policy that demands a signature with the key for every image."""
        return self.folder / "policy.yaml"

    def push_signed(self) -> Pushed:
        """Push a new image with a signature."""
        image = self.registry.push_index()
        self.sign(image)
        return image

    def sign(self, image: Pushed) -> None:
        """Sign an image once more."""
        self.cosign.sign(f"{self.registry.address}:{self.registry.port}", image)

    def listed(self, image: Pushed) -> list[dict[str, Any]]:
        """The referrers of an image that the upstream lists."""
        return listed(self.registry.url, image)

    @contextmanager
    def away(self) -> Iterator[None]:
        """Let caches reach nothing until the end of the block."""
        self.gate.is_gone = True
        try:
            yield
        finally:
            self.gate.is_gone = False


@dataclass(frozen=True, slots=True)
class Machine:
    """A stack that caches the upstream, and cachectl for it."""

    stack: CacheStack
    cachectl: Cachectl

    def listed(self, image: Pushed) -> list[dict[str, Any]]:
        """The referrers of an image that the cache lists, as nodes ask for them."""
        return listed(self.stack.endpoint(HUB), image)


def listed(url: str, image: Pushed) -> list[dict[str, Any]]:
    answer = requests.get(f"{url}/v2/{image.repository}/referrers/{image.digest}", timeout=30)
    answer.raise_for_status()
    assert answer.headers["Content-Type"] == referrers.MEDIA_TYPE
    entries: list[dict[str, Any]] = answer.json()["manifests"]
    return sorted(entries, key=lambda one: str(one["digest"]))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, engine: DockerClient) -> Iterator[Site]:
    with (
        referrers_registry.running(host.bridge_gateway(engine)) as registry,
        guarding(registry, "bearer", USER, PASSWORD) as gate,
    ):
        made = Site(registry, gate, Cosign(tmp_path_factory.mktemp("keys")))
        made.policy.write_text(f"- {{image: '{HUB}/*', key: {made.cosign.public_key}}}")
        made.cosign.make_key()
        yield made


@contextmanager
def machine(folder: Path, engine: DockerClient, site: Site) -> Iterator[Machine]:
    registries = upstreams(site.gate.url, HUB)
    registries[HUB] |= {"username": USER, "ca": site.gate.ca}
    settings = {"upstreams": registries, "front": {"tagFreshness": "0s"}}
    with stack(folder, engine, settings) as made:
        made.set_password(HUB, PASSWORD)
        yield Machine(made, Cachectl(made.name, made.folder))


@pytest.fixture(scope="module")
def first(
    tmp_path_factory: pytest.TempPathFactory, engine: DockerClient, site: Site
) -> Iterator[Machine]:
    with machine(tmp_path_factory.mktemp("first"), engine, site) as made:
        made.stack.up()
        yield made


def test_a_cache_lists_the_referrers_of_a_warm_image_without_its_upstream(
    site: Site, first: Machine
) -> None:
    image = site.push_signed()
    wanted = site.listed(image)

    warmed = first.cachectl("warm", image.name, "--json")

    assert warmed.result[0]["attachments"] == [cosign.tag(image)], warmed.err
    assert [one["artifactType"] for one in wanted] == [SIGNATURE]
    with site.away():
        assert first.listed(image) == wanted
        proved = first.cachectl("verify", image.name, "--policy", site.policy)
    assert proved.code == 0, proved.err


def test_warming_again_adds_the_signatures_that_are_new(site: Site, first: Machine) -> None:
    image = site.push_signed()
    assert first.cachectl("warm", image.name).code == 0
    site.sign(image)

    assert first.cachectl("warm", image.name).code == 0

    with site.away():
        assert len(first.listed(image)) == 2
        # An upstream that is away says nothing about referrers: what is there stays.
        again = first.cachectl("warm", image.name)
        assert again.code == 0, again.err
        assert f"{HUB}: cannot list the referrers of images" in again.err
        assert len(first.listed(image)) == 2


def test_referrers_of_an_image_set_are_locked_with_their_index(
    tmp_path: Path, engine: DockerClient, site: Site, first: Machine
) -> None:
    image = site.push_signed()
    lock = tmp_path / "images.lock"
    locked = first.cachectl("lock", image.name, "--file", lock)
    assert locked.code == 0, locked.err
    before = site.listed(image)
    site.sign(image)
    moved = first.cachectl("lock", image.name, "--file", lock, "--check", "--json")
    assert moved.result["moved"].keys() == {f"{HUB}/{image.name}"}

    with machine(tmp_path, engine, site) as second:
        images = {"references": [f"{HUB}/{image.name}"], "lock": str(lock)}
        second.stack.configure(images, "images")
        second.stack.up()

        assert second.listed(image) == before
        assert second.stack.up().keys() == {"same"}
        with site.away():
            proved = second.cachectl("verify", image.name, "--policy", site.policy)
        assert proved.code == 0, proved.err


def test_referrers_travel_in_an_archive(site: Site, first: Machine) -> None:
    image = site.push_signed()
    archive, nothing = site.folder / "images.tar", site.folder / "nothing.txt"
    nothing.write_text("")
    assert first.cachectl("warm", image.name).code == 0
    assert first.cachectl("export", archive).code == 0
    assert first.cachectl("prune", "--keep", nothing, "--yes").code == 0

    with site.away():
        assert first.cachectl("import", archive).code == 0
        assert first.listed(image) == site.listed(image)
        proved = first.cachectl("verify", image.name, "--policy", site.policy)
    assert proved.code == 0, proved.err


def test_an_index_of_a_thousand_referrers_is_stored_whole(
    site: Site, first: Machine, engine: DockerClient
) -> None:
    image = site.registry.push_index()
    assert first.cachectl("warm", image.name).code == 0
    many = [Descriptor(SIGNATURE, f"sha256:{number:064x}", 1) for number in range(1_000)]
    volume = str(first.stack.outputs()["caches"][HUB]["storage"])
    tag = image.repository, cosign.tag(image)

    InVolume(engine, volume, IMAGE).add({tag: referrers.index(many)})

    assert len(first.listed(image)) == len(many)
