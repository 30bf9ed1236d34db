import itertools
import re
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from docker import DockerClient
from pulumi.dynamic import Config, ConfigureRequest

from components import apart, dynamic_provider, warming
from components.cached_images import CachedImagesProvider
from components.certificate_authority import issue_authority, issue_server
from components.warming import NotAllCachedError
from talos_registry_cache.engine import cache_storage, lock, upstreams
from talos_registry_cache.engine import temporary_registry as registry_serving
from talos_registry_cache.engine.cache_storage import InVolume
from talos_registry_cache.engine.temporary_registry import ServingError
from talos_registry_cache.registry import referrers
from talos_registry_cache.registry import warm as warm_module
from talos_registry_cache.registry.layout import Tag
from talos_registry_cache.registry.s3_location import S3Credentials, S3Location
from talos_registry_cache.registry.upstream import Remote
from talos_registry_cache.registry.warm import Progress
from tests.support import signing
from tests.unit.registry.support import images, tiny_registry
from tests.unit.registry.support.images import Blob, Built
from tests.unit.registry.support.tiny_registry import TinyRegistry, serving, storage_of

HUB, QUAY = "docker.io", "quay.io"
AMD, ARM = "linux/amd64", "linux/arm64"
BASE = Blob(b"a layer that images share" * 1000)
PROVIDER = CachedImagesProvider()


@dataclass(slots=True)
class Caches:
    """The caches of a stack, and the temporary registries on their storages.

    Attributes:
        by_host: the caches, by registry host.
        served: the storage, image and writability of each temporary registry so far.
        gone: volumes that do not exist.
        running: the number of temporary registries that are running.
        remotes: the upstreams, by registry host.
        added: what was added to the storages, by volume.
    """

    by_host: dict[str, TinyRegistry]
    served: list[tuple[str, str, bool]] = field(default_factory=list)
    gone: set[str] = field(default_factory=set)
    running: int = 0
    remotes: dict[str, Remote] = field(default_factory=dict)
    added: dict[str, Mapping[Tag, bytes]] = field(default_factory=dict)

    def props(self, references: Sequence[str], **more: Any) -> dict[str, Any]:
        """The inputs of the resource."""
        caches = {
            host: {
                "name": f"registry-{host}",
                "endpoint": cache.url,
                "storage": f"volume-of-{host}",
                "image": "registry:3.1.2",
            }
            for host, cache in self.by_host.items()
        }
        return {
            "stack": "unit-test",
            "images": references,
            "attachments": "signatures",
            "platforms": [AMD],
            "caches": caches,
            "s3Locations": {},
            **more,
        }

    def remote(self, _engine: DockerClient, name: str) -> Remote | None:
        """Replaces `upstreams.find`."""
        return self.remotes.get(name.removeprefix("registry-"))

    def add_lacking(self, held: InVolume, manifests: Mapping[Tag, bytes]) -> None:
        """Replaces `cache_storage.add_lacking`."""
        self.added[held.volume] = manifests

    @contextmanager
    def serving(self, _engine: DockerClient, volume: str, image: str) -> Iterator[str]:
        """Replaces `temporary_registry.serving`, which needs an engine."""
        if volume in self.gone:
            raise ServingError(f"cannot serve the volume {volume}")
        with self._serving(volume, image, writable=False) as url:
            yield url

    @contextmanager
    def serving_objects(
        self,
        _engine: DockerClient,
        location: S3Location,
        _credentials: S3Credentials,
        image: str,
        *,
        writable: bool,
    ) -> Iterator[str]:
        """Replaces `temporary_registry.serving_objects`."""
        with self._serving(location.folder, image, writable=writable) as url:
            yield url

    @contextmanager
    def _serving(self, storage_of_cache: str, image: str, *, writable: bool) -> Iterator[str]:
        self.served.append((storage_of_cache, image, writable))
        cache = self.by_host[storage_of_cache.removeprefix("volume-of-").removeprefix("objects/")]
        with serving(storage_of(cache)) as storage:
            self.running += 1
            try:
                yield storage.url
            finally:
                self.running -= 1


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_module, "PAUSES_S", (0, 0))
    monkeypatch.setattr(warm_module, "UNKNOWN_PAUSES_S", (0,))


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "run", lambda work, *arguments: work(*arguments))


