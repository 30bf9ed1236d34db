"""A stack whose one cache is warmed, from an upstream that fails as a test wants it to."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from docker import DockerClient
from docker.models.containers import Container
from pulumi.automation import CommandError

from tests.integration.support import docker_cli, host, images
from tests.integration.support.front import Front, guarding
from tests.integration.support.images import Blob, Image
from tests.integration.support.stack import CacheStack, stack, upstreams
from tests.integration.support.upstream import Pushed, Upstream

REGISTRY = "docker.io"
SMALL = (200_000, 100_000)


@dataclass(frozen=True, slots=True)
class Warming:
    """A stack that is up, with one cache, and what its upstream looks like to it."""

    stack: CacheStack
    front: Front
    cache: Container
    endpoint: str

    def warm(self, *pushed: Pushed, others: Sequence[str] = ()) -> None:
        """Have these images in the cache, and those by their references."""
        warm(self.stack, *pushed, others=others)

    def warm_in_vain(self, *pushed: Pushed, others: Sequence[str] = ()) -> str:
        """Try to, and return what is said."""
        return warm_in_vain(self.stack, *pushed, others=others)

    def assert_cached(self, pushed: Pushed) -> None:
        """An image can be pulled, and nothing is fetched for that."""
        before = self.front.blobs_served()
        assert docker_cli.pull(self.endpoint, pushed) == pushed.digest
        assert self.front.blobs_served() == before

    def fetches(self, blob: Blob) -> int:
        """How often a blob was fetched."""
        return self.front.blobs_served().count(blob.digest)


@contextmanager
def running(folder: Path, engine: DockerClient, upstream: Upstream) -> Iterator[Warming]:
    """A stack that is up and has no images yet."""
    with (
        guarding(upstream, "none") as front,
        stack(folder, engine, {"upstreams": upstreams(front.url, REGISTRY)}) as made,
    ):
        made.up()
        described = made.outputs()["caches"][REGISTRY]
        cache = engine.containers.get(described["name"])
        yield Warming(made, front, cache, described["endpoint"])


def warm(made: CacheStack, *pushed: Pushed, others: Sequence[str] = ()) -> Mapping[str, int]:
    """Have images in the caches of a stack; how many resources had which operation."""
    made.configure({"references": [*map(reference, pushed), *others]}, "images")
    return made.up()


def warm_in_vain(made: CacheStack, *pushed: Pushed, others: Sequence[str] = ()) -> str:
    """Try to, and return what is said."""
    with pytest.raises(CommandError) as failure:
        warm(made, *pushed, others=others)
    assert "Traceback" not in str(failure.value)
    return str(failure.value)


def reference(pushed: Pushed) -> str:
    """What an image is called in the settings."""
    return f"{REGISTRY}/{pushed.name}"


def push(upstream: Upstream, sizes: Sequence[int] = SMALL) -> tuple[Pushed, Image]:
    """A new image in the upstream, for this machine's platform, with layers of these sizes."""
    index = images.oci_index(host.architecture(), sizes=sizes)
    return upstream.push(index), index.images[host.architecture()]
