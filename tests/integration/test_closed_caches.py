"""Caches with readers: access requires the CA and a password."""

import json
import ssl
from collections.abc import Iterator
from http import HTTPStatus

import httpx2
import pytest
from docker import DockerClient

from talos_registry_cache.endpoint import Endpoint
from tests.integration.support import belongings, host, http_pull
from tests.integration.support.cachectl import Cachectl
from tests.integration.support.containerd import Containerd
from tests.integration.support.polling import eventually
from tests.integration.support.processes import CommandFailedError
from tests.integration.support.stack import CacheStack, stack, upstreams
from tests.integration.support.upstream import Pushed, Upstream

REGISTRY = "docker.io"
# How long a front remembers a password.
REMEMBERED_S = 15
READER, PASSWORD, CHANGED = "nodes", "Let-me-in 4711", "another one"


@pytest.fixture(scope="module")
def warmed(upstream: Upstream) -> Pushed:
    return upstream.push_index()


@pytest.fixture(scope="module")
def up(
    tmp_path_factory: pytest.TempPathFactory,
    engine: DockerClient,
    upstream: Upstream,
    warmed: Pushed,
) -> Iterator[CacheStack]:
    settings = {
        "upstreams": upstreams(upstream.url, REGISTRY),
        "tls": {"kind": "own"},
    }
    with stack(tmp_path_factory.mktemp("closed"), engine, settings) as made:
        made.configure({"references": [f"{REGISTRY}/{warmed.name}"]}, key="images")
        made.set_secret(f"readers.{READER}", PASSWORD)
        made.up()
        yield made


def _client(up: CacheStack, password: str = PASSWORD) -> httpx2.Client:
    context = ssl.create_default_context(cadata=up.outputs()["ca"])
    return httpx2.Client(verify=context, auth=(READER, password), trust_env=False, timeout=60)


def _status(up: CacheStack, password: str) -> int:
    with _client(up, password) as http:
        return http.get(f"{up.endpoint(REGISTRY)}/v2/").status_code


def test_images_are_warmed_with_a_readers_password(
    up: CacheStack, upstream: Upstream, warmed: Pushed
) -> None:
    before = upstream.sent()

    with _client(up) as http:
        pulled = http_pull.pull(up.endpoint(REGISTRY), warmed, http)

    assert pulled.digest == warmed.digest
    assert upstream.sent() - before < pulled.size / 100


def test_only_a_node_with_the_ca_and_the_password_can_pull(
    up: CacheStack, upstream: Upstream, containerd: Containerd
) -> None:
    image, outputs = upstream.push_index(), up.outputs()
    url, ca = outputs["mirrors"][REGISTRY], outputs["ca"]

    right = Endpoint(url, ca, READER, PASSWORD)
    assert containerd.pull(REGISTRY, image, {REGISTRY: right}) == image.digest
    for mirror in (Endpoint(url, ca, READER, "wrong"), Endpoint(url)):
        with pytest.raises(CommandFailedError):
            containerd.pull(REGISTRY, image, {REGISTRY: mirror})


def test_cachectl_uses_a_readers_password(
    up: CacheStack, upstream: Upstream, warmed: Pushed
) -> None:
    image = upstream.push_index()
    cachectl = Cachectl(up.name, up.folder)
    cachectl.env["CACHECTL_PASSWORD"] = PASSWORD

    status = cachectl("status", "--json").result[REGISTRY]
    warming = cachectl("warm", f"{REGISTRY}/{image.name}", "--username", READER)
    verified = cachectl("verify", f"{REGISTRY}/{image.name}", f"{REGISTRY}/{warmed.name}")
    scrubbed = cachectl("scrub")

    assert status["health"] == "healthy"
    assert (warming.code, verified.code, scrubbed.code) == (0, 0, 0), warming.err
    assert cachectl("warm", f"{REGISTRY}/{image.name}").code != 0


def test_an_added_name_is_in_a_new_certificate_of_the_same_ca(up: CacheStack) -> None:
    assert set(up.up()) == {"same"}
    assert set(up.refresh()) == {"same"}
    ca, before = up.outputs()["ca"], up.ids()
    up.configure({**up.settings(), "tls": {"kind": "own", "names": ["localhost"]}})

    up.up()

    assert up.outputs()["ca"] == ca
    assert f"{up.prefix}-{REGISTRY}" not in up.replaced(before)
    with _client(up) as http:
        url = up.endpoint(REGISTRY).replace(host.LOOPBACK, "localhost")
        assert http.get(f"{url}/v2/").status_code == 200
    assert set(up.up()) == {"same"}


def test_a_changed_password_takes_effect_and_is_not_shown(
    up: CacheStack, engine: DockerClient
) -> None:
    up.set_secret(f"readers.{READER}", CHANGED)

    up.up()

    assert _status(up, CHANGED) == HTTPStatus.OK
    eventually(
        lambda: _status(up, PASSWORD) == HTTPStatus.UNAUTHORIZED,
        within_s=REMEMBERED_S,
        what="the old password is refused",
    )
    shown = [one.attrs for one in belongings.containers(engine, up.name)]
    assert shown
    for text in (json.dumps(shown), up.export(), up.pulumi("stack", "output")):
        for secret in (PASSWORD, CHANGED, "PRIVATE KEY"):
            assert secret not in text
