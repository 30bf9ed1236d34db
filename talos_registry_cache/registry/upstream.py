"""Upstreams, asked without their caches.

They are reached from this machine, with the CAs and the proxies of their caches.

An upstream may send anything, without end. So only the necessary part of an answer is read, for a
few seconds, and it cannot redirect to internal addresses; see `registry.addresses`.
"""

import functools
import re
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated

import httpx2
from pydantic import AliasChoices, Field, TypeAdapter, ValidationError
from requests.utils import should_bypass_proxies

from talos_registry_cache.registry.addresses import check_followed
from talos_registry_cache.registry.errors import ContentError

WITHIN_S = 3.0
"""How long an upstream may take for each step of an answer by default, in seconds."""
CONTENT_LIMIT, TOKEN_LIMIT = 4 << 20, 64 << 10
"""The most bytes that are read of an answer, and of a token."""
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True, slots=True)
class _Token:
    # Characters that a header may have. The names are those of the token specification.
    token: Annotated[
        str, Field(pattern=r"^[!-~]+$", validation_alias=AliasChoices("token", "access_token"))
    ]


_TOKEN = TypeAdapter(_Token)


@dataclass(frozen=True, slots=True)
class Remote:
    """An upstream, as its cache reaches it.

    Attributes:
        url: its registry API.
        authorities: CAs (PEM) that are trusted in addition to the public ones, or None.
        proxies: the proxy for each scheme, such as https; empty for direct connections.
        username: the user name; empty for anonymous access.
        password: the password of that user.
    """

    url: str
    authorities: str | None = None
    proxies: Mapping[str, str] = field(default_factory=dict)
    username: str = ""
    password: str = field(default="", repr=False)

    @classmethod
    def of_registry(
        cls, environment: Mapping[str, str], authorities: str | None = None
    ) -> "Remote | None":
        """The upstream of a registry, without a password; None if it has none.

        Args:
            environment: the environment variables of the registry.
            authorities: CAs that it trusts in addition to the public ones, or None.
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
        return cls(url, authorities, proxies)

    def api(self, path: str) -> httpx2.URL:
        """The URL of a path below /v2/."""
        return httpx2.URL(f"{self.url.rstrip('/')}/v2/{path}")


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of an upstream.

    Attributes:
        content: its content.
        headers: its headers.
        next_page: the URL of the next page of a list, or None.
    """

    content: bytes
    headers: httpx2.Headers
    next_page: httpx2.URL | None


class UpstreamClient:
    """Sends requests to an upstream, and logs in if it asks for that; see `opened`."""

    def __init__(self, remote: Remote, http: httpx2.AsyncClient) -> None:
        """Use an HTTP client that reaches the upstream."""
        self.remote = remote
        self._http = http
        # The header of each repository, since tokens are for one.
        self._authorizations: dict[str, Mapping[str, str]] = {}

    async def request(
        self, method: str, repository: str, url: httpx2.URL, *, accept: str = "*/*"
    ) -> Answer:
        """Send a request.

        Args:
            method: GET or HEAD.
            repository: the repository that it is about.
            url: the URL.
            accept: the media types that are understood.

        Raises:
            httpx2.HTTPError: the upstream refuses it or does not answer.
            ContentError: the upstream sends more than `CONTENT_LIMIT` bytes, or no token that can
                be used.
        """
        headers = {"Accept": accept, **self._authorizations.get(repository, {})}
        try:
            return await self._send(method, url, headers)
        except httpx2.HTTPStatusError as error:
            if error.response.status_code != httpx2.codes.UNAUTHORIZED:
                raise
            self._authorizations[repository] = await self._log_in(error.response, repository)
        return await self._send(method, url, {**headers, **self._authorizations[repository]})

    async def _send(
        self, method: str, url: httpx2.URL, headers: Mapping[str, str], limit: int = CONTENT_LIMIT
    ) -> Answer:
        content = bytearray()
        async with self._http.stream(method, url, headers=dict(headers)) as answer:
            answer.raise_for_status()
            async for piece in answer.aiter_bytes():
                content += piece
                if len(content) > limit:
                    raise ContentError(f"{url.host} sends more than {limit} bytes")
        following = answer.links.get("next", {}).get("url")
        next_page = None if following is None else url.join(following)
        return Answer(bytes(content), answer.headers, next_page)

    async def _log_in(self, refused: httpx2.Response, repository: str) -> Mapping[str, str]:
        """The header that an upstream asks for in its answer 401; empty if there is none."""
        challenge = refused.headers.get("WWW-Authenticate", "")
        if challenge.lower().startswith("basic"):
            return self._login_at(refused.url)
        asked = dict(_CHALLENGE.findall(challenge))
        realm = httpx2.URL(asked.get("realm", ""))
        await check_followed(refused.url, realm)
        query = {"service": asked.get("service", ""), "scope": f"repository:{repository}:pull"}
        url = realm.copy_merge_params(query)
        answer = await self._send("GET", url, self._login_at(realm), TOKEN_LIMIT)
        try:
            return {"Authorization": f"Bearer {_TOKEN.validate_json(answer.content).token}"}
        except ValidationError:
            raise ContentError(f"{url.host} sends no token") from None

    def _login_at(self, url: httpx2.URL) -> Mapping[str, str]:
        """The header with the password, which is not sent without TLS."""
        if not self.remote.username or url.scheme != "https":
            return {}
        account = f"{self.remote.username}:{self.remote.password}"
        return {"Authorization": f"Basic {b64encode(account.encode()).decode()}"}


@asynccontextmanager
async def opened(remote: Remote, within_s: float = WITHIN_S) -> AsyncIterator[UpstreamClient]:
    """Open a client of an upstream.

    Args:
        remote: the upstream.
        within_s: how long it may take for each step of an answer, in seconds.
    """
    async with client(remote, within_s) as http:
        yield UpstreamClient(remote, http)


def client(remote: Remote, within_s: float = WITHIN_S) -> httpx2.AsyncClient:
    """An HTTP client that reaches an upstream as its cache does."""
    trust = _trust(remote.authorities)
    return httpx2.AsyncClient(
        timeout=within_s,
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
