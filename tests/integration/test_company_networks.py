"""Upstreams in a company's network: private CAs, names that only hosts know, and a proxy."""

import io
import secrets
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from docker import DockerClient

from tests.integration.support import (
    connect_proxy,
    docker_cli,
    host,
    http_pull,
    network,
    private_engine,
)
from tests.integration.support.cachectl import Cachectl
from tests.integration.support.connect_proxy import ConnectProxy
from tests.integration.support.containerd import Containerd
from tests.integration.support.gate import Gate, guarding
from tests.integration.support.stack import CacheStack, stack
from tests.integration.support.upstream import FRONT_IMAGE, IMAGE, Pushed, Upstream

HUB = "docker.io"
# The names of no DNS server.
INSIDE, OUTSIDE = "registry.inside.test", "registry.outside.test"
BUNDLE = "/etc/ssl/certs/ca-certificates.crt"


@dataclass(frozen=True, slots=True)
class Company:
    """A company's network.

    Attributes:
        inside: a registry with a private CA, which is reached directly.
        outside: a registry with the CA of the proxy, which only the proxy reaches.
        public: a registry whose CA is one of those in the image of the caches.
        proxy: the proxy.
        stack: a stack that is up. The cache `distrusting` has the same upstream as `inside`, but
            not its CA.
    """

    inside: Gate
    outside: Gate
    public: Gate
    proxy: ConnectProxy
    stack: CacheStack


@pytest.fixture(scope="module")
def company(
    tmp_path_factory: pytest.TempPathFactory, engine: DockerClient, upstream: Upstream
) -> Iterator[Company]:
    folder = tmp_path_factory.mktemp("company")
    with ExitStack() as running:
        inside, outside, public = (
            running.enter_context(guarding(upstream, "none", names=[name]))
            for name in (INSIDE, OUTSIDE, "public.test")
        )
        proxy = running.enter_context(
            connect_proxy.running(
                upstream.address, {f"{OUTSIDE}:443": (upstream.address, outside.port)}
            )
        )
        image = running.enter_context(trusting(engine, str(public.ca)))
        (folder / "inside.pem").write_text(f"# A private CA\n{inside.ca}")
        ca = str(folder / "inside.pem")
        at_inside = f"https://{INSIDE}:{inside.port}"
        made = running.enter_context(
            stack(
                folder,
                engine,
                {
                    "upstreams": {
                        "inside.example": _upstream(at_inside, ca=ca),
                        "distrusting.example": _upstream(at_inside),
                        "outside.example": _upstream(f"https://{OUTSIDE}"),
                        "public.example": _upstream(public.url, ca=ca, image=image),
                    },
                    "extraHosts": {INSIDE: upstream.address},
                    "proxy": {
                        "https": proxy.url,
                        "noProxy": ["inside.test", upstream.address],
                        "ca": outside.ca,
                    },
                },
            )
        )
        made.up()
        yield Company(inside, outside, public, proxy, made)


def _upstream(remote_url: str, **settings: str) -> dict[str, object]:
    return {"port": host.free_port(), "remoteUrl": remote_url, **settings}


@contextmanager
def trusting(engine: DockerClient, ca: str) -> Iterator[str]:
    """An image of registries that has one more CA among the public ones."""
    reference = f"it-trusting-{secrets.token_hex(4)}:1"
    container = engine.containers.create(IMAGE)
    try:
        pieces, _ = container.get_archive(BUNDLE)
        with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as packed:
            bundle = packed.extractfile(packed.getmembers()[0])
            assert bundle
            content = bundle.read() + ca.encode()
        changed = io.BytesIO()
        with tarfile.open(fileobj=changed, mode="w") as packed:
            member = tarfile.TarInfo(Path(BUNDLE).name)
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))
        assert container.put_archive(str(Path(BUNDLE).parent), changed.getvalue())
        container.commit(*reference.split(":"))
    finally:
        container.remove(v=True)
    try:
        yield reference
    finally:
        engine.images.remove(reference, force=True)


def test_only_the_cache_with_the_ca_of_an_upstream_trusts_it(
    company: Company, upstream: Upstream
) -> None:
    image = upstream.push_index()

    pulled = http_pull.pull(company.stack.endpoint("inside.example"), image)

    assert pulled.digest == image.digest
    assert len(company.inside.blobs_served()) >= len(pulled.blobs)
    with pytest.raises(httpx2.HTTPStatusError):
        http_pull.pull(company.stack.endpoint("distrusting.example"), image)


