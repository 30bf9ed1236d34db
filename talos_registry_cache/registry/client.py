"""A registry client that reads and checks manifests and blobs.

The protocol is the OCI distribution specification 1.1. Only the credentials of the endpoint are
sent; a cache has its own for its upstream.
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
# A cache sends two requests to its upstream before its own first byte.
SILENCE_TIMEOUT_S = 60
MANIFEST_TIMEOUT_S = 120
REDIRECTS_LIMIT = 5
ERROR_LIMIT = 64 << 10
# The end of an aborted transfer that may be an error message.
UNCERTAIN_TAIL = 16 << 10
MESSAGE_LIMIT = 500
# The front of a cache would answer with the tag that it remembers.
ASK_THE_REGISTRY = {"Cache-Control": "no-cache"}

Endpoints = Mapping[str, Endpoint | str]
"""The endpoint of each registry, by registry host such as docker.io; a URL for open ones."""

OnChunk = Callable[[bytes], object]
"""Receives each piece of a blob once, in order."""


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
    """A registry's pull limit, from `ratelimit-*` headers such as Docker Hub's.

    Attributes:
        remaining: pulls left.
        limit: pulls per window, or None.
        window_s: length of the window in seconds, or None.
    """

    remaining: int
    limit: int | None
    window_s: int | None


@dataclass(frozen=True, slots=True)
class Fetched:
    """A manifest or index.

    Attributes:
        content: its bytes.
        descriptor: its media type, digest and size.
    """

    content: bytes
    descriptor: Descriptor


class RegistryClient:
    """Reads from a registry through one connection, one request at a time.

    It is an asynchronous context manager. Proxies in the environment are ignored: caches run on
    this machine or in its network, which a proxy may not reach.
    """

    rate_limit: RateLimit | None = None
    """The pull limit in the registry's last answer that had one."""

    endpoint: str
    """The registry's URL, without credentials."""

    def __init__(
        self, endpoint: Endpoint | str, retry: Retry | None = None, *, past_front: bool = False
    ) -> None:
        """Prepare to read from a registry.

        Args:
            endpoint: the registry; its URL suffices for an open one.
            retry: how to retry; by default, a few times within two minutes.
            past_front: whether a front must ask the registry for everything, pinned tags included.

        Raises:
            EndpointError: the URL or CA is invalid, or a password would be sent without TLS.
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
            # Digests are those of the uncompressed transfer.
            headers={"Accept-Encoding": "identity", **(ASK_THE_REGISTRY if past_front else {})},
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
            RegistryError: it does not exist, is too large or has another digest.
        """
        return await retrying(self._retry, lambda: self._manifest(repository, target))

    async def has_blob(self, repository: str, blob: Descriptor) -> bool:
        """Whether a repository has a blob, which is not read.

        Do not use it on a cache: distribution fetches and stores a blob even for HEAD requests.

        Raises:
            RegistryError: the blob has another size, or the registry does not answer.
        """
        try:
            await retrying(self._retry, lambda: self._has_blob(repository, blob))
        except AnswerError as error:
            if error.is_missing:
                return False
            raise
        return True

    async def mount(self, repository: str, blob: Descriptor, source: str) -> None:
        """Mount a blob from another repository of the registry.

        Args:
            repository: the repository that gets the blob.
            blob: the blob.
            source: the repository that has it.

        Raises:
            RegistryError: the registry is read-only, or the source does not have the blob.
        """
        await retrying(self._retry, lambda: self._mount(repository, blob, source))

    async def read_blob(self, repository: str, blob: Descriptor, on_chunk: OnChunk) -> None:
        """Read a whole blob and check its size and digest; broken transfers are resumed.

        Raises:
            RegistryError: the blob cannot be read, or is damaged.
        """
        transfer = _Transfer(blob, on_chunk)
        await retrying(self._retry, lambda: self._try_to_read(repository, transfer, {}))

    async def pull_blob(
        self, repository: str, blob: Descriptor, on_chunk: OnChunk, *, past_front: bool = False
    ) -> bool:
        """Make a cache fetch a blob; if the cache has it already, only one byte is read.

        The request asks for the first byte. Distribution answers with it for a stored blob, and
        otherwise with the whole blob while it fetches it (registry/proxy/proxyblobstore.go ignores
        Range).

        Args:
            repository: the repository.
            blob: the blob.
            on_chunk: receives the content, unless the cache has it already.
            past_front: whether a front must ask the registry, even if it still has the blob itself.

        Returns:
            Whether the cache has stored the blob. If not, or if a front answers from memory,
            another call tells; a blob that was fetched has arrived undamaged.

        Raises:
            RegistryError: the blob cannot be fetched, or is damaged.
        """
        transfer = _Transfer(blob, on_chunk)
        headers = ASK_THE_REGISTRY if past_front else {}
        return await retrying(
            self._retry, lambda: self._try_to_read(repository, transfer, headers, probe=True)
        )

    async def _check_followed(self, request: httpx2.Request) -> None:
        await check_followed(self._base, request.url)

    async def _manifest(self, repository: str, target: str) -> Fetched:
        url = self._url(repository, "manifests", target)
        try:
            async with asyncio.timeout(MANIFEST_TIMEOUT_S):
                return await self._read_manifest(url, target)
        except TimeoutError:
            raise UnreachableError(f"{url} timed out after {MANIFEST_TIMEOUT_S} s") from None

    async def _read_manifest(self, url: httpx2.URL, target: str) -> Fetched:
        content = bytearray()
        headers = {"Accept": manifests.ACCEPT, **ASK_THE_REGISTRY}
        async with self._answer("GET", url, headers) as answer:
            async for chunk in answer.aiter_raw():
                content += chunk
                if len(content) > manifests.SIZE_LIMIT:
                    raise ContentError(
                        f"{url} is larger than {manifests.SIZE_LIMIT} bytes, the limit of manifests"
                    )
        digest = manifests.digest_of(content)
        announced = target if is_digest(target) else answer.headers.get("Docker-Content-Digest")
        if announced and announced != digest:
            raise ContentError(f"{url} has the digest {digest} instead of {announced}")
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
        self,
        repository: str,
        transfer: "_Transfer",
        headers: Mapping[str, str],
        *,
        probe: bool = False,
    ) -> bool:
        try:
            return await self._read(repository, transfer, dict(headers), probe=probe)
        except UnreachableError as error:
            message = transfer.drop_uncertain()
            raise UnreachableError(f"{error}: {message}" if message else str(error)) from error

    async def _read(
        self,
        repository: str,
        transfer: "_Transfer",
        headers: dict[str, str],
        *,
        probe: bool = False,
    ) -> bool:
        """Read the rest of a blob; with `probe`, returns whether the cache has it stored."""
        url = self._url(repository, "blobs", transfer.blob.digest)
        probe = probe and transfer.offset == 0 and transfer.blob.size > 0
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
                # Over an object store, a front remembers stored blobs too, for half a minute. By
                # then, they may have been removed.
                return answer.headers.get("X-Cache") != "HIT"
            # A server without range support starts from the beginning.
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
        """Send a request; raises `RegistryError` for connection errors and error answers."""
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
    """The part of a blob received so far, over as many connections as it takes.

    If its upstream fails during a transfer, a cache appends its error message to the content
    (distribution 3.1.2, registry/handlers/app.go). So the last bytes received are accepted only
    when more follow or the blob is complete; otherwise they are requested again.
    """

    def __init__(self, blob: Descriptor, on_chunk: OnChunk) -> None:
        self.blob = blob
        self.offset = 0
        self._uncertain = bytearray()
        self._hash = hashlib.sha256()
        self._on_chunk = on_chunk

    def drop_uncertain(self) -> str:
        """Drop the end of an aborted transfer; returns the error message in it, or nothing."""
        at = self._uncertain.rfind(b'{"errors":')
        message = _message(bytes(self._uncertain[at:])) if at >= 0 else ""
        self._uncertain.clear()
        return message

    def add(self, url: httpx2.URL, chunk: bytes) -> None:
        self._uncertain += chunk
        if self.offset + len(self._uncertain) > self.blob.size:
            raise ContentError(f"{url} is larger than {self.blob.size} bytes")
        self._accept(len(self._uncertain) - UNCERTAIN_TAIL)

    def finish(self, url: httpx2.URL) -> None:
        received = self.offset + len(self._uncertain)
        if received < self.blob.size:
            raise UnreachableError(f"{url} ended after {received} of {self.blob.size} bytes")
        self._accept(len(self._uncertain))
        digest = _digest(self._hash)
        if digest != self.blob.digest:
            raise ContentError(f"{url} is damaged: its digest is {digest}")

    def _accept(self, length: int) -> None:
        if length <= 0:
            return
        chunk = bytes(self._uncertain[:length])
        del self._uncertain[:length]
        self.offset += length
        self._hash.update(chunk)
        self._on_chunk(chunk)


