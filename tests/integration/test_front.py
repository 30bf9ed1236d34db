"""Caches with a front: clients share fetches, and tags do not wait for the upstream."""

import json
import os
import secrets
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import httpx2
import pytest
from docker import DockerClient
from docker.models.containers import Container

from components import front
from talos_registry_cache.cli.errors import ExitCode
from talos_registry_cache.registry import manifests, pull_log
from tests.integration.support import docker_cli, gate, host, http_pull, images, stored
from tests.integration.support.cachectl import Cachectl
from tests.integration.support.containerd import Containerd
from tests.integration.support.gate import Gate, guarding
from tests.integration.support.polling import eventually
from tests.integration.support.stack import CacheStack, stack, upstreams
from tests.integration.support.upstream import Pushed, Upstream

REGISTRY = "docker.io"
HEALTHY_WITHIN_S = 60
FRESH_S = 2
# An answer without the upstream, on a busy machine. The registry alone waits for a minute.
AT_ONCE_S = 5


@dataclass(frozen=True, slots=True)
class Cache:
    """A cache with a front.

    Attributes:
        stack: its stack.
        front: the container of the front.
        registry: the container of the registry.
        endpoint: its URL on this machine.
        mirrors: the mirrors of its stack.
        gate: the gate before its upstream.
    """

    stack: CacheStack
    front: Container
    registry: Container
    endpoint: str
    mirrors: dict[str, str]
    gate: Gate

    def pull(self, image: Pushed) -> http_pull.Pulled:
        """Pull an image with plain HTTP requests, and check its digests."""
        return http_pull.pull(self.endpoint, image)

    def tag(self, image: Pushed) -> httpx2.Response:
        """Ask for a tag."""
        url = f"{self.endpoint}/v2/{image.repository}/manifests/{image.tag}"
        with httpx2.Client(trust_env=False, timeout=60) as http:
            return http.get(url, headers={"Accept": manifests.ACCEPT})

    def requests(self, image: Pushed) -> Counter[str]:
        """How often the upstream was asked for each part of an image."""
        return Counter(request for request in self.gate.served if image.repository in request)

    def log(self) -> list[str]:
        """The lines of the front's log."""
        printed: bytes = self.front.logs(stderr=False)
        return printed.decode().splitlines()


@pytest.fixture(scope="module")
def cache(
    tmp_path_factory: pytest.TempPathFactory, engine: DockerClient, upstream: Upstream
) -> Iterator[Cache]:
    folder = tmp_path_factory.mktemp("front")
    with guarding(upstream, "none") as before_upstream:
        settings = {
            "upstreams": upstreams(before_upstream.url, REGISTRY),
            "front": {"tagFreshness": f"{FRESH_S}s"},
        }
        with stack(folder, engine, settings) as made:
            made.up()
            outputs = made.outputs()
            described = outputs["caches"][REGISTRY]
            yield Cache(
                made,
                engine.containers.get(described["name"]),
                engine.containers.get(f"{described['name']}-registry"),
                described["endpoint"],
                outputs["mirrors"],
                before_upstream,
            )


@pytest.fixture(autouse=True)
def _recovers(cache: Cache) -> Iterator[None]:
    yield
    cache.gate.recover()


def at_once(number: int, pull: Callable[[], http_pull.Pulled]) -> list[http_pull.Pulled]:
    """Pull from several clients at the same time."""
    barrier = threading.Barrier(number)

    def wait_and_pull() -> http_pull.Pulled:
        barrier.wait()
        return pull()

    with ThreadPoolExecutor(number) as clients:
        return [one.result() for one in [clients.submit(wait_and_pull) for _ in range(number)]]


# Sharing


