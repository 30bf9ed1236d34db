import os
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from benchmarks.support import reading
from benchmarks.support.reading import CLIENTS, Client
from benchmarks.support.session import CannotRunError
from components.certificate_authority import issue_authority, issue_server
from tests.unit.registry.support.images import Blob, Built
from tests.unit.registry.support.tiny_registry import TinyRegistry, serving

NOW = datetime.now(UTC)
AUTHORITY = issue_authority("Readers", NOW)
SERVER = issue_server(AUTHORITY, ["127.0.0.1"], NOW)
BLOBS = [Blob(os.urandom(size)) for size in (10, 3_000_000)]
PATHS = [f"/v2/team/app/blobs/{blob.digest}" for blob in BLOBS]


@pytest.fixture
def registry() -> Iterator[TinyRegistry]:
    """A registry with TLS that lets in one reader."""
    with serving(TinyRegistry(), SERVER) as running:
        running.reader = ("reader", "secret")
        running.hold("team/app", "1", Built([Blob(b"{}")], BLOBS))
        yield running


def _client(registry: TinyRegistry, password: str = "secret") -> Client:  # noqa: S107 - made up
    credentials = b64encode(f"reader:{password}".encode()).decode()
    return Client(registry.url, PATHS, AUTHORITY.certificate, f"Basic {credentials}")


def test_clients_read_all_blobs_again_and_again_for_as_long_as_they_are_told(
    registry: TinyRegistry,
) -> None:
    rate = reading.read([_client(registry)] * 2, 0.5, {"registry": [os.getpid()]})

    asked = [len(registry.asked(blob.digest)) for blob in BLOBS]
    assert min(asked) >= 2
    assert rate.bytes_per_s * 0.5 > 2 * 3_000_000
    assert set(rate.busy.by) == {"registry", CLIENTS}


def test_a_client_that_is_not_let_in_ends_the_measurement(registry: TinyRegistry) -> None:
    with pytest.raises(CannotRunError, match="a client ended with 1"):
        reading.read([_client(registry), _client(registry, "wrong")], 0.5, {})
