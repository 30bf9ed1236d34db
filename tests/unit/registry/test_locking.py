"""Looking up what a lock records, past fronts and only while the upstream answers."""

import asyncio
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from talos_registry_cache.registry import locking
from talos_registry_cache.registry.attachments import Attachments
from talos_registry_cache.registry.errors import AnswerError, EndpointError
from talos_registry_cache.registry.image_lock import LockedImage
from talos_registry_cache.registry.locking import Found
from talos_registry_cache.registry.platforms import Platform
from talos_registry_cache.registry.reference import parse
from talos_registry_cache.registry.retry import Retry
from talos_registry_cache.registry.warm import NONEXISTENT_DIGEST
from tests.support import signing
from tests.unit.registry.support import images
from tests.unit.registry.support.images import Blob
from tests.unit.registry.support.tiny_registry import TinyRegistry, serving

NODE = (Platform("linux", "amd64"),)
QUICK = Retry(tries=2, first_pause_s=0.01, patience_s=1)
BASE = Blob(b"a layer" * 1000)


@pytest.fixture
def cache() -> Iterator[TinyRegistry]:
    with serving(TinyRegistry(caches=True)) as running:
        yield running


def look_up(cache: TinyRegistry, *texts: str) -> Found:
    endpoints = {"docker.io": cache.url}
    work = locking.look_up(map(parse, texts), endpoints, NODE, Attachments.SIGNATURES, retry=QUICK)
    return asyncio.run(work)


def test_an_image_is_recorded_with_its_size_for_the_platforms_and_its_signature(
    cache: TinyRegistry,
) -> None:
    mine, other = images.image(BASE), images.image(BASE, platform="linux/arm64")
    built = images.index({"linux/amd64": mine, "linux/arm64": other})
    signature = signing.simple_signing(mine.digest, ec.generate_private_key(ec.SECP256R1()))
    tag = f"{mine.digest.replace(':', '-')}.sig"
    cache.hold("team/app", "1", built)
    cache.hold("team/app", tag, signature)

    found = look_up(cache, "team/app:1")

    parts = [
        built.manifests[0], mine.manifests[0], *mine.blobs, *signature.manifests, *signature.blobs,
    ]  # fmt: skip
    size = sum(len(part.content) for part in parts)
    assert found == {parse("team/app:1"): LockedImage(built.digest, size, {tag: signature.digest})}
    assert not cache.kept


def test_without_the_upstream_nothing_is_recorded(cache: TinyRegistry) -> None:
    cache.hold("team/app", "1", images.index({"linux/amd64": images.image(BASE)}))
    cache.fail(
        NONEXISTENT_DIGEST,
        *[lambda handler, _: handler.refuse(503, "UNAVAILABLE", "the upstream is away")] * 2,
    )

    found = look_up(cache, "team/app:1", "team/app:2")

    assert [type(one) for one in found.values()] == [AnswerError, AnswerError]
    assert not cache.asked("1")


def test_an_image_that_is_missing_does_not_hide_the_others(cache: TinyRegistry) -> None:
    built = images.index({"linux/amd64": images.image(BASE)})
    cache.hold("team/app", "1", built)

    found = look_up(cache, "team/app:0", "team/app:1", "other.example/app:1")

    missing, there, elsewhere = found.values()
    assert isinstance(missing, AnswerError)
    assert isinstance(there, LockedImage)
    assert isinstance(elsewhere, EndpointError)
