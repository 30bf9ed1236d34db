"""Manifests and indexes of images, in OCI's and in Docker's form."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import FailFast, Field, TypeAdapter, ValidationError

from talos_registry_cache.registry import platforms
from talos_registry_cache.registry.errors import ContentError, PlatformError
from talos_registry_cache.registry.platforms import Platform

SIZE_LIMIT = 4 << 20
"""Largest manifest in bytes: the limit that the OCI distribution specification recommends."""

PARTS_LIMIT = 1000
"""Most layers of an image, and most images of an index.

Linux stacks 500 layers at most (OVL_MAX_STACK of overlayfs), Docker 125. What is no image, and is
never stacked, may have more."""

# A descriptor has 75 bytes at least, so that no manifest needs more braces and brackets. pydantic
# needs up to 500 bytes of memory for each.
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
    """Something that a registry stores.

    Attributes:
        media_type: what it is.
        digest: its sha256, the name by which it is asked for.
        size: its size in bytes.
        platform: what it runs on, where that is said.
        annotations: what else is said about it.
    """

    media_type: Annotated[str, Field(alias="mediaType")]
    digest: Digest
    size: Annotated[int, Field(ge=0)]
    platform: Platform | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Manifest:
    """One platform's image: its configuration and its layers, lowest first."""

    config: Descriptor
    layers: Annotated[tuple[Descriptor, ...], FailFast()]

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """The configuration and then the layers, each once: the empty layer is often repeated."""
        return tuple({blob.digest: blob for blob in (self.config, *self.layers)}.values())


@dataclass(frozen=True, slots=True)
class Index:
    """An image for several platforms."""

    manifests: Annotated[tuple[Descriptor, ...], FailFast()]


def parse(content: bytes, media_type: str) -> Manifest | Index:
    """Read a manifest or an index.

    Raises:
        ContentError: the content is neither, broken, or larger than is allowed.
    """
    form = _FORMS.get(media_type)
    if form is None:
        raise ContentError(
            f"its media type is {media_type!r}; allowed: {', '.join((*INDEXES, *MANIFESTS))}"
        )
    check_values(content)
    try:
        found = form.validate_json(content)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False)[:SHOWN_LIMIT]
        )
        raise ContentError(f"it is no {media_type}: {problems}") from None
    parts, what = (
        (found.layers, "layers") if isinstance(found, Manifest) else (found.manifests, "manifests")
    )
    if len(parts) > PARTS_LIMIT:
        raise ContentError(f"it has {len(parts)} {what}; allowed: {PARTS_LIMIT}")
    return found


def check_values(content: bytes | bytearray) -> None:
    """Make sure that JSON needs no more memory than its size lets expect.

    Raises:
        ContentError: it has more objects and lists in it than any manifest needs.
    """
    values = content.count(b"{") + content.count(b"[")
    if values > VALUES_LIMIT:
        raise ContentError(f"it has {values} objects and lists in it; allowed: {VALUES_LIMIT}")


def digests_in(content: bytes) -> tuple[str, ...]:
    """The digests that content names, where it is a manifest or an index; none otherwise.

    Whatever kind of manifest it is: what a storage keeps need not be an image. So it may have any
    number of layers; what is too intricate to be read names whatever looks like a digest.
    """
    try:
        check_values(content)
        named = _NAMING.validate_json(content)
    except ContentError:
        return tuple(dict.fromkeys(found.decode() for found in _DIGEST.findall(content)))
    except ValidationError:
        return ()
    one = [named.config] if named.config else []
    return tuple(part.digest for part in (*one, *named.layers, *named.manifests))


def choose(manifests: Sequence[Descriptor], node: Platform) -> Descriptor:
    """The manifest of an index that a node runs, as containerd chooses it.

    Attestations are no images, and are left alone.

    Raises:
        PlatformError: there is none; the message names those that there are.
    """
    images = [(_platform(entry), entry) for entry in manifests if not is_attestation(entry)]
    for wanted in platforms.preference(node):
        for platform, entry in images:
            if platform == wanted:
                return entry
    found = ", ".join(sorted({str(entry.platform) for _, entry in images if entry.platform}))
    raise PlatformError(f"it does not exist for {node}; it does for: {found or 'no platform'}")


def is_attestation(entry: Descriptor) -> bool:
    """Tell whether an entry of an index is about an image, and not one itself."""
    # BuildKit's form; the platform is what older tools are kept away by.
    unknown = Platform("unknown", "unknown")
    return entry.platform == unknown or "vnd.docker.reference.type" in entry.annotations


def _platform(entry: Descriptor) -> Platform | None:
    return entry.platform and platforms.normal(entry.platform)


@dataclass(frozen=True, slots=True)
class _Named:
    digest: Digest


@dataclass(frozen=True, slots=True)
class _Naming:
    """What all manifests and indexes have in common."""

    schema_version: Annotated[Literal[2], Field(alias="schemaVersion")]
    config: _Named | None = None
    layers: Annotated[tuple[_Named, ...], FailFast()] = ()
    manifests: Annotated[tuple[_Named, ...], FailFast()] = ()


_NAMING = TypeAdapter(_Naming)
_DIGEST = re.compile(rb"sha256:[a-f0-9]{64}")

_FORMS: Mapping[str, TypeAdapter[Manifest] | TypeAdapter[Index]] = {
    **{media_type: TypeAdapter(Manifest) for media_type in MANIFESTS},
    **{media_type: TypeAdapter(Index) for media_type in INDEXES},
}
