"""Walking an image: from its reference to all manifests and blobs that nodes need.

What nodes need of an index is what containerd pulls (its `images` package: FilterPlatforms and
LimitManifests(1) for a platform, all children for `all`): the best entry for the platform, which
may be another index, or the first one without a platform. There is no second choice.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from talos_registry_cache.registry import manifests, platforms
from talos_registry_cache.registry.client import RegistryClient
from talos_registry_cache.registry.errors import ContentError
from talos_registry_cache.registry.manifests import Descriptor, Index, Manifest
from talos_registry_cache.registry.platforms import ALL, Platform, Platforms
from talos_registry_cache.registry.reference import Reference

PARTS_LIMIT = 10_000
"""Maximum number of manifests and blobs of an image for all of its platforms."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image for some platforms.

    Attributes:
        reference: the image's reference.
        manifests: the index and what nodes need of it, or only a manifest; each once.
        blobs: the configurations and layers, each once.
        referrers: the content of its index if it lists the referrers of another image. Where only
            the referrers API of an upstream lists them, no registry has this index.
    """

    reference: Reference
    manifests: tuple[Descriptor, ...]
    blobs: tuple[Descriptor, ...]
    referrers: bytes | None = None

    @property
    def digest(self) -> str:
        """The digest that the reference resolves to."""
        return self.manifests[0].digest

    @property
    def size(self) -> int:
        """Total size of manifests and blobs in bytes."""
        return sum(part.size for part in (*self.manifests, *self.blobs))


async def walk(client: RegistryClient, reference: Reference, wanted: Platforms) -> Image:
    """Read the manifests of an image as nodes do: resolve the tag, then read by digest.

    Args:
        client: the registry or its cache.
        reference: the image.
        wanted: the platforms of the nodes. `all` includes attestations and everything else that an
            index names.

    Raises:
        RegistryError: a manifest is missing or damaged, or one of the platforms has none. The
            message does not name the image.
    """
    digest = reference.digest
    if not digest:
        tagged = await client.manifest(reference.repository, reference.target)
        digest = tagged.descriptor.digest
    walking = _Walk(client, reference)
    root = await walking.start(digest)
    if wanted == ALL:
        await walking.take_all(root)
    else:
        for node in wanted:
            await walking.take_for(node, root)
    return Image(reference, tuple(walking.manifests.values()), tuple(walking.blobs.values()))


class _Walk:
    """One run of `walk`, and what it has found by digest."""

    def __init__(self, client: RegistryClient, reference: Reference) -> None:
        self._client = client
        self._reference = reference
        self._parsed: dict[str, Manifest | Index] = {}
        self.manifests: dict[str, Descriptor] = {}
        self.blobs: dict[str, Descriptor] = {}

    async def start(self, digest: str) -> Descriptor:
        """Read the manifest or index that the reference resolves to."""
        fetched = await self._client.manifest(self._reference.repository, digest)
        self._parse(fetched.content, fetched.descriptor)
        return fetched.descriptor

    async def take_all(self, entry: Descriptor, depth: int = 0) -> None:
        """Take a manifest or an index with everything that it names."""
        content = await self._read(entry, depth)
        if isinstance(content, Manifest):
            self._take(content.blobs)
            return
        for one in content.manifests:
            if not manifests.is_manifest(one):
                # As in the caches of builds, whose indexes name layers.
                self._take([one])
            elif one.digest not in self.manifests:
                await self.take_all(one, depth + 1)

    async def take_for(self, node: Platform, root: Descriptor) -> None:
        """Take what a node needs."""
        entries: Sequence[Descriptor] = ()
        entry, depth = root, 0
        content = await self._read(entry, depth)
        while isinstance(content, Index):
            entries = content.manifests
            entry, depth = manifests.choose(entries, node), depth + 1
            content = await self._read(entry, depth)
        if entry.platform is None and (entry is not root or _is_of_image(content.config)):
            found = await self._platform(content.config)
            if platforms.normal(found) not in platforms.preference(node):
                raise manifests.lacking(node, entries, found)
        self._take(content.blobs)

    async def _read(self, entry: Descriptor, depth: int) -> Manifest | Index:
        if depth > manifests.DEPTH_LIMIT:
            raise ContentError(
                f"{entry.digest} is inside {depth} indexes; "
                f"allowed: at most {manifests.DEPTH_LIMIT}"
            )
        if entry.digest not in self._parsed:
            with self._naming(entry):
                manifests.check_media_type(entry.media_type)
            fetched = await self._client.manifest(self._reference.repository, entry.digest)
            self._parse(fetched.content, entry)
        return self._parsed[entry.digest]

    def _parse(self, content: bytes, entry: Descriptor) -> None:
        with self._naming(entry):
            self._parsed[entry.digest] = manifests.parse(content, entry.media_type)
        self.manifests[entry.digest] = replace(entry, size=len(content))
        self._check_number()

    @contextmanager
    def _naming(self, entry: Descriptor) -> Iterator[None]:
        try:
            yield
        except ContentError as error:
            raise ContentError(f"{entry.digest}: {error}") from None

    def _take(self, blobs: Sequence[Descriptor]) -> None:
        self.blobs |= {blob.digest: blob for blob in blobs}
        self._check_number()

    def _check_number(self) -> None:
        number = len(self.manifests) + len(self.blobs)
        if number > PARTS_LIMIT:
            raise ContentError(
                f"it has {number} manifests and blobs or more; allowed: at most {PARTS_LIMIT}"
            )

    async def _platform(self, config: Descriptor) -> Platform:
        """The platform in the configuration of an image whose entry does not have it."""
        if config.size > manifests.SIZE_LIMIT:
            raise ContentError(
                f"the configuration has {config.size} bytes; "
                f"allowed: at most {manifests.SIZE_LIMIT}"
            )
        content = bytearray()
        await self._client.read_blob(self._reference.repository, config, content.extend)
        try:
            return manifests.platform_of(content)
        except ContentError:
            raise ContentError(f"{config.digest} is not an image configuration") from None


def _is_of_image(config: Descriptor) -> bool:
    return config.media_type in manifests.CONFIGS
