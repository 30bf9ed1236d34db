"""Upstreams: whether they answer, and how many pulls they still allow.

An upstream may send anything, without end. So only the necessary part of an answer is read, for a
few seconds, and it cannot redirect to internal addresses; see `registry.addresses`.
"""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import httpx2
from pydantic import Field, TypeAdapter, ValidationError

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


async def reachable(remotes: Mapping[str, str]) -> Mapping[str, bool]:
    """Whether upstreams answer; all are asked at once.

    Args:
        remotes: their registry APIs, by registry host.
    """
    async with _client() as client:
        answers = await asyncio.gather(*(_answers(client, url) for url in remotes.values()))
    return dict(zip(remotes, answers, strict=True))


async def limits(remotes: Mapping[str, str]) -> Mapping[str, RateLimit | str]:
    """How many anonymous pulls Docker Hub still allows, or why that is unknown.

    Other registries do not say.
    """
    if DOCKER_HUB not in remotes:
        return {}
    try:
        async with asyncio.timeout(3 * WITHIN_S), _client() as client:
            limit = await _limit(client, remotes[DOCKER_HUB])
    except TimeoutError:
        return {DOCKER_HUB: f"its limit is unknown: no answer within {3 * WITHIN_S:.0f} s"}
    except (httpx2.HTTPError, httpx2.InvalidURL, ContentError) as error:
        return {DOCKER_HUB: f"its limit is unknown: {str(error) or type(error).__name__}"}
    return {DOCKER_HUB: limit or "no limit for this address"}


async def _answers(client: httpx2.AsyncClient, url: str) -> bool:
    # Any answer will do: most registries ask for a token first. The body is not read.
    try:
        async with (
            asyncio.timeout(WITHIN_S),
            client.stream("GET", f"{url.rstrip('/')}/v2/") as answer,
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


def _client() -> httpx2.AsyncClient:
    return httpx2.AsyncClient(timeout=WITHIN_S, headers={"Accept-Encoding": "identity"})
