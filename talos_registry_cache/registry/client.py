"""A client of one registry, or of a cache of one: reads manifests and blobs, and checks them.

The protocol is the OCI distribution specification 1.1. No credentials are sent but those of the
endpoint: a cache has its own for its upstream.
"""

import asyncio
import functools
import hashlib
import json
import re
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import httpx2

from talos_registry_cache.endpoint import Endpoint
from talos_registry_cache.registry import manifests
from talos_registry_cache.registry.addresses import check_followed
from talos_registry_cache.registry.errors import (
    AnswerError,
    ContentError,
    EndpointError,
    UnreachableError,
)
from talos_registry_cache.registry.manifests import Descriptor
from talos_registry_cache.registry.reference import Reference, is_digest
from talos_registry_cache.registry.retry import Retry, retry_after_s, retrying

CONNECT_TIMEOUT_S = 10
# A cache asks its upstream twice before its own first byte.
SILENCE_TIMEOUT_S = 60
MANIFEST_TIMEOUT_S = 120
REDIRECTS_LIMIT = 5
ERROR_LIMIT = 64 << 10
# What may be no content at the end of a transfer that broke off.
DOUBTFUL_TAIL = 16 << 10
WORDS_LIMIT = 500

Endpoints = Mapping[str, Endpoint | str]
"""The endpoint of each registry, by registry host such as docker.io; a URL for open ones."""

OnChunk = Callable[[bytes], object]
"""Is given each piece of a blob, in order and once."""


def endpoint_of(reference: Reference, endpoints: Endpoints) -> Endpoint | str:
    """The endpoint of an image's registry.

    Raises:
        EndpointError: there is none.
    """
    endpoint = endpoints.get(reference.registry)
    if endpoint is None:
        raise EndpointError(
            f"{reference}: nothing serves {reference.registry}; "
            f"served are: {', '.join(sorted(endpoints)) or 'none'}"
        )
    return endpoint


@dataclass(frozen=True, slots=True)
class RateLimit:
    """What a registry says of its limit on pulls (Docker Hub does, in `ratelimit-*` headers).

    Attributes:
        remaining: how many are left.
        limit: how many there are in a window, or None.
        window_s: that window in seconds, or None.
    """

    remaining: int
    limit: int | None
    window_s: int | None


@dataclass(frozen=True, slots=True)
class Fetched:
    """A manifest or index as the registry has it.

    Attributes:
        content: its bytes, of which `descriptor` has the digest and the size.
        descriptor: what it is.
    """

    content: bytes
    descriptor: Descriptor


