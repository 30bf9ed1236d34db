"""Upstreams: whether they answer, and how many pulls they still allow.

They are reached from this machine, with the CAs and the proxies of their caches.

An upstream may send anything, without end. So only the necessary part of an answer is read, for a
few seconds, and it cannot redirect to internal addresses; see `registry.addresses`.
"""

import asyncio
import functools
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

import httpx2
from pydantic import Field, TypeAdapter, ValidationError
from requests.utils import should_bypass_proxies

from talos_registry_cache.engine import labels
from talos_registry_cache.registry.addresses import check_followed
from talos_registry_cache.registry.client import RateLimit, rate_limit
from talos_registry_cache.registry.errors import ContentError
from talos_registry_cache.registry.reference import DOCKER_HUB

WITHIN_S = 3.0
TOKEN_LIMIT = 64 << 10
# Docker's way to ask without a pull: docs.docker.com, "Pull usage and limits".
PREVIEW = "ratelimitpreview/test"
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True, slots=True)
class _Token:
    # Characters that a header may have.
    token: Annotated[str, Field(pattern=r"^[!-~]+$")]


_TOKEN = TypeAdapter(_Token)


@dataclass(frozen=True, slots=True)
class Remote:
    """An upstream, as its cache reaches it.

    Attributes:
        url: its registry API.
        authorities: CAs (PEM) that are trusted in addition to the public ones, or None.
        proxies: the proxy for each scheme, such as https; empty for direct connections.
    """

    url: str
    authorities: str | None = None
    proxies: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_registry(
        cls, environment: Mapping[str, str], found: Mapping[str, str]
    ) -> "Remote | None":
        """The upstream of a registry; None if it has none.

        Args:
            environment: the environment variables of the registry.
            found: its labels.
        """
        url = environment.get("REGISTRY_PROXY_REMOTEURL")
        if url is None:
            return None
        proxies = {
            scheme: environment[variable]
            for scheme, variable in (("http", "HTTP_PROXY"), ("https", "HTTPS_PROXY"))
            if variable in environment
        }
        if proxies and should_bypass_proxies(url, environment.get("NO_PROXY", "")):
            proxies = {}
        return cls(url, found.get(labels.AUTHORITIES), proxies)


async def reachable(remotes: Mapping[str, Remote]) -> Mapping[str, bool]:
    """Whether upstreams answer; all are asked at once.

    Args:
        remotes: the upstreams, by registry host.
    """
    answers = await asyncio.gather(*map(_answers, remotes.values()))
    return dict(zip(remotes, answers, strict=True))


async def limits(remotes: Mapping[str, Remote]) -> Mapping[str, RateLimit | str]:
    """How many anonymous pulls Docker Hub still allows, or why that is unknown.

    Other registries do not say.
    """
    if DOCKER_HUB not in remotes:
        return {}
    try:
        async with asyncio.timeout(3 * WITHIN_S), _client(remotes[DOCKER_HUB]) as client:
            limit = await _limit(client, remotes[DOCKER_HUB].url)
    except TimeoutError:
        return {DOCKER_HUB: f"its limit is unknown: no answer within {3 * WITHIN_S:.0f} s"}
    except (httpx2.HTTPError, httpx2.InvalidURL, ContentError) as error:
        return {DOCKER_HUB: f"its limit is unknown: {str(error) or type(error).__name__}"}
    return {DOCKER_HUB: limit or "no limit for this address"}


async def _answers(remote: Remote) -> bool:
    # Any answer will do: most registries ask for a token first. The body is not read.
    try:
        async with (
            asyncio.timeout(WITHIN_S),
            _client(remote) as client,
            client.stream("GET", f"{remote.url.rstrip('/')}/v2/") as answer,
        ):
            return not answer.is_server_error
    except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError):
        return False


async def _limit(client: httpx2.AsyncClient, remote_url: str) -> RateLimit | None:
    url = httpx2.URL(f"{remote_url.rstrip('/')}/v2/{PREVIEW}/manifests/latest")
    answer = await client.head(url)
    if answer.status_code == httpx2.codes.UNAUTHORIZED:
        asked = dict(_CHALLENGE.findall(answer.headers.get("WWW-Authenticate", "")))
        realm = httpx2.URL(asked.get("realm", ""))
        await check_followed(url, realm)
        query = {"service": asked.get("service", ""), "scope": f"repository:{PREVIEW}:pull"}
        bearer = await _token(client, realm.copy_merge_params(query))
        answer = await client.head(url, headers={"Authorization": f"Bearer {bearer}"})
    answer.raise_for_status()
    return rate_limit(answer.headers)


async def _token(client: httpx2.AsyncClient, url: httpx2.URL) -> str:
    content = bytearray()
    async with client.stream("GET", url) as answer:
        answer.raise_for_status()
        async for piece in answer.aiter_bytes():
            content += piece
            if len(content) > TOKEN_LIMIT:
                raise ContentError(f"{url.host} sends a token of more than {TOKEN_LIMIT} bytes")
    try:
        return _TOKEN.validate_json(content).token
    except ValidationError:
        raise ContentError(f"{url.host} sends no token") from None


def _client(remote: Remote) -> httpx2.AsyncClient:
    trust = _trust(remote.authorities)
    return httpx2.AsyncClient(
        timeout=WITHIN_S,
        headers={"Accept-Encoding": "identity"},
        verify=trust,
        # The proxies of the cache count, not those of this process.
        trust_env=False,
        mounts={
            f"{scheme}://": httpx2.AsyncHTTPTransport(verify=trust, proxy=proxy)
            for scheme, proxy in remote.proxies.items()
        },
    )


@functools.cache
def _trust(authorities: str | None) -> ssl.SSLContext:
    """The public CAs and others; cached, since reading them is slow."""
    trust = httpx2.create_ssl_context(trust_env=False)
    if authorities:
        trust.load_verify_locations(cadata=authorities)
    return trust
