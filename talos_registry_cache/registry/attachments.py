"""Attachments of images: signatures, attestations and SBOMs, which are stored under tags.

cosign stores the attachments of a manifest under the tags `sha256-<hex>.sig`, `.att` and `.sbom`.
Other tools, and cosign 3, store manifests that refer to the image, and list them in an index under
the tag `sha256-<hex>` if the registry has no referrers API (OCI distribution-spec 1.1, "Referrers
Tag Schema"). A cache cannot pass on the referrers API of its upstream, but it has tags. So what the
API lists becomes such an index.
"""

import re
from collections.abc import AsyncIterator, Mapping
from enum import StrEnum

from talos_registry_cache.registry import manifests, referrers
from talos_registry_cache.registry.client import Fetched, RegistryClient
from talos_registry_cache.registry.errors import AnswerError, ContentError
from talos_registry_cache.registry.image import Image
from talos_registry_cache.registry.manifests import Descriptor, Index, Manifest
from talos_registry_cache.registry.reference import Reference
from talos_registry_cache.registry.referrers import ListReferrers

BUNDLE = "application/vnd.dev.sigstore.bundle"
"""The beginning of the media types of sigstore bundles."""

# Of sigstore bundles, of cosign 2 with COSIGN_EXPERIMENTAL=1, and of notation.
SIGNATURE_TYPES = (
    BUNDLE,
    "application/vnd.dev.cosign.artifact.sig.",
    "application/vnd.cncf.notary.signature",
)
_TAG = re.compile(r"sha256-(?P<hex>[a-f0-9]{64})(?P<suffix>\.sig|\.att|\.sbom)?")
REFERRER = "referrer"
_KINDS = {".sig": "signature", ".att": "attestation", ".sbom": "SBOM"}


class Attachments(StrEnum):
    """Which attachments belong to an image."""

    NONE = "none"
    SIGNATURES = "signatures"
    ALL = "all"


# The first one is the index of the referrers.
_SUFFIXES = {
    Attachments.NONE: (),
    Attachments.SIGNATURES: ("", ".sig"),
    Attachments.ALL: ("", ".sig", ".att", ".sbom"),
}


def tags(digest: str, wanted: Attachments = Attachments.ALL) -> tuple[str, ...]:
    """The tags that may hold the attachments of a manifest."""
    name = digest.replace(":", "-")
    return tuple(f"{name}{suffix}" for suffix in _SUFFIXES[wanted])


def referrers_tag(digest: str) -> str:
    """The tag of the index of a manifest's referrers."""
    return tags(digest)[0]


def subject(tag: str) -> str | None:
    """The digest of the manifest whose attachments a tag holds, or None for any other tag."""
    found = _TAG.fullmatch(tag)
    return f"sha256:{found['hex']}" if found else None


def kind(tag: str) -> str:
    """The kind of attachment that a tag names; for the index of referrers, that of its entries."""
    found = _TAG.fullmatch(tag)
    return _KINDS.get(found["suffix"] or "", REFERRER) if found else REFERRER


def is_signature(referrer: Descriptor) -> bool:
    """Whether an entry of an index of referrers is a signature."""
    return (referrer.artifact_type or "").startswith(SIGNATURE_TYPES)


async def walk(
    client: RegistryClient,
    image: Image,
    wanted: Attachments,
    list_referrers: ListReferrers | None = None,
) -> tuple[Image, ...]:
    """Read the manifests of an image's attachments.

    Args:
        client: the registry or its cache.
        image: the image.
        wanted: which attachments.
        list_referrers: asks the upstream of the cache for referrers. Those that it lists take the
            place of the tag for them.

    Returns:
        The content of each tag that exists.

    Raises:
        RegistryError: one is incomplete or damaged.
    """
    found: list[Image] = []
    for part in image.manifests:
        listed = await _listed(part.digest, wanted, list_referrers)
        for tag in tags(part.digest, wanted):
            top = listed if tag == referrers_tag(part.digest) else None
            if top := top or await _find(client, image.reference.repository, tag):
                found.append(await _attachment(client, image, tag, top, wanted))
    return tuple(found)


