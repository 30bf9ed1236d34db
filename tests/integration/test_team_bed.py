"""The bed of the team stack's tests: what they rely on, shown by a service made by hand."""

import json
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest
from docker import DockerClient

from tests.integration.support import (
    docker_cli,
    front,
    http_pull,
    images,
    network,
    processes,
    team_bed,
)
from tests.integration.support.containerd import Containerd
from tests.integration.support.front import Front
from tests.integration.support.polling import eventually
from tests.integration.support.swarm import Host
from tests.integration.support.team_bed import Bed
from tests.integration.support.upstream import IMAGE

PORT = 5000
BLOBS = 1 + len(images.LAYER_SIZES)
SERVES_WITHIN_S = 60
SLOW_S = 1.0
OVERHEAD = 20_000
"""Bytes that manifests and errors may have, beside blobs."""


@pytest.fixture(scope="module")
def proxy(bed: Bed) -> Iterator[Front]:
    """A proxy of the upstream on every host, over the object store; what it asks passes a front."""
    storage = {
        "accesskey": bed.store.access_key,
        "secretkey": bed.store.secret_key,
        "region": bed.store.region,
        "bucket": bed.store.bucket,
        "regionendpoint": bed.store.endpoint,
        "forcepathstyle": True,
        "secure": False,
    }
    settings = {"REGISTRY_STORAGE": "s3", "REGISTRY_STORAGE_REDIRECT_DISABLE": "true"} | {
        f"REGISTRY_STORAGE_S3_{name.upper()}": json.dumps(value).strip('"')
        for name, value in storage.items()
    }
    with front.guarding(bed.upstream, "none") as before:
        settings |= {"REGISTRY_PROXY_REMOTEURL": before.url, "REGISTRY_PROXY_TTL": "0"}
        with _service(bed, settings):
            for host in bed.hosts:
                _wait_for(host)
            yield before


@contextmanager
def _service(bed: Bed, settings: Mapping[str, str]) -> Iterator[None]:
    name = f"proxy-{secrets.token_hex(3)}"
    docker = ("docker", "--host", bed.manager.engine.host, "service")
    environment = {"OTEL_TRACES_EXPORTER": "none", **settings}
    processes.run(
        *docker, "create", "--name", name, "--detach", "--quiet", "--no-resolve-image",
        "--mode", "global", "--endpoint-mode", "dnsrr", "--constraint", "node.labels.cache==true",
        "--publish", f"mode=host,target=5000,published={PORT}",
        *(f"--env={key}={value}" for key, value in environment.items()),
        IMAGE,
    )  # fmt: skip
    try:
        yield
    finally:
        processes.run(*docker, "rm", name)


def _endpoint(host: Host) -> str:
    return f"http://{host.address}:{PORT}"


def _serves(host: Host) -> bool:
    try:
        return httpx2.get(f"{_endpoint(host)}/v2/", trust_env=False, timeout=2).is_success
    except httpx2.TransportError:
        return False


def _wait_for(host: Host) -> None:
    eventually(lambda: _serves(host), within_s=SERVES_WITHIN_S, what=f"{host.name} serves")


def test_what_one_node_has_fetched_costs_the_upstream_nothing_through_the_other(
    bed: Bed, proxy: Front
) -> None:
    image = bed.upstream.push_index()
    before = bed.upstream.sent()

    cold = http_pull.pull(_endpoint(bed.hosts[0]), image)
    once = bed.upstream.sent() - before
    eventually(
        lambda: _blobs_size(bed) >= cold.size, within_s=SERVES_WITHIN_S, what="all is stored"
    )
    warm = http_pull.pull(_endpoint(bed.hosts[1]), image)

    assert cold == warm
    assert cold.digest == image.digest
    assert cold.size <= once <= cold.size + OVERHEAD
    assert len(proxy.blobs_served()) == BLOBS
    # The tag is asked for again, the blobs are not.
    assert bed.upstream.sent() - before - once < OVERHEAD
    assert bed.store.size() > _blobs_size(bed)


@pytest.mark.usefixtures("proxy")
def test_an_engine_beside_the_swarm_and_a_containerd_of_this_machine_pull_from_it(
    bed: Bed, containerd: Containerd
) -> None:
    image = bed.upstream.push_index()
    endpoint = _endpoint(bed.hosts[1])

    with bed.more_host("--insecure-registry", urlsplit(endpoint).netloc) as host:
        by_docker = docker_cli.pull(endpoint, image, engine_host=host.engine.host)
    by_containerd = containerd.pull("registry.example", image, {"registry.example": endpoint})

    assert by_docker == by_containerd == image.digest


