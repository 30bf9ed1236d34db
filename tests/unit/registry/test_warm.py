import asyncio
from collections.abc import Iterator, Mapping

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from talos_registry_cache.registry import warm as warm_module
from talos_registry_cache.registry.attachments import Attachments
from talos_registry_cache.registry.errors import (
    AnswerError,
    ContentError,
    EndpointError,
    NotKeptError,
    PlatformError,
)
from talos_registry_cache.registry.image_lock import LockedImage
from talos_registry_cache.registry.platforms import Platform
from talos_registry_cache.registry.reference import parse
from talos_registry_cache.registry.retry import Retry
from talos_registry_cache.registry.warm import NotWarmed, Progress, Warmed, warm
from tests.support import signing
from tests.unit.registry.support import images, tiny_registry
from tests.unit.registry.support.images import Blob, Built
from tests.unit.registry.support.tiny_registry import TinyRegistry, serving, storage_of

NODE = (Platform("linux", "amd64"),)
QUICK = Retry(tries=3, first_pause_s=0.01, patience_s=1)
BASE = Blob(b"a layer that images share" * 1000)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_module, "PAUSES_S", (0, 0, 0.02, 0.02))
    monkeypatch.setattr(warm_module, "UNKNOWN_PAUSES_S", (0, 0.02, 0.02))


@pytest.fixture
def storage(cache: TinyRegistry) -> Iterator[TinyRegistry]:
    """A registry without an upstream on the storage of the cache."""
    with serving(storage_of(cache)) as running:
        yield running


def layer(name: str) -> Blob:
    return Blob(name.encode() * 1000)


def run(
    cache: TinyRegistry, *texts: str, storage: TinyRegistry | None = None, concurrency: int = 8
) -> tuple[Warmed | NotWarmed, ...]:
    storages = {"docker.io": storage.url} if storage else None
    endpoints = {"docker.io": cache.url}
    return asyncio.run(
        warm(
            map(parse, texts),
            endpoints,
            NODE,
            storages=storages,
            retry=QUICK,
            concurrency=concurrency,
        )
    )


def errors(outcome: Warmed | NotWarmed) -> list[type[Exception]]:
    assert isinstance(outcome, NotWarmed)
    return [type(error) for error in outcome.errors]


def holding(cache: TinyRegistry, repositories: Mapping[str, Built]) -> None:
    for repository, built in repositories.items():
        cache.hold(repository, "1", built)


def test_everything_a_node_needs_of_an_image_is_cached(cache: TinyRegistry) -> None:
    mine = images.image(BASE, layer("mine"))
    other = images.image(layer("other"), platform="linux/arm64")
    built = images.index({"linux/arm64": other, "linux/amd64": mine}, images.attestation(mine))
    cache.hold("team/app", "1", built)

    [outcome] = run(cache, "team/app:1")

    assert isinstance(outcome, Warmed)
    assert outcome.image.digest == built.digest
    assert [part.digest for part in outcome.image.manifests] == [built.digest, mine.digest]
    assert cache.kept == {("team/app", blob.digest) for blob in mine.blobs}
    assert outcome.fetched == sum(len(blob.content) for blob in mine.blobs)
    asked = {target: len(cache.asked(target)) for target in ("1", built.digest, mine.digest)}
    assert asked == {"1": 1, built.digest: 1, mine.digest: 1}
    assert cache.asked(other.digest) == []


def test_an_image_without_an_index_is_warmed_by_its_digest_instead_of_the_tag(
    cache: TinyRegistry,
) -> None:
    built = images.docker_image(BASE)
    cache.hold("team/app", "1", built)

    [outcome] = run(cache, f"team/app:1@{built.digest}")

    assert isinstance(outcome, Warmed)
    assert cache.asked("1") == []


def test_cached_blobs_are_not_read_again(cache: TinyRegistry) -> None:
    built = images.image(BASE, layer("own"))
    cache.hold("team/app", "1", images.index({"linux/amd64": built}))
    run(cache, "team/app:1")
    cache.requests.clear()

    [outcome] = run(cache, "team/app:1")

    assert isinstance(outcome, Warmed)
    assert outcome.fetched == 0
    assert all(cache.asked(blob.digest) == ["GET bytes=0-0"] for blob in built.blobs)


def test_images_of_a_repository_share_layers(cache: TinyRegistry) -> None:
    for tag in ("1", "2", "3"):
        cache.hold("team/app", tag, images.index({"linux/amd64": images.image(BASE, layer(tag))}))

    outcomes = run(cache, "team/app:1", "team/app:2", "team/app:3")

    assert all(isinstance(outcome, Warmed) for outcome in outcomes)
    assert set(cache.fetched.values()) == {1}