@pytest.mark.parametrize("clients", [2, 8, 16])
def test_the_upstream_sends_one_copy_however_many_clients_pull(
    cache: Cache, upstream: Upstream, clients: int
) -> None:
    image = upstream.push_index()

    pulled = at_once(clients, lambda: cache.pull(image))

    assert {one.digest for one in pulled} == {image.digest}
    sent = [request for request in cache.requests(image).elements() if request.startswith("GET")]
    assert len(sent) == len(set(sent))
    assert len([one for one in sent if "/blobs/" in one]) == len(pulled[0].blobs)


@pytest.mark.modern_engine
def test_docker_and_containerd_share_a_fetch(
    cache: Cache, upstream: Upstream, containerd: Containerd
) -> None:
    image = upstream.push_index()

    with ThreadPoolExecutor(2) as clients:
        by_docker = clients.submit(docker_cli.pull, cache.endpoint, image)
        by_containerd = clients.submit(containerd.pull, REGISTRY, image, cache.mirrors)

    assert by_docker.result() == by_containerd.result() == image.digest
    blobs = {one: n for one, n in cache.requests(image).items() if "/blobs/" in one}
    assert set(blobs.values()) == {1}


def test_layers_that_repositories_share_are_fetched_once_and_held_for_each(
    cache: Cache, upstream: Upstream, tmp_path: Path
) -> None:
    index = images.oci_index(host.architecture())
    first, second = upstream.push(index), upstream.push(index)
    cachectl = Cachectl(cache.stack.name, tmp_path)
    kept = tmp_path / "kept.txt"
    kept.write_text(f"{REGISTRY}/{second.name}\n")

    pulled = cache.pull(first)
    assert cache.pull(second) == pulled

    assert not [one for one in cache.requests(second) if "/blobs/" in one]
    assert cachectl("verify", first.name, second.name).code == ExitCode.OK
    assert cachectl("prune", "--keep", kept, "--yes").code == ExitCode.OK
    assert cachectl("verify", second.name).code == ExitCode.OK


def test_a_repository_without_images_is_given_no_blobs_of_others(
    cache: Cache, upstream: Upstream
) -> None:
    image = upstream.push_index()
    [blob, *_] = cache.pull(image).blobs
    made_up = f"made-up-{secrets.token_hex(3)}"

    url = f"{cache.endpoint}/v2/{made_up}/blobs/{blob}"
    answer = httpx2.get(url, trust_env=False, timeout=60)

    assert answer.status_code == HTTPStatus.NOT_FOUND
    repository = f"{stored.STORED}/repositories/{made_up}"
    assert cache.registry.exec_run(["busybox", "test", "-e", repository]).exit_code == 1


def test_a_head_beside_a_get_costs_no_second_fetch(cache: Cache, upstream: Upstream) -> None:
    image = upstream.push_index()
    (blob, *_) = cache.pull(image).blobs
    other = upstream.push_index()
    manifest = cache.pull(other)

    with httpx2.Client(trust_env=False, timeout=60) as http:
        head = http.head(f"{cache.endpoint}/v2/{image.repository}/blobs/{blob}")
        part = http.get(
            f"{cache.endpoint}/v2/{image.repository}/blobs/{blob}", headers={"Range": "bytes=0-3"}
        )

    assert head.headers["Docker-Content-Digest"] == blob
    assert (part.status_code, len(part.content)) == (HTTPStatus.PARTIAL_CONTENT, 4)
    assert cache.requests(image)[f"GET /v2/{image.repository}/blobs/{blob}"] == 1
    assert manifest.digest == other.digest


def test_a_client_that_leaves_does_not_end_the_fetch_for_the_others(
    cache: Cache, upstream: Upstream
) -> None:
    image = upstream.push_index()
    blob = http_pull.largest_blob(upstream.url, image)
    cache.gate.fail(blob, gate.slow(0.05))
    url = f"{cache.endpoint}/v2/{image.repository}/blobs/{blob}"

    with (
        httpx2.Client(trust_env=False, timeout=60) as first,
        first.stream("GET", url) as answer,
        ThreadPoolExecutor(1) as second,
    ):
        next(answer.iter_raw(1))
        waiting = second.submit(cache.pull, image)
        answer.close()

    assert waiting.result().digest == image.digest
    assert cache.requests(image)[f"GET /v2/{image.repository}/blobs/{blob}"] == 1