@pytest.mark.usefixtures("proxy")
def test_a_node_that_is_lost_answers_nobody_until_it_is_back(bed: Bed) -> None:
    image = bed.upstream.push_index()
    first, last = bed.hosts[0], bed.hosts[-1]
    running = network.pids(last.name)
    last.lose()
    try:
        assert not _serves(last)
        assert not _living(running)
        assert http_pull.pull(_endpoint(first), image).digest == image.digest
    finally:
        last.back()

    _wait_for(last)
    assert http_pull.pull(_endpoint(last), image).digest == image.digest


@pytest.mark.usefixtures("proxy")
def test_the_object_store_can_be_away_hang_and_be_slow(bed: Bed) -> None:
    store, path = bed.store, f"{bed.store.endpoint}/minio/health/ready"

    store.stop()
    try:
        with pytest.raises(httpx2.ConnectError):
            httpx2.get(path, trust_env=False)
    finally:
        store.start()
    store.pause()
    try:
        with pytest.raises(httpx2.TimeoutException):
            httpx2.get(path, trust_env=False, timeout=1)
    finally:
        store.resume()
    with httpx2.Client(trust_env=False, timeout=60) as http:

        def quickest() -> float:
            return min(http.get(path).elapsed.total_seconds() for _ in range(5))

        quick = quickest()
        with store.slow(SLOW_S):
            slow = quickest()
        quick_again = quickest()

    assert max(quick, quick_again) < SLOW_S <= slow


@pytest.mark.usefixtures("proxy")
def test_large_blobs_go_through_the_slow_wire_whole(bed: Bed) -> None:
    image = bed.upstream.push_index()

    with bed.store.slow(0.01):
        cold = http_pull.pull(_endpoint(bed.hosts[0]), image)
        warm = http_pull.pull(_endpoint(bed.hosts[1]), image)

    assert cold == warm


def test_the_link_of_the_upstream_can_be_limited(bed: Bed) -> None:
    image = bed.upstream.push_index()
    bed.upstream.limit(20)
    try:
        started = time.monotonic()
        size = http_pull.pull(bed.upstream.url, image).size
        took_s = time.monotonic() - started
    finally:
        bed.upstream.limit(10_000)

    assert took_s > 0.7 * size * 8 / 20e6


def test_containers_of_two_hosts_see_each_other_on_an_overlay_network(bed: Bed) -> None:
    near, far = (host.engine.host for host in bed.hosts[:2])
    processes.run(
        "docker", "-H", near, "network", "create", "-d", "overlay", "--attachable", "over"
    )
    try:
        on = ("run", "--network", "over")
        processes.run("docker", "-H", far, *on, "-d", "--rm", "--name", "there", IMAGE)
        fetch = ("--rm", "--entrypoint", "wget", IMAGE, "-q", "-O-", "http://there:5000/v2/")
        eventually(
            lambda: (
                processes.finish(["docker", "-H", near, *on, *fetch], within_s=20).stdout == "{}"
            ),
            within_s=30,
            what="one container reaches the other",
        )
    finally:
        processes.finish(["docker", "-H", far, "rm", "-f", "-v", "there"], within_s=20)
        eventually(
            lambda: (
                not processes.finish(
                    ["docker", "-H", near, "network", "rm", "over"], within_s=20
                ).returncode
            ),
            within_s=20,
            what="the network is removed",
        )


@pytest.mark.usefixtures("beds_are_possible")
def test_a_bed_goes_away_without_leftovers_also_after_a_failure(
    tmp_path: Path, engine: DockerClient
) -> None:
    with suppress(ZeroDivisionError), team_bed.running(tmp_path) as bed:
        name, upstream = bed.switch.name, bed.upstream.port
        for host in bed.hosts:
            processes.run("docker", "-H", host.engine.host, "run", "-d", "-v", "v:/v", IMAGE)
        running = set[int]().union(*(network.pids(host.name) for host in bed.hosts))
        containers = [path.name for path in tmp_path.glob("*/data/containers/*")]
        bed.hosts[1].lose()
        _ = 0 / 0

    assert len(containers) == len(bed.hosts)
    assert not _living(running)
    assert not list(tmp_path.iterdir())
    assert not list(Path("/run").glob(f"{name}*"))
    assert name not in processes.run("ip", "netns", "list")
    assert name not in processes.run("ip", "link", "show")
    assert name not in Path("/proc/mounts").read_text()
    for container in containers:
        assert not list(Path("/sys/fs/cgroup").rglob(container))
    assert not engine.containers.list(all=True, filters={"publish": str(upstream)})


def _living(pids: set[int]) -> set[int]:
    return {pid for pid in pids if Path(f"/proc/{pid}").exists() and _state(pid) != "Z"}


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _blobs_size(bed: Bed) -> int:
    """The size of what is stored, without uploads, tags and manifests' links."""
    objects = bed.store.objects()
    return sum(size for key, size in objects.items() if "/blobs/sha256/" in key)
