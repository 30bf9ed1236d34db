"""Warming: images are pulled through their caches before any node needs them.

Distribution 3.1.2 behaves as follows as a cache (measured), which explains what is done here:

- It stores blobs per repository: a layer that images of two repositories share is fetched twice.
  The front of a cache with a volume links the blob to the second repository. In an object store, a
  registry without `proxy` can mount it.
- It stores a blob only if no other request, for any repository, is fetching that blob. So one task
  requests each blob, and repeats the request until the blob is known to be stored.
- It answers 404 for an unknown tag whether its upstream does not have the tag, refuses or fails
  (registry/proxy/proxytagservice.go). For a digest, it passes on the upstream's answer. So before
  a tag counts as missing, a digest that does not exist is requested to see the upstream's answer.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from talos_registry_cache.endpoint import Endpoint
from talos_registry_cache.registry import attachments
from talos_registry_cache.registry import image as images
from talos_registry_cache.registry.attachments import Attachments
from talos_registry_cache.registry.client import Endpoints, RegistryClient, endpoint_of
from talos_registry_cache.registry.errors import (
    CANNOT_BE_CACHED,
    HEAD_REFUSED,
    NO_LENGTH,
    AnswerError,
    NotKeptError,
    RegistryError,
)
from talos_registry_cache.registry.image import Image
from talos_registry_cache.registry.image_lock import LockedImage
from talos_registry_cache.registry.layout import Tag
from talos_registry_cache.registry.manifests import Descriptor
from talos_registry_cache.registry.platforms import Platforms
from talos_registry_cache.registry.reference import Reference
from talos_registry_cache.registry.referrers import Referrers, asking
from talos_registry_cache.registry.retry import Retry
from talos_registry_cache.registry.upstream import Remote

# Pauses before the requests of a blob. The second request tells whether the first one stored it,
# which fails while a node is fetching the same blob. A front may answer before the registry has
# stored the blob, and from its own memory if the blob was removed moments ago. So the last requests
# go past it.
PAUSES_S = (0, 0.05, 2, 5)
PAST_FRONT_FROM_S = 2
# Pauses before the requests of a tag that the cache does not know.
UNKNOWN_PAUSES_S = (0, 0.5, 2)
NONEXISTENT_DIGEST = f"sha256:{'0' * 64}"

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of warming, in bytes of blobs; a blob counts once for each repository.

    Attributes:
        done: bytes that the caches hold.
        total: bytes that the caches will hold.
        fetched: bytes that the caches fetched.
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
        attachments: its attachments, which the cache holds as well.
    """

    image: Image
    fetched: int
    attachments: tuple[Image, ...] = ()

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
    wanted: Platforms,
    *,
    attach: Attachments = Attachments.SIGNATURES,
    locked: Mapping[Reference, LockedImage] | None = None,
    storages: Mapping[str, str] | None = None,
    remotes: Mapping[str, Remote] | None = None,
    concurrency: int = 8,
    retry: Retry | None = None,
    on_progress: Callable[[Progress], object] = lambda _: None,
    on_problem: Callable[[str], object] = lambda _: None,
) -> tuple[Warmed | NotWarmed, ...]:
    """Bring images into their caches; blobs that a cache holds are not fetched again.

    If an image fails, the others continue, and the next call continues with what was fetched.

    Args:
        references: the images.
        endpoints: the cache of each registry, by registry host.
        wanted: the platforms of the nodes.
        attach: the attachments that belong to the images. A tag that the cache answers with 404
            holds none.
        locked: images whose digests, and those of their attachments, are known. Their tags are not
            looked up.
        storages: URLs of writable registries without an upstream on the storages of caches, by
            registry host. They mount blobs that repositories share, for caches whose front does
            not link them.
        remotes: the upstreams of caches, by registry host, which are asked for referrers. The
            caller stores `indexes_of` the outcomes.
        concurrency: the number of manifests and blobs requested at once.
        retry: how to retry requests.
        on_progress: called often, in the event loop's thread.
        on_problem: called with a message for each upstream whose referrers are not known.

    Returns:
        The outcome for each image, in order.
    """
    references = tuple(references)
    known = locked or {}
    async with asking(remotes or {}, on_problem) as listing:
        warming = _Warming(
            endpoints,
            storages or {},
            listing,
            concurrency=concurrency,
            retry=retry,
            on_progress=on_progress,
        )
        walks = await _all(
            warming.walk(reference, wanted, attach, known.get(reference))
            for reference in references
        )
    shares = _shares(one for walk in walks if isinstance(walk, tuple) for one in walk)
    warming.expect(shares)
    kept: dict[_Key, int | RegistryError] = {}
    for results in await _all(warming.keep(share) for share in shares):
        kept |= results
    return tuple(
        _outcome(reference, walk, kept) for reference, walk in zip(references, walks, strict=True)
    )


