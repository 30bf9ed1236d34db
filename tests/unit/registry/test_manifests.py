import json

import pytest

from talos_registry_cache.registry import manifests, platforms
from talos_registry_cache.registry.errors import ContentError, PlatformError
from talos_registry_cache.registry.manifests import Descriptor, Index, Manifest
from talos_registry_cache.registry.platforms import Platform
from tests.unit.registry.support import images
from tests.unit.registry.support.images import Blob, Built

LAYER = Blob(b"layer")


def entry(platform: str | None, number: int) -> Descriptor:
    return Descriptor(
        images.OCI_MANIFEST,
        f"sha256:{number:064x}",
        1,
        Platform(*platform.split("/")) if platform else None,
    )


def chosen(node: str, *entries: str | None) -> str | None:
    listed = [entry(platform, number) for number, platform in enumerate(entries)]
    found = manifests.choose(listed, platforms.parse(node))
    return entries[int(found.digest.removeprefix("sha256:"), 16)]


@pytest.mark.parametrize("built", [images.image(LAYER), images.docker_image(LAYER)])
def test_manifests_are_read_in_both_forms(built: Built) -> None:
    [content] = built.manifests

    manifest = manifests.parse(content.content, content.media_type)

    assert isinstance(manifest, Manifest)
    assert [blob.digest for blob in manifest.blobs] == [blob.digest for blob in built.blobs]


@pytest.mark.parametrize("media_type", [images.OCI_INDEX, images.DOCKER_LIST])
def test_indexes_are_read_in_both_forms(media_type: str) -> None:
    built = images.index({"linux/arm64/v8": images.image(LAYER)}, media_type=media_type)

    index = manifests.parse(built.manifests[0].content, media_type)

    assert isinstance(index, Index)
    assert index.manifests[0].platform == Platform("linux", "arm64", "v8")


def test_a_layer_that_is_repeated_counts_once() -> None:
    built = images.image(LAYER, Blob(b"other"), LAYER)

    manifest = manifests.parse(built.manifests[0].content, images.OCI_MANIFEST)

    assert isinstance(manifest, Manifest)
    assert [blob.size for blob in manifest.blobs[1:]] == [len(b"layer"), len(b"other")]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<html>", "Invalid JSON"),
        (b"{}", "config: Field required"),
        (
            json.dumps({"config": LAYER.entry | {"digest": "../x"}, "layers": []}).encode(),
            "config.digest: String should match pattern",
        ),
        (
            json.dumps({"config": LAYER.entry | {"size": -1}, "layers": []}).encode(),
            "config.size: Input should be greater than or equal to 0",
        ),
    ],
)
def test_a_broken_manifest_says_what_is_broken(content: bytes, said: str) -> None:
    with pytest.raises(ContentError) as refused:
        manifests.parse(content, images.OCI_MANIFEST)

    assert said in str(refused.value)


def test_an_unknown_form_is_named_with_those_allowed() -> None:
    with pytest.raises(ContentError, match=r"is 'text/html'; allowed: application/vnd\.oci"):
        manifests.parse(b"{}", "text/html")


def test_the_nodes_own_platform_is_chosen() -> None:
    assert chosen("linux/arm64", "linux/amd64", "linux/arm64", "linux/s390x") == "linux/arm64"


def test_the_usual_variant_may_be_named_or_not() -> None:
    assert chosen("linux/arm64", "linux/amd64", "linux/arm64/v8") == "linux/arm64/v8"
    assert chosen("linux/arm64/v8", "linux/amd64", "linux/arm64") == "linux/arm64"


def test_the_newest_variant_that_runs_is_chosen() -> None:
    assert chosen("linux/arm/v7", "linux/arm/v5", "linux/arm/v6", "linux/arm/v8") == "linux/arm/v6"
    assert chosen("linux/amd64/v2", "linux/amd64", "linux/amd64/v3") == "linux/amd64"


def test_an_image_that_does_not_exist_for_a_node_names_what_it_exists_for() -> None:
    with pytest.raises(PlatformError, match="not exist for linux/amd64; it does for: linux/arm64"):
        chosen("linux/amd64", "linux/arm64", None)


def test_an_attestation_is_no_image() -> None:
    image = images.image(LAYER)
    built = images.index({"linux/amd64": image}, images.attestation(image))
    index = manifests.parse(built.manifests[0].content, images.OCI_INDEX)
    assert isinstance(index, Index)

    assert len(index.manifests) == 2
    assert manifests.choose(index.manifests, Platform("linux", "amd64")).digest == image.digest
    with pytest.raises(PlatformError, match=r"it does for: linux/amd64$"):
        manifests.choose(index.manifests, Platform("linux", "arm64"))


def test_an_entry_for_no_known_platform_is_not_offered() -> None:
    with pytest.raises(PlatformError, match=r"it does for: linux/arm64$"):
        chosen("linux/amd64", "unknown/unknown", "linux/arm64")


def layers(number: int) -> bytes:
    """A manifest with many layers."""
    blobs = [Blob(str(name).encode()).entry for name in range(number)]
    named = {"schemaVersion": 2, "config": images.config().entry, "layers": blobs}
    return json.dumps(named).encode()


def test_an_image_has_no_more_layers_than_are_allowed() -> None:
    most = manifests.PARTS_LIMIT
    allowed = manifests.parse(layers(most), images.OCI_MANIFEST)

    assert isinstance(allowed, Manifest)
    assert len(allowed.layers) == most
    with pytest.raises(ContentError, match="it has 20000 layers; allowed: 1000"):
        manifests.parse(layers(20_000), images.OCI_MANIFEST)


def test_an_index_has_no_more_images_than_are_allowed() -> None:
    entries = [Blob(str(name).encode()).entry for name in range(manifests.PARTS_LIMIT + 1)]
    content = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()

    with pytest.raises(ContentError, match="it has 1001 manifests; allowed: 1000"):
        manifests.parse(content, images.OCI_INDEX)


def test_whatever_is_stored_names_all_of_its_layers() -> None:
    """However many: what is not named would be pruned."""
    assert len(manifests.digests_in(layers(20_000))) == 20_001


@pytest.mark.parametrize("piece", ["{}", "[]", '{"a":[{}]}'])
def test_json_that_takes_much_memory_is_not_parsed(piece: str) -> None:
    named = f'{{"schemaVersion": 2, "config": {json.dumps(LAYER.entry)}, "layers": ['
    content = (named + ",".join([piece] * 1_000_000)).encode()

    with pytest.raises(ContentError, match="objects and lists in it; allowed: 65536"):
        manifests.parse(content, images.OCI_MANIFEST)
    assert manifests.digests_in(content) == (LAYER.digest,)


def test_of_many_mistakes_few_are_told() -> None:
    content = b'{"schemaVersion": 2, "layers": [' + b",".join([b"1"] * 100_000) + b"]}"

    with pytest.raises(ContentError) as raised:
        manifests.parse(content, images.OCI_MANIFEST)

    assert len(str(raised.value)) < 1000
