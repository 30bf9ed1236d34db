import time
from collections.abc import Iterator

import pytest

from benchmarks.support import image_set
from benchmarks.support.nodes import PullError, Start, boot, boot_each
from tests.unit.registry.support.images import Blob, Built
from tests.unit.registry.support.tiny_registry import TinyRegistry, altered, serving, status

SCALE = 0.0005


@pytest.fixture
def registry() -> Iterator[TinyRegistry]:
    """A registry with the image set."""
    with serving(TinyRegistry()) as running:
        for image in image_set.images(SCALE):
            tagged = [Blob(one.content, one.media_type) for one in (image.index, image.manifest)]
            blobs = [Blob(blob.content) for blob in image.blobs]
            running.hold(image.repository, image.tag, Built(tagged, blobs))
        yield running


def _endpoints(registry: TinyRegistry) -> dict[str, str]:
    return dict.fromkeys(image_set.REGISTRIES, registry.url)


def _digests(registry: TinyRegistry) -> dict[str, int]:
    return {digest: len(blob.content) for (_, digest), blob in registry.blobs.items()}


def test_each_node_pulls_every_blob_once_however_many_images_share_it(
    registry: TinyRegistry,
) -> None:
    booted = boot(3, _endpoints(registry))

    digests = _digests(registry)
    assert len(digests) < len(registry.blobs), "some images share a layer"
    assert {digest: len(registry.asked(digest)) for digest in digests} == dict.fromkeys(digests, 3)
    assert booted.size == 3 * sum(digests.values())
    assert booted.seconds > 0


def test_each_node_asks_its_own_cache_at_its_own_time(registry: TinyRegistry) -> None:
    nowhere = dict.fromkeys(image_set.REGISTRIES, "http://127.0.0.1:9")
    started = time.monotonic()

    booted = boot_each([Start(_endpoints(registry)), Start(_endpoints(registry), after_s=0.3)])

    assert booted.size == 2 * sum(_digests(registry).values())
    assert 0.3 < booted.seconds <= time.monotonic() - started
    with pytest.raises(PullError, match="refused"):
        boot_each([Start(_endpoints(registry), after_s=60), Start(nowhere)])


def test_a_damaged_blob_is_an_error(registry: TinyRegistry) -> None:
    digest = max(_digests(registry))
    registry.fail(digest, altered)

    with pytest.raises(PullError, match=f"{digest} of .* came damaged"):
        boot(1, _endpoints(registry))


def test_an_error_answer_is_told_with_its_words(registry: TinyRegistry) -> None:
    registry.fail("3.10.1", status(503, words="come back later"))

    with pytest.raises(PullError, match=r"pause/manifests/3\.10\.1: 503 .*come back later"):
        boot(1, _endpoints(registry))