@functools.cache
def _trust(ca: str | None) -> ssl.SSLContext:
    """The TLS settings for a CA, or for the system's CAs; cached, since reading them is slow."""
    if ca is None:
        return httpx2.create_ssl_context(trust_env=False)
    try:
        return ssl.create_default_context(cadata=ca)
    except (ssl.SSLError, ValueError) as error:
        raise EndpointError(f"the CA is not a certificate; allowed: PEM ({error})") from error


def _base_url(endpoint: Endpoint) -> httpx2.URL:
    allowed = "allowed: http://HOST:PORT or https://HOST"
    try:
        url = httpx2.URL(endpoint.url)
    except httpx2.InvalidURL:
        # Not shown, since it may contain a password.
        raise EndpointError(f"the endpoint is not a URL; {allowed}") from None
    shown = str(url.copy_with(userinfo=b""))
    if url.scheme not in {"http", "https"} or not url.host or url.query or url.fragment:
        raise EndpointError(f"{shown!r} is not an endpoint; {allowed}")
    if url.userinfo:
        raise EndpointError(f"{shown!r} contains a user name or password; {allowed}")
    if endpoint.username and url.scheme != "https":
        raise EndpointError(f"{shown!r} would receive a password without TLS; allowed: https://")
    return url


def _check_length(url: httpx2.URL, answer: httpx2.Response, size: int) -> None:
    length = answer.headers.get("Content-Length")
    if length is not None and length != str(size):
        raise ContentError(f"{url} has {length} bytes instead of {size}")