def test_a_log_line_has_client_image_size_and_whether_it_was_cached(
    cache: Cache, upstream: Upstream
) -> None:
    image = upstream.push_index()
    blob = cache.pull(image).blobs[0]
    eventually(lambda: _is_stored(cache, image, blob), within_s=10, what="the blob is stored")
    cache.pull(image)

    pulls = [pull for pull in pull_log.parse_all(cache.log()) if pull.reference == blob]

    assert [(pull.method, pull.status, pull.result) for pull in pulls] == [
        ("GET", HTTPStatus.OK, "miss"),
        ("GET", HTTPStatus.OK, "hit"),
    ]
    assert {pull.repository for pull in pulls} == {image.repository}


def test_health_checks_are_not_logged_whether_or_not_they_pass(cache: Cache) -> None:
    probe = ["wget", "-q", "-O", "/dev/null", front.PROBE_URL]
    cache.registry.stop(timeout=5)
    try:
        code, _ = cache.front.exec_run(probe)
    finally:
        cache.registry.start()
        eventually(
            lambda: cache.front.exec_run(probe)[0] == 0,
            within_s=HEALTHY_WITHIN_S,
            what="the registry runs again",
        )

    assert code != 0
    logged = cache.front.logs().decode().splitlines()
    assert not [line for line in logged if "127.0.0.1" in line]


# Referrers


def test_the_referrers_of_an_image_are_known_without_the_upstream(
    cache: Cache, upstream: Upstream
) -> None:
    image, other = upstream.push_index(), upstream.push_index()
    referrers = upstream.refer_to(image)

    def ask(about: Pushed) -> httpx2.Response:
        url = f"{cache.endpoint}/v2/{about.repository}/referrers/{about.digest}"
        return httpx2.get(url, trust_env=False, timeout=60)

    known, unknown = ask(image), ask(other)
    with upstream.away():
        again = ask(image)

    for answer in (known, again):
        assert answer.status_code == HTTPStatus.OK
        assert answer.headers["Content-Type"] == "application/vnd.oci.image.index.v1+json"
        assert answer.headers["Docker-Content-Digest"] == referrers.digest
    # A node that gets 404 from a mirror asks the upstream itself.
    assert unknown.status_code == HTTPStatus.NOT_FOUND


# Failures of the upstream


def test_a_tag_is_served_at_once_while_the_upstream_is_silent(
    cache: Cache, upstream: Upstream
) -> None:
    image = upstream.push_index()
    cache.pull(image)
    time.sleep(FRESH_S + 1)

    with cache.gate.silent():
        for _ in range(3):
            started = time.monotonic()
            answer = cache.tag(image)
            assert time.monotonic() - started < AT_ONCE_S
            assert answer.headers["Docker-Content-Digest"] == image.digest
            time.sleep(FRESH_S)


def test_a_node_pulls_a_warmed_image_at_once_while_the_upstream_is_silent(
    cache: Cache, upstream: Upstream, containerd: Containerd
) -> None:
    image = upstream.push_index()
    cachectl = Cachectl(cache.stack.name, cache.stack.folder)
    assert cachectl("warm", f"{REGISTRY}/{image.name}").code == 0

    with cache.gate.silent():
        started = time.monotonic()
        assert containerd.pull(REGISTRY, image, cache.mirrors) == image.digest
        assert time.monotonic() - started < AT_ONCE_S


def test_a_tag_is_served_from_the_front_while_it_is_fresh(cache: Cache, upstream: Upstream) -> None:
    image = upstream.push_index()
    cache.pull(image)
    before = cache.requests(image)

    cache.tag(image)

    assert cache.requests(image) == before


