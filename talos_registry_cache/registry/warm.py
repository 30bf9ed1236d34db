"""Warming: images are pulled once through their caches, before any node asks for them.

What distribution 3.1.2 does as a cache, measured, and the reason for the way it is used here:

- It keeps a blob for each repository: the layer that two images of one registry share is fetched
  again for the second one, although it is stored. A registry without `proxy` on the same storage
  can link it there instead, by a mount.
- It keeps a blob only if nobody else, for any repository, is fetching that blob. So a blob is asked
  for by one task only, and asked for again until it is known to be kept.
- It answers a tag that it has not seen with 404 if its upstream does not have it, and likewise if
  its upstream refuses or fails (registry/proxy/proxytagservice.go). Of a digest, it passes on what
  its upstream says. So before an image is held to be missing, the upstream must say so of a digest
  that nobody has.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

from talos_registry_cache.endpoint import Endpoint
from talos_registry_cache.registry import image as images
from talos_registry_cache.registry.client import Endpoints, RegistryClient, endpoint_of
from talos_registry_cache.registry.errors import AnswerError, NotKeptError, RegistryError
from talos_registry_cache.registry.image import Image
from talos_registry_cache.registry.manifests import Descriptor
from talos_registry_cache.registry.platforms import Platform
from talos_registry_cache.registry.reference import Reference
from talos_registry_cache.registry.retry import Retry

# Before each time that a blob is asked for. The second time tells whether it was kept; it was not
# if a node was fetching it at the same time, and is when that node is done.
PAUSES_S = (0, 0, 2, 5)
# Before each time that a tag is asked for of which the cache says that there is none.
UNKNOWN_PAUSES_S = (0, 0.5, 2)
NOBODYS_DIGEST = f"sha256:{'0' * 64}"

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a warming is, in bytes of blobs; manifests are not counted.

    Attributes:
        done: what is in the caches.
        total: what shall be there; a blob counts once for each repository.
        fetched: what the caches had to fetch.
    """

    done: int
    total: int
    fetched: int


@dataclass(frozen=True, slots=True)
class Warmed:
    """An image that its cache holds.

    Attributes:
        image: its manifests and blobs.
        fetched: bytes of its blobs that the cache fetched; blobs shared with another image of the
            repository count for both.
    """

    image: Image
    fetched: int

    @property
    def reference(self) -> Reference:
        """The image's reference."""
        return self.image.reference


@dataclass(frozen=True, slots=True)
class NotWarmed:
    """An image that its cache does not hold completely; the parts that arrived are kept.

    Attributes:
        reference: the image's reference.
        errors: the error of each part that failed.
    """

    reference: Reference
    errors: tuple[RegistryError, ...]


async def warm(
    references: Iterable[Reference],
    endpoints: Endpoints,
    node: Platform,
    *,
    storages: Mapping[str, str] | None = None,
    concurrency: int = 8,
    retry: Retry | None = None,
    on_progress: Callable[[Progress], object] = lambda _: None,
) -> tuple[Warmed | NotWarmed, ...]:
    """Bring images into their caches; what is there already is not read again.

    Images fail one by one: an error of one stops no other, and what was fetched is kept, so that
    the next call goes on from there.

    Args:
        references: the images.
        endpoints: from a registry's host, such as docker.io, to its cache.
        node: the platform of the nodes.
        storages: likewise to the URL of a registry that writes to the same storage as the cache,
            and has no upstream. A blob that repositories share is linked through it; without it,
            the blob is fetched for each of them.
        concurrency: how many manifests or blobs are asked for at once.
        retry: how a request is tried again.
        on_progress: is told about progress, often, in the loop's own thread.

    Returns:
        The outcome for each image, in order.
    """
    references = tuple(references)
    warming = _Warming(endpoints, storages or {}, concurrency, retry, on_progress)
    walks = await _all(warming.walk(reference, node) for reference in references)
    shares = _shares(walk for walk in walks if isinstance(walk, Image))
    warming.expect(shares)
    kept: dict[_Key, int | RegistryError] = {}
    for results in await _all(warming.keep(share) for share in shares):
        kept |= results
    return tuple(
        _outcome(reference, walk, kept) for reference, walk in zip(references, walks, strict=True)
    )


@dataclass(frozen=True, slots=True)
class _Share:
    """A blob, and the repositories of one registry that want it."""

    registry: str
    blob: Descriptor
    repositories: tuple[str, ...]


_Key = tuple[str, str, str]
"""Registry, repository and digest."""


