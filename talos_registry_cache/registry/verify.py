"""Verification: the proof that a storage holds images completely and undamaged.

The endpoints must be registries without an upstream on the storage (distribution without `proxy`).
A cache would fetch what is missing, and so prove nothing.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

from talos_registry_cache.endpoint import Endpoint
from talos_registry_cache.registry import attachments, signatures
from talos_registry_cache.registry import image as images
from talos_registry_cache.registry.attachments import Attachments
from talos_registry_cache.registry.client import Endpoints, RegistryClient, endpoint_of
from talos_registry_cache.registry.errors import AnswerError, RegistryError
from talos_registry_cache.registry.image import Image
from talos_registry_cache.registry.manifests import Descriptor
from talos_registry_cache.registry.platforms import Platforms
from talos_registry_cache.registry.reference import Reference
from talos_registry_cache.registry.retry import Retry
from talos_registry_cache.registry.signature_policy import Policy

# The registry runs on this machine, so that a second failure is a lasting one.
RETRY = Retry(tries=2, first_pause_s=0.2)
# A cache that is pulling an image stores its manifest first, then layer after layer.
PAUSE_S = 0.5
REPETITIONS = 20


@dataclass(frozen=True, slots=True)
class Verified:
    """The result of verifying an image.

    Attributes:
        reference: the image's reference.
        image: its manifests and blobs, or None if its manifests could not be read.
        errors: one for each part that is missing or damaged, and for a missing signature; empty for
            a proved image.
        attachments: the stored attachments of the image, by their tags.
    """

    reference: Reference
    image: Image | None
    errors: tuple[RegistryError, ...]
    attachments: tuple[Image, ...] = ()


async def verify(
    references: Iterable[Reference],
    endpoints: Endpoints,
    wanted: Platforms,
    *,
    policy: Policy | None = None,
    concurrency: int = 4,
    retry: Retry = RETRY,
    on_bytes: Callable[[int], object] = lambda _: None,
) -> tuple[Verified, ...]:
    """Read every manifest and blob of images and their attachments; check sizes and digests.

    A cache may be pulling an image meanwhile, so an incomplete image is verified again while more
    of it appears.

    Args:
        references: the images.
        endpoints: a registry without an upstream on the storage of each cache, by registry host.
        wanted: the platforms of the nodes.
        policy: who has to have signed the images.
        concurrency: the number of requests at once.
        retry: how to retry requests.
        on_bytes: called with the number of bytes of each piece of a blob.

    Returns:
        The outcome for each image, in order.
    """
    verification = _Verification(
        endpoints=endpoints,
        wanted=wanted,
        policy=policy,
        concurrency=concurrency,
        retry=retry,
        on_bytes=on_bytes,
    )
    outcomes = await verification.images(references)
    doubtful = _incomplete(outcomes)
    for _ in range(REPETITIONS):
        if not doubtful:
            break
        await asyncio.sleep(PAUSE_S)
        again = dict(zip(doubtful, await verification.images(doubtful), strict=True))
        outcomes = tuple(again.get(outcome.reference, outcome) for outcome in outcomes)
        left = _incomplete(again.values())
        doubtful = {image: errors for image, errors in left.items() if errors != doubtful[image]}
    return outcomes


def _incomplete(outcomes: Iterable[Verified]) -> Mapping[Reference, tuple[str, ...]]:
    """The errors of each image that lacks a part."""
    return {
        outcome.reference: tuple(map(str, outcome.errors))
        for outcome in outcomes
        if any(isinstance(error, AnswerError) and error.is_missing for error in outcome.errors)
    }


_Key = tuple[Endpoint | str, str]
"""The endpoint and digest of a blob."""


class _Verification:
    """One run of `verify`, and the blobs that it has proved."""

    def __init__(
        self,
        *,
        endpoints: Endpoints,
        wanted: Platforms,
        policy: Policy | None,
        concurrency: int,
        retry: Retry,
        on_bytes: Callable[[int], object],
    ) -> None:
        self._endpoints = endpoints
        self._wanted = wanted
        self._policy = policy
        self._retry = retry
        self._on_bytes = on_bytes
        self._slots = asyncio.Semaphore(concurrency)
        self._one_at_a_time: defaultdict[_Key, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._sound: set[_Key] = set()

    async def images(self, references: Iterable[Reference]) -> tuple[Verified, ...]:
        """Verify images."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.image(reference)) for reference in references]
        return tuple(task.result() for task in tasks)

    async def image(self, reference: Reference) -> Verified:
        """Verify one image."""
        try:
            endpoint = endpoint_of(reference, self._endpoints)
            async with self._slots, RegistryClient(endpoint, self._retry) as client:
                image = await images.walk(client, reference, self._wanted)
                attached, problem = await self._attachments(client, image)
        except RegistryError as error:
            return Verified(reference, None, (error,))
        blobs = {blob.digest: blob for one in (image, *attached) for blob in one.blobs}
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._blob(endpoint, reference.repository, blob))
                for blob in blobs.values()
            ]
        found = [problem, *(task.result() for task in tasks)]
        return Verified(reference, image, tuple(one for one in found if one), attached)

    async def _attachments(
        self, client: RegistryClient, image: Image
    ) -> tuple[tuple[Image, ...], RegistryError | None]:
        """The stored attachments of an image, and what is wrong with them or its signature."""
        attached: tuple[Image, ...] = ()
        try:
            attached = await attachments.walk(client, image, Attachments.ALL)
            if self._policy:
                await signatures.check(client, image, self._policy)
        except RegistryError as error:
            return attached, error
        return attached, None

    async def _blob(
        self, endpoint: Endpoint | str, repository: str, blob: Descriptor
    ) -> RegistryError | None:
        """The error of a blob, or None.

        Repositories share the content of a blob, so it is read once, and other repositories are
        only asked whether they have it.
        """
        key = endpoint, blob.digest
        async with (
            self._one_at_a_time[key],
            self._slots,
            RegistryClient(endpoint, self._retry) as client,
        ):
            try:
                if key in self._sound:
                    if not await client.has_blob(repository, blob):
                        return AnswerError(
                            f"{repository} does not have {blob.digest}", HTTPStatus.NOT_FOUND
                        )
                else:
                    await client.read_blob(
                        repository, blob, lambda chunk: self._on_bytes(len(chunk))
                    )
                    self._sound.add(key)
            except RegistryError as error:
                return error
        return None
