"""Walking an image: from its reference to all manifests and blobs that a node needs."""

from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from talos_registry_cache.registry import manifests, platforms
from talos_registry_cache.registry.client import Fetched, RegistryClient
from talos_registry_cache.registry.errors import ContentError, PlatformError
from talos_registry_cache.registry.manifests import Descriptor, Index, Manifest
from talos_registry_cache.registry.platforms import Platform
from talos_registry_cache.registry.reference import Reference


@dataclass(frozen=True, slots=True)
class Image:
    """An image for one platform.

    Attributes:
        reference: the image's reference.
        manifests: the index and the platform's manifest, or only a manifest.
        blobs: the configuration, then the layers, each once.
    """

    reference: Reference
    manifests: tuple[Descriptor, ...]
    blobs: tuple[Descriptor, ...]

    @property
    def digest(self) -> str:
        """The digest that the reference resolves to."""
        return self.manifests[0].digest

    @property
    def size(self) -> int:
        """Total size of manifests and blobs in bytes."""
        return sum(part.size for part in (*self.manifests, *self.blobs))


async def walk(client: RegistryClient, reference: Reference, node: Platform) -> Image:
    """Read the manifests of an image as a node does: resolve the tag, then read by digest.

    Args:
        client: the registry or its cache.
        reference: the image.
        node: the platform of the node.

    Raises:
        RegistryError: a manifest is missing or damaged, or the platform has none.
    """
    repository = reference.repository
    digest = reference.digest
    if not digest:
        digest = (await client.manifest(repository, reference.target)).descriptor.digest
    named = await client.manifest(repository, digest)
    content = _parse(named)
    if isinstance(content, Manifest):
        await _check_platform(client, reference, content.config, node)
        return Image(reference, (named.descriptor,), content.blobs)
    try:
        chosen = manifests.choose(content.manifests, node)
    except PlatformError as error:
        raise PlatformError(f"{reference}: {error}") from None
    own = await client.manifest(repository, chosen.digest)
    manifest = _parse(own)
    if isinstance(manifest, Index):
        raise ContentError(f"{reference}: {chosen.digest} is an index inside an index")
    return Image(reference, (named.descriptor, own.descriptor), manifest.blobs)


async def _check_platform(
    client: RegistryClient, reference: Reference, config: Descriptor, node: Platform
) -> None:
    """Check the platform of an image without an index, which is in its configuration."""
    if config.media_type not in manifests.CONFIGS:
        return
    if config.size > manifests.SIZE_LIMIT:
        raise ContentError(
            f"{reference}: the configuration has {config.size} bytes; "
            f"allowed: at most {manifests.SIZE_LIMIT}"
        )
    content = bytearray()
    await client.read_blob(reference.repository, config, content.extend)
    try:
        manifests.check_values(content)
        found = _PLATFORM.validate_json(bytes(content))
    except (ValidationError, ContentError):
        raise ContentError(f"{reference}: {config.digest} is not an image configuration") from None
    if platforms.normal(found) not in platforms.preference(node):
        raise PlatformError(f"{reference}: not available for {node}; available for: {found}")


def _parse(fetched: Fetched) -> Manifest | Index:
    try:
        return manifests.parse(fetched.content, fetched.descriptor.media_type)
    except ContentError as error:
        raise ContentError(f"{fetched.descriptor.digest}: {error}") from None


_PLATFORM = TypeAdapter(Platform)
