from collections.abc import Iterator

import pytest

from benchmarks.support import image_set
from benchmarks.support.nodes import PullError, boot
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


def test_each_node_pulls_a_shared_blob_once(registry: TinyRegistry) -> None:
    booted = boot([_endpoints(registry)] * 3)

    digests = {digest: len(blob.content) for (_, digest), blob in registry.blobs.items()}
    assert len(digests) < len(registry.blobs), "some images share a layer"
    assert {digest: len(registry.asked(digest)) for digest in digests} == dict.fromkeys(digests, 3)
    assert booted.size == 3 * sum(digests.values())


def test_a_damaged_blob_is_an_error(registry: TinyRegistry) -> None:
    digest = max(digest for _, digest in registry.blobs)
    registry.fail(digest, altered)

    with pytest.raises(PullError, match=f"{digest} is damaged"):
        boot([_endpoints(registry)])


def test_an_error_carries_the_response(registry: TinyRegistry) -> None:
    registry.fail("3.10.1", status(503, words="come back later"))

    with pytest.raises(PullError, match=r"pause/manifests/3\.10\.1: 503 .*come back later"):
        boot([_endpoints(registry)])
