"""What `cachectl metrics` writes, taken by a real Prometheus beside the caches of an engine."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from docker import DockerClient

from talos_registry_cache.cli import dashboard
from tests.integration.support import belongings, host, http_pull, prometheus
from tests.integration.support.cachectl import Cachectl
from tests.integration.support.polling import eventually
from tests.integration.support.prometheus import Prometheus
from tests.integration.support.stack import CacheStack, stack, upstreams
from tests.integration.support.upstream import Upstream

HUB, QUAY = REGISTRIES = ("docker.io", "quay.io")
SEEN_WITHIN_S = 60


@dataclass(frozen=True, slots=True)
class Watched:
    """A stack that is up, and the Prometheus that collects what it counts."""

    stack: CacheStack
    written: Path
    prometheus: Prometheus


@pytest.fixture(scope="module")
def watched(
    tmp_path_factory: pytest.TempPathFactory, engine: DockerClient, upstream: Upstream
) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("metrics")
    with stack(folder, engine, {"upstreams": upstreams(upstream.url, *REGISTRIES)}) as made:
        made.up()
        written = folder / "written"
        ended = Cachectl(made.name, folder)("metrics", "--every", "1", "--output", written)
        assert ended.code == 0, ended.err
        with prometheus.running(
            written, made.prefix, host.LOOPBACK, host.free_port(), os.environ["DOCKER_HOST"]
        ) as running:
            yield Watched(made, written, running)


def test_each_cache_is_collected_and_its_node_is_the_engine(
    watched: Watched, engine: DockerClient
) -> None:
    node = engine.info()["Name"]

    eventually(
        lambda: watched.prometheus.nodes_up() == {HUB: {node}, QUAY: {node}},
        within_s=SEEN_WITHIN_S,
        what="each cache is up",
    )


def test_the_dashboard_has_numbers_for_all_that_it_shows_and_they_are_right(
    watched: Watched, upstream: Upstream
) -> None:
    image = upstream.push_index()
    endpoint = watched.stack.outputs()["caches"][HUB]["endpoint"]
    shown = prometheus.expressions(watched.written / dashboard.FILE, watched.stack.name)
    ask = watched.prometheus.query

    size = http_pull.pull(endpoint, image).size
    watched.prometheus.assert_counts_pulls(
        shown, lambda: http_pull.pull(endpoint, image).digest, size, SEEN_WITHIN_S
    )

    assert 0 < ask(shown["Hit rate"])[0] < 1
    assert ask(shown["Errors"]) == [0]
    assert ask(shown["Caches that answer"]) == [len(REGISTRIES)]


def test_a_cache_that_is_down_raises_an_alert(watched: Watched, engine: DockerClient) -> None:
    assert all(
        rule["health"] == "ok"
        for group in watched.prometheus.ask("rules")["groups"]
        for rule in group["rules"]
    )
    cache = belongings.caches(engine, watched.stack.name)[QUAY]
    assert watched.prometheus.alerts() == set()

    cache.stop()
    try:
        eventually(
            lambda: ("RegistryCacheDown", QUAY) in watched.prometheus.alerts(),
            within_s=SEEN_WITHIN_S,
            what="the alert is raised",
        )
        assert ("RegistryCacheDown", HUB) not in watched.prometheus.alerts()
    finally:
        cache.start()
    eventually(
        lambda: watched.prometheus.alerts() == set(),
        within_s=SEEN_WITHIN_S,
        what="the alert is taken back",
    )
