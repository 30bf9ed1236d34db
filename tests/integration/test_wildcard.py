"""One mirror for all registries: it finds the cache by the registry that a node names."""

import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path

import httpx2
import pytest
from docker import DockerClient

from components.certificate_authority import issue_authority, issue_server
from talos_registry_cache.endpoint import Endpoint
from tests.integration.support import belongings, host
from tests.integration.support.cachectl import Cachectl
from tests.integration.support.containerd import Containerd
from tests.integration.support.polling import eventually
from tests.integration.support.processes import CommandFailedError
from tests.integration.support.stack import CacheStack, stack, upstreams
from tests.integration.support.upstream import Pushed, Upstream, running

ONE, OTHER, UNDECLARED = "docker.io", "localhost:5005", "undeclared.test"
READER, PASSWORD = "nodes", "Let-me-in 4711"
# An answer without anything that it could wait for, on a busy machine.
AT_ONCE_S = 5
BACK_WITHIN_S = 30


@dataclass(frozen=True, slots=True)
class Site:
    """A stack with a wildcard mirror, and two upstreams with different images.

    Attributes:
        stack: the stack.
        mirror: URL of the wildcard mirror for nodes.
        upstreams: the upstream of each registry host.
    """

    stack: CacheStack
    mirror: str
    upstreams: dict[str, Upstream]

    @property
    def container(self) -> str:
        """The name of the wildcard mirror's container."""
        return f"{self.stack.prefix}-wildcard"

    def get(self, path: str, **query: str) -> httpx2.Response:
        """Send a request to the wildcard mirror."""
        with httpx2.Client(trust_env=False, timeout=60) as http:
            return http.get(f"{self.mirror}{path}", params=query)

    def manifest(self, registry: str, image: Pushed) -> httpx2.Response:
        """Ask for an image of a registry as nodes do."""
        return self.get(f"/v2/{image.repository}/manifests/{image.tag}", ns=registry)


@pytest.fixture(scope="module")
def other(engine: DockerClient) -> Iterator[Upstream]:
    """Another upstream, with images of its own."""
    with running(engine) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory,
    engine: DockerClient,
    upstream: Upstream,
    other: Upstream,
) -> Iterator[Site]:
    settings = {
        "upstreams": {**upstreams(upstream.url, ONE), **upstreams(other.url, OTHER)},
        "wildcard": {"port": host.free_port()},
        "storage": {"kind": "volume", "onDestroy": "delete"},
    }
    with stack(tmp_path_factory.mktemp("wildcard"), engine, settings) as made:
        made.up()
        yield Site(made, made.outputs()["mirrors"]["*"], {ONE: upstream, OTHER: other})
        made.destroy()
        assert belongings.of_stack(engine, made.name) == belongings.NOTHING


@pytest.mark.parametrize("registry", [ONE, OTHER])
def test_containerd_pulls_from_each_registry_through_one_url(
    site: Site, containerd: Containerd, registry: str
) -> None:
    image = site.upstreams[registry].push_index()

    assert containerd.pull(registry, image, {"*": site.mirror}) == image.digest

    verified = Cachectl(site.stack.name, site.stack.folder)("verify", f"{registry}/{image.name}")
    assert verified.code == 0, verified.err


def test_an_undeclared_registry_is_refused_at_once_and_shown_by_status(
    site: Site, upstream: Upstream, containerd: Containerd
) -> None:
    image = upstream.push_index()
    cachectl = Cachectl(site.stack.name, site.stack.folder)
    started = time.monotonic()

    answer = site.manifest(UNDECLARED, image)

    assert time.monotonic() - started < AT_ONCE_S
    assert answer.status_code == HTTPStatus.NOT_FOUND
    assert answer.json()["errors"][0]["code"] == "NAME_UNKNOWN"
    with pytest.raises(CommandFailedError, match=UNDECLARED):
        containerd.pull(UNDECLARED, image, {"*": site.mirror})
    shown = cachectl("status", "--json").result["*"]
    assert shown["undeclared"][UNDECLARED] > 1
    assert shown["undeclared"].keys() == {UNDECLARED}
    assert f"{UNDECLARED}: {shown['undeclared'][UNDECLARED]} requests" in cachectl("status").err


def test_a_request_without_a_registry_is_told_to_name_one(site: Site) -> None:
    answer = site.get("/v2/library/alpine/manifests/latest")

    assert answer.status_code == HTTPStatus.NOT_FOUND
    assert "?ns=docker.io" in answer.json()["errors"][0]["message"]