class RegistryClient:
    """Reads from a registry through one connection, one request after the other.

    Use it as an asynchronous context manager. The environment's proxies are not used: a cache is
    on this machine, and a proxy elsewhere would reach another one.
    """

    rate_limit: RateLimit | None = None
    """What the registry last said of its limit."""

    endpoint: str
    """Its URL, without credentials."""

    def __init__(self, endpoint: Endpoint | str, retry: Retry | None = None) -> None:
        """Prepare to read from a registry.

        Args:
            endpoint: the registry; of one that is open to all, its URL.
            retry: how to try again; a few times within two minutes where left out.

        Raises:
            EndpointError: its URL is none, its authority's certificate is none, or it would be
                sent a password without TLS.
        """
        if isinstance(endpoint, str):
            endpoint = Endpoint(endpoint)
        self._base = _base_url(endpoint)
        self.endpoint = str(self._base)
        self._retry = retry or Retry()
        self._http = httpx2.AsyncClient(
            auth=(endpoint.username, endpoint.password or "") if endpoint.username else None,
            verify=_trust(endpoint.ca),
            trust_env=False,
            follow_redirects=True,
            max_redirects=REDIRECTS_LIMIT,
            event_hooks={"request": [self._check_followed]},
            # Blobs are hashed as they are stored.
            headers={"Accept-Encoding": "identity"},
            limits=httpx2.Limits(max_connections=1),
            timeout=httpx2.Timeout(SILENCE_TIMEOUT_S, connect=CONNECT_TIMEOUT_S, pool=None),
        )

    async def __aenter__(self) -> Self:
        """Return itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connection."""
        await self._http.aclose()

    async def manifest(self, repository: str, target: str) -> Fetched:
        """Read a manifest or an index.

        Args:
            repository: the repository.
            target: a tag or a digest.

        Raises:
            RegistryError: it is not there, or not what its digest or its size limit allows.
        """
        return await retrying(self._retry, lambda: self._manifest(repository, target))

    async def has_blob(self, repository: str, blob: Descriptor) -> bool:
        """Ask a registry whether a repository has a blob, without reading it.

        Not for a cache: distribution fetches and keeps a blob for a HEAD too.

        Raises:
            RegistryError: it has one of another size, or cannot be asked.
        """
        try:
            await retrying(self._retry, lambda: self._has_blob(repository, blob))
        except AnswerError as error:
            if error.is_missing:
                return False
            raise
        return True

    async def mount(self, repository: str, blob: Descriptor, source: str) -> None:
        """Make a blob of one repository one of another one too, without moving its bytes.

        Args:
            repository: which repository shall have it.
            blob: the blob.
            source: a repository of the same registry that has it.

        Raises:
            RegistryError: the registry takes nothing, or the source does not have it.
        """
        await retrying(self._retry, lambda: self._mount(repository, blob, source))

    async def read_blob(self, repository: str, blob: Descriptor, on_chunk: OnChunk) -> None:
        """Read a blob from its first byte to its last, keep nothing, check size and digest.

        A lost connection is taken up again where it broke.

        Raises:
            RegistryError: it cannot be read, or is damaged.
        """
        transfer = _Transfer(blob, on_chunk)
        await retrying(self._retry, lambda: self._try_to_read(repository, transfer))

    async def pull_blob(self, repository: str, blob: Descriptor, on_chunk: OnChunk) -> bool:
        """Make a cache fetch a blob, unless it has it: then only its first byte is read.

        A distribution registry serves a part of what it has stored, and the whole of what it must
        fetch (registry/proxy/proxyblobstore.go heeds no Range). So asking for the first byte tells
        the two apart, and the answer is already the fetching.

        Returns:
            Whether the cache had it. If not, it came whole and sound, but whether it was kept is
            known after another call only.

        Raises:
            RegistryError: it cannot be fetched, or is damaged.
        """
        transfer = _Transfer(blob, on_chunk)
        return await retrying(
            self._retry, lambda: self._try_to_read(repository, transfer, probe=True)
        )

    async def _check_followed(self, request: httpx2.Request) -> None:
        await check_followed(self._base, request.url)

    async def _manifest(self, repository: str, target: str) -> Fetched:
        url = self._url(repository, "manifests", target)
        try:
            async with asyncio.timeout(MANIFEST_TIMEOUT_S):
                return await self._read_manifest(url, target)
        except TimeoutError:
            raise UnreachableError(f"{url} did not come within {MANIFEST_TIMEOUT_S} s") from None

    async def _read_manifest(self, url: httpx2.URL, target: str) -> Fetched:
        content = bytearray()
        async with self._answer("GET", url, {"Accept": manifests.ACCEPT}) as answer:
            async for chunk in answer.aiter_raw():
                content += chunk
                if len(content) > manifests.SIZE_LIMIT:
                    raise ContentError(
                        f"{url} is larger than {manifests.SIZE_LIMIT} bytes, "
                        "the most that a manifest may have"
                    )
        digest = _digest(hashlib.sha256(content))
        announced = target if is_digest(target) else answer.headers.get("Docker-Content-Digest")
        if announced and announced != digest:
            raise ContentError(f"{url} has the digest {digest} and not {announced}")
        media_type = answer.headers.get("Content-Type", "").partition(";")[0].strip()
        return Fetched(bytes(content), Descriptor(media_type, digest, len(content)))

    async def _has_blob(self, repository: str, blob: Descriptor) -> None:
        url = self._url(repository, "blobs", blob.digest)
        async with self._answer("HEAD", url) as answer:
            _check_length(url, answer, blob.size)

    async def _mount(self, repository: str, blob: Descriptor, source: str) -> None:
        url = self._url(repository, "blobs", "uploads/")
        url = url.copy_merge_params({"mount": blob.digest, "from": source})
        async with self._answer("POST", url) as answer:
            if answer.status_code != httpx2.codes.CREATED:
                raise ContentError(f"{url}: {source} does not have {blob.digest}")

    async def _try_to_read(
        self, repository: str, transfer: "_Transfer", *, probe: bool = False
    ) -> bool:
        try:
            return await self._read(repository, transfer, probe=probe)
        except UnreachableError as error:
            words = transfer.drop_doubtful()
            raise UnreachableError(f"{error}; it said: {words}" if words else str(error)) from error

    async def _read(self, repository: str, transfer: "_Transfer", *, probe: bool = False) -> bool:
        """Read what is missing of a blob; with `probe`, find out first whether it is stored."""
        url = self._url(repository, "blobs", transfer.blob.digest)
        probe = probe and transfer.offset == 0 and transfer.blob.size > 0
        headers = {}
        if probe:
            headers["Range"] = "bytes=0-0"
        elif transfer.offset:
            headers["Range"] = f"bytes={transfer.offset}-"
        async with self._answer("GET", url, headers) as answer:
            partial = answer.status_code == httpx2.codes.PARTIAL_CONTENT
            if partial:
                _check_range(url, answer, transfer)
            else:
                _check_length(url, answer, transfer.blob.size)
            if partial and probe:
                await _read_one_byte(url, answer)
                return True
            # A server that does not resume sends again what is already here.
            known = 0 if partial else transfer.offset
            async for chunk in answer.aiter_raw():
                if len(chunk) > known:
                    transfer.add(url, chunk[known:])
                known = max(0, known - len(chunk))
        transfer.finish(url)
        return False

    @asynccontextmanager
    async def _answer(
        self, method: str, url: httpx2.URL, headers: dict[str, str] | None = None
    ) -> AsyncIterator[httpx2.Response]:
        """Make a request; what is wrong with the answer or on the way to it is raised."""
        try:
            async with self._http.stream(method, url, headers=headers) as answer:
                self.rate_limit = rate_limit(answer.headers) or self.rate_limit
                if not answer.is_success:
                    raise await _refusal(method, url, answer)
                yield answer
        except httpx2.TransportError as error:
            raise UnreachableError(f"{method} {url}: {_reason(error)}") from error
        except httpx2.RequestError as error:
            raise ContentError(f"{method} {url}: {_reason(error)}") from error

    def _url(self, repository: str, kind: str, target: str) -> httpx2.URL:
        return self._base.copy_with(
            path=f"{self._base.path.rstrip('/')}/v2/{repository}/{kind}/{target}"
        )


