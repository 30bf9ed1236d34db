"""Requests to upstreams that ask for a login."""

import asyncio
from datetime import UTC, datetime

import httpx2
import pytest

from components.certificate_authority import issue_authority, issue_server
from talos_registry_cache.registry import upstream
from talos_registry_cache.registry.upstream import Remote
from tests.unit.registry.support.images import Blob
from tests.unit.registry.support.tiny_registry import TinyRegistry, serving

USER, PASSWORD = READER = "robot", "s3cret: #1"
NOW = datetime.now(UTC)
AUTHORITY = issue_authority("tests", NOW)
SERVER = issue_server(AUTHORITY, ["127.0.0.1"], NOW)


@pytest.fixture
def closed() -> TinyRegistry:
    """A registry for one reader, with a manifest."""
    registry = TinyRegistry()
    registry.reader = READER
    registry.manifests["team/app", "1"] = Blob(b"{}")
    return registry


def content(remote: Remote) -> bytes:
    async def run() -> bytes:
        async with upstream.opened(remote) as client:
            url = remote.api("team/app/manifests/1")
            return (await client.request("GET", "team/app", url)).content

    return asyncio.run(run())


def test_the_password_is_sent_when_the_upstream_asks_for_it(closed: TinyRegistry) -> None:
    with serving(closed, SERVER):
        found = content(Remote(closed.url, AUTHORITY.certificate, {}, USER, PASSWORD))

    assert found == b"{}"
    assert len(closed.requests) == 2


def test_the_password_is_not_sent_without_tls(closed: TinyRegistry) -> None:
    with serving(closed), pytest.raises(httpx2.HTTPStatusError, match="401"):
        content(Remote(closed.url, None, {}, USER, PASSWORD))


def test_a_wrong_password_is_refused(closed: TinyRegistry) -> None:
    with serving(closed, SERVER), pytest.raises(httpx2.HTTPStatusError, match="401"):
        content(Remote(closed.url, AUTHORITY.certificate, {}, USER, "wrong"))


def test_the_password_is_not_shown() -> None:
    assert PASSWORD not in repr(Remote("https://a.test", None, {}, USER, PASSWORD))
