"""Manifests and indexes of images, in the formats of OCI and Docker."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import FailFast, Field, TypeAdapter, ValidationError

from talos_registry_cache.registry import platforms
from talos_registry_cache.registry.errors import ContentError, PlatformError
from talos_registry_cache.registry.platforms import Platform

SIZE_LIMIT = 4 << 20
"""Maximum size of a manifest in bytes, which the OCI distribution specification recommends."""

PARTS_LIMIT = 1000
"""Maximum number of layers of an image, and of manifests of an index.

Linux stacks at most 500 layers (OVL_MAX_STACK of overlayfs), Docker 125. Artifacts, which are not
stacked, may have more."""

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
    annotations: Mapping[str, str] = field(default_factory=dict)
    artifact_type: Annotated[str | None, Field(alias="artifactType")] = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """An image for one platform: its configuration and its layers, lowest first."""

    config: Descriptor
    layers: Annotated[tuple[Descriptor, ...], FailFast()]

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """The configuration, then the layers; each once, since empty layers are often repeated."""
        return tuple({blob.digest: blob for blob in (self.config, *self.layers)}.values())


@dataclass(frozen=True, slots=True)
class Index:
    """An image for several platforms."""

    manifests: Annotated[tuple[Descriptor, ...], FailFast()]


def parse(content: bytes, media_type: str) -> Manifest | Index:
    """Parse a manifest or an index.

    Raises:
        ContentError: the content is invalid or exceeds a limit.
    """
    form = _FORMS.get(media_type)
    if form is None:
        raise ContentError(
            f"the media type is {media_type!r}; allowed: {', '.join((*INDEXES, *MANIFESTS))}"
        )
    check_values(content)
    try:
        found = form.validate_json(content)
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


def check_values(content: bytes | bytearray) -> None:
    """Make sure that parsing JSON does not take much more memory than its size.

    Raises:
        ContentError: it has more objects and lists than any manifest needs.
    """
    values = content.count(b"{") + content.count(b"[")
    if values > VALUES_LIMIT:
        raise ContentError(f"it has {values} objects and lists; allowed: at most {VALUES_LIMIT}")


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


def choose(manifests: Sequence[Descriptor], node: Platform) -> Descriptor:
    """Choose the manifest of an index that a node runs, like containerd; ignores attestations.

    Raises:
        PlatformError: there is none; the message lists the platforms of the index.
    """
    images = [(_platform(entry), entry) for entry in manifests if not is_attestation(entry)]
    for wanted in platforms.preference(node):
        for platform, entry in images:
            if platform == wanted:
                return entry
    found = ", ".join(sorted({str(entry.platform) for _, entry in images if entry.platform}))
    raise PlatformError(f"not available for {node}; available for: {found or 'no platform'}")


def is_attestation(entry: Descriptor) -> bool:
    """Whether an entry of an index is an attestation about an image."""
    # As BuildKit writes them; the unknown platform keeps older tools from running them.
    unknown = Platform("unknown", "unknown")
    return entry.platform == unknown or "vnd.docker.reference.type" in entry.annotations


def _platform(entry: Descriptor) -> Platform | None:
    return entry.platform and platforms.normal(entry.platform)


@dataclass(frozen=True, slots=True)
class _Referred:
    digest: Digest


@dataclass(frozen=True, slots=True)
class _Referring:
    """The references of any kind of manifest or index."""

    schema_version: Annotated[Literal[2], Field(alias="schemaVersion")]
    config: _Referred | None = None
    layers: Annotated[tuple[_Referred, ...], FailFast()] = ()
    manifests: Annotated[tuple[_Referred, ...], FailFast()] = ()


_REFERRING = TypeAdapter(_Referring)
_DIGEST = re.compile(rb"sha256:[a-f0-9]{64}")

_FORMS: Mapping[str, TypeAdapter[Manifest] | TypeAdapter[Index]] = {
    **{media_type: TypeAdapter(Manifest) for media_type in MANIFESTS},
    **{media_type: TypeAdapter(Index) for media_type in INDEXES},
}