async def _listed(
    digest: str, wanted: Attachments, list_referrers: ListReferrers | None
) -> Fetched | None:
    """An index of the wanted referrers that an upstream lists; None if it lists none."""
    if list_referrers is None or wanted is Attachments.NONE:
        return None
    listed = [
        entry
        for entry in await list_referrers(digest)
        if manifests.is_manifest(entry) and (wanted is Attachments.ALL or is_signature(entry))
    ]
    return _index(referrers.index(listed)) if listed else None


def _index(content: bytes) -> Fetched:
    digest = manifests.digest_of(content)
    return Fetched(content, Descriptor(referrers.MEDIA_TYPE, digest, len(content)))


async def locked(
    client: RegistryClient,
    image: Image,
    wanted: Attachments,
    digests: Mapping[str, str],
    indexes: Mapping[str, str],
) -> tuple[Image, ...]:
    """Read the manifests of attachments whose digests are known, without looking up their tags.

    Args:
        client: the registry or its cache.
        image: the image.
        wanted: which attachments.
        digests: the digest of each attachment, by tag.
        indexes: the indexes of referrers among them, by tag, which a registry may not have.

    Raises:
        RegistryError: one is missing, incomplete or damaged.
    """
    found: list[Image] = []
    for tag, digest in digests.items():
        if tag in indexes:
            top = _index(indexes[tag].encode())
        else:
            top = await client.manifest(image.reference.repository, digest)
        found.append(await _attachment(client, image, tag, top, wanted))
    return tuple(found)


async def layers(client: RegistryClient, repository: str, tag: str) -> tuple[Descriptor, ...]:
    """The layers of the signatures under a tag; equal layers are not the same signature.

    Raises:
        RegistryError: a manifest is missing or damaged.
    """
    top = await _find(client, repository, tag)
    if top is None:
        return ()
    parts = _parts(client, repository, top, Attachments.SIGNATURES)
    return tuple([layer async for _, manifest in parts for layer in manifest.layers])


async def _find(client: RegistryClient, repository: str, target: str) -> Fetched | None:
    """A manifest, or None if it does not exist."""
    try:
        return await client.manifest(repository, target)
    except AnswerError as error:
        if error.is_missing:
            return None
        raise


async def _parts(
    client: RegistryClient, repository: str, top: Fetched, wanted: Attachments
) -> AsyncIterator[tuple[Descriptor, Manifest]]:
    """The manifests of a tag: its own, or those that its index lists."""
    content = manifests.parse(top.content, top.descriptor.media_type)
    if isinstance(content, Manifest):
        yield top.descriptor, content
        return
    for entry in content.manifests:
        if is_signature(entry):
            yield entry, _manifest(await client.manifest(repository, entry.digest))
        # Other referrers may have been left out, or removed from the upstream.
        elif wanted is Attachments.ALL and (part := await _find(client, repository, entry.digest)):
            yield entry, _manifest(part)


def _manifest(fetched: Fetched) -> Manifest:
    content = manifests.parse(fetched.content, fetched.descriptor.media_type)
    if isinstance(content, Index):
        raise ContentError(f"{fetched.descriptor.digest} is an index inside an index of referrers")
    return content


async def _attachment(
    client: RegistryClient, image: Image, tag: str, top: Fetched, wanted: Attachments
) -> Image:
    """The content of a tag with attachments of an image."""
    named = image.reference
    reference = Reference(named.registry, named.repository, tag, None)
    parts = [part async for part in _parts(client, named.repository, top, wanted)]
    descriptors = {part.digest: part for part in (top.descriptor, *(part for part, _ in parts))}
    blobs = {blob.digest: blob for _, manifest in parts for blob in manifest.blobs}
    is_index = top.descriptor.media_type in manifests.INDEXES
    return Image(
        reference,
        tuple(descriptors.values()),
        tuple(blobs.values()),
        top.content if is_index and kind(tag) == REFERRER else None,
    )
