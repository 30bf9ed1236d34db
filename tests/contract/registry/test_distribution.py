"""What warming and verifying take for granted of distribution 3.1.2, tried on the real one."""

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest

from talos_registry_cache.registry.errors import AnswerError, ContentError
from talos_registry_cache.registry.platforms import Platform
from talos_registry_cache.registry.reference import parse
from talos_registry_cache.registry.retry import Retry
from talos_registry_cache.registry.verify import Verified, verify
from talos_registry_cache.registry.warm import NONEXISTENT_DIGEST, NotWarmed, Warmed, warm
from tests.contract.registry import distribution
from tests.contract.registry.distribution import READ_ONLY, Distribution
from tests.unit.registry.support import images, tiny_registry
from tests.unit.registry.support.folders import read, repair, scrub
from tests.unit.registry.support.images import Blob, Built
from tests.unit.registry.support.tiny_registry import Handler, TinyRegistry, serving

pytestmark = [
    pytest.mark.skipif(distribution.program() is None, reason="the toolchain built no registry"),
    pytest.mark.timeout(600),
]

NODE = Platform("linux", "amd64")
QUICK = Retry(tries=3, first_pause_s=0.05, patience_s=2)
NAMES = ("team/one", "team/two", "team/three")
TEXTS = tuple(f"{name}:1" for name in NAMES)


@pytest.fixture
def base() -> Blob:
    """The layer that all images share, and the largest one."""
    return Blob(secrets.token_bytes(3_000_000))


@pytest.fixture
def built(base: Blob) -> dict[str, Built]:
    """An image for each name; the last one has no index."""
    own = {name: images.image(base, Blob(secrets.token_bytes(500_000))) for name in NAMES}
    return {
        name: image if name == NAMES[-1] else images.index({"linux/amd64": image})
        for name, image in own.items()
    }


@pytest.fixture
def upstream(tmp_path: Path, built: dict[str, Built]) -> Iterator[Distribution]:
    with distribution.running(tmp_path / "upstream") as running:
        for name, image in built.items():
            running.push(name, "1", image)
        yield running


@pytest.fixture
def cache(tmp_path: Path, upstream: Distribution) -> Iterator[Distribution]:
    with distribution.caching(tmp_path / "cache", upstream) as running:
        yield running


@pytest.fixture
def writer(cache: Distribution) -> Iterator[Distribution]:
    """A registry without an upstream that writes to the storage of the cache."""
    with distribution.running(cache.root) as running:
        yield running


def warmed(
    cache: Distribution, *texts: str, writer: Distribution | None = None
) -> tuple[Warmed | NotWarmed, ...]:
    storages = {"docker.io": writer.url} if writer else None
    endpoints = {"docker.io": cache.url}
    return asyncio.run(warm(map(parse, texts), endpoints, NODE, storages=storages, retry=QUICK))


def proved(cache: Distribution, *texts: str) -> tuple[Verified, ...]:
    with distribution.running(cache.root, READ_ONLY) as server:
        return asyncio.run(verify(map(parse, texts), {"docker.io": server.url}, NODE))


def distinct_bytes(built: dict[str, Built]) -> int:
    blobs = {blob.digest: blob for image in built.values() for blob in image.blobs}
    return sum(len(blob.content) for blob in blobs.values())


def test_every_blob_of_a_set_is_fetched_from_the_upstream_once(
    cache: Distribution, writer: Distribution, built: dict[str, Built]
) -> None:
    outcomes = warmed(cache, *TEXTS, writer=writer)

    assert all(isinstance(outcome, Warmed) for outcome in outcomes)
    assert cache.pulled_bytes() == distinct_bytes(built)


def test_a_set_that_is_warm_costs_the_upstream_nothing(
    cache: Distribution, writer: Distribution
) -> None:
    warmed(cache, *TEXTS, writer=writer)
    before = cache.pulled_bytes()

    outcomes = warmed(cache, *TEXTS, writer=writer)

    assert [outcome.fetched for outcome in outcomes if isinstance(outcome, Warmed)] == [0, 0, 0]
    assert cache.pulled_bytes() == before


def test_an_image_that_joins_a_set_costs_only_what_is_its_own(
    cache: Distribution, writer: Distribution, built: dict[str, Built]
) -> None:
    warmed(cache, TEXTS[2], writer=writer)

    warmed(cache, *TEXTS, writer=writer)

    assert cache.pulled_bytes() == distinct_bytes(built)


def test_without_a_writer_a_shared_blob_is_fetched_for_each_repository(
    cache: Distribution, built: dict[str, Built], base: Blob
) -> None:
    warmed(cache, *TEXTS)

    blobs = [blob for image in built.values() for blob in image.blobs]
    assert len([blob for blob in blobs if blob.digest == base.digest]) == 3
    # The configurations are alike, so they are shared too; one is read beside its warming.
    assert cache.pulled_bytes() >= distinct_bytes(built) + 2 * len(base.content)


def test_what_was_warmed_is_proved_from_the_storage_alone(
    cache: Distribution, writer: Distribution, built: dict[str, Built]
) -> None:
    warmed(cache, *TEXTS, writer=writer)

    by_digest = f"{NAMES[0]}@{built[NAMES[0]].digest}"
    assert [outcome.errors for outcome in proved(cache, *TEXTS, by_digest)] == [()] * 4


