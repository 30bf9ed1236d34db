"""Images in the local registry: pushed to localhost, pulled by nodes under the same name."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import httpx2
import pytest
from docker import DockerClient
from docker.errors import ContainerError

from talos_registry_cache.cli.errors import ExitCode
from tests.integration.support import belongings, docker_cli, host
from tests.integration.support.cachectl import Cachectl
from tests.integration.support.containerd import Containerd
from tests.integration.support.images import OCI
from tests.integration.support.processes import CommandFailedError
from tests.integration.support.stack import CacheStack, stack, upstreams
from tests.integration.support.upstream import IMAGE, Pushed, Upstream

UPSTREAM = "docker.io"
PORTS = ("5004/tcp", "5000/tcp")


@dataclass(frozen=True, slots=True)
class Site:
    """A stack with a local registry.

    Attributes:
        stack: the stack.
        host: the registry host in the names of its images.
        endpoint: URL at which this machine pushes.
        mirror: URL at which nodes pull.
        pusher: pushes images with plain requests.
    """

    stack: CacheStack
    host: str
    endpoint: str
    mirror: str
    pusher: Upstream

    @property
    def cachectl(self) -> Cachectl:
        """The command line for the stack."""
        return Cachectl(self.stack.name, self.stack.folder)

    @property
    def cache(self) -> str:
        """Host and port of the ordinary cache."""
        return self.stack.endpoint(UPSTREAM).removeprefix("http://")

    def tag(self, image: Pushed) -> httpx2.Response:
        """Ask for a tag as nodes do."""
        return self.manifest(image, image.tag)

    def manifest(self, image: Pushed, target: str) -> httpx2.Response:
        """Ask for a tag or digest of an image's repository as nodes do."""
        url = f"{self.mirror}/v2/{image.repository}/manifests/{target}"
        accept = ", ".join(f"{OCI}.{kind}.v1+json" for kind in ("index", "manifest"))
        with httpx2.Client(trust_env=False, timeout=60, headers={"Accept": accept}) as http:
            return http.get(url)


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, engine: DockerClient, upstream: Upstream
) -> Iterator[Site]:
    port = host.free_port()
    settings = {"upstreams": upstreams(upstream.url, UPSTREAM), "local": {"port": port}}
    with stack(tmp_path_factory.mktemp("local"), engine, settings) as made:
        made.up()
        registry = f"localhost:{port}"
        described, mirrors = made.outputs()["caches"], made.outputs()["mirrors"]
        container = engine.containers.get(f"{made.prefix}-local")
        yield Site(
            made,
            registry,
            described[registry]["endpoint"],
            mirrors[registry],
            Upstream(container, "127.0.0.1", port),
        )


def test_docker_pushes_to_localhost_and_a_node_pulls_the_same_name(
    site: Site, upstream: Upstream, containerd: Containerd
) -> None:
    image = upstream.push_docker_image()

    pushed = docker_cli.push(f"{site.cache}/{image.name}", f"{site.host}/team/app:dev")

    found = Pushed("team/app", "dev", pushed)
    assert containerd.pull(site.host, found, site.stack.outputs()["mirrors"]) == pushed
    assert docker_cli.pull(f"http://{site.host}", found) == pushed


def test_pushes_are_bound_to_loopback_and_reads_to_the_address_of_nodes(
    site: Site, engine: DockerClient
) -> None:
    bound = engine.containers.get(f"{site.stack.prefix}-local").ports
    pushes, reads = ({one["HostIp"] for one in bound[port] or ()} for port in PORTS)

    assert pushes == {"127.0.0.1"}
    assert reads == {host.bridge_gateway(engine)}


def test_a_push_from_a_container_is_refused_in_one_sentence(
    site: Site, engine: DockerClient
) -> None:
    url = f"{site.mirror}/v2/team/app/blobs/uploads/"
    command = ["wget", "-S", "-O", "-", "--post-data", "", url]

    with pytest.raises(ContainerError) as refused:
        engine.containers.run(IMAGE, command, entrypoint=[], remove=True)

    assert b"405" in (refused.value.stderr or b"")
    answer = httpx2.post(url, trust_env=False)
    assert answer.status_code == HTTPStatus.METHOD_NOT_ALLOWED
    assert f"pushed to {site.host}" in answer.json()["errors"][0]["message"]


