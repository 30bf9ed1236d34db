"""The storage of a cache has one owner, whichever image runs on it: else nothing more is stored."""

import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from docker import DockerClient
from docker.models.containers import Container
from pulumi import automation

from components import front
from talos_registry_cache.engine import file_owner
from talos_registry_cache.engine.file_owner import OwnershipError
from tests.integration.conftest import NewStack
from tests.integration.support import belongings, http_pull, registry_images
from tests.integration.support.cachectl import Cachectl
from tests.integration.support.polling import eventually
from tests.integration.support.stack import CacheStack, upstreams
from tests.integration.support.upstream import FRONT_IMAGE, IMAGE, Pushed, Upstream

HUB = "docker.io"
STORAGE = "/var/lib/registry"
# A probe of a cache that was healthy takes 25 s.
TOLD_WITHIN_S = 60
NOT_ALL_HEALTHY = 3


@pytest.fixture(scope="module")
def images(engine: DockerClient) -> Iterator[Mapping[str, str]]:
    """An image of each shape."""
    with (
        registry_images.made(engine, registry_images.OFFICIAL) as official,
        registry_images.made(engine, registry_images.BUILT) as built,
    ):
        yield {"official": official, "built": built}


def pull(stack: CacheStack, image: Pushed) -> None:
    pulled = http_pull.pull(stack.outputs()["caches"][HUB]["endpoint"], image)
    assert pulled.digest == image.digest


def registry(engine: DockerClient, stack: CacheStack) -> Container:
    return belongings.registries(engine, stack.name)[HUB]


def chown(engine: DockerClient, volume: str, owner: str, folder: str = STORAGE) -> None:
    """Give all in a volume to somebody else, as a person may."""
    engine.containers.run(
        IMAGE,
        ["chown", "-R", owner, folder],
        entrypoint=["busybox"],
        user="0:0",
        volumes={volume: {"bind": STORAGE, "mode": "rw"}},
        remove=True,
    )


@pytest.mark.parametrize("turns", [("official", "built"), ("built", "official")])
def test_images_of_different_users_take_turns_on_a_volume(
    new_stack: NewStack,
    engine: DockerClient,
    upstream: Upstream,
    images: Mapping[str, str],
    turns: tuple[str, str],
) -> None:
    settings = {"upstreams": upstreams(upstream.url, HUB)}
    stack = new_stack({**settings, "image": images[turns[0]]})
    stack.up()
    pulled = []
    for turn in (*turns, turns[0]):
        stack.configure({**settings, "image": images[turn]})
        stack.up()
        pulled.append(upstream.push_index())
        pull(stack, pulled[-1])
        with upstream.away():
            for image in pulled:
                pull(stack, image)
        assert belongings.health(registry(engine, stack)) == "healthy"
    assert set(stack.up()) == {"same"}


@pytest.mark.parametrize("shape", ["official", "built"])
def test_a_volume_that_somebody_else_has_filled_is_handed_over(
    new_stack: NewStack,
    engine: DockerClient,
    upstream: Upstream,
    images: Mapping[str, str],
    shape: str,
) -> None:
    settings = {"upstreams": upstreams(upstream.url, HUB), "image": images[shape]}
    stack = new_stack(settings)
    stack.up()
    image, another = upstream.push_index(), upstream.push_index()
    pull(stack, image)
    volume = stack.outputs()["caches"][HUB]["storage"]
    registry(engine, stack).remove(force=True)
    chown(engine, volume, "0:0")

    stack.configure({**settings, "memoryLimit": "256m"})
    said = stack.pulumi("up", "--yes", "--skip-preview")
    pull(stack, another)

    assert f"changing the owner of the files in volume {volume} to 65532:65532" in said
    with upstream.away():
        pull(stack, image)
        pull(stack, another)


def test_a_volume_that_cannot_be_handed_over_is_told_and_nothing_is_left(
    engine: DockerClient, images: Mapping[str, str]
) -> None:
    name = f"it-read-only-{secrets.token_hex(4)}"
    options = {"type": "tmpfs", "device": "tmpfs", "o": "ro"}
    volume = engine.volumes.create(name, driver="local", driver_opts=options)
    try:
        with pytest.raises(OwnershipError, match=f"cannot change the owner of volume {name}"):
            file_owner.hand_over(engine, name, images["official"], print)
    finally:
        # An engine does not remove a volume that a container has.
        volume.remove()


