"""The real registry and real clients accept our certificates and htpasswd files."""

import asyncio
import shlex
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from components.certificate_authority import htpasswd, issue_authority, issue_server
from talos_registry_cache.endpoint import Endpoint
from talos_registry_cache.registry.platforms import Platform
from talos_registry_cache.registry.reference import parse
from talos_registry_cache.registry.retry import Retry
from talos_registry_cache.registry.verify import verify
from talos_registry_cache.registry.warm import NotWarmed, Warmed, warm
from talos_registry_cache.talos.machine_config import hosts_toml
from tests.contract.registry import distribution
from tests.contract.registry.distribution import Distribution
from tests.integration.support import containerd
from tests.integration.support.processes import CommandFailedError
from tests.unit.registry.support import images
from tests.unit.registry.support.images import Blob, Built

pytestmark = [
    pytest.mark.skipif(distribution.program() is None, reason="the toolchain built no registry"),
    pytest.mark.timeout(600),
]

NODE = (Platform("linux", "amd64"),)
QUICK = Retry(tries=2, first_pause_s=0.05, patience_s=2)
NOW = datetime.now(UTC)
AUTHORITY = issue_authority("talos-registry-cache tests", NOW)
SERVER = issue_server(AUTHORITY, ["127.0.0.1"], NOW)
READER = ("adam", "p\u00e4ss:w\u00f6rd")
PASSWORDS = htpasswd({READER[0]: READER[1], "eve": "another"})
IMAGE = parse("team/app:1")


@pytest.fixture
def built() -> Built:
    return images.image(Blob(b"a layer" * 1000))


@pytest.fixture
def upstream(tmp_path: Path, built: Built) -> Iterator[Distribution]:
    with distribution.running(tmp_path / "upstream") as running:
        running.push("team/app", "1", built)
        yield running


@pytest.fixture
def closed(tmp_path: Path, upstream: Distribution) -> Iterator[Distribution]:
    """A cache with TLS and an htpasswd file."""
    proxy = distribution.proxy_of(upstream.url)
    with distribution.closed(tmp_path / "closed", SERVER, PASSWORDS, proxy) as running:
        yield running


def warmed(endpoint: Endpoint) -> Warmed | NotWarmed:
    [outcome] = asyncio.run(warm([IMAGE], {"docker.io": endpoint}, NODE, retry=QUICK))
    return outcome


def test_a_reader_warms_and_verifies_through_a_closed_cache(closed: Distribution) -> None:
    endpoint = Endpoint(closed.url, AUTHORITY.certificate, *READER)

    assert isinstance(warmed(endpoint), Warmed)
    [proved] = asyncio.run(verify([IMAGE], {"docker.io": endpoint}, NODE))
    assert proved.errors == ()


@pytest.mark.parametrize(
    ("endpoint", "words"),
    [
        (Endpoint("", AUTHORITY.certificate), "401 UNAUTHORIZED"),
        (Endpoint("", AUTHORITY.certificate, READER[0], "another"), "401 UNAUTHORIZED"),
        (Endpoint("", issue_authority("x", NOW).certificate, *READER), "verify failed"),
    ],
    ids=["no password", "wrong password", "wrong authority"],
)
def test_wrong_credentials_or_ca_are_refused(
    closed: Distribution, endpoint: Endpoint, words: str
) -> None:
    outcome = warmed(Endpoint(closed.url, endpoint.ca, endpoint.username, endpoint.password))

    assert isinstance(outcome, NotWarmed)
    assert words in str(outcome.errors[0])


def test_a_child_cache_pulls_through_a_closed_parent_cache(
    tmp_path: Path, closed: Distribution, built: Built
) -> None:
    """Go reads the CA from SSL_CERT_FILE, and distribution the password from the helper."""
    ca = tmp_path / "ca.pem"
    ca.write_text(AUTHORITY.certificate)
    helper = tmp_path / "helper"
    answer = f'{{"Username": "{READER[0]}", "Secret": "{READER[1]}"}}'
    helper.write_text(f"#!/bin/sh\nprintf %s {shlex.quote(answer)}\n")
    helper.chmod(0o700)
    trust = {"SSL_CERT_FILE": str(ca)}
    with distribution.caching(tmp_path / "second", closed, trust, str(helper)) as second:
        assert isinstance(warmed(Endpoint(second.url)), Warmed)
        assert second.pulled_bytes() == sum(len(blob.content) for blob in built.blobs)
    with distribution.caching(tmp_path / "anonymous", closed) as anonymous:
        assert isinstance(warmed(Endpoint(anonymous.url)), NotWarmed)


@pytest.mark.skipif(shutil.which("containerd") is None, reason="there is no containerd")
def test_containerd_pulls_with_our_hosts_toml(tmp_path: Path, closed: Distribution) -> None:
    mirror = Endpoint(closed.url, AUTHORITY.certificate, *READER)
    anonymous = Endpoint(closed.url, AUTHORITY.certificate)
    with containerd.running(tmp_path) as runtime:
        for name, one in {"reader": mirror, "anonymous": anonymous}.items():
            hosts = tmp_path / name
            for path, content in hosts_toml({"registry.test": one}, skip_fallback=False).items():
                (hosts / path).parent.mkdir(parents=True, exist_ok=True)
                (hosts / path).write_text(content)
        with pytest.raises(CommandFailedError):
            runtime.fetch("registry.test/team/app:1", tmp_path / "anonymous")
        runtime.fetch("registry.test/team/app:1", tmp_path / "reader")