class _Warming:
    """One run of `warm`, and how far it is."""

    def __init__(
        self,
        endpoints: Endpoints,
        storages: Mapping[str, str],
        concurrency: int,
        retry: Retry | None,
        on_progress: Callable[[Progress], object],
    ) -> None:
        self._endpoints = endpoints
        self._storages = storages
        self._slots = asyncio.Semaphore(concurrency)
        self._retry = retry
        self._on_progress = on_progress
        self._done = self._total = self._fetched = 0

    async def walk(self, reference: Reference, node: Platform) -> Image | RegistryError:
        """Bring the manifests of an image into its cache."""
        try:
            endpoint = endpoint_of(reference, self._endpoints)
            async with self._slots, RegistryClient(endpoint, self._retry) as client:
                return await _walk(client, reference, node)
        except RegistryError as error:
            return error

    def expect(self, shares: Iterable[_Share]) -> None:
        """Learn what there is to do."""
        self._total = sum(share.blob.size * len(share.repositories) for share in shares)
        self._report()

    async def keep(self, share: _Share) -> dict[_Key, int | RegistryError]:
        """Bring a blob into its cache for all who want it; says how many bytes came, or why not."""
        results: dict[str, int | RegistryError] = {}
        try:
            async with self._slots, AsyncExitStack() as stack:
                cache = await self._client(stack, self._endpoints[share.registry])
                storage = None
                if share.registry in self._storages and len(share.repositories) > 1:
                    storage = await self._client(stack, self._storages[share.registry])
                await self._keep(share, cache, storage, results)
        except RegistryError as error:
            for repository in share.repositories:
                results.setdefault(repository, error)
        return {
            (share.registry, repository, share.blob.digest): result
            for repository, result in results.items()
        }

    async def _keep(
        self,
        share: _Share,
        cache: RegistryClient,
        storage: RegistryClient | None,
        results: dict[str, int | RegistryError],
    ) -> None:
        repositories = share.repositories
        if storage:
            has = {name: await storage.has_blob(name, share.blob) for name in repositories}
            repositories = tuple(sorted(repositories, key=lambda name: not has[name]))
        source = None
        for repository in repositories:
            try:
                if storage and source:
                    await storage.mount(repository, share.blob, source)
                results[repository] = await self._pull(cache, repository, share.blob)
                source = repository
            except RegistryError as error:
                results[repository] = error

    async def _pull(self, cache: RegistryClient, repository: str, blob: Descriptor) -> int:
        """Ask for a blob until the cache has it; returns how many bytes came for that.

        All requests go through one connection: the next one is answered when the cache is done
        with the one before, and that includes keeping what it fetched.
        """
        fetched = 0

        def count(chunk: bytes) -> None:
            nonlocal fetched
            fetched += len(chunk)
            self._fetched += len(chunk)
            self._report()

        for pause_s in PAUSES_S:
            await asyncio.sleep(pause_s)
            if await cache.pull_blob(repository, blob, count):
                self._done += blob.size
                self._report()
                return fetched
        raise NotKeptError(
            f"{cache.endpoint} was asked {len(PAUSES_S)} times for {blob.digest} of {repository}: "
            "it passed it on each time and did not keep it; is its disk full?"
        )

    async def _client(self, stack: AsyncExitStack, endpoint: Endpoint | str) -> RegistryClient:
        return await stack.enter_async_context(RegistryClient(endpoint, self._retry))

    def _report(self) -> None:
        self._on_progress(Progress(self._done, self._total, self._fetched))


async def _walk(client: RegistryClient, reference: Reference, node: Platform) -> Image:
    """Walk an image; where its cache knows no such tag, find out whether its upstream is well."""
    for pause_s in UNKNOWN_PAUSES_S:
        await asyncio.sleep(pause_s)
        try:
            return await images.walk(client, reference, node)
        except AnswerError as error:
            if reference.digest or not error.is_missing:
                raise
            absence = error
        try:
            await client.manifest(reference.repository, NOBODYS_DIGEST)
        except AnswerError as error:
            if not error.is_missing:
                raise AnswerError(f"{absence}; its upstream: {error}", error.status) from error
    raise absence


async def _all(work: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(piece) for piece in work]
    return [task.result() for task in tasks]


def _shares(walked: Iterable[Image]) -> tuple[_Share, ...]:
    """Each blob of each registry once."""
    blobs: dict[tuple[str, str], Descriptor] = {}
    repositories: defaultdict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for image in walked:
        for blob in image.blobs:
            key = image.reference.registry, blob.digest
            blobs[key] = blob
            repositories[key][image.reference.repository] = None
    return tuple(
        _Share(registry, blob, tuple(repositories[registry, digest]))
        for (registry, digest), blob in blobs.items()
    )


def _outcome(
    reference: Reference,
    walked: Image | RegistryError,
    kept: Mapping[_Key, int | RegistryError],
) -> Warmed | NotWarmed:
    if isinstance(walked, RegistryError):
        return NotWarmed(reference, (walked,))
    results = [kept[reference.registry, reference.repository, blob.digest] for blob in walked.blobs]
    if errors := tuple(result for result in results if isinstance(result, RegistryError)):
        return NotWarmed(reference, errors)
    return Warmed(walked, sum(result for result in results if isinstance(result, int)))
