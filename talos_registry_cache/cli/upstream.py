"""Whether upstreams answer, and how many pulls they still allow."""

import asyncio
from collections.abc import Mapping

import httpx2

from talos_registry_cache.registry import upstream
from talos_registry_cache.registry.client import RateLimit, rate_limit
from talos_registry_cache.registry.errors import ContentError
from talos_registry_cache.registry.reference import DOCKER_HUB
from talos_registry_cache.registry.upstream import WITHIN_S, Remote

# Docker's way to ask without a pull: docs.docker.com, "Pull usage and limits".
PREVIEW = "ratelimitpreview/test"


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
        async with asyncio.timeout(3 * WITHIN_S):
            limit = await _limit(remotes[DOCKER_HUB])
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
            upstream.client(remote) as client,
            client.stream("GET", remote.api("")) as answer,
        ):
            return not answer.is_server_error
    except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError):
        return False


async def _limit(remote: Remote) -> RateLimit | None:
    async with upstream.opened(remote) as client:
        url = remote.api(f"{PREVIEW}/manifests/latest")
        return rate_limit((await client.request("HEAD", PREVIEW, url)).headers)
