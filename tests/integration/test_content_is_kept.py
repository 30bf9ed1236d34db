"""Intact content is never reported as damaged or removed, however busy the caches are."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

import httpx2
import pytest
from docker import DockerClient
from docker.models.containers import Container

from tests.integration.support import belongings, http_pull, stored, warming
from tests.integration.support.cachectl import Cachectl
from tests.integration.support.http_pull import Pulled
from tests.integration.support.stack import CacheStack, stack, upstreams
from tests.integration.support.upstream import Pushed, Upstream

REGISTRY = "docker.io"
OK, NOT_ALL_THERE = 0, 3
# Images are pulled while these are read.
LARGE = (40_000_000, 40_000_000)
SMALL = (20_000, 20_000)
IMAGES = 20
PULLED_EVERY_S = 0.2
# A cache stores content shortly after it has served it.
WRITTEN_WITHIN_S = 2.0

pytestmark = pytest.mark.timeout(400)


@dataclass(frozen=True, slots=True)
class Busy:
    """A cache with a large image, and cachectl for it."""

    stack: CacheStack
    cachectl: Cachectl
    cache: Container
    endpoint: str
    upstream: Upstream


@pytest.fixture(scope="module")
def busy(
    tmp_path_factory: pytest.TempPathFactory, engine: DockerClient, upstream: Upstream
) -> Iterator[Busy]:
    folder = tmp_path_factory.mktemp("kept")
    with stack(folder, engine, {"upstreams": upstreams(upstream.url, REGISTRY)}) as made:
        made.up()
        cache = belongings.registries(engine, made.name)[REGISTRY]
        endpoint = str(made.outputs()["caches"][REGISTRY]["endpoint"])
        large, _ = warming.push(upstream, LARGE)
        http_pull.pull(endpoint, large)
        yield Busy(made, Cachectl(made.name, folder), cache, endpoint, upstream)


@dataclass(slots=True)
class Pulls:
    """Pulls of new images, one after the other.

    Attributes:
        ahead: the images still to be pulled.
        done: the time of each complete pull, in seconds since 1970.
        damaged: errors of pulls with damaged content.
    """

    ahead: list[Pushed]
    done: dict[Pushed, float] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)

    def pull(self, endpoint: str, ended: threading.Event) -> None:
        """Pull until the event is set or all images were pulled."""
        while self.ahead and not ended.is_set():
            try:
                http_pull.pull(endpoint, self.ahead[0])
                self.done[self.ahead.pop(0)] = time.time()
                ended.wait(PULLED_EVERY_S)
            except httpx2.HTTPError:
                # The cache is stopped for a repair.
                time.sleep(0.2)
            except AssertionError as error:
                self.damaged.append(str(error))


@contextmanager
def pulling(busy: Busy, images: int = IMAGES) -> Iterator[Pulls]:
    """Pull new images until the end of the block."""
    pulls = Pulls([warming.push(busy.upstream, SMALL)[0] for _ in range(images)])
    ended = threading.Event()
    thread = threading.Thread(target=pulls.pull, args=(busy.endpoint, ended))
    thread.start()
    try:
        yield pulls
    finally:
        ended.set()
        thread.join()


def damage(busy: Busy) -> str:
    """Damage a cached layer, and return its digest."""
    pushed, image = warming.push(busy.upstream)
    http_pull.pull(busy.endpoint, pushed)
    digest = max(image.blobs, key=lambda blob: len(blob.content)).digest
    stored.damage(busy.cache, digest)
    return digest


def served_without_the_upstream(busy: Busy, images: list[Pushed]) -> list[Pulled]:
    """Pull images while their upstream is away."""
    with busy.upstream.away():
        return [http_pull.pull(busy.endpoint, image) for image in images]


def stopped_at(cache: Container) -> float:
    """The time of the last stop of a cache, in seconds since 1970."""
    cache.reload()
    return datetime.fromisoformat(cache.attrs["State"]["FinishedAt"]).timestamp()


def test_scrub_finds_only_damaged_content_during_pulls(busy: Busy) -> None:
    damaged = damage(busy)

    with pulling(busy) as pulls:
        found = []
        while pulls.ahead:
            found.append(busy.cachectl("scrub", "--json"))

    assert pulls.damaged == []
    assert [ended.code for ended in found] == [NOT_ALL_THERE] * len(found)
    assert [[one["digest"] for one in ended.result] for ended in found] == [[damaged]] * len(found)
    assert len(served_without_the_upstream(busy, list(pulls.done))) == IMAGES
    busy.cachectl("scrub", "--repair")


def test_scrub_repair_removes_only_damaged_content_during_pulls(
    busy: Busy,
) -> None:
    damaged = damage(busy)

    with pulling(busy) as pulls:
        repaired = busy.cachectl("scrub", "--repair", "--json")
        stopped = stopped_at(busy.cache)
        while pulls.ahead:
            again = busy.cachectl("scrub", "--repair", "--json")
            assert (again.code, again.result) == (OK, [])

    assert stopped_at(busy.cache) == stopped
    assert pulls.damaged == []
    assert repaired.code == OK
    assert [one["digest"] for one in repaired.result] == [damaged]
    written = [
        image
        for image, done in pulls.done.items()
        if not stopped - WRITTEN_WITHIN_S < done < stopped
    ]
    assert len(served_without_the_upstream(busy, written)) > IMAGES / 2


def test_up_of_a_damaged_image_set_removes_nothing_during_pulls(
    busy: Busy,
) -> None:
    pushed, image = warming.push(busy.upstream)
    warming.warm(busy.stack, pushed)
    path = stored.path_of(image.blobs[-1].digest)
    code, said = busy.cache.exec_run(["busybox", "truncate", "-s", "10", path])
    assert code == 0, said

    with pulling(busy, 3 * IMAGES) as pulls:
        found = busy.stack.refresh()
        healed = busy.stack.up()
        stopped = stopped_at(busy.cache)

    assert (found.get("update"), healed.get("update")) == (1, 1)
    assert pulls.damaged == []
    written = [
        image
        for image, done in pulls.done.items()
        if not stopped - WRITTEN_WITHIN_S < done < stopped
    ]
    served = served_without_the_upstream(busy, [pushed, *written])
    assert len(served) > IMAGES / 2
