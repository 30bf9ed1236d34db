"""A client that tells when and how completely it is answered."""

import hashlib
import threading
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

from benchmarks.support.image_set import Content
from talos_registry_cache.registry.manifests import ACCEPT

PATIENCE_S = 60
CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Got:
    """An answer.

    Attributes:
        status: its status; 0 if there is none.
        first_s, seconds: time to the first byte and until the end.
        size: bytes received.
        is_whole: whether the connection did not break off.
        digest: of what was received.
    """

    status: int
    first_s: float
    seconds: float
    size: int
    is_whole: bool
    digest: str

    def has(self, blob: Content) -> bool:
        """Whether this is all of a blob or manifest."""
        return self.is_whole and self.digest == blob.digest


def connect(url: str, silence_s: float) -> HTTPConnection:
    """A connection that fails after this many seconds of silence."""
    address = urlsplit(url)
    return HTTPConnection(str(address.hostname), address.port, timeout=silence_s)


def get(
    url: str,
    path: str,
    method: str = "GET",
    *,
    headers: Mapping[str, str] | None = None,
    leave: threading.Event | None = None,
    silence_s: float = PATIENCE_S,
    is_hashed: bool = True,
    pace: float = 0,
) -> Got:
    """Ask on a new connection; leave in the middle when told to."""
    with closing(connect(url, silence_s)) as connection:
        return ask(connection, path, method, headers, leave, is_hashed=is_hashed, pace=pace)


def ask(
    connection: HTTPConnection,
    path: str,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    leave: threading.Event | None = None,
    *,
    is_hashed: bool = True,
    pace: float = 0,
) -> Got:
    """Ask and receive, at most `pace` bytes per second if it is not 0."""
    began = time.monotonic()
    status, first, size, is_whole = 0, 0.0, 0, False
    seen = hashlib.sha256()
    buffer = memoryview(bytearray(CHUNK))
    try:
        connection.request(method, path, headers={"Accept": ACCEPT, **(headers or {})})
        answer = connection.getresponse()
        status, length = answer.status, answer.length
        while not (leave and leave.is_set()) and (count := answer.readinto1(buffer)):
            first = first or time.monotonic() - began
            size += count
            if is_hashed:
                seen.update(buffer[:count])
            if pace:
                time.sleep(max(0, began + size / pace - time.monotonic()))
        is_whole = method == "HEAD" or length in (None, size)
        answer.close()
    except (OSError, HTTPException):
        is_whole = False
    seconds = time.monotonic() - began
    return Got(status, first or seconds, seconds, size, is_whole, f"sha256:{seen.hexdigest()}")
