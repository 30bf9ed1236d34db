import asyncio

import pytest

from talos_registry_cache.registry.errors import AnswerError, ContentError
from talos_registry_cache.registry.platforms import Platform
from talos_registry_cache.registry.reference import parse
from talos_registry_cache.registry.verify import Verified, verify
from tests.unit.registry.support import images, tiny_registry
from tests.unit.registry.support.images import Blob
from tests.unit.registry.support.tiny_registry import TinyRegistry

NODE = (Platform("linux", "amd64"),)
BASE = Blob(b"a layer that images share" * 1000)
OWN = Blob(b"a layer of one image" * 1000)
IMAGE = images.image(BASE, OWN)
INDEX = images.index({"linux/amd64": IMAGE})


def run(registry: TinyRegistry, *texts: str) -> tuple[Verified, ...]:
    return asyncio.run(verify(map(parse, texts), {"docker.io": registry.url}, NODE))


def test_an_image_is_proved_by_reading_all_of_it(registry: TinyRegistry) -> None:
    registry.hold("team/app", "1", INDEX)
    read: list[int] = []

    [outcome] = asyncio.run(
        verify([parse("team/app:1")], {"docker.io": registry.url}, NODE, on_bytes=read.append)
    )

    assert outcome.errors == ()
    assert outcome.image
    assert outcome.image.digest == INDEX.digest
    assert sum(read) == sum(len(blob.content) for blob in IMAGE.blobs)


def test_every_missing_blob_is_reported(registry: TinyRegistry) -> None:
    registry.hold("team/app", "1", INDEX)
    for blob in (BASE, OWN):
        del registry.blobs["team/app", blob.digest]

    [outcome] = run(registry, "team/app:1")

    for blob, error in zip((BASE, OWN), outcome.errors, strict=True):
        assert isinstance(error, AnswerError)
        assert error.is_missing
        assert blob.digest in str(error)


@pytest.mark.parametrize("digest", [IMAGE.digest, INDEX.digest])
def test_an_image_without_a_manifest_is_verified_twice_and_reported(
    registry: TinyRegistry, monkeypatch: pytest.MonkeyPatch, digest: str
) -> None:
    monkeypatch.setattr("talos_registry_cache.registry.verify.PAUSE_S", 0.01)
    registry.hold("team/app", "1", INDEX)
    del registry.manifests["team/app", digest]

    [outcome] = run(registry, "team/app:1")

    assert outcome.image is None
    assert digest in str(outcome.errors[0])
    assert len(registry.asked(digest)) == 2


def test_damaged_and_truncated_blobs_are_reported(registry: TinyRegistry) -> None:
    registry.hold("team/app", "1", INDEX)
    registry.fail(BASE.digest, tiny_registry.altered)
    registry.blobs["team/app", OWN.digest] = Blob(OWN.content[:-1])

    [outcome] = run(registry, "team/app:1")

    assert [type(error) for error in outcome.errors] == [ContentError, ContentError]
    assert "is damaged" in str(outcome.errors[0])
    assert f"has {len(OWN.content) - 1} bytes instead of {len(OWN.content)}" in str(
        outcome.errors[1]
    )


def test_a_shared_blob_is_read_once_and_must_be_in_each_repository(registry: TinyRegistry) -> None:
    names = ("team/one", "team/two", "team/three")
    for name in names:
        registry.hold(name, "1", images.index({"linux/amd64": images.image(BASE)}))
    del registry.blobs["team/three", BASE.digest]

    outcomes = run(registry, *(f"{name}:1" for name in names))

    assert [len(outcome.errors) for outcome in outcomes] == [0, 0, 1]
    # The message depends on which repository is asked first.
    assert "team/three" in str(outcomes[2].errors[0])
    assert BASE.digest in str(outcomes[2].errors[0])
    # If the first one does not have the blob, the next one is read.
    assert registry.asked(BASE.digest).count("GET") in {1, 2}


def test_a_damaged_shared_blob_is_an_error_of_each_image(registry: TinyRegistry) -> None:
    for name in ("team/one", "team/two"):
        registry.hold(name, "1", images.index({"linux/amd64": images.image(BASE)}))
    registry.fail(BASE.digest, tiny_registry.altered, tiny_registry.altered)

    outcomes = run(registry, "team/one:1", "team/two:1")

    assert [len(outcome.errors) for outcome in outcomes] == [1, 1]


def test_an_image_that_is_being_pulled_is_verified_again(
    registry: TinyRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First the tag appears, then the manifest, then one layer after the other."""
    registry.hold("team/app", "1", INDEX)
    late = [registry.manifests, registry.blobs, registry.blobs]
    keys = [("team/app", digest) for digest in (IMAGE.digest, BASE.digest, OWN.digest)]
    held = [where.pop(key) for where, key in zip(late, keys, strict=True)]
    sleep = asyncio.sleep

    async def written_a_little_more(_: float) -> None:
        await sleep(0)
        if held:
            late.pop(0)[keys.pop(0)] = held.pop(0)

    monkeypatch.setattr("talos_registry_cache.registry.verify.asyncio.sleep", written_a_little_more)

    [outcome] = run(registry, "team/app:1")

    assert outcome.errors == ()