class Engine:
    """The part of an engine that a lock needs."""

    def info(self) -> dict[str, str]:
        return {"Name": "unit", "DockerRootDir": "/unit"}


@pytest.fixture
def caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Caches]:
    """Two empty caches."""
    with (
        serving(TinyRegistry(caches=True)) as hub,
        serving(TinyRegistry(caches=True)) as quay,
    ):
        made = Caches({HUB: hub, QUAY: quay})
        monkeypatch.setattr(registry_serving, "serving", made.serving)
        monkeypatch.setattr(registry_serving, "serving_objects", made.serving_objects)
        monkeypatch.setattr(upstreams, "find", made.remote)
        monkeypatch.setattr(cache_storage, "add_lacking", made.add_lacking)
        monkeypatch.setattr(dynamic_provider, "engine", lambda: nullcontext(Engine()))
        monkeypatch.setattr(lock, "FOLDER", tmp_path)
        yield made
        assert made.running == 0


def hold(cache: TinyRegistry, name: str, *layers: Blob, platform: str = AMD) -> Built:
    """Add an image to the upstream of a cache."""
    own = Blob(name.encode() * 1000)
    built = images.index({platform: images.image(*layers, own, platform=platform)})
    cache.hold(name, "1", built)
    return built


# Diff

LOCKED = {"digest": f"sha256:{'a' * 64}", "attachments": {}}
OLD: dict[str, Any] = {
    "images": ["docker.io/team/app:1"],
    "attachments": "signatures",
    "platforms": [AMD],
    "caches": {HUB: {"endpoint": "http://a"}},
}


@pytest.mark.parametrize(
    ("olds", "news", "is_changed"),
    [
        pytest.param({}, {}, False, id="nothing"),
        pytest.param({}, {"images": [*OLD["images"], "a.test/b:1"]}, True, id="added image"),
        pytest.param({}, {"images": []}, True, id="removed image"),
        pytest.param({}, {"platforms": [AMD, ARM]}, True, id="platform"),
        pytest.param({}, {"attachments": "all"}, True, id="attachments"),
        pytest.param({}, {"locked": {}}, False, id="state from before locks"),
        pytest.param({}, {"locked": {OLD["images"][0]: LOCKED}}, True, id="locked digest"),
        pytest.param({}, {"caches": {HUB: {"endpoint": "http://b"}}}, True, id="cache"),
        pytest.param({}, {"ca": "PEM"}, True, id="CA"),
        pytest.param({}, {"reader": {"username": "a", "password": "b"}}, True, id="password"),
        pytest.param({"missing": {"docker.io/team/app:1": "404"}}, {}, True, id="lost image"),
    ],
)
def test_changes_cause_an_update_and_never_a_replacement(
    olds: dict[str, Any], news: dict[str, Any], *, is_changed: bool
) -> None:
    outputs = {"digests": {"docker.io/team/app:1": "sha256:0"}, "missing": {}}

    diff = PROVIDER.diff("images", {**OLD, **outputs, **olds}, {**OLD, **news})

    assert diff.changes is is_changed
    assert not diff.replaces


# Warming


def test_referrers_that_only_the_upstream_lists_are_added_to_the_storage(caches: Caches) -> None:
    hub = caches.by_host[HUB]
    built = hold(hub, "team/app", BASE)
    signature = images.image(Blob(b"a signature")).manifests[0]
    hub.manifests["team/app", signature.digest] = signature
    hub.blobs |= {
        ("team/app", blob.digest): blob for blob in images.image(Blob(b"a signature")).blobs
    }
    listed = referrers.index([replace(signature.descriptor, artifact_type=signing.BUNDLE)])
    hub.referrers["team/app", built.digest] = Blob(listed, images.OCI_INDEX)
    caches.remotes[HUB] = Remote(hub.url)

    PROVIDER.create(caches.props(["docker.io/team/app:1"]))

    tag = "team/app", built.digest.replace(":", "-")
    assert caches.added == {f"volume-of-{HUB}": {tag: listed}}


def two_platforms(name: str) -> Built:
    """An image for two platforms."""
    return images.index(
        {one: images.image(Blob(f"{name} {one}".encode()), platform=one) for one in (AMD, ARM)}
    )


