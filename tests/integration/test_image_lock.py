"""Images that are locked: their tags keep their digests, on every machine that has the lock."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from docker import DockerClient
from pulumi.automation import CommandError

from talos_registry_cache.cli.errors import ExitCode
from tests.integration.support import docker_cli
from tests.integration.support.cachectl import Cachectl, Ended
from tests.integration.support.gate import Gate, guarding
from tests.integration.support.stack import CacheStack, stack, upstreams
from tests.integration.support.upstream import Pushed, Upstream

HUB, QUAY = REGISTRIES = ("docker.io", "quay.io")
UNKNOWN = "sha256:" + "0" * 64


@dataclass(frozen=True, slots=True)
class Machine:
    """A stack with an image set, in a folder of its own.

    Attributes:
        gate: the gate before its upstream, which counts requests.
    """

    stack: CacheStack
    cachectl: Cachectl
    gate: Gate
    lock: Path

    def configure(self, *pushed: Pushed, locked: bool = True) -> list[str]:
        """Set the images, and return their references."""
        references = [f"{HUB}/{image.name}" for image in pushed]
        lock = {"lock": str(self.lock)} if locked else {}
        self.stack.configure({"references": references, **lock}, "images")
        return references

    def locks(self, *arguments: str) -> Ended:
        """Run cachectl lock in the folder of the stack file."""
        return self.cachectl("lock", "--json", *arguments)

    def pull(self, image: Pushed) -> str:
        """Pull an image by its tag with docker, and return its digest."""
        return docker_cli.pull(self.stack.endpoint(HUB), image)

    def asked_for(self, image: Pushed) -> list[str]:
        """The requests for tags of an image that its upstream has seen."""
        path = f"/v2/{image.repository}/manifests/"
        return [one for one in self.gate.served if path in one and "sha256:" not in one]


def machine(folder: Path, engine: DockerClient, upstream: Upstream) -> "Iterator[Machine]":
    with guarding(upstream, "none") as gate:
        settings = {
            "upstreams": upstreams(gate.url, *REGISTRIES),
            "front": {"tagFreshness": "0s"},
        }
        with stack(folder, engine, settings) as made:
            cachectl = Cachectl(made.name, made.folder)
            yield Machine(made, cachectl, gate, made.folder / "images.lock")


@pytest.fixture(scope="module")
def first(
    tmp_path_factory: pytest.TempPathFactory, engine: DockerClient, upstream: Upstream
) -> Iterator[Machine]:
    yield from machine(tmp_path_factory.mktemp("first"), engine, upstream)


@pytest.fixture(scope="module")
def second(
    tmp_path_factory: pytest.TempPathFactory, engine: DockerClient, upstream: Upstream
) -> Iterator[Machine]:
    yield from machine(tmp_path_factory.mktemp("second"), engine, upstream)


@pytest.mark.modern_engine
def test_a_second_machine_gets_what_the_first_one_had_although_the_tag_has_moved(
    first: Machine, second: Machine, upstream: Upstream
) -> None:
    image = upstream.push_index()
    signed = upstream.refer_to(image)
    [reference] = first.configure(image, locked=False)
    first.stack.up()
    assert first.locks().code == ExitCode.OK
    moved = upstream.move(image)
    upstream.refer_to(image)

    second.lock.write_text(first.lock.read_text())
    second.configure(image)
    second.stack.up()

    assert second.stack.outputs()["images"] == {reference: image.digest}
    assert second.pull(image) == image.digest != moved.digest
    assert _digest(second, image.repository, signed.tag) == signed.digest
    assert second.asked_for(image) == []
    with upstream.away():
        assert second.pull(image) == image.digest
        second.stack.refresh()
        assert set(second.stack.up()) == {"same"}
        proved = second.cachectl("verify", image.name, "--json")
    assert proved.result[0]["digest"] == image.digest
    assert proved.result[0]["proved"]


def test_a_moved_tag_is_reported_and_a_new_lock_moves_it_here(
    first: Machine, upstream: Upstream
) -> None:
    image, still = upstream.push_index(), upstream.push_index()
    reference, _ = first.configure(image, still)
    assert first.locks().code == ExitCode.OK
    first.stack.up()
    assert first.locks("--check").code == ExitCode.OK
    moved = upstream.move(image)

    found = first.locks("--check")

    assert found.code == ExitCode.NOT_ALL_THERE
    assert found.result["moved"] == {reference: {"from": image.digest, "to": moved.digest}}
    assert not found.result["added"]
    # Looking it up has changed nothing here.
    assert first.pull(image) == image.digest
    assert first.cachectl("verify", image.name).code == ExitCode.OK

    assert first.locks().code == ExitCode.OK
    before = first.stack.ids()
    first.stack.up()

    assert first.pull(image) == moved.digest
    assert first.pull(still) == still.digest
    # Only the front of this registry is replaced, with its files.
    front = f"{first.stack.prefix}-{HUB}"
    assert first.stack.replaced(before) == {front, f"{front}-front-files"}
    assert set(first.stack.up()) == {"same"}


def test_a_lock_alone_lists_the_images_and_keeps_them_without_the_upstream(
    first: Machine, second: Machine, upstream: Upstream
) -> None:
    image = upstream.push_index()
    [reference] = first.configure(image)
    assert first.locks().code == ExitCode.OK

    second.lock.write_text(first.lock.read_text())
    second.stack.configure({"lock": str(second.lock)}, "images")
    second.stack.up()

    assert set(second.stack.outputs()["images"]) == {reference}
    # Without a list and platforms in the stack file, they are those of the lock.
    assert second.locks("--platform", "all").code == ExitCode.OK
    assert second.locks().result == {"added": {}, "moved": {}, "removed": {}, "size": 0}
    assert json.loads(second.lock.read_text())["platforms"] == ["all"]
    locked = second.lock.read_text()
    with upstream.away():
        unreachable = second.locks()
    assert unreachable.code == ExitCode.NOT_ALL_THERE
    assert "nothing was written" in unreachable.err
    assert second.lock.read_text() == locked


def test_wrong_locks_are_refused_and_nothing_changes(first: Machine, upstream: Upstream) -> None:
    image, other = upstream.push_index(), upstream.push_index()
    first.configure(image)
    assert first.locks().code == ExitCode.OK
    first.stack.up()
    right, before = first.lock.read_text(), first.stack.ids()
    newer = json.dumps({**json.loads(right), "version": 2})
    edited = right.replace(image.digest, UNKNOWN)

    for text, said in (
        (edited, "it was edited, or merged by hand: run `cachectl lock` again"),
        (newer, "found version 2; allowed: 1, which `cachectl lock` writes"),
        ("<<<<<<< HEAD\n", "it is not JSON"),
    ):
        first.lock.write_text(text)
        with pytest.raises(CommandError, match=r"images\.lock") as refused:
            first.stack.up()
        assert said in str(refused.value)
        assert said in first.locks("--check").err
    first.lock.write_text(right)
    first.configure(image, other)
    with pytest.raises(CommandError) as refused:
        first.stack.up()
    assert f"which lacks {HUB}/{other.name}; allowed: what `cachectl lock` writes" in str(
        refused.value
    )
    assert first.stack.ids() == before


def _digest(machine: Machine, repository: str, tag: str) -> str:
    url = f"{machine.stack.endpoint(HUB)}/v2/{repository}/manifests/{tag}"
    answer = requests.get(
        url, headers={"Accept": "application/vnd.oci.image.index.v1+json"}, timeout=60
    )
    return str(answer.headers["Docker-Content-Digest"])
