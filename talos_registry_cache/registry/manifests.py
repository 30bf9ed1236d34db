"""Manifests and indexes of images, in the formats of OCI and Docker."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import FailFast, Field, TypeAdapter, ValidationError

from talos_registry_cache.registry import platforms
from talos_registry_cache.registry.errors import ContentError, PlatformError
from talos_registry_cache.registry.nulls import empty_if_null
from talos_registry_cache.registry.platforms import Platform

SIZE_LIMIT = 4 << 20
"""Maximum size of a manifest in bytes, which the OCI distribution specification recommends."""

PARTS_LIMIT = 1000
"""Maximum number of layers of an image, and of manifests of an index.

Linux stacks at most 500 layers (OVL_MAX_STACK of overlayfs), Docker 125. Artifacts, which are not
stacked, may have more."""

DEPTH_LIMIT = 4
"""How many indexes may be inside each other."""

# A descriptor takes at least 75 bytes, so no manifest needs more braces and brackets, for each of
# which pydantic takes up to 500 bytes of memory.
VALUES_LIMIT = SIZE_LIMIT >> 6
SHOWN_LIMIT = 3

MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
CONFIGS = (
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
)
ACCEPT = ", ".join((*INDEXES, *MANIFESTS))
SCHEMA_1 = (
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
)
SCHEMA_1_REFUSED = (
    "it is a schema 1 image, a format that Docker replaced in 2016 and that containerd 2.1 and "
    "later refuse; allowed: Docker schema 2 and OCI images"
)

Digest = Annotated[str, Field(pattern=r"^sha256:[a-f0-9]{64}$")]


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A descriptor of a blob or manifest.

    Attributes:
        media_type: its media type.
        digest: its sha256 digest.
        size: its size in bytes.
        platform: its platform, if known.
        annotations: its annotations.
        artifact_type: the type of an artifact, if it is one.
    """

    media_type: Annotated[str, Field(alias="mediaType")]
    digest: Digest
    size: Annotated[int, Field(ge=0)]
    platform: Platform | None = None
    annotations: Annotated[Mapping[str, str], empty_if_null(dict)] = field(default_factory=dict)
    artifact_type: Annotated[str | None, Field(alias="artifactType")] = None


_Descriptors = Annotated[tuple[Descriptor, ...], FailFast(), empty_if_null(tuple)]


@dataclass(frozen=True, slots=True)
class Manifest:
    """An image for one platform: its configuration and its layers, lowest first."""

    config: Descriptor
    layers: _Descriptors

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """The configuration, then the layers; each once, since empty layers are often repeated."""
        return tuple({blob.digest: blob for blob in (self.config, *self.layers)}.values())


@dataclass(frozen=True, slots=True)
class Index:
    """An image for several platforms."""

    manifests: _Descriptors


def parse(content: bytes, media_type: str) -> Manifest | Index:
    """Parse a manifest or an index.

    Raises:
        ContentError: the content is invalid or exceeds a limit.
    """
    check_media_type(media_type)
    check_values(content)
    try:
        _check_kind(content, media_type)
        found = _FORMS[media_type].validate_json(content)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False)[:SHOWN_LIMIT]
        )
        raise ContentError(f"not a valid {media_type}: {problems}") from None
    parts, what = (
        (found.layers, "layers") if isinstance(found, Manifest) else (found.manifests, "manifests")
    )
    if len(parts) > PARTS_LIMIT:
        raise ContentError(f"it has {len(parts)} {what}; allowed: at most {PARTS_LIMIT}")
    return found


def check_media_type(media_type: str) -> None:
    """Make sure that a media type is that of a manifest or an index.

    Raises:
        ContentError: it is not.
    """
    if media_type in SCHEMA_1:
        raise ContentError(SCHEMA_1_REFUSED)
    if media_type not in _FORMS:
        raise ContentError(
            f"the media type is {media_type!r}; allowed: {', '.join((*INDEXES, *MANIFESTS))}"
        )


def _check_kind(content: bytes, media_type: str) -> None:
    """Refuse content that other programs may take for another kind (CVE-2021-41190).

    Raises:
        ContentError: it is of another kind, or of several.
        ValidationError: it is not an object.
    """
    found = _KIND.validate_json(content)
    if "fsLayers" in found:
        raise ContentError(SCHEMA_1_REFUSED)
    others = ("config", "layers") if media_type in INDEXES else ("manifests",)
    wrong = MANIFESTS if media_type in INDEXES else INDEXES
    if any(key in found for key in others) or found.get("mediaType") in wrong:
        raise ContentError(f"it has the media type {media_type} and the content of another one")


