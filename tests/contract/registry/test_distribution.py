"""The behaviour of distribution 3.1.2 on which warming and verification rely."""

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from talos_registry_cache.registry import manifests, platforms
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

NODE = (Platform("linux", "amd64"),)
BOTH = ("linux/amd64", "linux/arm64")
UNKNOWN = "unknown/unknown"
QUICK = Retry(tries=3, first_pause_s=0.05, patience_s=2)
NAMES = ("team/one", "team/two", "team/three")
TEXTS = tuple(f"{name}:1" for name in NAMES)


@pytest.fixture
def base() -> Blob:
    """A layer that all images share."""
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
    """A writable registry without an upstream on the storage of the cache."""
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


def test_each_blob_is_fetched_once_and_images_are_proved_from_the_storage_alone(
    cache: Distribution, writer: Distribution, built: dict[str, Built]
) -> None:
    warmed(cache, TEXTS[2], writer=writer)
    outcomes = warmed(cache, *TEXTS, writer=writer)
    again = warmed(cache, *TEXTS, writer=writer)

    assert all(isinstance(outcome, Warmed) for outcome in outcomes)
    assert [outcome.fetched for outcome in again if isinstance(outcome, Warmed)] == [0, 0, 0]
    assert cache.pulled_bytes() == distinct_bytes(built)
    by_digest = f"{NAMES[0]}@{built[NAMES[0]].digest}"
    assert [outcome.errors for outcome in proved(cache, *TEXTS, by_digest)] == [()] * 4


def test_without_a_writer_a_shared_blob_is_fetched_for_each_repository(
    cache: Distribution, built: dict[str, Built], base: Blob
) -> None:
    warmed(cache, *TEXTS)

    blobs = [blob for image in built.values() for blob in image.blobs]
    assert len([blob for blob in blobs if blob.digest == base.digest]) == 3
    # The images share their configuration too, which is also read to check a platform.
    assert cache.pulled_bytes() >= distinct_bytes(built) + 2 * len(base.content)


def test_a_damaged_blob_is_found_removed_and_fetched_again(
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


def test_an_unknown_image_fails_with_the_registrys_message(cache: Distribution) -> None:
    [outcome] = warmed(cache, "team/none:1")

    assert isinstance(outcome, NotWarmed)
    assert "404 MANIFEST_UNKNOWN: manifest unknown" in str(outcome.errors[0])


def test_if_its_upstream_fails_a_cache_answers_404_only_for_tags(
    tmp_path: Path, built: dict[str, Built]
) -> None:
    failing = tiny_registry.status(429, "TOOMANYREQUESTS", "you have reached your limit")
    with serving(TinyRegistry()) as registry:
        registry.hold(NAMES[0], "1", built[NAMES[0]])
        upstream = Distribution(registry.url, "", tmp_path)
        with distribution.caching(tmp_path / "cache", upstream) as cache:
            # It requests a tag twice: HEAD, then GET.
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


def test_a_layer_is_completed_after_a_broken_upstream_transfer(
    tmp_path: Path, built: dict[str, Built], base: Blob
) -> None:
    with serving(TinyRegistry()) as registry:
        registry.hold(NAMES[0], "1", built[NAMES[0]])
        upstream = Distribution(registry.url, "", tmp_path)
        with distribution.caching(tmp_path / "cache", upstream) as cache:
            # The cache requests the size, then the content.
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


def two_platforms() -> Built:
    """An index of two platforms, an attestation, and an index inside it."""
    made = [images.image(Blob(secrets.token_bytes(1000)), platform=one) for one in (*BOTH, UNKNOWN)]
    amd, arm, statement = made
    inner = images.index({BOTH[1]: arm, UNKNOWN: statement})
    outer = images.index({BOTH[0]: amd, BOTH[1]: inner})
    return Built([*outer.manifests, arm.manifests[0], statement.manifests[0]], outer.blobs)


@pytest.mark.parametrize("wanted", [("all",), BOTH, BOTH[:1]])
def test_several_platforms_go_through_a_cache_and_are_proved(
    tmp_path: Path, wanted: tuple[str, ...]
) -> None:
    built, endpoints = two_platforms(), {}
    with distribution.running(tmp_path / "upstream") as upstream:
        # A registry takes an index once it has what that names.
        for manifest in reversed(built.manifests[1:]):
            upstream.push("team/app", manifest.digest, Built([manifest], built.blobs))
        upstream.push("team/app", "1", Built(built.manifests[:1], []))
        with distribution.caching(tmp_path / "cache", upstream) as cache:
            endpoints["docker.io"] = cache.url
            [outcome] = asyncio.run(
                warm([parse("team/app:1")], endpoints, platforms.parse_all(wanted), retry=QUICK)
            )
    assert isinstance(outcome, Warmed)

    found = {}
    with distribution.running(tmp_path / "cache", READ_ONLY) as server:
        endpoints["docker.io"] = server.url
        for text in ("all", *BOTH):
            proving = verify([parse("team/app:1")], endpoints, platforms.parse_all([text]))
            [proof] = asyncio.run(proving)
            found[text] = not proof.errors

    everything = wanted == ("all",)
    assert found == {"all": everything, BOTH[0]: True, BOTH[1]: everything or BOTH[1] in wanted}


@pytest.mark.parametrize("media_type", manifests.SCHEMA_1)
def test_a_cache_refuses_a_schema_1_image_which_is_said_at_once(
    tmp_path: Path, media_type: str
) -> None:
    content = b'{"schemaVersion": 1, "name": "team/app", "tag": "1", "fsLayers": []}'
    with serving(TinyRegistry()) as registry:
        registry.hold("team/app", "1", Built([Blob(content, media_type)], []))
        upstream = Distribution(registry.url, "", tmp_path)
        with distribution.caching(tmp_path / "cache", upstream) as cache:
            [outcome] = warmed(cache, "team/app:1")

    assert isinstance(outcome, NotWarmed)
    assert str(outcome.errors[0]).endswith(manifests.SCHEMA_1_REFUSED)
    # It is not asked again.
    assert len(registry.asked("1")) == 2


def test_a_cache_reports_why_its_upstream_is_unreachable(tmp_path: Path) -> None:
    nowhere = Distribution("http://127.0.0.1:1", "", tmp_path)
    with distribution.caching(tmp_path / "cache", nowhere) as cache:
        [outcome] = warmed(cache, TEXTS[0])

    assert isinstance(outcome, NotWarmed)
    assert "connect: connection refused" in str(outcome.errors[0])


def test_a_cache_ignores_the_path_of_its_upstream_s_url(
    tmp_path: Path, upstream: Distribution
) -> None:
    below = replace(upstream, url=f"{upstream.url}/path")
    with distribution.caching(tmp_path / "cache", below) as cache:
        [outcome] = warmed(cache, TEXTS[0])

    assert isinstance(outcome, Warmed)


def test_the_layout_on_disk_is_read_correctly(
    upstream: Distribution, built: dict[str, Built]
) -> None:
    stored = read(upstream.root)
    assert stored.tags == {(name, "1"): image.digest for name, image in built.items()}
    expected = {
        blob.digest for image in built.values() for blob in (*image.manifests, *image.blobs)
    }
    assert set(stored.blobs) == expected
    assert scrub(upstream.root) == []
