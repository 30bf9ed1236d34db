"""A change touches what it is about, and what was lost is made again."""

from collections.abc import Iterator

import pytest
from docker import DockerClient

from tests.integration.support import belongings, docker_cli, host
from tests.integration.support.stack import CacheStack, stack, upstreams
from tests.integration.support.upstream import Upstream

CHANGED, OTHER = REGISTRIES = ("docker.io", "registry.example")


@pytest.fixture(scope="module")
def up(
    tmp_path_factory: pytest.TempPathFactory, engine: DockerClient, upstream: Upstream
) -> Iterator[CacheStack]:
    settings = {"upstreams": upstreams(upstream.url, *REGISTRIES)}
    with stack(tmp_path_factory.mktemp("changes"), engine, settings) as made:
        made.up()
        yield made


def test_changed_port_replaces_one_container_and_keeps_what_it_cached(
    up: CacheStack, engine: DockerClient, upstream: Upstream
) -> None:
    image = upstream.push_index()
    docker_cli.pull(_endpoint(up, CHANGED), image)
    before = _ids(engine, up)
    caches = up.settings()
    caches["upstreams"][CHANGED]["port"] = port = host.free_port()
    up.configure(caches)

    changes = up.up()

    after = _ids(engine, up)
    assert changes.get("replace") == 1
    assert set(changes) == {"replace", "same"}
    assert {name for name in before if before[name] != after[name]} == {f"{up.prefix}-{CHANGED}"}
    assert _endpoint(up, CHANGED) == f"http://{host.LOOPBACK}:{port}"
    with upstream.away():
        assert docker_cli.pull(_endpoint(up, CHANGED), image) == image.digest


def test_added_upstream_touches_no_other_and_its_removal_keeps_its_volume_alone(
    up: CacheStack, engine: DockerClient, upstream: Upstream
) -> None:
    before = _ids(engine, up)
    caches = up.settings()
    added = {**caches, "upstreams": caches["upstreams"] | upstreams(upstream.url, "quay.io")}
    up.configure(added)
    assert set(up.up()) == {"create", "same"}
    assert belongings.health(belongings.caches(engine, up.name)["quay.io"]) == "healthy"
    up.configure(caches)
    assert set(up.up()) == {"delete", "same"}
    assert _ids(engine, up) == before
    engine.volumes.get(f"{up.prefix}-quay.io").remove()


def test_container_removed_by_hand_is_healed_by_refresh_and_up(
    up: CacheStack, engine: DockerClient, upstream: Upstream
) -> None:
    image = upstream.push_index()
    docker_cli.pull(_endpoint(up, CHANGED), image)
    before = _ids(engine, up)
    belongings.caches(engine, up.name)[CHANGED].remove(force=True)

    assert up.refresh().get("delete") == 1
    changes = up.up()

    assert changes.get("create") == 1
    assert set(changes) == {"create", "same"}
    after = _ids(engine, up)
    assert {name for name in before if before[name] != after[name]} == {f"{up.prefix}-{CHANGED}"}
    assert belongings.health(belongings.caches(engine, up.name)[CHANGED]) == "healthy"
    with upstream.away():
        assert docker_cli.pull(_endpoint(up, CHANGED), image) == image.digest


def test_everything_removed_by_hand_is_healed_by_refresh_and_up(
    up: CacheStack, engine: DockerClient
) -> None:
    before = up.belongings()
    belongings.remove(engine, up.name)
    assert up.belongings() == belongings.NOTHING
    up.refresh()
    up.up()
    assert up.belongings() == before
    assert set(belongings.caches(engine, up.name)) == set(REGISTRIES)
    assert set(up.up()) == {"same"}


def _ids(engine: DockerClient, stack: CacheStack) -> dict[str, str | None]:
    return {str(made.name): made.id for made in belongings.containers(engine, stack.name)}


def _endpoint(stack: CacheStack, registry: str) -> str:
    return str(stack.outputs()["caches"][registry]["endpoint"])