def test_a_web_page_whose_name_leads_to_loopback_cannot_push(site: Site) -> None:
    url = f"{site.endpoint}/v2/team/app/blobs/uploads/"

    answer = httpx2.post(url, headers={"Host": "attacker.test"}, trust_env=False)

    assert answer.status_code == HTTPStatus.METHOD_NOT_ALLOWED


def test_docker_shows_why_a_push_to_a_cache_is_refused(site: Site, upstream: Upstream) -> None:
    image = upstream.push_docker_image()

    with pytest.raises(CommandFailedError, match="read-only cache: push to its upstream"):
        docker_cli.push(f"{site.cache}/{image.name}", f"{site.cache}/team/app:dev")


def test_a_tag_that_is_pushed_again_is_another_image_at_once(site: Site) -> None:
    first = site.pusher.push_index()
    assert site.tag(first).headers["Docker-Content-Digest"] == first.digest

    second = site.pusher.move(first)

    assert site.tag(first).headers["Docker-Content-Digest"] == second.digest != first.digest


def test_images_survive_a_restart_and_a_second_up_changes_nothing(
    site: Site, engine: DockerClient, containerd: Containerd
) -> None:
    image = site.pusher.push_index()
    for name in (f"{site.stack.prefix}-local-registry", f"{site.stack.prefix}-local"):
        engine.containers.get(name).restart()

    assert site.stack.preview().keys() == {"same"}
    site.stack.up()
    mirrors = site.stack.outputs()["mirrors"]
    assert containerd.pull(site.host, image, mirrors) == image.digest


def test_remove_deletes_a_tag_and_frees_what_no_other_image_needs(site: Site) -> None:
    image, other = site.pusher.push_index(), site.pusher.push_index()
    name, missing = f"{site.host}/{image.name}", f"{site.host}/team/missing:1"
    before = stored(site)

    refused = site.cachectl("remove", name, missing, "--yes")
    assert refused.code == ExitCode.NOT_ALL_THERE
    assert refused.err.strip() == f"{missing} is not stored; nothing was removed"
    assert site.cachectl("remove", name).code == ExitCode.OK
    assert stored(site) == before

    removed = site.cachectl("remove", name, "--yes", "--json").result[site.host]

    assert [one["digest"] for one in removed["images"]] == [image.digest]
    assert before - stored(site) >= removed["freed"] > 1_000_000
    assert site.tag(image).status_code == HTTPStatus.NOT_FOUND
    assert site.tag(other).status_code == HTTPStatus.OK
    verified = site.cachectl("verify", f"{site.host}/{other.name}")
    assert verified.code == ExitCode.OK, verified.err


def test_remove_untagged_frees_what_a_tag_pushed_again_left_and_nothing_else(site: Site) -> None:
    old, other = site.pusher.push_index(), site.pusher.push_index()
    signature_of_old = site.pusher.refer_to(old)
    new = site.pusher.move(old)
    signature = site.pusher.refer_to(new)
    moved = site.pusher.push_index(), site.pusher.move(other)
    everything = (old, other, new, signature, signature_of_old, *moved)
    assert {site.manifest(one, one.digest).status_code for one in everything} == {HTTPStatus.OK}
    before = stored(site)
    repository, missing = f"{site.host}/{old.repository}", f"{site.host}/team/missing"

    shown = site.cachectl("remove", "--untagged", repository, "--json").result[site.host]
    refused = site.cachectl("remove", "--untagged", repository, missing, "--yes")

    assert [one["digest"] for one in shown["images"]] == [old.digest]
    assert refused.code == ExitCode.NOT_ALL_THERE
    assert refused.err.strip() == f"{missing} is not stored; nothing was removed"
    assert stored(site) == before
    removed = site.cachectl("remove", "--untagged", repository, "--yes", "--json").result[site.host]
    assert removed["images"] == shown["images"]
    assert before - stored(site) >= removed["freed"] == shown["freed"] > 1_000_000
    every = site.cachectl("remove", "--untagged", "--yes", "--json").result[site.host]
    assert other.digest in {one["digest"] for one in every["images"]}
    for image in (new, signature, *moved):
        assert site.tag(image).headers["Docker-Content-Digest"] == image.digest
    for image in (old, other, signature_of_old):
        assert site.manifest(image, image.digest).status_code == HTTPStatus.NOT_FOUND
    tags = [f"{site.host}/{image.name}" for image in (new, *moved)]
    verified = site.cachectl("verify", "--platform", "all", *tags)
    assert verified.code == ExitCode.OK, verified.err
    nothing = site.cachectl("remove", "--untagged")
    assert nothing.err.strip() == "would remove 0 images, 0 B; run it with --yes"


