"""The log of a front, which has one line for each request (components/front.py)."""

import re
from dataclasses import dataclass
from datetime import datetime

# The Combined Log Format of web servers, with two fields more.
_LINE = re.compile(
    r'(?P<client>\S+) - (?P<user>[^\[]*) \[(?P<time>[^\]]+)\] "(?P<method>[A-Z]+) '
    r'/v2/(?P<repository>[^" ?]+)/(?P<kind>manifests|blobs)/(?P<target>[^"/ ?]+)(?:\?[^" ]*)? '
    r'HTTP/[\d.]+" (?P<status>\d{3}) (?P<size>\d{1,20}) "[^"]*" "(?P<agent>[^"]*)" '
    r"(?P<seconds>\d{1,10}\.\d{3}) (?P<result>hit|shared|stale|miss|-)"
)


@dataclass(frozen=True, slots=True)
class Pull:
    """A request for a manifest or a blob.

    Attributes:
        time: when it was answered.
        client: the address of the client.
        method: GET or HEAD.
        repository: the repository.
        kind: `manifests` or `blobs`.
        target: the tag or the digest.
        status: the HTTP status.
        size: the bytes of the answer, without its header.
        seconds: how long it took.
        result: `hit` (stored, or a fresh tag), `shared` (fetched for another client as well),
            `stale` (an old tag), `miss` (the registry was asked), or `-` (refused by the front).
        agent: the user agent of the client.
    """

    time: datetime
    client: str
    method: str
    repository: str
    kind: str
    target: str
    status: int
    size: int
    seconds: float
    result: str
    agent: str


def parse(line: str) -> Pull | None:
    """Parse a line; None if it is not a request for a manifest or a blob."""
    found = _LINE.fullmatch(line)
    if found is None:
        return None
    try:
        time = datetime.strptime(found["time"], "%d/%b/%Y:%H:%M:%S %z")
    except ValueError:
        return None
    return Pull(
        time=time,
        client=found["client"],
        method=found["method"],
        repository=found["repository"],
        kind=found["kind"],
        target=found["target"],
        status=int(found["status"]),
        size=int(found["size"]),
        seconds=float(found["seconds"]),
        result=found["result"],
        agent=found["agent"],
    )
