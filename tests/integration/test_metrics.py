"""The files in monitoring/, loaded by a real Prometheus beside the caches of an engine.

`cachectl exporter` runs beside it.
"""

import os
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pytest
from docker import DockerClient

from components import certificate_authority
from tests.integration.support import belongings, host, http_pull, prometheus
from tests.integration.support.cachectl import Cachectl
from tests.integration.support.polling import eventually
from tests.integration.support.prometheus import Prometheus
from tests.integration.support.pulling import pulling
from tests.integration.support.stack import CacheStack, stack, upstreams
from tests.integration.support.upstream import Upstream

HUB, QUAY = REGISTRIES = ("docker.io", "quay.io")
SEEN_WITHIN_S = 60
ENDS_WITHIN_S = 5
COUNTED = re.compile(
    r'registry_cache_requests_total\{result="(.+)",stack=".+",upstream="(.+)"\} (\S+)'
)


@dataclass(frozen=True, slots=True)
class Watched:
    """A stack that is up, with the Prometheus and the exporter that monitor it."""

    stack: CacheStack
    prometheus: Prometheus
    exporter_url: str

    def requests(self, registry: str) -> Counter[str]:
        """The requests to a cache that the exporter has counted, by result."""
        page = httpx2.get(self.exporter_url, trust_env=False).raise_for_status().text
        found = COUNTED.findall(page)
        return Counter({result: int(float(n)) for result, one, n in found if one == registry})


@pytest.fixture(scope="module")
def watched(
    tmp_path_factory: pytest.TempPathFactory, engine: DockerClient, upstream: Upstream
) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("metrics")
    with stack(folder, engine, {"upstreams": upstreams(upstream.url, *REGISTRIES)}) as made:
        made.up()
        with watching(made, engine) as running:
            yield running


@contextmanager
def watching(made: CacheStack, engine: DockerClient) -> Iterator[Watched]:
    """Run a Prometheus and an exporter for a stack."""
    files = made.folder / "monitoring"
    files.mkdir()
    address = f"{host.bridge_gateway(engine)}:{host.free_port()}"
    with (
        exporter(made, address),
        prometheus.running(
            files,
            "prometheus.yml",
            made,
            address=host.LOOPBACK,
            port=host.free_port(),
            engine_host=os.environ["DOCKER_HOST"],
            exporter_address=address,
        ) as running,
    ):
        yield Watched(made, running, f"http://{address}/metrics")


@contextmanager
def exporter(made: CacheStack, address: str) -> Iterator[subprocess.Popen[str]]:
    """Run `cachectl exporter` for a stack; it serves its metrics when the block begins."""
    with Cachectl(made.name, made.folder).start("exporter", "--listen", address) as process:
        try:
            assert process.stderr
            assert "/metrics" in process.stderr.readline()
            yield process
        finally:
            process.terminate()


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

    pulled = http_pull.pull(endpoint, image)
    watched.prometheus.assert_counts_pulls(
        shown, lambda: http_pull.pull(endpoint, image).digest, pulled.size, SEEN_WITHIN_S
    )

    results = watched.requests(HUB)
    assert results["miss"] <= 2 + len(pulled.blobs)
    hit_rate = results["hit"] / (results["hit"] + results["miss"])
    assert ask(shown["Hit rate"])[0] == pytest.approx(hit_rate, abs=0.1)
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


def test_a_certificate_that_expires_soon_raises_an_alert(
    engine: DockerClient, upstream: Upstream, tmp_path: Path
) -> None:
    issued = datetime.now(UTC) - timedelta(days=340)
    authority = certificate_authority.issue_authority("tests", issued)
    names = [host.LOOPBACK, host.bridge_gateway(engine)]
    server = certificate_authority.issue_server(authority, names, issued)
    tls = {"ca": authority.certificate, "certificate": server.certificate}
    settings = {"upstreams": upstreams(upstream.url, HUB), "tls": {"kind": "given", **tls}}
    with stack(tmp_path, engine, settings) as made:
        made.set_secret("tlsKey", server.key)
        made.up()

        with watching(made, engine) as watched:
            eventually(
                lambda: watched.prometheus.alerts() == {("RegistryCacheCertificateExpires", HUB)},
                within_s=SEEN_WITHIN_S,
                what="the alert is raised",
            )


def test_requests_are_counted_once_when_a_front_is_restarted(
    watched: Watched, engine: DockerClient, upstream: Upstream
) -> None:
    image = upstream.push_index()
    endpoint = watched.stack.endpoint(QUAY)
    before = watched.requests(QUAY)

    requests = 0
    for _ in range(3):
        requests += 2 + len(http_pull.pull(endpoint, image).blobs)
        belongings.caches(engine, watched.stack.name)[QUAY].restart()
        eventually(
            lambda: watched.stack.healthy() == {*REGISTRIES},
            within_s=SEEN_WITHIN_S,
            what="the front is healthy",
        )

    eventually(
        lambda: (watched.requests(QUAY) - before).total() >= requests,
        within_s=SEEN_WITHIN_S,
        what="all requests are counted",
    )
    assert (watched.requests(QUAY) - before).total() == requests


def test_errors_are_those_that_clients_get(
    watched: Watched, engine: DockerClient, upstream: Upstream
) -> None:
    cached, missing = upstream.push_index(), upstream.push_index()
    endpoint = watched.stack.endpoint(HUB)
    pulled = http_pull.pull(endpoint, cached)
    shown = prometheus.dashboard(watched.stack.name)
    assert watched.prometheus.query(shown["Errors"]) == [0]

    registry = belongings.registries(engine, watched.stack.name)[HUB]
    registry.stop()
    try:
        assert http_pull.pull(endpoint, cached) == pulled
        with pulling(lambda: http_pull.pull(endpoint, missing)) as pulls:
            eventually(
                lambda: watched.prometheus.query(shown["Errors"])[0] > 0,
                within_s=SEEN_WITHIN_S,
                what="errors are shown",
            )
            eventually(
                lambda: ("RegistryCacheFails", HUB) in watched.prometheus.alerts(),
                within_s=SEEN_WITHIN_S,
                what="the alert is raised",
            )
    finally:
        registry.start()

    assert pulls.done == 0
    by_upstream = watched.prometheus.query(
        shown["Errors by upstream and node: {{upstream}} {{node}}"]
    )
    assert sorted(rate > 0 for rate in by_upstream) == [False, True]


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_the_exporter_ends_at_once(watched: Watched, sent: signal.Signals) -> None:
    with exporter(watched.stack, f"{host.LOOPBACK}:{host.free_port()}") as process:
        process.send_signal(sent)

        assert process.wait(ENDS_WITHIN_S) == 0