def test_remove_untagged_keeps_what_refers_to_a_tagged_image(site: Site) -> None:
    old = site.pusher.push_index()
    new = site.pusher.move(old)
    sbom, of_old = (site.pusher.push_referrer(image) for image in (new, old))

    assert {site.tag(one).status_code for one in (sbom, of_old)} == {HTTPStatus.OK}
    removed = site.cachectl("remove", "--untagged", "--yes", "--json").result[site.host]

    assert {of_old.digest, old.digest} <= {one["digest"] for one in removed["images"]}
    assert site.tag(sbom).status_code == HTTPStatus.OK
    assert site.tag(of_old).status_code == HTTPStatus.NOT_FOUND


def test_remove_untagged_is_for_the_local_registry(site: Site) -> None:
    image = site.cachectl("remove", "--untagged", f"{site.host}/team/app:dev")
    other = site.cachectl("remove", "--untagged", "docker.io/team/app")
    nothing = site.cachectl("remove")

    assert {image.code, other.code, nothing.code} == {ExitCode.USAGE}
    assert f"allowed: a repository, such as {site.host}/team/app" in image.err
    assert f"docker.io/team/app is not in the local registry, {site.host}" in other.err
    assert "give IMAGE or --untagged" in nothing.err


def stored(site: Site) -> int:
    """The bytes on the disk."""
    found = site.cachectl("status", "--json").result[site.host]["stored"]["size"]
    assert isinstance(found, int)
    return found


def test_every_list_of_caches_has_it_and_prune_leaves_it_alone(site: Site, tmp_path: Path) -> None:
    image = site.pusher.push_index()
    (tmp_path / "none.txt").write_text("")

    status = site.cachectl("status", "--json").result[site.host]
    assert (status["health"], status["upstream"]) == ("healthy", None)
    assert status["mirrorReachable"] is True
    pruned = site.cachectl("prune", "--keep", tmp_path / "none.txt", "--json").result
    assert site.host not in pruned
    named = site.cachectl(
        "prune", "--keep", tmp_path / "none.txt", "--upstream", site.host, "--json"
    )
    assert image.name in json.dumps(named.result[site.host])
    mirrors = site.cachectl("mirrors", "--format", "containerd").out
    assert f"{site.host.replace(':', '_')}_/hosts.toml" in mirrors


def test_destroy_keeps_the_images_and_another_port_finds_them(
    site: Site, engine: DockerClient
) -> None:
    image = site.pusher.push_index()

    site.stack.destroy()

    assert f"{site.stack.prefix}-local" in belongings.of_stack(engine, site.stack.name).volumes
    port = host.free_port()
    site.stack.configure({**site.stack.settings(), "local": {"port": port}})
    site.stack.up()
    mirror = site.stack.outputs()["mirrors"][f"localhost:{port}"]
    answer = httpx2.get(f"{mirror}/v2/{image.repository}/manifests/{image.tag}", trust_env=False)
    assert answer.headers["Docker-Content-Digest"] == image.digest


def test_with_readers_a_push_needs_one_of_them(
    tmp_path: Path, engine: DockerClient, upstream: Upstream
) -> None:
    port, reader = host.free_port(), ("nodes", "a-password")
    settings = {
        "upstreams": upstreams(upstream.url, UPSTREAM),
        "local": {"port": port},
        "publishOn": [host.bridge_gateway(engine)],
        "tls": {"kind": "own"},
    }
    url = f"http://127.0.0.1:{port}/v2/team/app/blobs/uploads/"
    with stack(tmp_path, engine, settings) as made:
        made.set_secret(f"readers.{reader[0]}", reader[1])
        made.up()

        anonymous = httpx2.post(url, trust_env=False)
        known = httpx2.post(url, auth=reader, trust_env=False)

    assert anonymous.status_code == HTTPStatus.UNAUTHORIZED
    assert known.status_code == HTTPStatus.ACCEPTED
