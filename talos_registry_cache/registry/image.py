"""Walking an image: from its reference to all that a node of one platform needs of it."""

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
        reference: its name.
        manifests: an index and its manifest for the platform, or that manifest alone.
        blobs: its configuration and then its layers, each once.
    """

    reference: Reference
    manifests: tuple[Descriptor, ...]
    blobs: tuple[Descriptor, ...]

    @property
    def digest(self) -> str:
        """The digest that the name stands for."""
        return self.manifests[0].digest

    @property
    def size(self) -> int:
        """Manifests and blobs together, in bytes."""
        return sum(part.size for part in (*self.manifests, *self.blobs))


async def walk(client: RegistryClient, reference: Reference, node: Platform) -> Image:
    """Read the manifests of an image as a node does: by tag where there is no digest, then by it.

    Args:
        client: the registry that holds the image, or its cache.
        reference: which image.
        node: what it shall run on.

    Raises:
        RegistryError: a manifest is missing or damaged, or there is none for the platform.
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
    """An image without an index says in its configuration what it runs on; an artifact does not."""
    if config.media_type not in manifests.CONFIGS:
        return
    if config.size > manifests.SIZE_LIMIT:
        raise ContentError(
            f"{reference}: its configuration has {config.size} bytes; "
            f"allowed: {manifests.SIZE_LIMIT}"
        )
    content = bytearray()
    await client.read_blob(reference.repository, config, content.extend)
    try:
        manifests.check_values(content)
        found = _PLATFORM.validate_json(bytes(content))
    except (ValidationError, ContentError):
        raise ContentError(f"{reference}: {config.digest} is no image configuration") from None
    if platforms.normal(found) not in platforms.preference(node):
        raise PlatformError(f"{reference}: it does not exist for {node}; it does for: {found}")


def _parse(fetched: Fetched) -> Manifest | Index:
    try:
        return manifests.parse(fetched.content, fetched.descriptor.media_type)
    except ContentError as error:
        raise ContentError(f"{fetched.descriptor.digest}: {error}") from None


_PLATFORM = TypeAdapter(Platform)
