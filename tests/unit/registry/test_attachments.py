import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from talos_registry_cache.registry import attachments, manifests, referrers
from talos_registry_cache.registry import image as walking
from talos_registry_cache.registry.attachments import Attachments
from talos_registry_cache.registry.client import RegistryClient
from talos_registry_cache.registry.errors import AnswerError, ContentError
from talos_registry_cache.registry.image import Image
from talos_registry_cache.registry.manifests import Descriptor
from talos_registry_cache.registry.platforms import Platform
from talos_registry_cache.registry.reference import parse
from talos_registry_cache.registry.retry import Retry
from tests.support import signing
from tests.unit.registry.support import images
from tests.unit.registry.support.images import Blob, Built
from tests.unit.registry.support.tiny_registry import TinyRegistry, status

NODE = Platform("linux", "amd64")
IMAGE = images.image(Blob(b"a layer"))
INDEX = images.index({"linux/amd64": IMAGE})
KEY = ec.generate_private_key(ec.SECP256R1())
NAME, OWN_NAME = (digest.replace(":", "-") for digest in (INDEX.digest, IMAGE.digest))
SBOM = Blob(images.image(Blob(b"sbom")).manifests[0].content, images.OCI_MANIFEST)


def run(
    registry: TinyRegistry,
    wanted: Attachments = Attachments.ALL,
    listed: Mapping[str, Sequence[Descriptor]] | None = None,
) -> tuple[Image, ...]:
    async def list_referrers(digest: str) -> Sequence[Descriptor]:
        return (listed or {}).get(digest, ())

    async def walk() -> tuple[Image, ...]:
        async with RegistryClient(registry.url, Retry(tries=1)) as client:
            image = await walking.walk(client, parse("team/app:1"), (NODE,))
            return await attachments.walk(client, image, wanted, list_referrers)

    registry.hold("team/app", "1", INDEX)
    return asyncio.run(walk())


def tags(found: tuple[Image, ...]) -> list[str | None]:
    return [one.reference.tag for one in found]


def test_attachments_of_the_index_and_of_the_platforms_manifest_are_found(
    registry: TinyRegistry,
) -> None:
    signature = signing.simple_signing(INDEX.digest, KEY)
    for tag in (f"{NAME}.sig", f"{OWN_NAME}.sig", f"{NAME}.att", f"{OWN_NAME}.sbom"):
        registry.hold("team/app", tag, signature)

    assert tags(run(registry)) == [
        f"{NAME}.sig", f"{NAME}.att", f"{OWN_NAME}.sig", f"{OWN_NAME}.sbom"
    ]  # fmt: skip
    assert tags(run(registry, Attachments.SIGNATURES)) == [f"{NAME}.sig", f"{OWN_NAME}.sig"]
    assert run(registry, Attachments.NONE) == ()
    [first, *_] = run(registry)
    assert first.digest == signature.digest
    assert {blob.digest for blob in first.blobs} == {blob.digest for blob in signature.blobs}


def test_signatures_are_chosen_from_an_index_of_referrers(registry: TinyRegistry) -> None:
    signed = signing.referrers(signing.statement(INDEX.digest, KEY))
    both = _with(signed, SBOM)
    registry.hold("team/app", NAME, both)

    [alone] = run(registry, Attachments.SIGNATURES)
    [everything] = run(registry, Attachments.ALL)

    assert [one.digest for one in alone.manifests] == [both.digest, signed.manifests[1].digest]
    assert SBOM.digest in {one.digest for one in everything.manifests}


def test_a_listed_signature_must_exist_and_another_referrer_need_not(
    registry: TinyRegistry,
) -> None:
    signed = signing.referrers(signing.statement(INDEX.digest, KEY))
    registry.hold("team/app", NAME, _with(signed, SBOM))
    del registry.manifests["team/app", SBOM.digest]

    [found] = run(registry)
    assert len(found.manifests) == 2

    del registry.manifests["team/app", signed.manifests[1].digest]
    with pytest.raises(AnswerError, match=signed.manifests[1].digest):
        run(registry)


