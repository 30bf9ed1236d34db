"""`pulumi up` repairs damage made by hand and applies changes, and touches nothing else."""

from collections.abc import Callable, Iterator, Mapping

import pytest
from docker import DockerClient

from tests.integration.support import belongings, docker_cli, host
from tests.integration.support.belongings import Belongings
from tests.integration.support.stack import CacheStack, stack, upstreams
from tests.integration.support.upstream import Upstream

BROKEN, OTHER = REGISTRIES = ("docker.io", "registry.example")
BEHIND = tuple(f"{registry}-registry" for registry in REGISTRIES)


@pytest.fixture(scope="module")
def up(
    tmp_path_factory: pytest.TempPathFactory, engine: DockerClient, upstream: Upstream
) -> Iterator[CacheStack]:
    # One address only: the engine lists several in any order, which may replace a container.
    settings = {"publishOn": [host.LOOPBACK], "upstreams": upstreams(upstream.url, *REGISTRIES)}
    with stack(tmp_path_factory.mktemp("repair"), engine, settings) as made:
        made.up()
        yield made


def _stop(engine: DockerClient, name: str) -> None:
    engine.containers.get(name).stop(timeout=1)


def _pause(engine: DockerClient, name: str) -> None:
    engine.containers.get(name).pause()


def _remove(engine: DockerClient, name: str) -> None:
    engine.containers.get(name).remove(force=True)


def _rename(engine: DockerClient, name: str) -> None:
    engine.containers.get(name).rename(f"{name}-renamed")


def _disconnect(engine: DockerClient, name: str) -> None:
    (network,) = engine.containers.get(name).attrs["NetworkSettings"]["Networks"]
    engine.networks.get(network).disconnect(name, force=True)


@pytest.mark.parametrize(
    ("damage", "broken"),
    [
        (_stop, BROKEN),
        (_disconnect, BROKEN),
        (_remove, BROKEN),
        (_pause, f"{BROKEN}-registry"),
        (_rename, f"{BROKEN}-registry"),
        (_remove, f"{BROKEN}-registry"),
    ],
)
def test_only_the_broken_container_is_replaced_and_its_cache_keeps_its_content(
    damage: Callable[[DockerClient, str], None],
    broken: str,
    up: CacheStack,
    engine: DockerClient,
    upstream: Upstream,
) -> None:
    image = upstream.push_index()
    docker_cli.pull(up.endpoint(BROKEN), image)
    before, complete = up.ids(), up.belongings()
    damage(engine, f"{up.prefix}-{broken}")

    assert _without_same(up.up()) == {"replace": 1}

    assert up.belongings() == complete
    assert up.replaced(before) == {f"{up.prefix}-{broken}"}
    with upstream.away():
        assert docker_cli.pull(up.endpoint(BROKEN), image) == image.digest


@pytest.mark.modern_engine
def test_preview_shows_the_repair_of_a_removed_network_and_up_does_it(
    up: CacheStack, engine: DockerClient
) -> None:
    before, complete = up.ids(), up.belongings()
    caches = {f"{up.prefix}-{name}" for name in (*REGISTRIES, *BEHIND)}
    network = engine.networks.get(up.prefix)
    for name in caches:
        network.disconnect(name, force=True)
    network.remove()

    assert _without_same(up.preview()) == {"replace": 1 + len(caches)}
    assert up.ids() == before
    assert _without_same(up.up()) == {"replace": 1 + len(caches)}

    assert up.belongings() == complete
    assert up.replaced(before) == caches
    attached = engine.networks.get(up.prefix).attrs["Containers"].values()
    assert {one["Name"] for one in attached} == caches


