"""What `cachectl list` says about the images in a storage."""

import json

from hypothesis import given
from hypothesis import strategies as st

from talos_registry_cache.registry import manifests
from talos_registry_cache.registry.listing import Contents
from tests.unit.registry.support import images
from tests.unit.registry.support.images import Blob, Built
from tests.unit.registry.support.stored import Stored, artifact, referrers

LAYER, OTHER = Blob(b"layer" * 100), Blob(b"other" * 100)
AMD64, ARM64, S390X = "linux/amd64", "linux/arm64", "linux/s390x"


def test_an_index_has_the_platforms_that_are_complete() -> None:
    amd64, arm64 = images.image(LAYER), images.image(OTHER, platform=ARM64)
    whole = images.index({AMD64: amd64, ARM64: arm64, S390X: images.image(LAYER, platform=S390X)})
    stored = Stored()
    stored.add(Built([whole.manifests[0], *amd64.manifests], amd64.blobs), "team/app", asked=7)
    stored.blob(arm64.manifests[0])

    [one] = stored.listed()

    assert str(one.image) == "team/app:1"
    assert one.image.digest == whole.digest
    assert one.platforms == (AMD64,)
    assert one.size == sum(len(blob.content) for blob in stored.blobs.values())
    assert one.image.last_request == 7
    assert one.attachments == {}


def test_an_image_without_an_index_has_the_platform_of_its_configuration() -> None:
    stored = Stored()
    stored.add(images.image(LAYER, platform="linux/arm/v7"), "a")
    stored.add(images.docker_image(OTHER, platform=ARM64), "b")
    stored.add(artifact(), "chart")

    assert [one.platforms for one in stored.listed()] == [("linux/arm/v7",), (ARM64,), ()]
    stored.lose(LAYER)
    assert [one.platforms for one in stored.listed()] == [(), (ARM64,), ()]


def test_entries_without_a_platform_and_attestations_are_seen_as_what_they_are() -> None:
    image = images.image(LAYER)
    content = {"schemaVersion": 2, "manifests": [image.manifests[0].entry | {"annotations": None}]}
    index = Blob(json.dumps(content).encode(), images.OCI_INDEX)
    stored = Stored()
    stored.add(Built([index, *image.manifests], image.blobs), "bare")
    attestation = images.attestation(image)
    attested = images.index({AMD64: image}, attestation)
    stored.add(Built([*attested.manifests, attestation], attested.blobs), "attested")

    assert [one.platforms for one in stored.listed()] == [(AMD64,), (AMD64,)]


def test_attachments_belong_to_their_image_by_tag_by_index_and_by_subject() -> None:
    image = images.image(LAYER)
    index = images.index({AMD64: image})
    stored = Stored()
    name = stored.add(index, "team/app").replace(":", "-")
    platform = image.digest.replace(":", "-")
    stored.add(artifact(kind="sig"), "team/app", f"{name}.sig")
    stored.add(artifact(kind="sig 2"), "team/app", f"{platform}.sig")
    stored.add(artifact(kind="att"), "team/app", f"{name}.att")
    stored.add(artifact(kind="sbom"), "team/app", f"{name}.sbom")
    inner = [artifact(index.digest, number=number) for number in range(2)]
    stored.add(referrers(*inner), "team/app", name)
    stored.add(artifact(index.digest, number=3), "team/app", None)

    [one] = stored.listed()

    assert str(one.image) == "team/app:1"
    expected = {"SBOM": 1, "attestation": 1, "referrer": 3, "signature": 2}
    assert one.attachments == expected


def test_an_attachment_whose_image_is_not_stored_is_named_with_its_subject() -> None:
    stored = Stored()
    digest = stored.add(images.image(LAYER), "team/app")
    stored.add(artifact(), "team/other", f"{digest.replace(':', '-')}.sig")

    image, orphan = stored.listed()

    assert (image.subject, image.attachments) == (None, {})
    assert orphan.subject == digest
    assert str(orphan.image).startswith("team/other:sha256-")


def test_the_last_request_is_that_of_the_log() -> None:
    stored = Stored()
    stored.add(images.image(LAYER), "a", asked=3)

    [one] = stored.listed({("a", "1"): 9})

    assert one.image.last_request == 9


def test_content_that_is_read_twice_is_kept_once_and_layers_are_not_kept() -> None:
    contents = Contents()
    for _ in range(2):
        contents.take("sha256:a", 7, b'{"a":')
        contents.take("sha256:b", 2, b"xy")
        contents.take("sha256:a", 7, b"1}")
    contents.take("sha256:c", manifests.SIZE_LIMIT + 1, b"{")

    assert contents.of("sha256:a") == b'{"a":1}'
    assert contents.of("sha256:b") == contents.of("sha256:c") == b""


NAMES = st.sampled_from([AMD64, ARM64, "linux/arm/v7", S390X])


@given(st.sets(NAMES, min_size=1), st.data())
def test_exactly_the_complete_platforms_are_listed(names: set[str], data: st.DataObject) -> None:
    built = {name: images.image(Blob(name.encode() * 10), platform=name) for name in sorted(names)}
    stored = Stored()
    stored.add(images.index(built), "team/app")
    removable = [blob for one in built.values() for blob in (*one.manifests, *one.blobs)]
    lost = data.draw(st.sets(st.sampled_from(range(len(removable)))))
    for number in lost:
        stored.lose(removable[number])

    [one] = stored.listed()

    complete = {
        name
        for name, image in built.items()
        if all(blob.digest in stored.blobs for blob in (*image.manifests, *image.blobs))
    }
    assert set(one.platforms) == complete
