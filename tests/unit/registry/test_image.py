"""What nodes of some platforms need of an image, as containerd chooses it."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from talos_registry_cache.registry.client import RegistryClient
from talos_registry_cache.registry.errors import ContentError, PlatformError, RegistryError
from talos_registry_cache.registry.image import Image, walk
from talos_registry_cache.registry.manifests import DEPTH_LIMIT
from talos_registry_cache.registry.platforms import ALL, parse_all
from talos_registry_cache.registry.reference import parse
from tests.unit.registry.support import images
from tests.unit.registry.support.images import OCI_INDEX, OCI_MANIFEST, Blob, Built
from tests.unit.registry.support.tiny_registry import TinyRegistry, serving

AMD64, ARM64 = "linux/amd64", "linux/arm64"
UNKNOWN = "unknown/unknown"
APP = "team/app"
SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1"


@pytest.fixture(scope="module")
def shared() -> Iterator[TinyRegistry]:
    """A plain registry for many examples."""
    with serving(TinyRegistry()) as running:
        yield running


def image(platform: str = AMD64, name: str = "") -> Built:
    return images.image(Blob(f"a layer of {platform} {name}".encode()), platform=platform)


def index(*entries: tuple[str | None, Built], **changed: Any) -> Built:
    """An index of images and indexes, with the platform that it names for each."""
    described = [
        built.manifests[0].entry
        | ({"platform": images.platform_entry(platform)} if platform else {})
        | changed
        for platform, built in entries
    ]
    content = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": described}
    return Built(
        [
            Blob(json.dumps(content).encode(), OCI_INDEX),
            *(manifest for _, built in entries for manifest in built.manifests),
        ],
        [blob for _, built in entries for blob in built.blobs],
    )


def walked(registry: TinyRegistry, built: Built, *platforms: str) -> Image:
    registry.hold(APP, "1", built)

    async def run() -> Image:
        async with RegistryClient(registry.url) as client:
            return await walk(client, parse(f"docker.io/{APP}:1"), parse_all(platforms))

    return asyncio.run(run())


def digests(parts: Sequence[Any]) -> list[str]:
    return [part.digest for part in parts]


AMD, ARM = image(AMD64), image(ARM64)
BOTH = index((AMD64, AMD), (ARM64, ARM))


def test_an_image_for_several_platforms_has_the_parts_of_all_once(registry: TinyRegistry) -> None:
    found = walked(registry, BOTH, AMD64, ARM64, AMD64)

    assert digests(found.manifests) == [BOTH.digest, AMD.digest, ARM.digest]
    assert digests(found.blobs) == digests([*AMD.blobs, *ARM.blobs])
    assert [str(one.platform) for one in found.manifests[1:]] == [AMD64, ARM64]
    assert [len(registry.asked(one)) for one in (BOTH.digest, AMD.digest, ARM.digest)] == [1, 1, 1]


def test_all_is_everything_that_an_index_names(registry: TinyRegistry) -> None:
    statement = image(UNKNOWN)
    nested = index((None, ARM), (UNKNOWN, statement))
    layer = Blob(b"a layer of a build cache", images.OCI_LAYER)
    built = index((AMD64, AMD), ("linux/riscv64", nested), (None, Built([layer], [layer])))

    found = walked(registry, built, ALL)

    expected = [built, AMD, nested, ARM, statement]
    assert digests(found.manifests) == digests(expected)
    blobs = [*AMD.blobs, *ARM.blobs, *statement.blobs, layer]
    assert digests(found.blobs) == digests(blobs)


@pytest.mark.parametrize(
    ("built", "lacking", "available"),
    [
        (BOTH, "linux/s390x", "linux/amd64, linux/arm64"),
        (AMD, ARM64, AMD64),
        (index((None, AMD)), ARM64, AMD64),
        (index((AMD64, AMD), (None, ARM)), "linux/s390x", "linux/amd64, linux/arm64"),
        # containerd has no second choice.
        (index((None, AMD), (None, ARM)), ARM64, AMD64),
        (index((ARM64, index((AMD64, AMD)))), ARM64, AMD64),
        (index((UNKNOWN, AMD)), AMD64, "no platform"),
        (index(), AMD64, "no platform"),
    ],
)
def test_a_platform_that_an_image_lacks_is_named_with_those_that_it_has(
    registry: TinyRegistry, built: Built, lacking: str, available: str
) -> None:
    with pytest.raises(PlatformError) as refused:
        walked(registry, built, lacking)

    assert str(refused.value) == f"not available for {lacking}; available for: {available}"


@pytest.mark.parametrize(
    ("built", "chosen"),
    [
        (index((None, AMD)), AMD),
        (index((None, ARM), (AMD64, AMD)), AMD),
        (index(("linux/x86_64", AMD)), AMD),
        (index(("linux/arm", ARM), (None, AMD), (None, ARM)), AMD),
        (index((AMD64, AMD), annotations=None), AMD),
        (index((AMD64, image(ARM64))), image(ARM64)),
    ],
)
def test_an_entry_without_a_platform_comes_last_and_has_it_in_its_configuration(
    registry: TinyRegistry, built: Built, chosen: Built
) -> None:
    found = walked(registry, built, AMD64)

    assert digests(found.manifests) == [built.digest, chosen.digest]
    assert digests(found.blobs) == digests(chosen.blobs)


@pytest.mark.parametrize("platform", [None, AMD64])
def test_an_index_may_be_inside_an_index_up_to_a_limit(
    registry: TinyRegistry, platform: str | None
) -> None:
    built = AMD
    for _ in range(DEPTH_LIMIT):
        built = index((platform, built))
    deeper = index((platform, built))

    for wanted in (AMD64, ALL):
        found = walked(registry, built, wanted)
        assert len(found.manifests) == DEPTH_LIMIT + 1
        assert digests(found.blobs) == digests(AMD.blobs)
        with pytest.raises(ContentError, match="is inside 5 indexes; allowed: at most 4"):
            walked(registry, deeper, wanted)


def test_a_hostile_index_ends_at_a_limit(registry: TinyRegistry) -> None:
    layers = [Blob(b"%d" % number).entry for number in range(999)]
    own = images.config()
    full = [
        Blob(
            json.dumps(
                {
                    "schemaVersion": 2,
                    "config": own.entry,
                    "layers": [
                        {**one, "digest": one["digest"][:-2] + f"{at:02}"} for one in layers
                    ],
                }
            ).encode(),
            OCI_MANIFEST,
        )
        for at in range(11)
    ]

    with pytest.raises(ContentError, match="manifests and blobs or more; allowed: at most 10000"):
        walked(registry, index(*((AMD64, Built([one], [own])) for one in full)), ALL)


@pytest.mark.parametrize("media_type", [f"{SCHEMA_1}+json", f"{SCHEMA_1}+prettyjws", OCI_MANIFEST])
def test_a_schema_1_image_is_refused_at_once(registry: TinyRegistry, media_type: str) -> None:
    old = Blob(b'{"schemaVersion": 1, "fsLayers": []}', media_type)

    for wanted in (AMD64, ALL):
        for built in (Built([old], []), index((AMD64, Built([old], [])))):
            with pytest.raises(ContentError, match="it is a schema 1 image, a format that"):
                walked(registry, built, wanted)


def test_an_entry_that_is_no_image_cannot_be_chosen(registry: TinyRegistry) -> None:
    chart = Blob(b"{}", "application/vnd.example.chart")

    with pytest.raises(ContentError, match=r"type is 'application/vnd\.example\.chart'; allowed:"):
        walked(registry, index((AMD64, Built([chart], [])), (AMD64, AMD)), AMD64)


def test_layers_may_be_null_and_of_any_type(registry: TinyRegistry) -> None:
    own = images.config()
    empty = {"schemaVersion": 2, "config": own.entry, "layers": None, "annotations": None}
    bare = Built([Blob(json.dumps(empty).encode(), OCI_MANIFEST)], [own])
    odd = images.image(Blob(b"{}", "application/vnd.example.layer"), platform=ARM64)

    found = walked(registry, index((AMD64, bare), (ARM64, odd)), AMD64, ARM64)

    assert digests(found.blobs) == [own.digest, *digests(odd.blobs)]


# Generated indexes


def containerd_chooses(entry: dict[str, Any], node: str, *, is_root: bool = True) -> Built | None:
    """The image that containerd runs: a plain reading of its `images.Manifest`."""
    if "entries" not in entry:
        known = entry["config"] if is_root or entry["platform"] is None else entry["platform"]
        return entry["built"] if known == node else None
    matching = [one for one in entry["entries"] if one["platform"] in (node, None)]
    matching.sort(key=lambda one: one["platform"] is None)
    return containerd_chooses(matching[0], node, is_root=False) if matching else None


PLATFORMS = st.sampled_from([None, AMD64, ARM64, UNKNOWN, "linux/s390x"])
LEAVES = st.fixed_dictionaries(
    {
        "platform": PLATFORMS,
        "config": st.sampled_from([AMD64, ARM64]),
        "name": st.sampled_from("abc"),
    }
)
ENTRIES = st.recursive(
    LEAVES,
    lambda inner: st.fixed_dictionaries(
        {"platform": PLATFORMS, "entries": st.lists(inner, max_size=4)}
    ),
    max_leaves=8,
)


def build(entry: dict[str, Any]) -> Built:
    """Build an image or an index, and note it in the entries."""
    if "entries" in entry:
        built = index(*((one["platform"], build(one)) for one in entry["entries"]))
    else:
        built = image(entry["config"], entry["name"])
    entry["built"] = built
    return built


def depth(entry: dict[str, Any]) -> int:
    return 1 + max(map(depth, entry["entries"]), default=0) if "entries" in entry else 0


@given(ENTRIES.filter(lambda entry: depth(entry) <= DEPTH_LIMIT))
def test_the_choice_is_that_of_containerd(shared: TinyRegistry, entry: dict[str, Any]) -> None:
    built = build(entry)
    everything = walked(shared, built, ALL)
    chosen = {node: containerd_chooses(entry, node) for node in (AMD64, ARM64)}
    separate = []

    for node, one in chosen.items():
        if one is None:
            with pytest.raises(PlatformError, match=f"not available for {node}; available for: "):
                walked(shared, built, node)
            continue
        found = walked(shared, built, node)
        assert found.digest == built.digest
        assert found.manifests[-1].digest == one.digest
        assert digests(found.blobs) == digests(one.blobs)
        assert set(digests(found.manifests)) <= set(digests(everything.manifests))
        separate.append(found)

    if None in chosen.values():
        with pytest.raises(RegistryError):
            walked(shared, built, *chosen)
    else:
        both = walked(shared, built, *chosen)
        for kind in ("manifests", "blobs"):
            parts = digests(getattr(both, kind))
            assert len(parts) == len(set(parts))
            assert set(parts) == {part for one in separate for part in digests(getattr(one, kind))}
    # Everything is there, each once.
    assert set(digests(everything.manifests)) == set(digests(built.manifests))
    assert set(digests(everything.blobs)) == set(digests(built.blobs))
