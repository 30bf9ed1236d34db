"""Uploads that an object store keeps in parts, since nobody has completed them.

They are no objects, so nothing lists them that lists objects, and distribution never looks for
those that it has left: they stay, and cost, until they are aborted. Asked by the REST API of S3
(ListMultipartUploads, ListParts, AbortMultipartUpload), signed by AWS Signature Version 4
(docs.aws.amazon.com, "Authenticating Requests: Using the Authorization Header").
"""

import hashlib
import hmac
import ssl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree as ET

import httpx2

from talos_registry_cache.registry.layout import Upload
from talos_registry_cache.registry.object_store import StoreError
from talos_registry_cache.registry.s3_location import Keys, Place

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

ALGORITHM = "AWS4-HMAC-SHA256"
ANY = "{*}"
EMPTY = hashlib.sha256(b"").hexdigest()
WITHIN_S = 30
# A page has 1,000 entries at most, each of a few hundred bytes; keys may have 1 kB.
ANSWER_LIMIT = 8 << 20
PAGES_LIMIT = 1000
PIECE = 64 << 10
SIGNED = "host;x-amz-content-sha256;x-amz-date"

Query = Mapping[str, str]


def unfinished(place: Place, keys: Keys) -> tuple[Upload, ...]:
    """The uploads to a place that were not completed.

    Raises:
        StoreError: the store does not tell.
    """
    with _asking(place, keys) as api:
        # MinIO takes a prefix for the whole name of an object, so that all are asked for.
        pages = api.pages("", {"uploads": ""}, ("key-marker", "upload-id-marker"))
        found = [one for page in pages for one in page.iterfind(f"{ANY}Upload")]
        begin = f"{place.folder}/"
        return tuple(
            Upload(
                path=_text(one, "Key").removeprefix(begin),
                size=api.size(_text(one, "Key"), _text(one, "UploadId")),
                modified=int(datetime.fromisoformat(_text(one, "Initiated")).timestamp()),
                multipart=_text(one, "UploadId"),
            )
            for one in found
            if _text(one, "Key").startswith(begin)
        )


def abort(place: Place, keys: Keys, uploads: Iterable[Upload]) -> None:
    """Remove what was uploaded of them; safe to repeat.

    Raises:
        StoreError: the store does not do it.
    """
    with _asking(place, keys) as api:
        for one in uploads:
            api.ask("DELETE", f"{place.folder}/{one.path}", {"uploadId": one.multipart})


def signed_headers(
    method: str, url: str, query: Query, *, keys: Keys, region: str, now: datetime
) -> Mapping[str, str]:
    """The headers that sign a request without a body.

    Args:
        method: its method.
        url: its URL, encoded and without a query.
        query: its query.
        keys: whose request it is.
        region: the region of the bucket.
        now: the time, in UTC.
    """
    parts = urlsplit(url)
    stamp = now.strftime("%Y%m%dT%H%M%SZ")
    scope = f"{stamp[:8]}/{region}/s3/aws4_request"
    request = "\n".join(
        (
            method,
            parts.path or "/",
            encoded(query),
            f"host:{parts.netloc}",
            f"x-amz-content-sha256:{EMPTY}",
            f"x-amz-date:{stamp}",
            "",
            SIGNED,
            EMPTY,
        )
    )
    key = f"AWS4{keys.secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    text = f"{ALGORITHM}\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    return {
        "x-amz-content-sha256": EMPTY,
        "x-amz-date": stamp,
        "Authorization": (
            f"{ALGORITHM} Credential={keys.access}/{scope}, "
            f"SignedHeaders={SIGNED}, Signature={signature}"
        ),
    }


def encoded(query: Query) -> str:
    """A query as it is signed and sent."""
    return "&".join(
        f"{quote(name, safe='')}={quote(query[name], safe='')}" for name in sorted(query)
    )


@dataclass(frozen=True, slots=True)
class _Api:
    """The API of a store, asked with somebody's keys."""

    client: httpx2.Client
    place: Place
    keys: Keys

    def size(self, key: str, upload: str) -> int:
        """What there is of an upload, in bytes."""
        pages = self.pages(key, {"uploadId": upload}, ("part-number-marker",))
        parts = (part for page in pages for part in page.iterfind(f"{ANY}Part"))
        return sum(int(_text(part, "Size")) for part in parts)

    def pages(self, key: str, query: Query, markers: Iterable[str]) -> Iterator["Element"]:
        """All pages of a list; each says with which markers the next one is asked for."""
        asked = dict(query)
        for _ in range(PAGES_LIMIT):
            answer = self.ask("GET", key, asked)
            if answer is None:
                return
            yield answer
            if _text(answer, "IsTruncated") != "true":
                return
            asked |= {marker: _text(answer, f"Next{_in_xml(marker)}") for marker in markers}
        raise StoreError(f"{self.place.url} lists uploads on more than {PAGES_LIMIT} pages")

    def ask(self, method: str, key: str, query: Query) -> "Element | None":
        """What the store answers; None where that is nothing, or there is no such upload."""
        place = self.place
        url = f"{place.url}/{quote(key)}"
        headers = signed_headers(
            method, url, query, keys=self.keys, region=place.region, now=datetime.now(UTC)
        )
        try:
            with self.client.stream(method, f"{url}?{encoded(query)}", headers=headers) as answer:
                content = _content(answer)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise StoreError(f"{place.url} does not answer: {error}") from error
        if answer.status_code == httpx2.codes.NOT_FOUND and key:
            return None
        if not answer.is_success:
            said = _said(content) or answer.reason_phrase
            raise StoreError(f"{place.url} answers {answer.status_code} {said}")
        return _parsed(content) if content else None


def _in_xml(marker: str) -> str:
    return "".join(part.capitalize() for part in marker.split("-"))


def _parsed(content: bytes) -> "Element":
    try:
        # From the store that the caches trust with all that they have.
        return ET.fromstring(content)  # noqa: S314
    except ET.ParseError as error:
        raise StoreError(f"a store does not answer as S3 does: {error}") from error


def _content(answer: httpx2.Response) -> bytes:
    content = bytearray()
    for piece in answer.iter_bytes(PIECE):
        content += piece
        if len(content) > ANSWER_LIMIT:
            raise StoreError(f"{answer.url.host} answers with more than {ANSWER_LIMIT} bytes")
    return bytes(content)


def _said(content: bytes) -> str:
    with suppress(StoreError):
        error = _parsed(content)
        return f"{_text(error, 'Code')}: {_text(error, 'Message')}"
    return ""


def _text(element: "Element", name: str) -> str:
    return element.findtext(f"{ANY}{name}") or ""


@contextmanager
def _asking(place: Place, keys: Keys) -> Iterator[_Api]:
    try:
        trust = ssl.create_default_context(cadata=place.ca)
    except (ssl.SSLError, ValueError) as error:
        raise StoreError(f"the CA of {place.url} is no certificate: {error}") from error
    with httpx2.Client(timeout=WITHIN_S, trust_env=False, verify=trust) as client:
        yield _Api(client, place, keys)
