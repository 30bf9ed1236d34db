"""The log of a front: one line for each request.

components/front.py sets the format: the Combined Log Format, in which registries log as well, with
`$request_time $result` at the end.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from http import HTTPStatus
from urllib.parse import unquote

LINE = re.compile(
    r'(?P<client>[\w.:]{1,64}) - [^"\[]* \[(?P<time>[^\]]{20,40})\] "(?P<request>[^"]*)" '
    r'(?P<status>\d{3}) (?P<bytes>\d{1,19}) "[^"]*" "(?P<agent>[^"]*)" '
    r"(?P<seconds>\d{1,12}\.\d{1,6}) (?P<result>hit|shared|stale|miss|-)",
    re.ASCII,
)
# Whatever else a client sends as a path is of no image, and is never shown on a terminal.
CONTENT = re.compile(
    r"(?P<method>GET|HEAD) /v2/(?P<repository>[a-z0-9][a-z0-9._/-]*)/(?P<kind>manifest|blob)s/"
    r"(?P<reference>[\w.:+-]+)(?:\?(?P<query>\S*))? HTTP/\S+",
    re.ASCII,
)
# containerd encodes a colon.
NAMESPACE = re.compile(r"(?:^|&)ns=([\w.:-]+(?:%3A\d+)?)(?:&|$)", re.ASCII)
METHOD = re.compile(r"[A-Z]{1,20}(?= )")
# nginx logs quotes, backslashes and bytes outside printable ASCII like this.
ESCAPED = re.compile(rb"\\x([0-9A-F]{2})")
NOTHING = "-"
# Errors that are the right answer: the first one starts a login.
EXPECTED_ERRORS = (HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND)


class Kind(StrEnum):
    """The kind of content that a request is for."""

    MANIFEST = "manifest"
    BLOB = "blob"
    OTHER = "other"


class Result(StrEnum):
    """Where the front's answer came from.

    Attributes:
        HIT: the cache.
        SHARED: another client's fetch, for which the request waited.
        STALE: the cache, with a tag that is past its freshness.
        MISS: the registry, which asked the upstream if it had to.
        OTHER: none of these, such as a request without content.
    """

    HIT = "hit"
    SHARED = "shared"
    STALE = "stale"
    MISS = "miss"
    OTHER = NOTHING


@dataclass(frozen=True, slots=True)
class Pull:
    """A request to a front.

    Attributes:
        time: when it ended, in whole seconds.
        client: the address of the client, as the engine shows it.
        method: the HTTP method; empty for a request that is not HTTP.
        kind: what it is for.
        repository: the repository of a manifest or blob; else empty.
        reference: the tag or digest of a manifest or blob; else empty.
        namespace: the registry host that the client names (`?ns=`), as nodes do; else None.
        status: the HTTP status.
        size: the bytes of the body that were sent.
        seconds: how long it took.
        result: where the answer came from.
        agent: the user agent; empty if the client sent none.
    """

    time: datetime
    client: str
    method: str
    kind: Kind
    repository: str
    reference: str
    namespace: str | None
    status: int
    size: int
    seconds: float
    result: Result
    agent: str

    @property
    def is_for_content(self) -> bool:
        """Whether it is for a manifest or blob, and not answered by the 401 that starts a login."""
        return self.kind is not Kind.OTHER and self.status != HTTPStatus.UNAUTHORIZED

    @property
    def has_failed(self) -> bool:
        """Whether it got an error, other than 401 and 404 (no such image)."""
        return self.status >= HTTPStatus.BAD_REQUEST and self.status not in EXPECTED_ERRORS


@dataclass(frozen=True, slots=True)
class Totals:
    """The manifests and blobs in a log.

    Attributes:
        hits: answered without the registry.
        misses: answered by the registry.
        to_clients: the bytes sent.
        blob_errors: the error statuses of the registry for blobs, since the last one that it sent.
    """

    hits: int
    misses: int
    to_clients: int
    blob_errors: frozenset[int] = frozenset()


def parse(line: str) -> Pull | None:
    """Parse a line of a front's log; None if it is another line, such as an error of nginx."""
    found = LINE.fullmatch(line)
    if found is None:
        return None
    try:
        time = datetime.strptime(found["time"], "%d/%b/%Y:%H:%M:%S %z")
    except ValueError:
        return None
    request = found["request"]
    content = CONTENT.fullmatch(request)
    method = METHOD.match(request)
    namespace = NAMESPACE.search(content["query"] or "") if content else None
    return Pull(
        time=time,
        client=found["client"],
        method=method[0] if method else "",
        kind=Kind(content["kind"]) if content else Kind.OTHER,
        repository=content["repository"] if content else "",
        reference=content["reference"] if content else "",
        namespace=unquote(namespace[1]) if namespace else None,
        status=int(found["status"]),
        size=int(found["bytes"]),
        seconds=float(found["seconds"]),
        result=Result(found["result"]),
        agent=_unescaped(found["agent"]),
    )


def lines(stream: Iterable[bytes]) -> Iterator[str]:
    """The lines of a log that comes in pieces."""
    rest = b""
    for piece in stream:
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            yield line.decode(errors="replace")
    if rest:
        yield rest.decode(errors="replace")


def parse_all(lines: Iterable[str]) -> Iterator[Pull]:
    """The requests in a front's log; other lines are left out."""
    return (pull for line in lines if (pull := parse(line)))


def totals(pulls: Iterable[Pull]) -> Totals:
    """Add up the requests for manifests and blobs; reads them one by one."""
    hits = misses = sent = 0
    blob_errors = frozenset[int]()
    for pull in pulls:
        if pull.kind is Kind.BLOB and pull.result is Result.MISS:
            is_error = pull.status >= HTTPStatus.BAD_REQUEST
            blob_errors = blob_errors | {pull.status} if is_error else frozenset()
        if pull.is_for_content:
            hits += pull.result in {Result.HIT, Result.SHARED, Result.STALE}
            misses += pull.result is Result.MISS
            sent += pull.size
    return Totals(hits, misses, sent, blob_errors)


def _unescaped(text: str) -> str:
    if text == NOTHING:
        return ""
    raw = ESCAPED.sub(lambda found: bytes.fromhex(found[1].decode()), text.encode(errors="replace"))
    return raw.decode(errors="replace")