@pytest.mark.parametrize("shape", ["official", "built", "front"])
def test_a_front_and_its_registry_can_both_write_to_the_volume_they_share(
    engine: DockerClient, images: Mapping[str, str], shape: str
) -> None:
    name = f"it-shared-{secrets.token_hex(4)}"
    volume = engine.volumes.create(name)
    try:
        for image in ({**images, "front": FRONT_IMAGE}[shape], IMAGE, FRONT_IMAGE):
            engine.containers.run(
                image,
                ["-c", f"cd {front.SHARED_FOLDER} && busybox mkdir -p one && : > one/file"],
                entrypoint=["/bin/sh"],
                user=file_owner.user(),
                volumes={name: {"bind": front.SHARED_FOLDER}},
                remove=True,
            )
    finally:
        volume.remove()


@pytest.mark.parametrize("shape", ["official", "built"])
def test_cachectl_works_with_either_image(
    new_stack: NewStack,
    upstream: Upstream,
    images: Mapping[str, str],
    shape: str,
    tmp_path: Path,
) -> None:
    stack = new_stack({"upstreams": upstreams(upstream.url, HUB), "image": images[shape]})
    stack.up()
    cachectl = Cachectl(stack.name, tmp_path)
    # Of two repositories of a registry, blobs are mounted by a registry that can write.
    carried, kept, more = upstream.push_index(), upstream.push_index(), upstream.push_index()
    keep, archive = tmp_path / "keep.txt", tmp_path / "caches.tar.zst"
    keep.write_text(kept.name)

    steps = [
        cachectl("warm", carried.name, kept.name),
        cachectl("export", archive),
        cachectl("prune", "--keep", keep, "--yes"),
        cachectl("import", archive),
        cachectl("verify", carried.name, kept.name),
        cachectl("scrub"),
    ]

    assert [(step.code, step.err) for step in steps if step.code] == []
    pull(stack, more)
    with upstream.away():
        for image in (carried, kept, more):
            pull(stack, image)


@pytest.mark.parametrize("folder", ["", "/docker/registry/v2/repositories"])
def test_a_cache_that_cannot_write_is_unhealthy_and_says_why(
    new_stack: NewStack, engine: DockerClient, upstream: Upstream, tmp_path: Path, folder: str
) -> None:
    stack = new_stack({"upstreams": upstreams(upstream.url, HUB)})
    stack.up()
    pull(stack, upstream.push_index())
    volume = stack.outputs()["caches"][HUB]["storage"]
    container = registry(engine, stack)

    chown(engine, volume, "0:0", f"{STORAGE}{folder}")
    eventually(
        lambda: belongings.health(container) == "unhealthy",
        within_s=TOLD_WITHIN_S,
        what="the cache is unhealthy",
    )
    status = Cachectl(stack.name, tmp_path)("status", "--json")
    table = Cachectl(stack.name, tmp_path)("status")
    chown(engine, volume, "65532:65532")
    eventually(
        lambda: belongings.health(container) == "healthy",
        within_s=TOLD_WITHIN_S,
        what="the cache is healthy again",
    )

    reason = f"cannot write to {STORAGE}{folder}"
    assert (status.code, table.code) == (NOT_ALL_HEALTHY, NOT_ALL_HEALTHY)
    assert status.result[HUB]["health"] == "unhealthy"
    assert status.result[HUB]["whyUnhealthy"] == reason
    assert f"unhealthy: {reason}" in table.out


def test_a_cache_that_only_serves_needs_not_write(
    new_stack: NewStack, engine: DockerClient, upstream: Upstream
) -> None:
    settings = {"upstreams": upstreams(upstream.url, HUB)}
    stack = new_stack(settings)
    stack.up()
    image = upstream.push_index()
    pull(stack, image)
    stack.configure({**settings, "offline": True})
    stack.up()
    chown(engine, stack.outputs()["caches"][HUB]["storage"], "0:0")

    container = registry(engine, stack)
    container.restart(timeout=1)
    eventually(
        lambda: belongings.health(container) == "healthy",
        within_s=TOLD_WITHIN_S,
        what="the cache is healthy",
    )
    pull(stack, image)


def test_up_says_why_a_cache_does_not_become_healthy(
    new_stack: NewStack, engine: DockerClient, upstream: Upstream
) -> None:
    stack = new_stack({"upstreams": upstreams(upstream.url, HUB)})
    # A disk of its own, with less room than a layer takes.
    options = {"type": "tmpfs", "device": "tmpfs", "o": "size=512k,uid=65532,gid=65532"}
    volume = f"{stack.prefix}-{HUB}"
    engine.volumes.create(volume, driver="local", driver_opts=options)
    try:
        with pytest.raises(automation.CommandError) as failed:
            stack.up()
        assert f"{volume}-registry is unhealthy: {STORAGE} is full" in str(failed.value)
    finally:
        belongings.remove(engine, stack.name)
        engine.volumes.get(volume).remove()
