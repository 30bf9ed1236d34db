"""Images are found in the caches and in manifests, and a stack file takes what was found."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from docker import DockerClient

from talos_registry_cache.cli.errors import ExitCode
from talos_registry_cache.registry import manifests
from tests.integration.support import belongings, host, http_pull, images
from tests.integration.support.cachectl import Cachectl
from tests.integration.support.polling import eventually
from tests.integration.support.stack import CacheStack, stack, upstreams
from tests.integration.support.upstream import Pushed, Upstream

HUB, QUAY = REGISTRIES = ("docker.io", "quay.io")
OWN, OTHER = (f"linux/{name}" for name in (host.architecture(), host.other_architecture()))
TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class Caches:
    """A stack that is up, and cachectl for it."""

    stack: CacheStack
    cachectl: Cachectl
    engine: DockerClient

    def listed(self, registry: str = HUB) -> dict[str, Any]:
        """What `cachectl list` says about each image of a cache."""
        done = self.cachectl("list", registry, "--json")
        assert done.code == ExitCode.OK, done.err
        return {one["image"]: one for one in done.result[registry]}

    def get(self, image: Pushed, target: str) -> None:
        """Fetch a manifest, and nothing else, through the cache."""
        url = f"{self.stack.endpoint(HUB)}/v2/{image.repository}/manifests/{target}"
        accepted = {"Accept": manifests.ACCEPT}
        requests.get(url, headers=accepted, timeout=TIMEOUT_S).raise_for_status()


@pytest.fixture(scope="module")
def caches(
    tmp_path_factory: pytest.TempPathFactory, engine: DockerClient, upstream: Upstream
) -> Iterator[Caches]:
    folder = tmp_path_factory.mktemp("finding")
    with stack(folder, engine, {"upstreams": upstreams(upstream.url, *REGISTRIES)}) as made:
        made.up()
        yield Caches(made, Cachectl(made.name, made.folder), engine)


@pytest.mark.modern_engine
def test_the_list_has_the_complete_platforms_and_the_size_of_each_image(
    caches: Caches, upstream: Upstream
) -> None:
    index, docker, partly = (
        upstream.push_index(),
        upstream.push_docker_image(),
        upstream.push_index(),
    )
    names = [f"{HUB}/{image.name}" for image in (index, docker, partly)]
    assert caches.cachectl("warm", *names[:2]).code == ExitCode.OK
    caches.get(partly, partly.tag)

    one, two, three = (caches.listed()[name] for name in names)

    assert (one["digest"], one["platforms"]) == (index.digest, [OWN])
    assert (two["digest"], two["platforms"]) == (docker.digest, [OWN])
    assert (three["digest"], three["platforms"]) == (partly.digest, [])
    assert sum(images.LAYER_SIZES) < one["size"] < 1.1 * sum(images.LAYER_SIZES)
    assert three["size"] < images.LAYER_SIZES[0]

    assert caches.cachectl("warm", "--platform", OTHER, names[0]).code == ExitCode.OK
    both = caches.listed()[names[0]]

    assert set(both["platforms"]) == {OWN, OTHER}
    assert both["size"] > 1.9 * one["size"]
    table = caches.cachectl("list", HUB).out
    [row] = [line for line in table.splitlines() if names[0] in line]
    assert index.digest[:19] in row
    assert ", ".join(both["platforms"]) in row


def test_the_last_request_is_the_last_pull(caches: Caches, upstream: Upstream) -> None:
    image = upstream.push_index()
    name = f"{HUB}/{image.name}"
    assert caches.cachectl("warm", name).code == ExitCode.OK
    before = caches.listed()[name]["lastRequest"]
    assert abs(time.time() - before) < 600
    eventually(lambda: time.time() >= before + 2, within_s=5, what="another second")

    # Nothing is written to the storage by this: the tag is fresh.
    http_pull.pull(caches.stack.endpoint(HUB), image)

    eventually(
        lambda: caches.listed()[name]["lastRequest"] > before, within_s=30, what="it is in the log"
    )


def test_attachments_belong_to_their_image(caches: Caches, upstream: Upstream) -> None:
    image = upstream.push_index()
    referrers = upstream.refer_to(image)
    assert caches.cachectl("warm", f"{HUB}/{image.name}").code == ExitCode.OK
    caches.get(referrers, referrers.tag)

    listed = caches.listed()

    assert listed[f"{HUB}/{image.name}"]["attachments"] == {"referrer": 1}
    assert f"{HUB}/{referrers.name}" not in listed
    assert referrers.tag not in caches.cachectl("list", "--format", "references").out


def test_the_list_is_read_while_a_cache_is_stopped(caches: Caches, upstream: Upstream) -> None:
    name = f"{QUAY}/{upstream.push_index().name}"
    assert caches.cachectl("warm", name).code == ExitCode.OK
    registry = belongings.registries(caches.engine, caches.stack.name)[QUAY]
    registry.stop(timeout=1)
    try:
        assert name in caches.listed(QUAY)
    finally:
        registry.start()


def test_what_is_listed_and_what_manifests_name_becomes_the_image_set(
    caches: Caches, upstream: Upstream
) -> None:
    warmed, named, composed = (upstream.push_index() for _ in range(3))
    assert caches.cachectl("warm", f"{QUAY}/{warmed.name}").code == ExitCode.OK
    folder = caches.stack.folder
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "spec": {"template": {"spec": {"containers": [{"image": f"{QUAY}/{named.name}"}]}}},
    }
    (folder / "deployment.yaml").write_text(yaml.safe_dump(deployment))
    compose = {"services": {"web": {"image": f"{composed.repository}:${{TAG:-1}}"}}}
    (folder / "compose.yaml").write_text(yaml.safe_dump(compose))

    listed = caches.cachectl("list", QUAY, "--format", "references")
    found = caches.cachectl("images", "deployment.yaml", "compose.yaml")
    (folder / "images.txt").write_text(listed.out)
    # The project of these tests is elsewhere than the program.
    paths = [str(folder / name) for name in ("deployment.yaml", "compose.yaml")]
    settings = {"file": str(folder / "images.txt"), "manifests": paths}
    caches.stack.configure(settings, "images")
    caches.stack.up()

    assert listed.out.splitlines() == sorted(listed.out.splitlines())
    assert f"{QUAY}/{warmed.name}" in listed.out.splitlines()
    assert found.out == f"{HUB}/{composed.name}\n{QUAY}/{named.name}\n"
    in_set = caches.stack.outputs()["images"]
    assert sorted(in_set) == sorted([*listed.out.splitlines(), *found.out.splitlines()])
    assert in_set[f"{QUAY}/{named.name}"] == named.digest
    with upstream.away():
        assert http_pull.pull(caches.stack.endpoint(QUAY), named).digest == named.digest
        assert http_pull.pull(caches.stack.endpoint(HUB), composed).digest == composed.digest


def test_a_wrong_manifest_is_named_and_no_image_is_printed(caches: Caches, tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(json.dumps({"image": "nginx"}) + "\n---\na: [\n")

    done = caches.cachectl("images", file)

    assert (done.code, done.out) == (ExitCode.USAGE, "")
    assert done.err.startswith(f"cachectl: {file}, line 4: not YAML: ")
    assert done.err.count("\n") == 1
