"""Caches of one engine that are closed to strangers, by certificate and password."""

import json
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from docker import DockerClient

from talos_registry_cache.endpoint import Endpoint
from talos_registry_cache.talos.machine_config import hosts_toml
from tests.integration.support import belongings, host, http_pull
from tests.integration.support.cachectl import Cachectl
from tests.integration.support.containerd import Containerd
from tests.integration.support.processes import CommandFailedError
from tests.integration.support.stack import CacheStack, stack, upstreams
from tests.integration.support.upstream import Pushed, Upstream

REGISTRY = "docker.io"
READER, PASSWORD = "nodes", "Let-me-in 4711"


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
    settings = {"upstreams": upstreams(upstream.url, REGISTRY), "tls": {"kind": "own"}}
    with stack(tmp_path_factory.mktemp("closed"), engine, settings) as made:
        made.configure({"references": [f"{REGISTRY}/{warmed.name}"]}, key="images")
        made.set_secret(f"readers.{READER}", PASSWORD)
        made.up()
        yield made


def _endpoint(up: CacheStack) -> str:
    return str(up.outputs()["caches"][REGISTRY]["endpoint"])


def _client(up: CacheStack, password: str = PASSWORD) -> httpx2.Client:
    context = ssl.create_default_context(cadata=up.outputs()["ca"])
    return httpx2.Client(verify=context, auth=(READER, password), trust_env=False, timeout=60)


def test_another_up_changes_nothing(up: CacheStack) -> None:
    assert set(up.up()) == {"same"}
    assert set(up.refresh()) == {"same"}


def test_images_are_warmed_as_a_reader(up: CacheStack, upstream: Upstream, warmed: Pushed) -> None:
    before = upstream.sent()

    with _client(up) as http:
        pulled = http_pull.pull(_endpoint(up), warmed, http)

    assert pulled.digest == warmed.digest
    assert upstream.sent() - before < pulled.size / 100


def test_a_node_is_let_in_and_a_stranger_is_not(
    tmp_path: Path, up: CacheStack, upstream: Upstream, containerd: Containerd
) -> None:
    image = upstream.push_index()
    outputs = up.outputs()
    closed = Endpoint(outputs["mirrors"][REGISTRY], outputs["ca"], READER, PASSWORD)
    wrong = Endpoint(outputs["mirrors"][REGISTRY], outputs["ca"], READER, "wrong")
    unknown = Endpoint(outputs["mirrors"][REGISTRY])

    assert containerd.pull_by(REGISTRY, image, _hosts(tmp_path / "in", closed)) == image.digest
    for name, mirror in (("wrong", wrong), ("unknown", unknown)):
        with pytest.raises(CommandFailedError):
            containerd.pull_by(REGISTRY, image, _hosts(tmp_path / name, mirror))


def test_cachectl_works_on_them(
    tmp_path: Path, up: CacheStack, upstream: Upstream, warmed: Pushed
) -> None:
    image = upstream.push_index()
    cachectl = Cachectl(up.name, tmp_path)
    cachectl.env["CACHECTL_PASSWORD"] = PASSWORD

    status = cachectl("status", "--json").result[REGISTRY]
    warming = cachectl("warm", f"{REGISTRY}/{image.name}", "--username", READER)
    verified = cachectl("verify", f"{REGISTRY}/{image.name}", f"{REGISTRY}/{warmed.name}")
    scrubbed = cachectl("scrub")

    assert status["health"] == "healthy"
    assert (warming.code, verified.code, scrubbed.code) == (0, 0, 0), warming.err
    assert cachectl("warm", f"{REGISTRY}/{image.name}").code != 0


def test_another_name_makes_another_certificate_that_is_served_at_once(
    up: CacheStack, engine: DockerClient
) -> None:
    ca, before = up.outputs()["ca"], belongings.caches(engine, up.name)[REGISTRY].id
    settings = up.settings()
    settings["tls"] = {"kind": "own", "names": ["localhost"]}
    up.configure(settings)

    up.up()

    assert up.outputs()["ca"] == ca
    assert belongings.caches(engine, up.name)[REGISTRY].id != before
    with _client(up) as http:
        url = _endpoint(up).replace(host.LOOPBACK, "localhost")
        assert http.get(f"{url}/v2/").status_code == 200


def test_a_changed_password_counts_at_once(up: CacheStack, engine: DockerClient) -> None:
    up.set_secret(f"readers.{READER}", "another one")

    up.up()

    with _client(up) as http:
        assert http.get(f"{_endpoint(up)}/v2/").status_code == 401
    with _client(up, "another one") as http:
        assert http.get(f"{_endpoint(up)}/v2/").status_code == 200
    shown = [one.attrs for one in belongings.containers(engine, up.name)]
    assert shown
    for text in (json.dumps(shown), up.export(), up.pulumi("stack", "output")):
        assert "another one" not in text
        assert "PRIVATE KEY" not in text


def _hosts(folder: Path, mirror: Endpoint) -> Path:
    files = hosts_toml({REGISTRY: mirror}, skip_fallback=False, base=str(folder))
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return folder
