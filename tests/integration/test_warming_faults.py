"""Failed warming reports each image that is not cached, and the next `up` continues from there."""

import hashlib
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from docker import DockerClient

from tests.integration.conftest import NewStack
from tests.integration.support import belongings, docker_cli, gate, host, images, sessions
from tests.integration.support.polling import PATIENCE, eventually
from tests.integration.support.stack import upstreams
from tests.integration.support.upstream import Upstream
from tests.integration.support.warming import (
    REGISTRY,
    Warming,
    push,
    reference,
    warm,
    warm_in_vain,
)

TINY = (1_000,)
MOMENT_WITHIN_S = 30
SLOW_SIZE = 5_000_000


def test_every_unavailable_image_is_named_and_the_others_are_cached(
    warming: Warming, upstream: Upstream
) -> None:
    good, _ = push(upstream)
    elsewhere = upstream.push(images.oci_index(host.other_architecture(), sizes=TINY))
    not_there = f"{REGISTRY}/team/not-there:1"

    said = warming.warm_in_vain(good, elsewhere, others=[not_there])

    assert "2 of 3 images are not cached; 1 are, and stay" in said
    assert f"{not_there}: GET {warming.endpoint}" in said
    assert "404 MANIFEST_UNKNOWN" in said
    only = f"not available for linux/{host.architecture()}; available for: "
    assert f"{reference(elsewhere)}: " in said
    assert f"{only}linux/{host.other_architecture()}" in said
    warming.assert_cached(good)


def test_a_layer_that_does_not_match_its_digest_is_not_cached(
    warming: Warming, upstream: Upstream
) -> None:
    (bad, image), (good, _) = push(upstream), push(upstream)
    layer = image.blobs[-1]
    warming.gate.fail(layer.digest, *[gate.altered] * 9)

    said = warming.warm_in_vain(bad, good)

    assert "1 of 2 images are not cached" in said
    assert f"{reference(bad)}: " in said
    assert f"{layer.digest} is damaged" in said
    warming.assert_cached(good)
    warming.gate.recover()
    url = f"{warming.endpoint}/v2/{bad.repository}/blobs/{layer.digest}"
    for _ in range(2):
        # Past the front, which hands on what it has received for up to 30 seconds.
        headers = {"Cache-Control": "no-cache"}
        served = requests.get(url, headers=headers, timeout=60).content
        assert f"sha256:{hashlib.sha256(served).hexdigest()}" == layer.digest
    warming.warm(bad, good)
    warming.assert_cached(bad)


def test_up_continues_after_the_upstream_has_vanished(warming: Warming, upstream: Upstream) -> None:
    pushed, image = push(upstream)
    first, last = image.blobs[1:]
    warming.gate.fail(last.digest, gate.vanish)

    said = warming.warm_in_vain(pushed)

    assert f"{reference(pushed)}: " in said
    assert last.digest in said
    warming.gate.recover()
    warming.warm(pushed)
    # In total, before and after the fault.
    assert warming.fetches(first) == 1
    warming.assert_cached(pushed)


def test_up_continues_after_the_cache_was_killed(warming: Warming, upstream: Upstream) -> None:
    pushed, image = push(upstream, sizes=(100_000, 3_000_000))
    first, last = image.blobs[1:]
    warming.gate.fail(last.digest, gate.slow(0.2))

    with ThreadPoolExecutor() as threads:
        up = threads.submit(warming.warm_in_vain, pushed)
        eventually(
            lambda: warming.fetches(last), within_s=MOMENT_WITHIN_S, what="the layer is fetched"
        )
        # The engine does not restart a container that was killed through its API.
        warming.registry.kill()
        said = up.result()

    assert f"{reference(pushed)}: " in said
    warming.registry.start()
    warming.warm(pushed)
    assert warming.fetches(first) == 1
    warming.assert_cached(pushed)


def test_images_that_fit_are_cached_on_a_full_disk(
    new_stack: NewStack, engine: DockerClient, upstream: Upstream
) -> None:
    fits, _ = push(upstream, sizes=(2_000_000,))
    pushed, _ = push(upstream, sizes=(9_000_000,))
    made = new_stack({"upstreams": upstreams(upstream.url, REGISTRY)})
    volume = engine.volumes.create(
        f"{made.prefix}-{REGISTRY}",
        driver_opts={"type": "tmpfs", "device": "tmpfs", "o": "size=8m,uid=65532"},
        labels={belongings.STACK_LABEL: made.name},
    )
    warm(made, fits)
    assert volume.id in made.belongings().volumes
    endpoint = made.outputs()["caches"][REGISTRY]["endpoint"]

    assert set(made.up()) == {"same"}

    said = warm_in_vain(made, fits, pushed)

    assert "1 of 2 images are not cached; 1 are, and stay" in said
    assert f"{reference(pushed)}: " in said
    # A slow client may miss the error, which the cache sends after the content.
    registry = belongings.registries(engine, made.name)[REGISTRY]
    assert "no space left on device" in said or b"no space left on device" in registry.logs()
    with upstream.away():
        assert docker_cli.pull(endpoint, fits) == fits.digest


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_ends_warming_and_the_next_up_continues(
    warming: Warming, upstream: Upstream, tmp_path: Path, presses: int
) -> None:
    (good, _), (slow, image) = push(upstream), push(upstream, (SLOW_SIZE,))
    layer = image.blobs[-1]
    warming.gate.fail(layer.digest, *[gate.slow(1)] * 9)
    references = {"references": [reference(good), reference(slow)]}
    warming.stack.configure(references, "images")
    output = tmp_path / "up.log"
    up = warming.stack.start_up(output)
    try:
        eventually(
            lambda: warming.fetches(layer),
            within_s=MOMENT_WITHIN_S,
            what="a slow layer is fetched",
        )
        for _ in range(presses):
            os.killpg(up.pid, signal.SIGINT)
        assert up.wait(PATIENCE * MOMENT_WITHIN_S) != 0
    finally:
        sessions.kill_rest(up.pid)
        up.wait()
    assert "Traceback" not in output.read_text()
    assert presses > 1 or "it was interrupted" in output.read_text()
    warming.stack.cancel()
    warming.gate.recover()

    warming.stack.up()

    warming.assert_cached(slow)