def test_the_public_cas_stay_trusted_beside_the_ca_of_an_upstream(
    company: Company, upstream: Upstream
) -> None:
    image = upstream.push_index()

    assert http_pull.pull(company.stack.endpoint("public.example"), image).digest == image.digest
    assert company.public.blobs_served()


def test_an_upstream_that_only_the_proxy_reaches_is_pulled_through_it(
    company: Company, upstream: Upstream
) -> None:
    image = upstream.push_index()

    assert http_pull.pull(company.stack.endpoint("outside.example"), image).digest == image.digest
    assert company.outside.blobs_served()
    assert set(company.proxy.asked) == {f"{OUTSIDE}:443"}, "the others are reached directly"


def test_part_of_a_registry_is_a_mirror_with_a_path(
    company: Company, upstream: Upstream, containerd: Containerd, tmp_path: Path
) -> None:
    image = upstream.push_index()
    project, _, name = image.repository.partition("/")
    hosts = tmp_path / "docker.io" / "hosts.toml"
    hosts.parent.mkdir()
    mirror = f"{company.stack.endpoint('inside.example')}/v2/{project}"
    hosts.write_text(
        f'server = "http://127.0.0.1:1"\n[host."{mirror}"]\noverride_path = true\n'
        'capabilities = ["pull", "resolve"]\n'
    )

    below = Pushed(name, image.tag, image.digest)
    assert containerd.pull_by("docker.io", below, tmp_path) == image.digest


def test_status_reaches_upstreams_as_their_caches_do(company: Company, tmp_path: Path) -> None:
    found = Cachectl(company.stack.name, tmp_path)("status", "--json").result

    assert found["outside.example"]["reachable"]
    # This machine does not trust its CA.
    assert not found["public.example"]["reachable"]


def test_an_engine_without_a_route_fetches_images_through_the_proxy(
    upstream: Upstream, tmp_path: Path
) -> None:
    if reason := private_engine.why_impossible() or network.why_impossible():
        pytest.skip(reason)
    image, undeclared = upstream.push_index(), upstream.push_index()
    name = f"it-{secrets.token_hex(4)}"
    with (
        guarding(upstream, "none", names=[OUTSIDE]) as outside,
        network.switch(f"{name}s") as switch,
        network.namespace(name) as namespace,
        connect_proxy.running(
            switch.address, {f"{OUTSIDE}:443": (upstream.address, outside.port)}
        ) as proxy,
    ):
        # The only way out of its machine.
        switch.join(namespace)
        (tmp_path / "engine").mkdir()
        with (
            private_engine.running_in(namespace, tmp_path / "engine") as engine,
            engine.client() as client,
        ):
            settings = {
                "upstreams": {HUB: _upstream(f"https://{OUTSIDE}")},
                "proxy": {"https": proxy.url, "ca": outside.ca},
            }
            with stack(
                tmp_path, client, settings, engine_host=engine.host, enter=engine.enter
            ) as made:
                made.configure({"references": [f"{HUB}/{image.name}"]}, "images")

                made.up()

                assert made.outputs()["images"] == {f"{HUB}/{image.name}": image.digest}
                url = made.endpoint(HUB)
                pulled = docker_cli.pull(url, undeclared, engine_host=engine.host)
                assert pulled == undeclared.digest
                assert set(proxy.asked) == {f"{OUTSIDE}:443"}
                assert _direct(client, upstream) != 0
                cachectl = Cachectl(made.name, tmp_path, engine.enter, engine_host=engine.host)
                assert cachectl("status", "--json").result[HUB]["reachable"]


def _direct(client: DockerClient, upstream: Upstream) -> int:
    """The exit code of a container that requests an upstream without a proxy."""
    command = ["wget", "-q", "-T", "5", "-O", "-", f"{upstream.url}/v2/"]
    container = client.containers.run(FRONT_IMAGE, command, entrypoint="", detach=True)
    try:
        return int(container.wait(timeout=60)["StatusCode"])
    finally:
        container.remove(force=True)


def test_nothing_changes_after_a_refresh(company: Company) -> None:
    company.stack.refresh()

    assert set(company.stack.preview()) == {"same"}