@pytest.mark.parametrize("platforms", [[AMD, ARM], ["all"]])
def test_create_caches_every_image_for_all_platforms(caches: Caches, platforms: list[str]) -> None:
    first = two_platforms("first")
    second = two_platforms("second")
    caches.by_host[HUB].hold("team/app", "1", first)
    caches.by_host[QUAY].hold("team/tool", "1", second)
    props = caches.props(["docker.io/team/app:1", "quay.io/team/tool:1"], platforms=platforms)

    made = PROVIDER.create(props)

    assert made.id == "images"
    assert made.outs == {
        **props,
        "digests": {"docker.io/team/app:1": first.digest, "quay.io/team/tool:1": second.digest},
        "missing": {},
    }
    assert {digest for _, digest in caches.by_host[HUB].kept} == {
        blob.digest for blob in first.blobs
    }
    assert {digest for _, digest in caches.by_host[QUAY].kept} == {
        blob.digest for blob in second.blobs
    }


def test_a_cache_with_tls_and_readers_is_warmed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = datetime.now(UTC)
    authority = issue_authority("tests", now)
    registry = TinyRegistry(caches=True)
    registry.reader = "adam", "s3cret"
    monkeypatch.setattr(dynamic_provider, "engine", lambda: nullcontext(Engine()))
    monkeypatch.setattr(upstreams, "find", lambda *_: None)
    with serving(registry, issue_server(authority, ["127.0.0.1"], now)):
        built = hold(registry, "library/app", BASE)
        props = Caches({HUB: registry}).props(
            ["docker.io/library/app:1"],
            ca=authority.certificate,
            reader={"username": "adam", "password": "s3cret"},
        )
        outs = PROVIDER.create(props).outs

    assert outs is not None
    assert outs["digests"] == {"docker.io/library/app:1": built.digest}


def test_a_layer_shared_by_repositories_is_mounted_where_no_front_sees_the_storage(
    caches: Caches,
) -> None:
    locations = {HUB: asdict(S3Location("caches", f"objects/{HUB}"))}
    keys = asdict(S3Credentials("key", "secret"))
    for name in ("team/one", "team/two"):
        hold(caches.by_host[HUB], name, BASE)
    hold(caches.by_host[QUAY], "team/tool", BASE)
    caches.by_host[QUAY].hold("team/tool", "2", images.image(BASE))
    names = ("docker.io/team/one:1", "docker.io/team/two:1", "quay.io/team/tool:1")

    listed = [*names, "quay.io/team/tool:2"]
    PROVIDER.create(caches.props(listed, s3Locations=locations, s3Credentials=keys))

    assert caches.by_host[HUB].fetched[BASE.digest] == 1
    # A cache with a single repository needs no temporary registry, nor does one with a volume.
    assert caches.served == [(f"objects/{HUB}", "registry:3.1.2", True)]

    caches.served.clear()
    PROVIDER.create(caches.props(listed))
    assert caches.served == []


def test_update_fetches_only_added_images_and_deletes_nothing(caches: Caches) -> None:
    hold(caches.by_host[HUB], "team/app")
    hold(caches.by_host[HUB], "team/other")
    added = hold(caches.by_host[HUB], "team/added")
    before = ["docker.io/team/app:1", "docker.io/team/other:1"]
    olds = PROVIDER.create(caches.props(before)).outs or {}
    kept = set(caches.by_host[HUB].kept)
    caches.by_host[HUB].fetched.clear()

    news = caches.props(["docker.io/team/app:1", "docker.io/team/added:1"])
    outs = PROVIDER.update("images", olds, news).outs or {}

    digests = {**olds["digests"], "docker.io/team/added:1": added.digest}
    del digests["docker.io/team/other:1"]
    assert outs["digests"] == digests
    assert kept < caches.by_host[HUB].kept
    assert set(caches.by_host[HUB].fetched) == {blob.digest for blob in added.blobs}