@pytest.mark.parametrize(
    ("containers", "volumes"),
    [
        ((BROKEN, BEHIND[0]), (BROKEN, f"{BROKEN}-front")),
        (("anonymous",), ()),
        ((*BEHIND, "anonymous"), ("anonymous",)),
        ((*REGISTRIES, "fronts"), ("fronts",)),
    ],
    ids=["cache and volumes", "writer of private files", "private files", "files of fronts"],
)
def test_removed_containers_and_volumes_are_created_again(
    up: CacheStack,
    engine: DockerClient,
    upstream: Upstream,
    containers: tuple[str, ...],
    volumes: tuple[str, ...],
) -> None:
    before, complete = up.ids(), up.belongings()
    for name in containers:
        _remove(engine, f"{up.prefix}-{name}")
    for name in volumes:
        engine.volumes.get(f"{up.prefix}-{name}").remove()

    assert _without_same(up.up()) == {"replace": len(containers) + len(volumes)}

    assert up.belongings() == complete
    assert up.replaced(before) == {f"{up.prefix}-{name}" for name in containers}
    image = upstream.push_index()
    assert docker_cli.pull(up.endpoint(BROKEN), image) == image.digest


def test_a_stack_of_which_everything_was_removed_is_created_again(
    up: CacheStack, engine: DockerClient
) -> None:
    complete = up.belongings()
    belongings.remove(engine, up.name)

    up.up()

    assert up.belongings() == complete
    assert up.healthy() == set(REGISTRIES)
    assert set(up.up()) == {"same"}


def test_refresh_finds_a_removed_container_and_up_creates_it_again(
    up: CacheStack, engine: DockerClient
) -> None:
    before = up.ids()
    _remove(engine, f"{up.prefix}-{BROKEN}")

    assert up.refresh().get("delete") == 1
    assert _without_same(up.up()) == {"create": 1}

    assert up.replaced(before) == {f"{up.prefix}-{BROKEN}"}
    assert up.healthy() == set(REGISTRIES)


@pytest.mark.modern_engine
@pytest.mark.image_store
def test_a_changed_port_replaces_one_container_and_keeps_its_content(
    up: CacheStack, upstream: Upstream
) -> None:
    image = upstream.push_index()
    docker_cli.pull(up.endpoint(BROKEN), image)
    before, caches = up.ids(), up.settings()
    caches["upstreams"][BROKEN]["port"] = port = host.free_port()
    up.configure(caches)

    assert _without_same(up.up()) == {"replace": 1}

    assert up.replaced(before) == {f"{up.prefix}-{BROKEN}"}
    assert up.endpoint(BROKEN) == f"http://{host.LOOPBACK}:{port}"
    with upstream.away():
        assert docker_cli.pull(up.endpoint(BROKEN), image) == image.digest


@pytest.mark.modern_engine
@pytest.mark.image_store
def test_adding_and_removing_an_upstream_leaves_the_others_alone_and_keeps_its_volume(
    up: CacheStack, engine: DockerClient, upstream: Upstream
) -> None:
    before, caches = up.ids(), up.settings()
    added = caches["upstreams"] | upstreams(upstream.url, "quay.io")

    up.configure({**caches, "upstreams": added})
    assert set(up.up()) == {"create", "same"}
    assert up.healthy() == {*REGISTRIES, "quay.io"}
    up.configure(caches)
    assert set(up.up()) == {"delete", "same"}

    assert up.ids() == before
    engine.volumes.get(f"{up.prefix}-quay.io").remove()


def test_destroy_succeeds_after_resources_were_removed(
    up: CacheStack, engine: DockerClient
) -> None:
    name = f"{up.prefix}-{BROKEN}"
    kept = frozenset({f"{up.prefix}-{OTHER}"})
    for one in (*REGISTRIES, *BEHIND):
        _remove(engine, f"{up.prefix}-{one}")
    engine.volumes.get(name).remove()
    engine.networks.get(up.prefix).remove()

    up.destroy()

    assert up.belongings() == Belongings(frozenset(), frozenset(), kept)


def _without_same(changes: Mapping[str, int]) -> dict[str, int]:
    return {change: number for change, number in changes.items() if change != "same"}
