"""A stack with one cache, to warm from an upstream with injected faults."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from docker import DockerClient
from docker.models.containers import Container
from pulumi.automation import CommandError

from tests.integration.support import belongings, docker_cli, host, images
from tests.integration.support.gate import Gate, guarding
from tests.integration.support.images import Blob, Image
from tests.integration.support.stack import CacheStack, stack, upstreams
from tests.integration.support.upstream import Pushed, Upstream

REGISTRY = "docker.io"
SMALL = (200_000, 100_000)


@dataclass(frozen=True, slots=True)
class Warming:
    """A stack that is up, with one cache, and the gate of its upstream."""

    stack: CacheStack
    gate: Gate
    registry: Container
    endpoint: str

    def warm(self, *pushed: Pushed, others: Sequence[str] = ()) -> None:
        """Warm the cache with these images, and with others by their references."""
        warm(self.stack, *pushed, others=others)

    def warm_in_vain(self, *pushed: Pushed, others: Sequence[str] = ()) -> str:
        """Expect warming to fail, and return the error."""
        return warm_in_vain(self.stack, *pushed, others=others)

    def assert_cached(self, pushed: Pushed) -> None:
        """Assert that an image can be pulled without fetching a blob."""
        before = self.gate.blobs_served()
        assert docker_cli.pull(self.endpoint, pushed) == pushed.digest
        assert self.gate.blobs_served() == before

    def fetches(self, blob: Blob) -> int:
        """Number of fetches of a blob."""
        return self.gate.blobs_served().count(blob.digest)


@contextmanager
def running(folder: Path, engine: DockerClient, upstream: Upstream) -> Iterator[Warming]:
    """Bring up a stack without images."""
    with (
        guarding(upstream, "none") as gate,
        stack(folder, engine, {"upstreams": upstreams(gate.url, REGISTRY)}) as made,
    ):
        made.up()
        described = made.outputs()["caches"][REGISTRY]
        registry = belongings.registries(engine, made.name)[REGISTRY]
        yield Warming(made, gate, registry, described["endpoint"])


def warm(made: CacheStack, *pushed: Pushed, others: Sequence[str] = ()) -> Mapping[str, int]:
    """Warm the caches of a stack, and return the number of resources by operation."""
    made.configure({"references": [*map(reference, pushed), *others]}, "images")
    return made.up()


def warm_in_vain(made: CacheStack, *pushed: Pushed, others: Sequence[str] = ()) -> str:
    """Expect warming to fail, and return the error."""
    with pytest.raises(CommandError) as failure:
        warm(made, *pushed, others=others)
    assert "Traceback" not in str(failure.value)
    return str(failure.value)


def reference(pushed: Pushed) -> str:
    """The image reference for the settings."""
    return f"{REGISTRY}/{pushed.name}"


def push(upstream: Upstream, sizes: Sequence[int] = SMALL) -> tuple[Pushed, Image]:
    """Push a new image for this machine's platform, with layers of these sizes."""
    index = images.oci_index(host.architecture(), sizes=sizes)
    return upstream.push(index), index.images[host.architecture()]