def test_every_failed_image_is_reported_and_the_others_are_cached(
    caches: Caches, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = caches.by_host[HUB]
    good, bad = hold(hub, "team/good"), hold(hub, "team/bad")
    hold(hub, "team/arm", platform=ARM)
    hub.fail(bad.blobs[-1].digest, tiny_registry.altered)
    names = ("good", "bad", "arm", "none")
    props = caches.props([f"docker.io/team/{name}:1" for name in names])

    monkeypatch.setattr(traceback, "format_exc", traceback.format_exc)
    PROVIDER.configure(ConfigureRequest(Config({}, "talos-registry-cache")))
    shown = ""

    try:
        PROVIDER.create(props)
    except NotAllCachedError:
        shown = traceback.format_exc()

    # Without a traceback.
    head, *lines = shown.splitlines()
    assert head == "3 of 4 images are not cached; 1 are, and stay:"
    patterns = {
        "bad": f".*{bad.blobs[-1].digest} is damaged",
        "arm": "not available for linux/amd64; available for: linux/arm64",
        "none": ".*404 MANIFEST_UNKNOWN",
    }
    for line, (name, pattern) in zip(lines, patterns.items(), strict=True):
        assert re.match(f"  docker.io/team/{name}:1: {pattern}", line)
    assert {("team/good", blob.digest) for blob in good.blobs} <= hub.kept
    fetched = hub.fetched.copy()
    PROVIDER.create(caches.props(["docker.io/team/good:1"]))
    assert hub.fetched == fetched


def test_progress_is_printed_at_intervals(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = itertools.count(100.0)
    monkeypatch.setattr(time, "monotonic", lambda: next(seconds))
    report = warming._Reporter(3)

    for done in (1, 2, 3, 4):
        report(Progress(done * 10_000_000, 50_000_000, done * 10_000_000))

    assert capsys.readouterr().out.splitlines() == [
        "3 images: 20 of 50 MB are cached (10 MB/s)",
        "3 images: 40 of 50 MB are cached (10 MB/s)",
    ]


# Refresh


@pytest.fixture
def warmed(caches: Caches) -> dict[str, Any]:
    """The state of a resource whose images are all cached."""
    hold(caches.by_host[HUB], "team/app", BASE)
    hold(caches.by_host[QUAY], "team/tool")
    props = caches.props(["docker.io/team/app:1", "quay.io/team/tool:1"])
    return dict(PROVIDER.create(props).outs or {})


def test_refresh_verifies_all_images_without_writing(
    caches: Caches, warmed: dict[str, Any]
) -> None:
    read = PROVIDER.read("images", warmed)

    assert (read.id, read.outs) == ("images", warmed)
    assert sorted(caches.served) == [
        ("volume-of-docker.io", "registry:3.1.2", False),
        ("volume-of-quay.io", "registry:3.1.2", False),
    ]


def test_refresh_verifies_images_of_a_state_from_before_platforms_was_a_setting(
    warmed: dict[str, Any],
) -> None:
    """Then the state had the platform of each image, by reference."""

    def before(platform: str) -> dict[str, Any]:
        state = {**warmed, "images": dict.fromkeys(warmed["images"], platform)}
        del state["platforms"]
        return state

    held = dict(PROVIDER.read("images", before(AMD)).outs or {})
    other = dict(PROVIDER.read("images", before(ARM)).outs or {})

    assert held == before(AMD)
    assert other["missing"].keys() == set(warmed["images"])
    assert PROVIDER.diff("images", held, warmed).changes is True
    assert PROVIDER.update("images", held, warmed).outs == warmed


def test_refresh_finds_a_lost_image_and_update_restores_it(
    caches: Caches, warmed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[dict[str, str]] = []
    # It reads a volume, which needs an engine.
    monkeypatch.setattr(warming, "remove_damaged", lambda _, images: looked_at.append(images))
    caches.by_host[HUB].kept.remove(("team/app", BASE.digest))

    read = dict(PROVIDER.read("images", warmed).outs or {})

    assert read["missing"].keys() == {"docker.io/team/app:1"}
    assert BASE.digest in read["missing"]["docker.io/team/app:1"]
    assert PROVIDER.diff("images", read, warmed).changes is True
    healed = dict(PROVIDER.update("images", read, warmed).outs or {})
    assert healed == warmed
    assert PROVIDER.read("images", healed).outs == warmed
    assert [list(images) for images in looked_at] == [["docker.io/team/app:1"]]
    caches.gone.add("volume-of-docker.io")
    assert dict(PROVIDER.read("images", healed).outs or {})["missing"] == {
        "docker.io/team/app:1": "cannot serve the volume volume-of-docker.io"
    }
