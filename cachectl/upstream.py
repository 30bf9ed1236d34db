"""What upstreams say: whether they answer, and how many pulls they still allow."""

import asyncio
import re
from collections.abc import Mapping
from contextlib import suppress

import httpx2

from registry.client import RateLimit, rate_limit
from registry.reference import DOCKER_HUB

WITHIN_S = 3.0
# Docker's own way to ask without pulling: docs.docker.com, "Pull usage and limits".
PREVIEW = "ratelimitpreview/test"
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


async def reachable(remotes: Mapping[str, str]) -> Mapping[str, bool]:
    """Whether upstreams answer, all asked at once.

    Args:
        remotes: the registry API of each, by registry host.
    """
    async with _client() as client:
        answers = await asyncio.gather(*(_answers(client, url) for url in remotes.values()))
    return dict(zip(remotes, answers, strict=True))


async def limits(remotes: Mapping[str, str]) -> Mapping[str, RateLimit | str]:
    """How many pulls Docker Hub still allows to somebody without an account; or why not known.

    Other registries do not tell.
    """
    if DOCKER_HUB not in remotes:
        return {}
    try:
        async with _client() as client:
            limit = await _limit(client, remotes[DOCKER_HUB])
    except httpx2.HTTPError as error:
        return {DOCKER_HUB: f"its limit is not known: {str(error) or type(error).__name__}"}
    return {DOCKER_HUB: limit or "it has no limit for this address"}


async def _answers(client: httpx2.AsyncClient, url: str) -> bool:
    # Whatever it answers: most ask for a token first.
    with suppress(httpx2.HTTPError, httpx2.InvalidURL):
        answer = await client.get(f"{url.rstrip('/')}/v2/")
        return not answer.is_server_error
    return False


async def _limit(client: httpx2.AsyncClient, remote_url: str) -> RateLimit | None:
    url = f"{remote_url.rstrip('/')}/v2/{PREVIEW}/manifests/latest"
    answer = await client.head(url)
    if answer.status_code == httpx2.codes.UNAUTHORIZED:
        asked = dict(_CHALLENGE.findall(answer.headers.get("WWW-Authenticate", "")))
        query = {"service": asked.get("service", ""), "scope": f"repository:{PREVIEW}:pull"}
        token = await client.get(asked.get("realm", ""), params=query)
        bearer = token.raise_for_status().json().get("token", "")
        answer = await client.head(url, headers={"Authorization": f"Bearer {bearer}"})
    answer.raise_for_status()
    return rate_limit(answer.headers)


def _client() -> httpx2.AsyncClient:
    return httpx2.AsyncClient(timeout=WITHIN_S)