@pytest.mark.parametrize("code", [HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.BAD_GATEWAY])
def test_a_moved_tag_whose_image_is_refused_still_has_its_old_image(
    cache: Cache, upstream: Upstream, code: HTTPStatus
) -> None:
    image = upstream.push_index()
    cache.pull(image)
    moved = upstream.move(image)
    time.sleep(FRESH_S + 1)
    refusals = [gate.status(code)] * 9
    for target in (image.tag, moved.digest):
        cache.gate.fail(target, *refusals, methods=("GET", "HEAD"))

    for _ in range(3):
        assert cache.pull(image).digest == image.digest

    cache.gate.recover()
    eventually(
        lambda: cache.pull(image).digest == moved.digest,
        within_s=HEALTHY_WITHIN_S,
        what="the tag has moved",
    )


def test_a_blob_that_breaks_off_is_not_stored(cache: Cache, upstream: Upstream) -> None:
    image = upstream.push_index()
    blob = http_pull.largest_blob(upstream.url, image)
    cache.gate.fail(blob, gate.cut)

    with pytest.raises((httpx2.HTTPError, AssertionError)):
        cache.pull(image)

    assert cache.pull(image).digest == image.digest


def test_a_blob_with_a_wrong_digest_is_not_stored(cache: Cache, upstream: Upstream) -> None:
    image = upstream.push_index()
    blob = http_pull.largest_blob(upstream.url, image)
    cache.gate.fail(blob, gate.altered)

    with pytest.raises(AssertionError, match="came damaged"):
        cache.pull(image)

    eventually(
        lambda: _digest_or_none(cache, image) == image.digest,
        within_s=HEALTHY_WITHIN_S,
        what="the damaged blob is fetched again",
    )


@pytest.mark.parametrize("victim", ["front", "registry"])
def test_after_a_kill_in_the_middle_of_a_pull_the_next_one_is_whole(
    cache: Cache, upstream: Upstream, victim: str
) -> None:
    image = upstream.push_index()
    blob = http_pull.largest_blob(upstream.url, image)
    cache.gate.fail(blob, gate.slow(0.05))
    container: Container = getattr(cache, victim)

    with ThreadPoolExecutor(1) as client:
        cut = client.submit(cache.pull, image)
        eventually(
            lambda: cache.requests(image)[f"GET /v2/{image.repository}/blobs/{blob}"],
            within_s=30,
            what="the fetch has begun",
        )
        container.reload()
        os.kill(container.attrs["State"]["Pid"], signal.SIGKILL)
    assert cut.exception() is not None

    eventually(
        lambda: _digest_or_none(cache, image) == image.digest,
        within_s=HEALTHY_WITHIN_S,
        what="the image is pulled",
    )


# The rest of the program


def test_the_registry_is_reachable_through_its_front_only(
    cache: Cache, engine: DockerClient
) -> None:
    network = engine.networks.get(cache.stack.prefix)
    command = f"busybox nc -w 2 {cache.registry.name} 5000 </dev/null"

    code = engine.containers.run(
        cache.registry.attrs["Image"],
        ["-c", f"{command}; echo $?"],
        entrypoint=["/bin/sh"],
        network=network.name,
        remove=True,
    )

    assert code.decode().strip() == "1"
    assert not cache.registry.attrs["HostConfig"]["PortBindings"]


def test_declared_images_are_warmed_and_verified_through_the_front(
    cache: Cache, upstream: Upstream
) -> None:
    image = upstream.push_index()
    cachectl = Cachectl(cache.stack.name, cache.stack.folder)

    warmed = cachectl("warm", f"{REGISTRY}/{image.name}", "--json")
    verified = cachectl("verify", f"{REGISTRY}/{image.name}")

    assert (warmed.code, verified.code) == (0, 0), warmed.err + verified.err
    assert max(n for one, n in cache.requests(image).items() if "GET" in one) == 1