class _Transfer:
    """What has come of a blob, over as many connections as it takes.

    A cache whose upstream breaks off puts its error message behind the content (distribution 3.1.2,
    registry/handlers/app.go: it writes errors whether the answer has begun or not). So the tail of
    what came is believed when more has come, or all; else it is asked for again.
    """

    def __init__(self, blob: Descriptor, on_chunk: OnChunk) -> None:
        self.blob = blob
        self.offset = 0
        self._doubtful = bytearray()
        self._hash = hashlib.sha256()
        self._on_chunk = on_chunk

    def drop_doubtful(self) -> str:
        """Drop the tail of a transfer that broke off; returns the error message in it, if any."""
        at = self._doubtful.rfind(b'{"errors":')
        words = _words(bytes(self._doubtful[at:])) if at >= 0 else ""
        self._doubtful.clear()
        return words

    def add(self, url: httpx2.URL, chunk: bytes) -> None:
        self._doubtful += chunk
        if self.offset + len(self._doubtful) > self.blob.size:
            raise ContentError(f"{url} is larger than the {self.blob.size} bytes it should have")
        self._believe(len(self._doubtful) - DOUBTFUL_TAIL)

    def finish(self, url: httpx2.URL) -> None:
        came = self.offset + len(self._doubtful)
        if came < self.blob.size:
            raise UnreachableError(f"{url} ended after {came} of {self.blob.size} bytes")
        self._believe(len(self._doubtful))
        digest = _digest(self._hash)
        if digest != self.blob.digest:
            raise ContentError(f"{url} is damaged: its digest is {digest}")

    def _believe(self, length: int) -> None:
        if length <= 0:
            return
        chunk = bytes(self._doubtful[:length])
        del self._doubtful[:length]
        self.offset += length
        self._hash.update(chunk)
        self._on_chunk(chunk)


@functools.cache
def _trust(ca: str | None) -> ssl.SSLContext:
    """The authority that is trusted alone, or those that this machine trusts; read once."""
    if ca is None:
        return httpx2.create_ssl_context(trust_env=False)
    try:
        return ssl.create_default_context(cadata=ca)
    except (ssl.SSLError, ValueError) as error:
        raise EndpointError(f"a CA is no certificate; allowed: PEM ({error})") from error


