"""Object stores, with a real store and a real registry: MinIO and distribution 3.1.2."""

import asyncio
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from talos_registry_cache.engine import cache_storage
from talos_registry_cache.engine.cache_storage import InStore
from talos_registry_cache.registry import layout, object_store
from talos_registry_cache.registry.layout import Storage
from talos_registry_cache.registry.object_store import ObjectStore, StoreError
from talos_registry_cache.registry.platforms import Platform
from talos_registry_cache.registry.reference import parse
from talos_registry_cache.registry.retry import Retry
from talos_registry_cache.registry.s3_location import S3Credentials, S3Location
from talos_registry_cache.registry.verify import verify
from talos_registry_cache.registry.warm import NotWarmed, Warmed, warm
from tests.contract.registry import distribution, minio
from tests.contract.registry.distribution import READ_ONLY, Distribution
from tests.unit.registry.support import folders, images
from tests.unit.registry.support.images import Blob, Built

pytestmark = [
    pytest.mark.skipif(distribution.program() is None, reason="the toolchain built no registry"),
    pytest.mark.skipif(minio.program() is None, reason="the toolchain built no MinIO"),
    pytest.mark.timeout(600),
]

NODE = (Platform("linux", "amd64"),)
QUICK = Retry(tries=3, first_pause_s=0.05, patience_s=2)
NAMES = ("team/one", "team/two")
IMAGES = [parse(f"{name}:1") for name in NAMES]
# The S3 driver of distribution uploads parts of this size.
PART = 10 << 20
PART_WITHIN_S = 60


@dataclass(frozen=True, slots=True)
class Stored:
    """The content of a cache in an object store.

    Attributes:
        location: its bucket and folder.
        credentials: the credentials for the store.
        environment: the environment variables of a registry on it.
        store: its objects.
    """

    location: S3Location
    credentials: S3Credentials
    environment: Mapping[str, str]
    store: ObjectStore

    @property
    def held(self) -> InStore:
        """The storage as commands use it, without an engine."""
        engine: Any = None
        return InStore(engine, self.location, "an image", self.credentials)

    @property
    def content(self) -> Storage:
        """The stored content."""
        return self.held.read()

    def put(self, path: str, content: bytes) -> None:
        """Write an object."""
        location = self.location
        key = f"{location.folder}/{path}"
        self.store.client.put_object(Bucket=location.bucket, Key=key, Body=content)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[S3Location, S3Credentials]]:
    with minio.running(tmp_path_factory.mktemp("minio")) as running:
        yield running


@pytest.fixture
def stored(server: tuple[S3Location, S3Credentials], tmp_path: Path) -> Iterator[Stored]:
    """A location for one test; another folder's name begins with its name."""
    location, credentials = server
    location = replace(location, folder=f"{tmp_path.name}/docker.io")
    file = tmp_path / "credentials"
    file.touch(mode=0o600)
    file.write_text(credentials.file)
    with object_store.opened(location, credentials) as store:
        beside = f"{location.folder}-other/{layout.V2}/blobs/kept"
        store.client.put_object(Bucket=location.bucket, Key=beside, Body=b"kept")
        yield Stored(location, credentials, location.environment(str(file)), store)


@pytest.fixture
def base() -> Blob:
    """A layer of both images, uploaded in several parts."""
    return Blob(secrets.token_bytes(2 * PART + 5_000_000))


@pytest.fixture
def built(base: Blob) -> dict[str, Built]:
    return {
        name: images.index({"linux/amd64": images.image(base, Blob(secrets.token_bytes(300_000)))})
        for name in NAMES
    }


@pytest.fixture
def upstream(tmp_path: Path, built: dict[str, Built]) -> Iterator[Distribution]:
    with distribution.running(tmp_path / "upstream") as running:
        for name, image in built.items():
            running.push(name, "1", image)
        yield running


@pytest.fixture
def cache(tmp_path: Path, upstream: Distribution, stored: Stored) -> Iterator[Distribution]:
    with distribution.caching(tmp_path / "cache", upstream, stored.environment) as running:
        yield running


def warmed(
    cache: Distribution, writer: Distribution | None = None
) -> tuple[Warmed | NotWarmed, ...]:
    storages = {"docker.io": writer.url} if writer else None
    endpoints = {"docker.io": cache.url}
    outcomes = asyncio.run(warm(IMAGES, endpoints, NODE, storages=storages, retry=QUICK))
    assert [outcome for outcome in outcomes if isinstance(outcome, NotWarmed)] == []
    return outcomes


def problems(served: Distribution) -> list[str]:
    outcomes = asyncio.run(verify(IMAGES, {"docker.io": served.url}, NODE))
    return [str(error) for outcome in outcomes for error in outcome.errors]


