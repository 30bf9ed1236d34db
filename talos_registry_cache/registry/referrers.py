"""The referrers of manifests, as the referrers API of their upstream lists them.

A cache does not pass on this API (OCI distribution-spec 1.1, "Listing Referrers"). So its upstream
is asked, and the cache gets the list under the tag that the specification has for registries
without the API.
"""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

import httpx2
from pydantic import TypeAdapter

from talos_registry_cache.registry import manifests
from talos_registry_cache.registry.errors import ContentError
from talos_registry_cache.registry.manifests import Descriptor, Index
from talos_registry_cache.registry.upstream import Remote, UpstreamClient

ListReferrers = Callable[[str], Awaitable[Sequence[Descriptor]]]
"""Lists the referrers of a manifest, given its digest."""

MEDIA_TYPE = manifests.INDEXES[0]
PAGES_LIMIT = 10
WITHIN_S = 15.0
INDEX_LIMIT = 256 << 10
"""Maximum size of an index of referrers that is made here, in bytes: some thousand signatures."""

_DESCRIPTORS = TypeAdapter(tuple[Descriptor, ...])


class Referrers:
    """Asks upstreams for referrers. It is an asynchronous context manager.

    An upstream that does not answer is not asked again, nor one without such an API for the same
    repository.
    """

    def __init__(
        self, remotes: Mapping[str, Remote], on_problem: Callable[[str], object] = lambda _: None
    ) -> None:
        """Prepare to ask upstreams.

        Args:
            remotes: the upstreams, by registry host.
            on_problem: called with a message for each upstream that does not answer as it should.
        """
        self._remotes = dict(remotes)
        self._on_problem = on_problem
        self._reported: set[str] = set()
        self._clients: dict[str, UpstreamClient] = {}
        self._without_api: set[tuple[str, str]] = set()
        self._opened = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Open the clients of the upstreams."""
        for registry, remote in self._remotes.items():
            client = await self._opened.enter_async_context(UpstreamClient(remote, WITHIN_S))
            self._clients[registry] = client
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close them."""
        await self._opened.aclose()

    async def of(self, registry: str, repository: str, digest: str) -> Sequence[Descriptor]:
        """List the referrers of a manifest.

        There are none if the upstream is unknown or does not answer with a list: a cache without
        network can warm what it holds.

        Args:
            registry: the registry host.
            repository: the repository of the manifest.
            digest: its digest.

        Raises:
            ContentError: the upstream sends something else than a list.
        """
        client = self._clients.get(registry)
        if client is None or (registry, repository) in self._without_api:
            return ()
        url = self._remotes[registry].api(f"{repository}/referrers/{digest}")
        try:
            return await _list(client, repository, url)
        except httpx2.HTTPStatusError as error:
            if error.response.status_code == httpx2.codes.NOT_FOUND:
                self._without_api.add((registry, repository))
            else:
                self._report(registry, f"{error.response.status_code} {url}")
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            self._clients.pop(registry, None)
            self._report(registry, str(error) or type(error).__name__)
        return ()

    def _report(self, registry: str, reason: str) -> None:
        if registry not in self._reported:
            self._reported.add(registry)
            self._on_problem(f"{registry}: cannot ask the upstream for referrers: {reason}")


async def _list(client: UpstreamClient, repository: str, url: httpx2.URL) -> Sequence[Descriptor]:
    found: list[Descriptor] = []
    page = url
    for _ in range(PAGES_LIMIT):
        answer = await client.request("GET", repository, page, accept=MEDIA_TYPE)
        listed = manifests.parse(answer.content, MEDIA_TYPE)
        found += listed.manifests if isinstance(listed, Index) else ()
        if answer.next_page is None:
            return found
        page = answer.next_page
        if page.host != url.host:
            raise ContentError(f"{url.host} continues its list of referrers at {page.host}")
    raise ContentError(f"{url} has more than {PAGES_LIMIT} pages")


def index(referrers: Sequence[Descriptor]) -> bytes:
    """An index of referrers, the same for the same referrers in any order.

    Raises:
        ContentError: it is larger than `INDEX_LIMIT`.
    """
    listed = _DESCRIPTORS.dump_python(
        tuple(sorted(referrers, key=lambda one: one.digest)), by_alias=True, exclude_defaults=True
    )
    content = {"schemaVersion": 2, "mediaType": MEDIA_TYPE, "manifests": listed}
    made = json.dumps(content, separators=(",", ":")).encode()
    if len(made) > INDEX_LIMIT:
        found = f"{len(referrers)} referrers take {len(made)} bytes in an index"
        raise ContentError(f"{found}; allowed: {INDEX_LIMIT}")
    return made
