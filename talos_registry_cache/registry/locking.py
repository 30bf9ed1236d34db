"""Looking up what a lock of images records: the digests that tags have at the upstreams now."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from talos_registry_cache.registry import attachments
from talos_registry_cache.registry import image as images
from talos_registry_cache.registry.attachments import Attachments
from talos_registry_cache.registry.client import Endpoints, RegistryClient, endpoint_of
from talos_registry_cache.registry.errors import AnswerError, RegistryError
from talos_registry_cache.registry.image_lock import LockedImage
from talos_registry_cache.registry.platforms import Platforms
from talos_registry_cache.registry.reference import Reference
from talos_registry_cache.registry.referrers import INDEX_LIMIT, Referrers, asking
from talos_registry_cache.registry.retry import Retry
from talos_registry_cache.registry.upstream import Remote
from talos_registry_cache.registry.warm import NONEXISTENT_DIGEST

Found = Mapping[Reference, LockedImage | RegistryError]


async def look_up(
    references: Iterable[Reference],
    endpoints: Endpoints,
    wanted: Platforms,
    attach: Attachments,
    *,
    remotes: Mapping[str, Remote] | None = None,
    concurrency: int = 8,
    retry: Retry | None = None,
    on_image: Callable[[], object] = lambda: None,
    on_problem: Callable[[str], object] = lambda _: None,
) -> Found:
    """Look up images through their caches, which ask their upstreams even for pinned tags.

    Args:
        references: the images.
        endpoints: the cache of each registry, by registry host.
        wanted: the platforms to lock.
        attach: the attachments to lock.
        remotes: the upstreams of caches, by registry host, which are asked for referrers.
        concurrency: the number of repositories to work on at once.
        retry: how to retry requests.
        on_image: called after each image.
        on_problem: called with a message for each upstream whose referrers are not known.

    Returns:
        Each image, or why it could not be looked up, in order.
    """
    references = tuple(references)
    repositories: defaultdict[tuple[str, str], list[Reference]] = defaultdict(list)
    for reference in references:
        repositories[reference.registry, reference.repository].append(reference)
    slots = asyncio.Semaphore(concurrency)
    found: dict[Reference, LockedImage | RegistryError] = {}

    async def work(some: Sequence[Reference]) -> None:
        try:
            endpoint = endpoint_of(some[0], endpoints)
            async with slots, RegistryClient(endpoint, retry, past_front=True) as client:
                await _check_upstream(client, some[0].repository)
                for reference in some:
                    found[reference] = await _locked_or_error(
                        client, reference, wanted, attach, listing
                    )
                    on_image()
        except RegistryError as error:
            found.update(dict.fromkeys(some, error))

    async with asking(remotes or {}, on_problem) as listing, asyncio.TaskGroup() as group:
        for some in repositories.values():
            group.create_task(work(some))
    return {reference: found[reference] for reference in references}


async def _check_upstream(client: RegistryClient, repository: str) -> None:
    """Check that the upstream answers: without it, a cache answers with the tags that it knows.

    For a digest, it passes on the upstream's answer.
    """
    try:
        await client.manifest(repository, NONEXISTENT_DIGEST)
    except AnswerError as error:
        if not error.is_missing:
            raise


async def _locked_or_error(
    client: RegistryClient,
    reference: Reference,
    wanted: Platforms,
    attach: Attachments,
    listing: Referrers,
) -> LockedImage | RegistryError:
    list_referrers = partial(listing.of, reference.registry, reference.repository)
    try:
        image = await images.walk(client, reference, wanted)
        attached = await attachments.walk(client, image, attach, list_referrers)
    except RegistryError as error:
        return error
    return LockedImage(
        digest=image.digest,
        size=sum(one.size for one in (image, *attached)),
        attachments={str(one.reference.tag): one.digest for one in attached},
        indexes={
            str(one.reference.tag): one.referrers.decode()
            for one in attached
            # A larger one was not made here, so the registry has it.
            if one.referrers and len(one.referrers) <= INDEX_LIMIT
        },
    )