def indexes_of(
    outcomes: Iterable[Warmed | NotWarmed],
) -> Mapping[str, Mapping[Tag, bytes]]:
    """The indexes of referrers, by registry host, and by repository and tag.

    Caches lack those that only the referrers API of an upstream lists.
    """
    found: defaultdict[str, dict[Tag, bytes]] = defaultdict(dict)
    for outcome in outcomes:
        for one in outcome.attachments if isinstance(outcome, Warmed) else ():
            named = one.reference
            if named.tag and one.referrers:
                found[named.registry][named.repository, named.tag] = one.referrers
    return found


@dataclass(frozen=True, slots=True)
class _Share:
    """A blob and the repositories of a registry that need it."""

    registry: str
    blob: Descriptor
    repositories: tuple[str, ...]


_Key = tuple[str, str, str]
"""Registry, repository and digest."""


class _Warming:
    """One run of `warm`, and its progress."""

    def __init__(
        self,
        endpoints: Endpoints,
        storages: Mapping[str, str],
        listing: Referrers,
        *,
        concurrency: int,
        retry: Retry | None,
        on_progress: Callable[[Progress], object],
    ) -> None:
        self._endpoints = endpoints
        self._storages = storages
        self._listing = listing
        self._slots = asyncio.Semaphore(concurrency)
        self._retry = retry
        self._on_progress = on_progress
        self._done = self._total = self._fetched = 0

    async def walk(
        self,
        reference: Reference,
        wanted: Platforms,
        attach: Attachments,
        locked: LockedImage | None,
    ) -> tuple[Image, ...] | RegistryError:
        """Bring the manifests of an image and of its attachments, which follow, into its cache."""
        try:
            endpoint = endpoint_of(reference, self._endpoints)
            async with self._slots, RegistryClient(endpoint, self._retry) as client:
                if locked:
                    named = replace(reference, digest=locked.digest)
                    image = replace(await _walk(client, named, wanted), reference=reference)
                    return image, *await attachments.locked(
                        client, image, attach, locked.attachments, locked.indexes
                    )
                image = await _walk(client, reference, wanted)
                list_referrers = partial(self._listing.of, reference.registry, reference.repository)
                return image, *await attachments.walk(client, image, attach, list_referrers)
        except RegistryError as error:
            return error

    def expect(self, shares: Iterable[_Share]) -> None:
        """Set the total of the progress."""
        self._total = sum(share.blob.size * len(share.repositories) for share in shares)
        self._report()

    async def keep(self, share: _Share) -> dict[_Key, int | RegistryError]:
        """Bring a blob into its cache for each repository; returns fetched bytes or errors."""
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
        """Request a blob until the cache has stored it; returns the number of bytes fetched.

        All requests use one connection, so the cache has finished with one request, including
        storing the blob, before it answers the next one.
        """
        fetched = 0

        def count(chunk: bytes) -> None:
            nonlocal fetched
            fetched += len(chunk)
            self._fetched += len(chunk)
            self._report()

        for pause_s in PAUSES_S:
            await asyncio.sleep(pause_s)
            past_front = pause_s >= PAST_FRONT_FROM_S
            try:
                is_stored = await cache.pull_blob(repository, blob, count, past_front=past_front)
            except AnswerError as error:
                if error.status in HEAD_REFUSED or NO_LENGTH in str(error):
                    raise AnswerError(f"{error}; {CANNOT_BE_CACHED}", error.status) from error
                raise
            if is_stored:
                self._done += blob.size
                self._report()
                return fetched
        raise NotKeptError(
            f"{cache.endpoint} did not store {blob.digest} of {repository} although it was "
            f"requested {len(PAUSES_S)} times; is its disk full?"
        )

    async def _client(self, stack: AsyncExitStack, endpoint: Endpoint | str) -> RegistryClient:
        return await stack.enter_async_context(RegistryClient(endpoint, self._retry))

    def _report(self) -> None:
        self._on_progress(Progress(self._done, self._total, self._fetched))


async def _walk(client: RegistryClient, reference: Reference, wanted: Platforms) -> Image:
    """Walk an image; if the cache does not know its tag, check that the upstream works."""
    for pause_s in UNKNOWN_PAUSES_S:
        await asyncio.sleep(pause_s)
        try:
            return await images.walk(client, reference, wanted)
        except AnswerError as error:
            if reference.digest or not error.is_missing:
                raise
            absence = error
        try:
            await client.manifest(reference.repository, NONEXISTENT_DIGEST)
        except AnswerError as error:
            if not error.is_missing:
                raise AnswerError(f"{absence}; upstream: {error}", error.status) from error
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
    walked: tuple[Image, ...] | RegistryError,
    kept: Mapping[_Key, int | RegistryError],
) -> Warmed | NotWarmed:
    if isinstance(walked, RegistryError):
        return NotWarmed(reference, (walked,))
    digests = {blob.digest for one in walked for blob in one.blobs}
    results = [kept[reference.registry, reference.repository, digest] for digest in digests]
    if errors := tuple(result for result in results if isinstance(result, RegistryError)):
        return NotWarmed(reference, errors)
    image, *attached = walked
    fetched = sum(result for result in results if isinstance(result, int))
    return Warmed(image, fetched, tuple(attached))
