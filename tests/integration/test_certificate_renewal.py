"""Clients keep pulling while the certificate is renewed and the CA is replaced by the next one."""

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx2
import pytest
from docker import DockerClient

from talos_registry_cache.endpoint import Endpoint
from talos_registry_cache.registry import served_certificate
from tests.integration.support import http_pull
from tests.integration.support.ageing import age_authority, age_certificate
from tests.integration.support.cachectl import Cachectl
from tests.integration.support.containerd import Containerd
from tests.integration.support.processes import CommandFailedError
from tests.integration.support.pulling import Pulls, pulling
from tests.integration.support.stack import CacheStack, stack, upstreams
from tests.integration.support.upstream import Pushed, Upstream

REGISTRY = "docker.io"
NO_CERTIFICATE = "TLSV1_ALERT_INTERNAL_ERROR"


@pytest.fixture(scope="module")
def image(upstream: Upstream) -> Pushed:
    return upstream.push_index()


@pytest.fixture(scope="module")
def up(
    tmp_path_factory: pytest.TempPathFactory, engine: DockerClient, upstream: Upstream
) -> Iterator[CacheStack]:
    settings = {"upstreams": upstreams(upstream.url, REGISTRY), "tls": {"kind": "own"}}
    with stack(tmp_path_factory.mktemp("renewal"), engine, settings) as made:
        made.up()
        yield made


def _days_left(up: CacheStack) -> int:
    expiry = served_certificate.expires(up.endpoint(REGISTRY))
    assert expiry is not None
    return round((expiry - datetime.now(UTC)) / timedelta(days=1))


def _up_during_pulls(up: CacheStack, image: Pushed, ca: str) -> Pulls:
    """Run `up` while a client that trusts a CA pulls through new connections."""

    def pull() -> None:
        context = ssl.create_default_context(cadata=ca)
        with httpx2.Client(verify=context, trust_env=False, timeout=60) as http:
            http_pull.pull(endpoint, image, http)

    endpoint = up.endpoint(REGISTRY)
    with pulling(pull) as pulls:
        up.up()
    return pulls


def test_a_renewed_certificate_replaces_no_front_and_interrupts_no_pull(
    up: CacheStack, image: Pushed
) -> None:
    ca, before = up.outputs()["ca"], up.ids()

    age_certificate(up, days_left=31)
    aged = _up_during_pulls(up, image, ca)
    assert _days_left(up) == 31

    age_certificate(up, days_left=29)
    assert up.preview()["update"] == 1
    renewed = _up_during_pulls(up, image, ca)

    assert _days_left(up) == 365
    # The engine writes the file in place, so a handshake at that moment finds no certificate.
    failures = [*aged.failures, *renewed.failures]
    assert len(failures) <= 1
    assert all(NO_CERTIFICATE in one for one in failures)
    assert aged.done * renewed.done > 0
    # Only the container that writes the file.
    assert up.replaced(before) == {f"{up.prefix}-fronts"}
    assert up.outputs()["ca"] == ca
    assert set(up.up()) == {"same"}


def test_clients_trust_the_next_ca_before_it_signs(
    up: CacheStack, image: Pushed, containerd: Containerd
) -> None:
    outputs = up.outputs()
    url, old = outputs["mirrors"][REGISTRY], outputs["ca"]

    def pulls(ca: str) -> bool:
        return containerd.pull(REGISTRY, image, {REGISTRY: Endpoint(url, ca)}) == image.digest

    age_authority(up, days_left=700)
    up.up()
    both = up.outputs()["ca"]
    assert both.count("BEGIN CERTIFICATE") == 2
    assert pulls(old)
    assert pulls(both)
    said = Cachectl(up.name, up.folder)("status")
    assert "the stack has a new CA" in said.err
    assert said.code == 0
    assert set(up.up()) == {"same"}

    age_authority(up, days_left=29)
    age_certificate(up, days_left=29)
    up.up()

    assert _days_left(up) == 365
    assert pulls(up.outputs()["ca"])
    assert pulls(both)
    with pytest.raises(CommandFailedError):
        pulls(old)
    assert set(up.up()) == {"same"}