def test_it_answers_the_version_check_and_can_only_be_read(site: Site) -> None:
    checked = site.get("/v2/")
    with httpx2.Client(trust_env=False, timeout=60) as http:
        refused = http.post(f"{site.mirror}/v2/app/blobs/uploads/", params={"ns": ONE})

    assert checked.status_code == HTTPStatus.OK
    assert checked.headers["Docker-Distribution-Api-Version"] == "registry/2.0"
    assert refused.status_code == HTTPStatus.METHOD_NOT_ALLOWED


def fails_at_once(site: Site, image: Pushed) -> bool:
    started = time.monotonic()
    missing = site.manifest(ONE, image)
    return missing.status_code == HTTPStatus.BAD_GATEWAY and time.monotonic() - started < AT_ONCE_S


def test_a_cache_that_is_missing_fails_at_once_and_one_that_is_replaced_is_found(
    site: Site, engine: DockerClient
) -> None:
    image, another = site.upstreams[ONE].push_index(), site.upstreams[OTHER].push_index()
    before = site.stack.ids()[site.container]
    cache = engine.containers.get(f"{site.stack.prefix}-{ONE}")
    cache.remove(force=True)

    # First, the mirror still knows its address.
    eventually(
        lambda: fails_at_once(site, image),
        within_s=BACK_WITHIN_S,
        what="the wildcard mirror fails at once",
    )
    assert site.manifest(OTHER, another).headers["Docker-Content-Digest"] == another.digest
    status = Cachectl(site.stack.name, site.stack.folder)("status", "--json")
    assert ONE not in status.result["*"]["undeclared"]
    site.stack.refresh()
    site.stack.up()
    eventually(
        lambda: site.manifest(ONE, image).headers.get("Docker-Content-Digest") == image.digest,
        within_s=BACK_WITHIN_S,
        what="the wildcard mirror finds the new container",
    )
    assert site.stack.ids()[site.container] == before


def test_cachectl_prints_it_for_containerd_and_finds_no_more_caches(
    site: Site, containerd: Containerd, tmp_path: Path
) -> None:
    cachectl = Cachectl(site.stack.name, site.stack.folder)
    image = site.upstreams[ONE].push_index()

    printed = cachectl("mirrors", "--format", "containerd", "--output", tmp_path)
    only = cachectl("mirrors", "--format", "containerd", ONE)

    assert printed.code == 0, printed.err
    assert containerd.pull_by(ONE, image, tmp_path / "certs.d") == image.digest
    assert site.mirror in (tmp_path / "certs.d" / "_default" / "hosts.toml").read_text()
    assert site.mirror not in only.out
    shown = cachectl("status", "--json").result
    assert shown.keys() == {ONE, OTHER, "*"}
    assert (shown["*"]["health"], shown["*"]["mirror"]) == ("healthy", site.mirror)


def test_nothing_changes_with_nothing_to_do(site: Site) -> None:
    assert set(site.stack.preview()) == {"same"}
    assert set(site.stack.up()) == {"same"}
    assert set(site.stack.refresh()) == {"same"}
    assert set(site.stack.up()) == {"same"}


@pytest.mark.parametrize("is_own", [True, False], ids=["own", "given"])
def test_with_tls_and_readers_only_nodes_with_the_ca_and_a_password_can_pull(
    tmp_path: Path,
    engine: DockerClient,
    upstream: Upstream,
    containerd: Containerd,
    *,
    is_own: bool,
) -> None:
    now = datetime.now(UTC)
    authority = issue_authority("the tests", now)
    server = issue_server(authority, [host.LOOPBACK, host.bridge_gateway(engine)], now)
    given = {"kind": "given", "certificate": server.certificate, "ca": authority.certificate}
    settings = {
        "upstreams": upstreams(upstream.url, ONE),
        "wildcard": {"port": host.free_port()},
        "tls": {"kind": "own"} if is_own else given,
    }
    image = upstream.push_index()
    with stack(tmp_path, engine, settings) as made:
        made.set_secret(f"readers.{READER}", PASSWORD)
        if not is_own:
            made.set_secret("tlsKey", server.key)
        made.up()
        outputs = made.outputs()
        url, ca = outputs["mirrors"]["*"], outputs["ca"]

        right = Endpoint(url, ca, READER, PASSWORD)
        assert containerd.pull(ONE, image, {"*": right}) == image.digest

        for wrong in (Endpoint(url, ca, READER, "wrong"), Endpoint(url, None, READER, PASSWORD)):
            with pytest.raises(CommandFailedError):
                containerd.pull(ONE, image, {"*": wrong})
        context = ssl.create_default_context(cadata=ca)
        for password, expected in ((PASSWORD, HTTPStatus.OK), ("wrong", HTTPStatus.UNAUTHORIZED)):
            with httpx2.Client(verify=context, auth=(READER, password), trust_env=False) as http:
                assert http.get(f"{url}/v2/").status_code == expected
