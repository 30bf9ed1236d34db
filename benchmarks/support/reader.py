"""A client that reads blobs for a while, and keeps and checks nothing, to cost as little as it can.

A program of its own, so that several of them use several cores: started by benchmarks.support.
reading, which sends a line of JSON, waits for `ready`, and sends the seconds to read for. The bytes
that have come are the answer, and the end of the input is the end.
"""

import itertools
import json
import ssl
import sys
import time
from http import HTTPStatus
from http.client import HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

SILENCE_S = 60
CHUNK = 1 << 20


def main() -> None:
    """Read as the parent says."""
    job = json.loads(sys.stdin.readline())
    address = urlsplit(job["url"])
    trust = ssl.create_default_context(cadata=job["ca"])
    connection = HTTPSConnection(
        str(address.hostname), address.port, timeout=SILENCE_S, context=trust
    )
    connection.connect()
    print("ready", flush=True)
    print(_read(connection, job, float(sys.stdin.readline())), flush=True)
    # What it has used is counted while it is there.
    sys.stdin.read()


def _read(connection: HTTPSConnection, job: dict[str, Any], seconds: float) -> int:
    until = time.monotonic() + seconds
    buffer = memoryview(bytearray(CHUNK))
    size = 0
    for path in itertools.cycle(job["paths"]):
        connection.request("GET", path, headers={"Authorization": job["authorization"]})
        answer = connection.getresponse()
        if answer.status != HTTPStatus.OK:
            sys.exit(f"{path}: {answer.status} {answer.read(500).decode(errors='replace')}")
        while count := answer.readinto(buffer):
            size += count
            if time.monotonic() > until:
                return size
    raise AssertionError("there is nothing to read")


if __name__ == "__main__":
    main()
