"""What was stopped, renamed or removed by hand is made again by a plain `up`, and no more."""

from collections.abc import Callable, Iterator, Mapping

import pytest
from docker import DockerClient

from tests.integration.support import belongings, docker_cli, host
from tests.integration.support.belongings import Belongings
from tests.integration.support.stack import CacheStack, stack, upstreams
from tests.integration.support.upstream import Upstream

BROKEN, OTHER = REGISTRIES = ("docker.io", "registry.example")


@pytest.fixture(scope="module")
def up(
    tmp_path_factory: pytest.TempPathFactory, engine: DockerClient, upstream: Upstream
) -> Iterator[CacheStack]:
    # Of one address there is one order only, so that no container is replaced because of it.
    settings = {
        "publishOn": [host.LOOPBACK],
        "upstreams": upstreams(upstream.url, *REGISTRIES),
    }
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


@pytest.mark.parametrize("damage", [_stop, _pause, _remove, _rename, _disconnect])
def test_broken_cache_is_replaced_alone_and_serves_what_it_had(
    damage: Callable[[DockerClient, str], None],
    up: CacheStack,
    engine: DockerClient,
    upstream: Upstream,
) -> None:
    image = upstream.push_index()
    docker_cli.pull(_endpoint(up), image)
    before, whole = _ids(engine, up), up.belongings()
    damage(engine, f"{up.prefix}-{BROKEN}")

    assert _repaired(up) == {"replace": 1}

    assert up.belongings() == whole
    _assert_replaced(before, _ids(engine, up), f"{up.prefix}-{BROKEN}")
    with upstream.away():
        assert docker_cli.pull(_endpoint(up), image) == image.digest


def test_preview_tells_of_a_broken_cache_and_changes_nothing(
    up: CacheStack, engine: DockerClient
) -> None:
    _stop(engine, f"{up.prefix}-{BROKEN}")

    assert _without_same(up.preview()) == {"replace": 1}

    assert engine.containers.get(f"{up.prefix}-{BROKEN}").status == "exited"


def test_removed_network_is_made_again_with_the_caches_that_were_on_it(
    up: CacheStack, engine: DockerClient
) -> None:
    before, whole = _ids(engine, up), up.belongings()
    network = engine.networks.get(up.prefix)
    for registry in REGISTRIES:
        network.disconnect(f"{up.prefix}-{registry}", force=True)
    network.remove()

    assert _repaired(up) == {"replace": 1 + len(REGISTRIES)}

    assert up.belongings() == whole
    caches = {f"{up.prefix}-{registry}" for registry in REGISTRIES}
    _assert_replaced(before, _ids(engine, up), *caches)
    attached = engine.networks.get(up.prefix).attrs["Containers"].values()
    assert {one["Name"] for one in attached} == caches


def test_removed_volume_is_made_again_with_its_cache(up: CacheStack, engine: DockerClient) -> None:
    before, whole = _ids(engine, up), up.belongings()
    name = f"{up.prefix}-{BROKEN}"
    _remove(engine, name)
    engine.volumes.get(name).remove()

    assert _repaired(up) == {"replace": 2}

    assert up.belongings() == whole  # which are found by their labels
    _assert_replaced(before, _ids(engine, up), name)


def test_removed_writer_of_private_files_is_made_again_alone(
    up: CacheStack, engine: DockerClient
) -> None:
    before, whole = _ids(engine, up), up.belongings()
    _remove(engine, f"{up.prefix}-anonymous")

    assert _repaired(up) == {"replace": 1}

    assert up.belongings() == whole
    _assert_replaced(before, _ids(engine, up), f"{up.prefix}-anonymous")


def test_removed_volume_of_private_files_is_made_again_and_filled(
    up: CacheStack, engine: DockerClient, upstream: Upstream
) -> None:
    whole = up.belongings()
    for name in (BROKEN, OTHER, "anonymous"):
        _remove(engine, f"{up.prefix}-{name}")
    engine.volumes.get(f"{up.prefix}-anonymous").remove()

    assert _repaired(up) == {"replace": 2 + len(REGISTRIES)}

    assert up.belongings() == whole
    image = upstream.push_index()
    assert docker_cli.pull(_endpoint(up), image) == image.digest


def test_all_that_was_removed_is_made_again(up: CacheStack, engine: DockerClient) -> None:
    whole = up.belongings()
    belongings.remove(engine, up.name)

    _repaired(up)

    assert up.belongings() == whole
    assert set(belongings.caches(engine, up.name)) == set(REGISTRIES)


def test_what_was_removed_is_no_obstacle_to_destroy(up: CacheStack, engine: DockerClient) -> None:
    name = f"{up.prefix}-{BROKEN}"
    kept = up.belongings().volumes - {f"{up.prefix}-anonymous", name}
    for registry in REGISTRIES:
        _remove(engine, f"{up.prefix}-{registry}")
    engine.volumes.get(name).remove()
    engine.networks.get(up.prefix).remove()

    up.destroy()

    assert up.belongings() == Belongings(frozenset(), frozenset(), kept)


def _repaired(stack: CacheStack) -> dict[str, int]:
    """What `up` did, after which there is nothing left to do."""
    changes = _without_same(stack.up())
    assert _without_same(stack.up()) == {}
    return changes


def _without_same(changes: Mapping[str, int]) -> dict[str, int]:
    return {change: number for change, number in changes.items() if change != "same"}


def _assert_replaced(
    before: dict[str, str | None], after: dict[str, str | None], *names: str
) -> None:
    assert before.keys() == after.keys()
    assert {name for name in before if before[name] != after[name]} == set(names)


def _ids(engine: DockerClient, stack: CacheStack) -> dict[str, str | None]:
    return {str(one.name): one.id for one in belongings.containers(engine, stack.name)}


def _endpoint(stack: CacheStack) -> str:
    return str(stack.outputs()["caches"][BROKEN]["endpoint"])