def test_what_is_damaged_is_named_repaired_and_fetched_again(
    tmp_path: Path, upstream: Distribution, built: dict[str, Built]
) -> None:
    own = built[NAMES[0]].blobs[-1]
    name = own.digest.removeprefix("sha256:")
    with distribution.caching(tmp_path / "cache", upstream) as cache:
        warmed(cache, TEXTS[0])
        data = cache.root / f"docker/registry/v2/blobs/sha256/{name[:2]}/{name}/data"
        data.write_bytes(bytes(len(own.content)))
        [damaged] = proved(cache, TEXTS[0])
    [found] = scrub(tmp_path / "cache")
    repair(tmp_path / "cache", found)
    [missing] = proved(cache, TEXTS[0])
    with distribution.caching(tmp_path / "cache", upstream) as cache:
        [outcome] = warmed(cache, TEXTS[0])

    assert [type(error) for error in damaged.errors] == [ContentError]
    assert (found.digest, found.repositories) == (own.digest, (NAMES[0],))
    assert [type(error) for error in missing.errors] == [AnswerError]
    assert isinstance(outcome, Warmed)
    assert outcome.fetched == len(own.content)
    assert [each.errors for each in proved(cache, TEXTS[0])] == [()]


def test_an_unknown_image_fails_with_the_registrys_words(cache: Distribution) -> None:
    [outcome] = warmed(cache, "team/none:1")

    assert isinstance(outcome, NotWarmed)
    assert "404 MANIFEST_UNKNOWN: manifest unknown" in str(outcome.errors[0])


def test_of_a_tag_whose_upstream_fails_a_cache_says_404_and_of_a_digest_what_that_says(
    tmp_path: Path, built: dict[str, Built]
) -> None:
    failing = tiny_registry.status(429, "TOOMANYREQUESTS", "you have reached your limit")
    with serving(TinyRegistry()) as registry:
        registry.hold(NAMES[0], "1", built[NAMES[0]])
        upstream = Distribution(registry.url, "", tmp_path)
        with distribution.caching(tmp_path / "cache", upstream) as cache:
            # For a tag, it asks twice: HEAD, then GET.
            registry.fail("1", failing, failing)
            manifests = f"{cache.url}/v2/{NAMES[0]}/manifests"
            assert httpx2.get(f"{manifests}/1").status_code == httpx2.codes.NOT_FOUND
            registry.fail(NONEXISTENT_DIGEST, failing)
            of_digest = httpx2.get(f"{manifests}/{NONEXISTENT_DIGEST}")
            assert of_digest.status_code == httpx2.codes.TOO_MANY_REQUESTS
            assert "you have reached your limit" in of_digest.text
            registry.fail("1", failing, failing)
            [outcome] = warmed(cache, TEXTS[0])

    assert isinstance(outcome, Warmed)


def test_a_layer_that_breaks_off_at_the_upstream_is_fetched_whole(
    tmp_path: Path, built: dict[str, Built], base: Blob
) -> None:
    with serving(TinyRegistry()) as registry:
        registry.hold(NAMES[0], "1", built[NAMES[0]])
        upstream = Distribution(registry.url, "", tmp_path)
        with distribution.caching(tmp_path / "cache", upstream) as cache:
            # The cache asks for its size, and then for its content.
            broken = (Handler.serve, tiny_registry.cut(1_000_000))
            registry.fail(base.digest, *broken, *broken)
            url = f"{cache.url}/v2/{NAMES[0]}/blobs/{base.digest}"
            came = bytearray()
            with httpx2.stream("GET", url) as answer, suppress(httpx2.RemoteProtocolError):
                for chunk in answer.iter_raw():
                    came += chunk
            [outcome] = warmed(cache, TEXTS[0])

    assert came[:1_000_000] == base.content[:1_000_000]
    assert b'{"errors":[{"code":"UNKNOWN"' in came[1_000_000:]
    assert isinstance(outcome, Warmed)


def test_a_cache_says_why_it_does_not_reach_its_upstream(tmp_path: Path) -> None:
    nowhere = Distribution("http://127.0.0.1:1", "", tmp_path)
    with distribution.caching(tmp_path / "cache", nowhere) as cache:
        [outcome] = warmed(cache, TEXTS[0])

    assert isinstance(outcome, NotWarmed)
    assert "connect: connection refused" in str(outcome.errors[0])


def test_a_cache_fetches_a_blob_for_a_head_too(
    cache: Distribution, built: dict[str, Built]
) -> None:
    own = built[NAMES[0]].blobs[-1]

    httpx2.head(f"{cache.url}/v2/{NAMES[0]}/blobs/{own.digest}").raise_for_status()

    assert cache.pulled_bytes() == len(own.content)
    assert own.digest in read(cache.root).blobs


def test_the_layout_on_disk_is_read_as_the_registry_means_it(
    upstream: Distribution, built: dict[str, Built]
) -> None:
    stored = read(upstream.root)
    assert stored.tags == {(name, "1"): image.digest for name, image in built.items()}
    expected = {
        blob.digest for image in built.values() for blob in (*image.manifests, *image.blobs)
    }
    assert set(stored.blobs) == expected
    assert scrub(upstream.root) == []