def check_values(content: bytes | bytearray) -> None:
    """Make sure that parsing JSON does not take much more memory than its size.

    Raises:
        ContentError: it has more objects and lists than any manifest needs.
    """
    values = content.count(b"{") + content.count(b"[")
    if values > VALUES_LIMIT:
        raise ContentError(f"it has {values} objects and lists; allowed: at most {VALUES_LIMIT}")


def platform_of(configuration: bytes | bytearray) -> Platform:
    """The platform in the configuration of an image.

    Raises:
        ContentError: it is not a configuration.
    """
    check_values(configuration)
    try:
        return _PLATFORM.validate_json(bytes(configuration))
    except ValidationError:
        raise ContentError("it is not an image configuration") from None


def digest_of(content: bytes | bytearray) -> str:
    """The digest of a manifest or an index."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def digests_in(content: bytes) -> tuple[str, ...]:
    """The digests that a manifest or index refers to; none for other content.

    Stored manifests may be artifacts of any kind, with any number of layers. In one that is too
    complex to parse, everything that looks like a digest counts.
    """
    try:
        check_values(content)
        named = _REFERRING.validate_json(content)
    except ContentError:
        return tuple(dict.fromkeys(found.decode() for found in _DIGEST.findall(content)))
    except ValidationError:
        return ()
    one = [named.config] if named.config else []
    return tuple(part.digest for part in (*one, *named.layers, *named.manifests))


def subject_in(content: bytes) -> str | None:
    """The digest of the manifest that a referrer belongs to; None for other content."""
    if b'"subject"' not in content:
        return None
    try:
        check_values(content)
        return _REFERRER.validate_json(content).subject.digest
    except (ContentError, ValidationError):
        return None


def choose(entries: Sequence[Descriptor], node: Platform) -> Descriptor:
    """Choose the entry of an index that a node pulls, as containerd does.

    That is the best match, or else the first one without a platform, whose configuration or index
    has it.

    Raises:
        PlatformError: there is none; the message lists the platforms of the index.
    """
    known = [(platforms.normal(entry.platform), entry) for entry in entries if entry.platform]
    for wanted in platforms.preference(node):
        for platform, entry in known:
            if platform == wanted:
                return entry
    for entry in entries:
        if entry.platform is None:
            return entry
    raise lacking(node, entries)


def lacking(
    node: Platform, entries: Sequence[Descriptor], other: Platform | None = None
) -> PlatformError:
    """The error of an image that a node cannot run.

    Args:
        node: the platform of the node.
        entries: the index from which an image would be chosen.
        other: the platform in the configuration of the image, if it is known.
    """
    named = [entry.platform for entry in entries if not is_attestation(entry)]
    found = ", ".join(sorted({str(one) for one in (*named, other) if one and one.architecture}))
    return PlatformError(f"not available for {node}; available for: {found or 'no platform'}")


def is_manifest(entry: Descriptor) -> bool:
    """Whether an entry of an index is a manifest or an index, and not a blob."""
    return entry.media_type in (*MANIFESTS, *INDEXES, *SCHEMA_1)


def is_attestation(entry: Descriptor) -> bool:
    """Whether an entry of an index is an attestation about an image."""
    # As BuildKit writes them; the unknown platform keeps older tools from running them.
    unknown = Platform("unknown", "unknown")
    return entry.platform == unknown or "vnd.docker.reference.type" in entry.annotations


@dataclass(frozen=True, slots=True)
class _Referred:
    digest: Digest


@dataclass(frozen=True, slots=True)
class _Referring:
    """The references of any kind of manifest or index."""

    schema_version: Annotated[Literal[2], Field(alias="schemaVersion")]
    config: _Referred | None = None
    layers: Annotated[tuple[_Referred, ...], FailFast(), empty_if_null(tuple)] = ()
    manifests: Annotated[tuple[_Referred, ...], FailFast(), empty_if_null(tuple)] = ()


@dataclass(frozen=True, slots=True)
class _Referrer:
    """A manifest with a subject. Without one, or with a wrong one, a manifest has parts as well."""

    subject: _Referred


_REFERRING, _PLATFORM = TypeAdapter(_Referring), TypeAdapter(Platform)
_REFERRER = TypeAdapter(_Referrer)
_KIND: TypeAdapter[Mapping[str, Any]] = TypeAdapter(Mapping[str, Any])
_DIGEST = re.compile(rb"sha256:[a-f0-9]{64}")

_FORMS: Mapping[str, TypeAdapter[Manifest] | TypeAdapter[Index]] = {
    **{media_type: TypeAdapter(Manifest) for media_type in MANIFESTS},
    **{media_type: TypeAdapter(Index) for media_type in INDEXES},
}