def test_watch_and_status_show_what_was_cached(cache: Cache, upstream: Upstream) -> None:
    image = upstream.push_index()
    cachectl = Cachectl(cache.stack.name, cache.stack.folder)
    before = cachectl("status", "--json").result[REGISTRY]["stored"]["metrics"]

    for _ in range(2):
        pulled = cache.pull(image)
    requests = 2 * (2 + len(pulled.blobs))
    with cachectl.start("watch", "--json", "--tail", str(requests)) as watching:
        assert watching.stdout
        shown = [json.loads(watching.stdout.readline()) for _ in range(requests)]
        watching.send_signal(signal.SIGINT)
        assert watching.wait(HEALTHY_WITHIN_S) == 0

    after = cachectl("status", "--json").result[REGISTRY]["stored"]["metrics"]
    assert {one["repository"] for one in shown} == {image.repository}
    assert {one["registry"] for one in shown} == {REGISTRY}
    assert after["to_clients"] - before["to_clients"] == sum(one["size"] for one in shown)
    assert after["hits"] > before["hits"]
    assert after["misses"] > before["misses"]
    assert after["from_upstream"] > before["from_upstream"]


def test_a_damaged_blob_is_found_and_removed(cache: Cache, upstream: Upstream) -> None:
    image = upstream.push_index()
    blob = cache.pull(image).blobs[-1]
    eventually(lambda: _is_stored(cache, image, blob), within_s=10, what="the blob is stored")
    stored.damage(cache.registry, blob)
    cachectl = Cachectl(cache.stack.name, cache.stack.folder)

    assert cachectl("scrub").code == ExitCode.NOT_ALL_THERE
    assert cachectl("scrub", "--repair").code == 0

    eventually(
        lambda: _digest_or_none(cache, image) == image.digest,
        within_s=HEALTHY_WITHIN_S,
        what="the blob is fetched again",
    )
    assert cachectl("scrub").code == 0


def test_an_image_that_was_pruned_is_stored_when_it_is_warmed_again(
    cache: Cache, upstream: Upstream, tmp_path: Path
) -> None:
    image = upstream.push_index()
    name = f"{REGISTRY}/{image.name}"
    (tmp_path / "keep.txt").write_text(f"{REGISTRY}/nothing:1\n")
    cachectl = Cachectl(cache.stack.name, cache.stack.folder)
    cachectl("warm", name)

    pruned = cachectl("prune", "--keep", tmp_path / "keep.txt", "--yes")
    warmed = cachectl("warm", name)
    verified = cachectl("verify", name)

    assert [one.code for one in (pruned, warmed, verified)] == [0, 0, 0], pruned.err + warmed.err


def test_warming_sees_a_moved_tag_at_once(cache: Cache, upstream: Upstream) -> None:
    image = upstream.push_index()
    cache.pull(image)
    moved = upstream.move(image)
    cachectl = Cachectl(cache.stack.name, cache.stack.folder)

    cachectl("warm", f"{REGISTRY}/{image.name}")

    assert cache.tag(image).headers["Docker-Content-Digest"] == moved.digest


@pytest.mark.modern_engine
@pytest.mark.image_store
def test_nothing_changes_with_nothing_to_do(cache: Cache) -> None:
    assert set(cache.stack.up()) == {"same"}
    assert set(cache.stack.refresh()) == {"same"}
    assert set(cache.stack.up()) == {"same"}


def _is_stored(cache: Cache, image: Pushed, blob: str) -> bool:
    folder = f"{stored.STORED}/repositories/{image.repository}/_layers"
    code, _ = cache.registry.exec_run(["test", "-f", f"{folder}/{blob.replace(':', '/')}/link"])
    return bool(code == 0)


def _digest_or_none(cache: Cache, image: Pushed) -> str | None:
    try:
        return cache.pull(image).digest
    except (httpx2.HTTPError, AssertionError):
        return None
