"""The storage of a cache has one owner, whichever image runs on it: else nothing more is stored."""

import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from docker import DockerClient
from docker.models.containers import Container

from components import front
from talos_registry_cache.engine import file_owner
from talos_registry_cache.engine.file_owner import OwnershipError
from tests.integration.conftest import NewStack
from tests.integration.support import belongings, http_pull, processes, registry_images
from tests.integration.support.cachectl import Cachectl
from tests.integration.support.polling import eventually
from tests.integration.support.stack import PULUMI_WITHIN_S, CacheStack, upstreams
from tests.integration.support.upstream import FRONT_IMAGE, IMAGE, Pushed, Upstream

HUB = "docker.io"
STORAGE = "/var/lib/registry"
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


def pull(endpoint: str, *images: Pushed) -> None:
    for image in images:
        assert http_pull.pull(endpoint, image).digest == image.digest


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
    stack = new_stack(settings)
    pulled = []
    for turn in (*turns, turns[0]):
        stack.configure({**settings, "image": images[turn]})
        stack.up()
        endpoint = stack.endpoint(HUB)
        pulled.append(upstream.push_index())
        pull(endpoint, pulled[-1])
        with upstream.away():
            pull(endpoint, *pulled)
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
    cache = stack.outputs()["caches"][HUB]
    endpoint, volume = cache["endpoint"], cache["storage"]
    pull(endpoint, image)
    registry(engine, stack).remove(force=True)
    chown(engine, volume, "0:0")

    stack.configure({**settings, "memoryLimit": "256m"})
    said = stack.pulumi("up", "--yes", "--skip-preview")
    pull(endpoint, another)

    assert f"changing the owner of the files in volume {volume} to 65532:65532" in said
    with upstream.away():
        pull(endpoint, image, another)


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
    endpoint = stack.endpoint(HUB)
    pull(endpoint, more)
    with upstream.away():
        pull(endpoint, carried, kept, more)


def test_caches_that_cannot_write_are_unhealthy_and_say_why(
    new_stack: NewStack, engine: DockerClient, upstream: Upstream, tmp_path: Path
) -> None:
    folders = {HUB: "", "quay.io": "/docker/registry/v2/repositories"}
    stack = new_stack({"upstreams": upstreams(upstream.url, *folders)})
    stack.up()
    outputs = stack.outputs()["caches"]
    for host, folder in folders.items():
        pull(outputs[host]["endpoint"], upstream.push_index())
        chown(engine, outputs[host]["storage"], "0:0", f"{STORAGE}{folder}")

    become(engine, stack, "unhealthy")
    status = Cachectl(stack.name, tmp_path)("status", "--json")
    table = Cachectl(stack.name, tmp_path)("status")
    for cache in outputs.values():
        chown(engine, cache["storage"], "65532:65532")
    become(engine, stack, "healthy")

    assert (status.code, table.code) == (NOT_ALL_HEALTHY, NOT_ALL_HEALTHY)
    for host, folder in folders.items():
        reason = f"cannot write to {STORAGE}{folder}"
        assert status.result[host]["health"] == "unhealthy"
        assert status.result[host]["whyUnhealthy"] == reason
        assert f"unhealthy: {reason}" in table.out


def become(engine: DockerClient, stack: CacheStack, health: str) -> None:
    """Wait until all registries of a stack have this health."""
    containers = belongings.registries(engine, stack.name).values()
    for container in containers:
        belongings.check_health_now(container)
    eventually(
        lambda: {belongings.health(container) for container in containers} == {health},
        within_s=TOLD_WITHIN_S,
        what=f"all caches are {health}",
    )


def test_a_cache_that_only_serves_needs_not_write(
    new_stack: NewStack, engine: DockerClient, upstream: Upstream
) -> None:
    settings = {"upstreams": upstreams(upstream.url, HUB)}
    stack = new_stack(settings)
    stack.up()
    image = upstream.push_index()
    cache = stack.outputs()["caches"][HUB]
    pull(cache["endpoint"], image)
    stack.configure({**settings, "offline": True})
    stack.up()
    chown(engine, cache["storage"], "0:0")

    container = registry(engine, stack)
    container.restart(timeout=1)
    eventually(
        lambda: belongings.health(container) == "healthy",
        within_s=TOLD_WITHIN_S,
        what="the cache is healthy",
    )
    pull(cache["endpoint"], image)


def test_up_says_why_a_cache_does_not_become_healthy_and_ends_once_it_does(
    new_stack: NewStack, engine: DockerClient, upstream: Upstream, tmp_path: Path
) -> None:
    stack = new_stack({"upstreams": upstreams(upstream.url, HUB)})
    # A disk of its own, with less room than a layer takes.
    options = {"type": "tmpfs", "device": "tmpfs", "o": "size=512k,uid=65532,gid=65532"}
    disk = engine.volumes.create(f"{stack.prefix}-{HUB}", driver="local", driver_opts=options)
    said = tmp_path / "up.log"
    reason = f"{disk.name}-registry is unhealthy: {STORAGE} is full"
    with stack.start_up(said) as up:
        eventually(
            lambda: reason in said.read_text() or up.poll() is not None,
            within_s=TOLD_WITHIN_S,
            what="up says why",
        )
        assert reason in said.read_text()
        assert up.poll() is None
        processes.run("mount", "-o", "remount,size=64m", disk.attrs["Mountpoint"])
        assert up.wait(PULUMI_WITHIN_S) == 0, said.read_text()
    pull(stack.endpoint(HUB), upstream.push_index())