def test_referrers_that_the_upstream_lists_take_the_place_of_the_tag(
    registry: TinyRegistry,
) -> None:
    bundle = signing.referrers(signing.statement(INDEX.digest, KEY)).manifests[1]
    for blob in (bundle, SBOM):
        registry.manifests["team/app", blob.digest] = blob
    registry.hold("team/app", NAME, images.index({}))
    signature = replace(bundle.descriptor, artifact_type=signing.BUNDLE)
    listed = {INDEX.digest: [signature, SBOM.descriptor, Blob(b"no manifest").descriptor]}

    [alone] = run(registry, Attachments.SIGNATURES, listed)
    [everything] = run(registry, Attachments.ALL, listed)

    assert alone.referrers == referrers.index([signature])
    assert [one.digest for one in alone.manifests] == [
        manifests.digest_of(alone.referrers), bundle.digest,
    ]  # fmt: skip
    assert {one.digest for one in everything.manifests[1:]} == {bundle.digest, SBOM.digest}
    assert run(registry, Attachments.NONE, listed) == ()
    assert registry.asked(NAME) == []


def test_a_tag_counts_if_the_upstream_lists_no_signature(registry: TinyRegistry) -> None:
    signed = signing.referrers(signing.statement(INDEX.digest, KEY))
    registry.hold("team/app", NAME, signed)

    [found] = run(registry, Attachments.SIGNATURES, {INDEX.digest: [SBOM.descriptor]})

    assert found.digest == signed.digest
    assert found.referrers == signed.manifests[0].content


def test_locked_referrers_are_read_without_a_tag_or_an_index_in_the_registry(
    registry: TinyRegistry,
) -> None:
    bundle = signing.referrers(signing.statement(INDEX.digest, KEY)).manifests[1]
    registry.manifests["team/app", bundle.digest] = bundle
    index = referrers.index([replace(bundle.descriptor, artifact_type=signing.BUNDLE)])

    async def read() -> tuple[Image, ...]:
        async with RegistryClient(registry.url, Retry(tries=1)) as client:
            image = Image(parse("team/app:1"), (INDEX.manifests[0].descriptor,), ())
            digests, indexes = {NAME: manifests.digest_of(index)}, {NAME: index.decode()}
            return await attachments.locked(client, image, Attachments.ALL, digests, indexes)

    [found] = asyncio.run(read())

    assert [one.digest for one in found.manifests] == [manifests.digest_of(index), bundle.digest]
    assert found.referrers == index


def test_an_index_inside_an_index_of_referrers_is_refused(registry: TinyRegistry) -> None:
    inner = Blob(INDEX.manifests[0].content, images.OCI_INDEX, {"artifactType": signing.BUNDLE})
    registry.hold("team/app", NAME, images.index({}, inner))

    with pytest.raises(ContentError, match="is an index inside an index of referrers"):
        run(registry)


def test_a_registry_that_fails_is_an_error_and_not_an_image_without_attachments(
    registry: TinyRegistry,
) -> None:
    registry.fail(f"{NAME}.sig", status(500))

    with pytest.raises(AnswerError, match="500"):
        run(registry)


@pytest.mark.parametrize(
    ("tag", "subject"),
    [
        (NAME, INDEX.digest),
        (f"{NAME}.sig", INDEX.digest),
        (f"{NAME}.att", INDEX.digest),
        (f"{NAME}.sbom", INDEX.digest),
        (f"{NAME}.other", None),
        (f"x{NAME}", None),
        (NAME.upper(), None),
        ("sha256-ab", None),
        ("1.0", None),
    ],
)
def test_tags_of_attachments_name_their_subject(tag: str, subject: str | None) -> None:
    assert attachments.subject(tag) == subject


@pytest.mark.parametrize(
    ("artifact_type", "is_signature"),
    [
        ("application/vnd.dev.sigstore.bundle.v0.3+json", True),
        ("application/vnd.dev.cosign.artifact.sig.v1+json", True),
        ("application/vnd.cncf.notary.signature", True),
        ("application/vnd.dev.cosign.artifact.sbom.v1+json", False),
        ("application/spdx+json", False),
        (None, False),
    ],
)
def test_signatures_are_known_by_their_artifact_type(
    artifact_type: str | None, *, is_signature: bool
) -> None:
    entry = Descriptor(images.OCI_MANIFEST, IMAGE.digest, 1, artifact_type=artifact_type)

    assert attachments.is_signature(entry) is is_signature


def _with(signed: Built, other: Blob) -> Built:
    """An index of referrers with one more entry."""
    bundle = Blob(
        signed.manifests[1].content, images.OCI_MANIFEST, {"artifactType": signing.BUNDLE}
    )
    index = images.index({}, bundle, other)
    return Built(
        [index.manifests[0], bundle, other],
        [*signed.blobs, *images.image(Blob(b"sbom")).blobs],
    )