def _base_url(endpoint: Endpoint) -> httpx2.URL:
    allowed = "allowed: http://HOST:PORT or https://HOST"
    try:
        url = httpx2.URL(endpoint.url)
    except httpx2.InvalidURL:
        # What cannot be read is not shown: it may hold a password.
        raise EndpointError(f"an endpoint is no URL; {allowed}") from None
    shown = str(url.copy_with(userinfo=b""))
    if url.scheme not in {"http", "https"} or not url.host or url.query or url.fragment:
        raise EndpointError(f"{shown!r} is no endpoint; {allowed}")
    if url.userinfo:
        raise EndpointError(f"{shown!r} has a user name or password in its URL; {allowed}")
    if endpoint.username and url.scheme != "https":
        raise EndpointError(f"{shown!r} would get a password without TLS; allowed: https://")
    return url


def _check_length(url: httpx2.URL, answer: httpx2.Response, size: int) -> None:
    length = answer.headers.get("Content-Length")
    if length is not None and length != str(size):
        raise ContentError(f"{url} has {length} bytes and not {size}")


def _check_range(url: httpx2.URL, answer: httpx2.Response, transfer: _Transfer) -> None:
    """A part must be the one that was asked for, of a blob of the right size."""
    said = answer.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (\d{1,19})-\d+/(\d+|\*)", said)
    sizes = {str(transfer.blob.size), "*"}
    if not match or int(match[1]) != transfer.offset or match[2] not in sizes:
        raise ContentError(
            f"{url} answered with the part {said!r} and not with bytes from "
            f"{transfer.offset} of {transfer.blob.size}"
        )


async def _read_one_byte(url: httpx2.URL, answer: httpx2.Response) -> None:
    """Read a part that has one byte, so that the connection can be used again."""
    came = 0
    async for chunk in answer.aiter_raw():
        came += len(chunk)
        if came > 1:
            raise ContentError(f"{url} answered with more than the one byte it was asked for")


async def _refusal(method: str, url: httpx2.URL, answer: httpx2.Response) -> AnswerError:
    """An error answer, with the registry's own words."""
    body = bytearray()
    async for chunk in answer.aiter_raw():
        body += chunk
        if len(body) > ERROR_LIMIT:
            break
    words = _words(bytes(body)) or answer.reason_phrase
    wait_s = retry_after_s(answer.headers.get("Retry-After"), datetime.now(UTC))
    asks = "" if wait_s is None else f" (asks to wait {wait_s:.0f} s)"
    return AnswerError(
        f"{method} {url}: {answer.status_code} {words}{asks}", answer.status_code, wait_s
    )


def _words(body: bytes) -> str:
    """What an error's body says, in one line: `errors[]` of the specification, or its text."""
    text = body.decode(errors="replace")
    try:
        said = "; ".join(map(_in_words, json.loads(text)["errors"]))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        said = text
    line = " ".join(said.split())
    return line if len(line) <= WORDS_LIMIT else f"{line[:WORDS_LIMIT]}..."


def _in_words(error: dict[str, Any]) -> str:
    """One of these errors; a cache puts into its detail what keeps it from its upstream."""
    words = f"{error['code']}: {error.get('message', '')}"
    detail = error.get("detail")
    if not isinstance(detail, str):
        return words
    # What follows in a URL may be a signature that lets in.
    return f"{words} ({re.sub(r'[?][^ ]*', '?[hidden]', detail)})"


def _reason(error: httpx2.RequestError) -> str:
    """What a broken connection is about; timeouts come without words."""
    kind = type(error).__name__
    return f"{kind}: {error}" if str(error) else kind


def rate_limit(headers: httpx2.Headers) -> RateLimit | None:
    """What headers say of a limit: `ratelimit-limit: 100;w=21600`, `ratelimit-remaining: 76`."""
    remaining = _LIMIT.match(headers.get("ratelimit-remaining", ""))
    limit = _LIMIT.match(headers.get("ratelimit-limit", ""))
    if not remaining:
        return None
    window = remaining[2] or (limit and limit[2])
    return RateLimit(
        remaining=int(remaining[1]),
        limit=int(limit[1]) if limit else None,
        window_s=int(window) if window else None,
    )


_LIMIT = re.compile(r"\s*(\d{1,18})(?:\s*;\s*w=(\d{1,18}))?(?!\d)")


def _digest(content: "hashlib._Hash") -> str:
    return f"sha256:{content.hexdigest()}"