def _check_range(url: httpx2.URL, answer: httpx2.Response, transfer: _Transfer) -> None:
    """Check that a partial answer starts where it was asked to, in a blob of the right size."""
    found = answer.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (\d{1,19})-\d+/(\d+|\*)", found)
    sizes = {str(transfer.blob.size), "*"}
    if not match or int(match[1]) != transfer.offset or match[2] not in sizes:
        raise ContentError(
            f"{url} answered with the range {found!r} instead of bytes from "
            f"{transfer.offset} of {transfer.blob.size}"
        )


async def _read_one_byte(url: httpx2.URL, answer: httpx2.Response) -> None:
    """Read an answer of one byte to its end, so that the connection can be reused."""
    received = 0
    async for chunk in answer.aiter_raw():
        received += len(chunk)
        if received > 1:
            raise ContentError(f"{url} answered with more than the requested byte")


async def _refusal(
    method: str, url: httpx2.URL, answer: httpx2.Response
) -> AnswerError | ContentError:
    """The error for an error answer, with the registry's message."""
    body = bytearray()
    async for chunk in answer.aiter_raw():
        body += chunk
        if len(body) > ERROR_LIMIT:
            break
    message = _message(bytes(body)) or answer.reason_phrase
    if any(media_type in message for media_type in manifests.SCHEMA_1):
        # A cache cannot store one, and answers as if it had failed (distribution 3.1.2).
        return ContentError(f"{url}: {manifests.SCHEMA_1_REFUSED}")
    wait_s = retry_after_s(answer.headers.get("Retry-After"), datetime.now(UTC))
    retry = "" if wait_s is None else f" (retry after {wait_s:.0f} s)"
    return AnswerError(
        f"{method} {url}: {answer.status_code} {message}{retry}", answer.status_code, wait_s
    )


def _message(body: bytes) -> str:
    """The message of an error answer in one line: its `errors`, or its text."""
    text = body.decode(errors="replace")
    try:
        message = "; ".join(map(_one_error, json.loads(text)["errors"]))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        message = text
    line = " ".join(message.split())
    return line if len(line) <= MESSAGE_LIMIT else f"{line[:MESSAGE_LIMIT]}..."


def _one_error(error: dict[str, Any]) -> str:
    """Code, message and detail of an error; a cache's detail says why its upstream failed."""
    message = f"{error['code']}: {error.get('message', '')}"
    detail = error.get("detail")
    if not isinstance(detail, str):
        return message
    # The query of a URL may contain a signature that grants access.
    return f"{message} ({re.sub(r'[?][^ ]*', '?[hidden]', detail)})"


def _reason(error: httpx2.RequestError) -> str:
    """The reason of a connection error; timeouts have no message."""
    kind = type(error).__name__
    return f"{kind}: {error}" if str(error) else kind


def rate_limit(headers: httpx2.Headers) -> RateLimit | None:
    """Parse `ratelimit-limit: 100;w=21600` and `ratelimit-remaining: 76`."""
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