@pytest.mark.parametrize("earlier", [[], ["team/three:1"]])
def test_a_layer_of_several_repositories_is_fetched_once_and_mounted(
    cache: TinyRegistry, storage: TinyRegistry, earlier: list[str]
) -> None:
    names = ("team/one", "team/two", "team/three")
    holding(cache, {name: images.image(BASE, layer(name)) for name in names})
    run(cache, *earlier, storage=storage)

    outcomes = run(cache, *(f"{name}:1" for name in names), storage=storage)

    assert all(isinstance(outcome, Warmed) for outcome in outcomes)
    assert cache.fetched[BASE.digest] == 1
    assert {(name, BASE.digest) for name in names} <= cache.kept


def test_without_a_storage_a_shared_layer_is_fetched_for_each_repository(
    cache: TinyRegistry,
) -> None:
    holding(cache, {"team/one": images.image(BASE), "team/two": images.image(BASE)})

    outcomes = run(cache, "team/one:1", "team/two:1")

    assert all(isinstance(outcome, Warmed) for outcome in outcomes)
    # Concurrent fetches would not both be stored, and need a third one.
    assert cache.fetched[BASE.digest] == 2


def test_the_failure_of_an_image_does_not_stop_others(cache: TinyRegistry) -> None:
    good = images.image(layer("good"))
    holding(cache, {"team/good": good, "team/arm": images.image(BASE, platform="linux/arm64")})
    texts = ("team/good:1", "team/none:1", "quay.io/a/b:1", "team/arm:1")

    outcomes = run(cache, *texts)

    assert [outcome.reference for outcome in outcomes] == [parse(text) for text in texts]
    assert isinstance(outcomes[0], Warmed)
    assert [errors(outcome) for outcome in outcomes[1:]] == [
        [AnswerError],
        [EndpointError],
        [PlatformError],
    ]
    assert "nothing serves quay.io; served are: docker.io" in str(outcomes[2])
    assert "not available for linux/amd64; available for: linux/arm64" in str(outcomes[3])
    assert BASE.digest not in cache.fetched


def test_a_failed_warming_is_continued_and_a_broken_transfer_completed(
    cache: TinyRegistry,
) -> None:
    bad, good = layer("bad"), layer("good")
    cache.hold("team/app", "1", images.index({"linux/amd64": images.image(bad, good)}))
    cache.fail(bad.digest, tiny_registry.altered, tiny_registry.cut(500))

    [first] = run(cache, "team/app:1")
    [second] = run(cache, "team/app:1")

    assert errors(first) == [ContentError]
    assert isinstance(second, Warmed)
    assert ("team/app", bad.digest) in cache.kept
    assert cache.fetched[good.digest] == 1


def test_a_blob_is_requested_again_while_a_node_is_pulling_it(cache: TinyRegistry) -> None:
    cache.hold("team/app", "1", images.index({"linux/amd64": images.image(BASE)}))
    # While a node pulls it, other requests get the blob without storing it.
    cache.fail(BASE.digest, tiny_registry.whole, tiny_registry.whole)

    [outcome] = run(cache, "team/app:1")

    assert isinstance(outcome, Warmed)
    assert cache.asked(BASE.digest) == ["GET bytes=0-0"] * 4
    assert ("team/app", BASE.digest) in cache.kept


def test_a_cache_that_stores_nothing_is_an_error(cache: TinyRegistry) -> None:
    cache.hold("team/app", "1", images.index({"linux/amd64": images.image(BASE)}))
    cache.keeps = False

    [outcome] = run(cache, "team/app:1")

    assert errors(outcome) == [NotKeptError, NotKeptError]
    assert "is its disk full?" in str(outcome)


UNKNOWN = tiny_registry.status(404, "MANIFEST_UNKNOWN", "manifest unknown")


@pytest.mark.parametrize("failures", [1, QUICK.tries])
def test_an_unknown_tag_is_requested_again_while_the_upstream_fails(
    cache: TinyRegistry, failures: int
) -> None:
    cache.hold("team/app", "1", images.index({"linux/amd64": images.image(BASE)}))
    # A cache answers 404 for a tag whatever its upstream answers, but not for a digest.
    cache.fail("1", UNKNOWN)
    limit = tiny_registry.status(429, "TOOMANYREQUESTS", "you have reached your limit")
    cache.fail(warm_module.NONEXISTENT_DIGEST, *[limit] * failures)

    [outcome] = run(cache, "team/app:1")

    if failures == 1:
        assert isinstance(outcome, Warmed)
        assert cache.asked(warm_module.NONEXISTENT_DIGEST) == ["GET", "GET"]
    else:
        assert errors(outcome) == [AnswerError]
        assert "404 MANIFEST_UNKNOWN: manifest unknown; upstream: GET " in str(outcome)
        assert "429 TOOMANYREQUESTS: you have reached your limit" in str(outcome)


