"""The signature, by the examples of its specification, and what a store may answer."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from talos_registry_cache.registry import multipart
from talos_registry_cache.registry.object_store import StoreError
from talos_registry_cache.registry.s3_location import Keys, Place

KEYS = Keys("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
NOW = datetime(2013, 5, 24, tzinfo=UTC)
BUCKET = "https://examplebucket.s3.amazonaws.com/"


@pytest.mark.parametrize(
    ("query", "signature"),
    [
        ({"lifecycle": ""}, "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
        (
            {"max-keys": "2", "prefix": "J"},
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ],
    ids=["GET Bucket Lifecycle", "Get Bucket (List Objects)"],
)
def test_requests_are_signed_as_amazon_says(query: dict[str, str], signature: str) -> None:
    headers = multipart.signed_headers("GET", BUCKET, query, keys=KEYS, region="us-east-1", now=NOW)

    assert headers["Authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, "
        f"SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature={signature}"
    )
    assert headers["x-amz-date"] == "20130524T000000Z"


class Store(BaseHTTPRequestHandler):
    """An object store that answers any request with the same, a number of times over."""

    piece: bytes
    times: int

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        with suppress(OSError):
            for _ in range(self.times):
                self.wfile.write(self.piece)


@contextmanager
def store(piece: bytes, times: int = 1) -> Iterator[Place]:
    handler = type("Own", (Store,), {"piece": piece, "times": times})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = False
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield Place("bucket", "folder", endpoint=f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_an_answer_that_never_ends_is_refused() -> None:
    with (
        store(bytes(1 << 20), 1 << 20) as place,
        pytest.raises(StoreError, match="answers with more than 8388608 bytes"),
    ):
        multipart.unfinished(place, KEYS)


def test_a_list_that_never_ends_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multipart, "PAGES_LIMIT", 20)
    with (
        store(b"<List><IsTruncated>true</IsTruncated></List>") as place,
        pytest.raises(StoreError, match="lists uploads on more than 20 pages"),
    ):
        multipart.unfinished(place, KEYS)
