"""The files in monitoring/, loaded by a real Prometheus beside the caches of an engine."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from docker import DockerClient

from tests.integration.support import belongings, host, http_pull, prometheus
from tests.integration.support.polling import eventually
from tests.integration.support.prometheus import Prometheus
from tests.integration.support.stack import CacheStack, stack, upstreams
from tests.integration.support.upstream import Upstream

HUB, QUAY = REGISTRIES = ("docker.io", "quay.io")
SEEN_WITHIN_S = 60


@dataclass(frozen=True, slots=True)
class Watched:
    """A stack that is up, and the Prometheus that monitors it."""

    stack: CacheStack
    prometheus: Prometheus


@pytest.fixture(scope="module")
def watched(
    tmp_path_factory: pytest.TempPathFactory, engine: DockerClient, upstream: Upstream
) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("metrics")
    with stack(folder, engine, {"upstreams": upstreams(upstream.url, *REGISTRIES)}) as made:
        made.up()
        files = folder / "monitoring"
        files.mkdir()
        with prometheus.running(
            files,
            "prometheus.yml",
            made,
            address=host.LOOPBACK,
            port=host.free_port(),
            engine_host=os.environ["DOCKER_HOST"],
        ) as running:
            yield Watched(made, running)


def test_each_cache_is_discovered(watched: Watched) -> None:
    eventually(
        lambda: watched.prometheus.up().keys() == {(HUB, "engine"), (QUAY, "engine")},
        within_s=SEEN_WITHIN_S,
        what="both caches are up",
    )


def test_the_dashboard_shows_the_right_numbers(watched: Watched, upstream: Upstream) -> None:
    image = upstream.push_index()
    endpoint = watched.stack.outputs()["caches"][HUB]["endpoint"]
    shown = prometheus.dashboard(watched.stack.name)
    ask = watched.prometheus.query

    size = http_pull.pull(endpoint, image).size
    watched.prometheus.assert_counts_pulls(
        shown, lambda: http_pull.pull(endpoint, image).digest, size, SEEN_WITHIN_S
    )

    assert 0 < ask(shown["Hit rate"])[0] < 1
    assert ask(shown["Errors"]) == [0]
    assert ask(shown["Caches up"]) == [len(REGISTRIES)]


def test_a_cache_that_is_down_raises_an_alert(watched: Watched, engine: DockerClient) -> None:
    assert all(
        rule["health"] == "ok"
        for group in watched.prometheus.ask("rules")["groups"]
        for rule in group["rules"]
    )
    cache = belongings.registries(engine, watched.stack.name)[QUAY]
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