def test_an_object_store_and_a_volume_get_the_same_content(
    cache: Distribution, upstream: Distribution, stored: Stored, tmp_path: Path
) -> None:
    with distribution.caching(tmp_path / "other", upstream) as other:
        warmed(other)
        in_volume = folders.read(other.root)
    warmed(cache)

    in_store = stored.content

    assert in_store.blobs == in_volume.blobs
    assert in_store.tags == in_volume.tags
    assert {link.folder for link in in_store.links} == {link.folder for link in in_volume.links}
    assert in_store.uploads == ()
    assert stored.store.tags() == sorted(in_store.tags)
    assert abs(in_store.links[0].modified - time.time()) < 60


def test_shared_blobs_are_mounted_and_verified_on_the_objects_of_a_cache(
    cache: Distribution, stored: Stored, base: Blob, tmp_path: Path
) -> None:
    with distribution.running(tmp_path / "writer", stored.environment) as writer:
        outcomes = warmed(cache, writer)

    fetched = sum(outcome.fetched for outcome in outcomes if isinstance(outcome, Warmed))
    assert fetched < 2 * len(base.content)
    assert cache.pulled_bytes() < 2 * len(base.content)
    with distribution.running(tmp_path / "reader", {**stored.environment, **READ_ONLY}) as reader:
        assert problems(reader) == []


def test_a_damaged_blob_is_removed_and_fetched_again_by_the_running_cache(
    cache: Distribution, stored: Stored, base: Blob, tmp_path: Path
) -> None:
    warmed(cache)
    stored.put(f"{layout.blob_folder(base.digest)}/data", b"damaged")

    [damage] = layout.damages(stored.content)
    stored.store.remove(damage.folders)
    stored.store.remove(damage.folders)

    assert damage.digest == base.digest
    assert damage.repositories == NAMES
    assert base.digest not in stored.content.blobs
    for name in NAMES:
        answer = httpx2.get(f"{cache.url}/v2/{name}/blobs/{base.digest}")
        assert answer.content == base.content
    warmed(cache)
    assert list(layout.damages(stored.content)) == []
    with distribution.running(tmp_path / "reader", {**stored.environment, **READ_ONLY}) as reader:
        assert problems(reader) == []


def test_a_suspected_damage_is_read_again(cache: Distribution, stored: Stored, base: Blob) -> None:
    warmed(cache)
    held, path = stored.held, f"{layout.blob_folder(base.digest)}/data"
    held.remove([layout.blob_folder(base.digest)])
    suspects = list(layout.damages(held.read()))
    assert [one.digest for one in suspects] == [base.digest]

    gone = cache_storage.confirmed(held, suspects)
    stored.put(path, base.content)
    written = cache_storage.confirmed(held, suspects)
    stored.put(path, b"damaged")
    damaged = cache_storage.remove_damaged(held, suspects)
    unlinked = cache_storage.confirmed(held, suspects)

    assert (gone, written, unlinked) == (suspects, [], [])
    assert [one.folders for one in damaged] == [suspects[0].folders]
    assert list(layout.damages(held.read())) == []


def test_everything_but_the_content_of_other_caches_can_be_removed(
    cache: Distribution, stored: Stored
) -> None:
    warmed(cache)
    location = stored.location

    stored.held.remove(["docker"])

    assert stored.held.size() == 0
    beside = replace(stored.held, location=replace(location, folder=f"{location.folder}-other"))
    assert beside.size()


def test_the_uploads_of_a_killed_cache_are_found_and_removed(
    upstream: Distribution, stored: Stored, base: Blob, tmp_path: Path
) -> None:
    with distribution.caching(tmp_path / "killed", upstream, stored.environment) as cache:
        url = f"{cache.url}/v2/{NAMES[0]}/blobs/{base.digest}"
        with httpx2.stream("GET", url) as answer:
            pieces = answer.iter_raw()
            while answer.num_bytes_downloaded <= PART:
                next(pieces)
            until = time.monotonic() + PART_WITHIN_S
            while not any(one.size for one in stored.store.unfinished()):
                assert time.monotonic() < until, "no part was uploaded"
            cache.kill()

    uploads = stored.content.uploads

    assert [upload.size for upload in uploads if upload.multipart] == [PART]
    assert all(upload.path.startswith(f"{layout.V2}/repositories/") for upload in uploads)
    assert stored.content.blobs == {}
    assert layout.left_behind(stored.content, time.time() - 3600) == ()
    left = layout.left_behind(stored.content, time.time() + 3600)
    assert set(left) == set(uploads)
    for _ in range(2):
        stored.held.remove_uploads(left)
    assert stored.content.uploads == ()
    assert stored.held.size() == 0


def test_wrong_credentials_and_a_missing_bucket_are_errors_that_show_no_secret(
    stored: Stored,
) -> None:
    wrong = replace(stored.held, credentials=S3Credentials("nobody", "s3cret"))
    nowhere = replace(stored.held, location=replace(stored.location, bucket="nowhere"))

    for held, code in ((wrong, "InvalidAccessKeyId"), (nowhere, "NoSuchBucket")):
        for attempt in (held.tags, held.read):
            with pytest.raises(StoreError, match=code) as failed:
                attempt()
            assert "s3cret" not in str(failed.value)