def test_a_missing_tag_is_requested_a_few_times_and_a_missing_digest_once(
    cache: TinyRegistry,
) -> None:
    digest = f"sha256:{'1' * 64}"

    outcomes = run(cache, "team/app:1", f"team/app@{digest}")

    assert ["404" in str(outcome) for outcome in outcomes] == [True, True]
    assert cache.asked("1") == ["GET"] * 3
    assert cache.asked(digest) == ["GET"]


@pytest.mark.parametrize("concurrency", [1, 3])
def test_the_number_of_concurrent_requests_is_limited(
    cache: TinyRegistry, concurrency: int
) -> None:
    names = [f"team/app{number}" for number in range(12)]
    holding(
        cache, {name: images.index({"linux/amd64": images.image(layer(name))}) for name in names}
    )

    outcomes = run(cache, *(f"{name}:1" for name in names), concurrency=concurrency)

    assert all(isinstance(outcome, Warmed) for outcome in outcomes)
    assert cache.most_waiting == concurrency


def test_progress_is_reported_in_bytes_up_to_the_total(cache: TinyRegistry) -> None:
    built = images.image(BASE, layer("own"))
    cache.hold("team/app", "1", images.index({"linux/amd64": built}))
    told: list[Progress] = []

    asyncio.run(
        warm([parse("team/app:1")], {"docker.io": cache.url}, NODE, on_progress=told.append)
    )

    total = sum(len(blob.content) for blob in built.blobs)
    assert told[0] == Progress(done=0, total=total, fetched=0)
    assert told[-1] == Progress(done=total, total=total, fetched=total)
    assert [each.done for each in told] == sorted(each.done for each in told)


@pytest.mark.parametrize(
    ("wanted", "suffixes"),
    [("none", []), ("signatures", [".sig"]), ("all", [".sig", ".att", ".sbom"])],
)
def test_attachments_are_warmed_with_their_image(
    cache: TinyRegistry, wanted: str, suffixes: list[str]
) -> None:
    built = images.index({"linux/amd64": images.image(BASE)})
    cache.hold("team/app", "1", built)
    tag = built.digest.replace(":", "-")
    attached = {}
    for suffix in (".sig", ".att", ".sbom"):
        key = ec.generate_private_key(ec.SECP256R1())
        attached[suffix] = signing.simple_signing(built.digest, key)
        cache.hold("team/app", f"{tag}{suffix}", attached[suffix])

    [outcome] = asyncio.run(
        warm(
            [parse("team/app:1")],
            {"docker.io": cache.url},
            NODE,
            attach=Attachments(wanted),
            retry=QUICK,
        )
    )

    assert isinstance(outcome, Warmed)
    assert [one.reference.tag for one in outcome.attachments] == [tag + one for one in suffixes]
    warmed = [built, *(attached[suffix] for suffix in suffixes)]
    assert cache.kept == {("team/app", blob.digest) for one in warmed for blob in one.blobs}


def test_an_image_whose_signature_cannot_be_fetched_is_not_warmed(cache: TinyRegistry) -> None:
    built = images.index({"linux/amd64": images.image(BASE)})
    cache.hold("team/app", "1", built)
    signature = signing.simple_signing(built.digest, ec.generate_private_key(ec.SECP256R1()))
    cache.hold("team/app", built.digest.replace(":", "-") + ".sig", signature)
    del cache.blobs["team/app", signature.blobs[1].digest]

    [outcome] = run(cache, "team/app:1")

    assert isinstance(outcome, NotWarmed)
    assert signature.blobs[1].digest in str(outcome.errors[0])


def test_locked_images_are_warmed_by_their_digests_and_no_tag_is_looked_up(
    cache: TinyRegistry,
) -> None:
    built, moved = (images.index({"linux/amd64": images.image(layer(one))}) for one in "ab")
    key = ec.generate_private_key(ec.SECP256R1())
    signature, newer = (signing.simple_signing(built.digest, key) for _ in range(2))
    tag = built.digest.replace(":", "-") + ".sig"
    for one in (built, moved):
        cache.hold("team/app", "1", one)
    for one in (signature, newer):
        cache.hold("team/app", tag, one)
    app = parse("team/app:1")

    [outcome] = asyncio.run(
        warm(
            [app],
            {"docker.io": cache.url},
            NODE,
            locked={app: LockedImage(built.digest, 0, {tag: signature.digest})},
            retry=QUICK,
        )
    )

    assert isinstance(outcome, Warmed)
    assert (outcome.reference, outcome.image.digest) == (app, built.digest)
    assert [one.digest for one in outcome.attachments] == [signature.digest]
    assert not [one for one in cache.requests if "/manifests/" in one and "sha256:" not in one]
