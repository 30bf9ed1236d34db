"""The referrers of manifests, as the referrers API of their upstream lists them.

A cache does not pass on this API (OCI distribution-spec 1.1, "Listing Referrers"). So its upstream
is asked, and the cache gets the list under the tag that the specification has for registries
without the API.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import httpx2
from pydantic import TypeAdapter

from talos_registry_cache.registry import manifests, upstream
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
    """Asks upstreams for referrers; see `asking`.

    An upstream that does not answer is not asked again, nor one without such an API for the same
    repository.
    """

    def __init__(
        self, clients: Mapping[str, UpstreamClient], on_problem: Callable[[str], object]
    ) -> None:
        """Use clients of upstreams, by registry host."""
        self._clients = dict(clients)
        self._on_problem = on_problem
        self._reported: set[str] = set()
        self._without_api: set[tuple[str, str]] = set()

    async def of(self, registry: str, repository: str, digest: str) -> Sequence[Descriptor]:
        """List the referrers of a manifest.

        There are none if the upstream is unknown or does not answer with a list: an image can be
        cached without them.

        Args:
            registry: the registry host.
            repository: the repository of the manifest.
            digest: its digest.
        """
        client = self._clients.get(registry)
        if client is None or (registry, repository) in self._without_api:
            return ()
        url = client.remote.api(f"{repository}/referrers/{digest}")
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
        except ContentError as error:
            self._report(registry, str(error))
        return ()

    def _report(self, registry: str, reason: str) -> None:
        if registry not in self._reported:
            self._reported.add(registry)
            self._on_problem(f"{registry}: cannot list the referrers of images: {reason}")


@asynccontextmanager
async def asking(
    remotes: Mapping[str, Remote], on_problem: Callable[[str], object] = lambda _: None
) -> AsyncIterator[Referrers]:
    """Prepare to ask upstreams.

    Args:
        remotes: the upstreams, by registry host.
        on_problem: called with a message for each upstream whose referrers are not known.
    """
    async with AsyncExitStack() as opened:
        clients = {
            registry: await opened.enter_async_context(upstream.opened(remote, WITHIN_S))
            for registry, remote in remotes.items()
        }
        yield Referrers(clients, on_problem)


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
