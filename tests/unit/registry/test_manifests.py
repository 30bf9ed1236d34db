import json

import pytest

from talos_registry_cache.registry import manifests, platforms
from talos_registry_cache.registry.errors import ContentError, PlatformError
from talos_registry_cache.registry.manifests import Descriptor, Index, Manifest
from talos_registry_cache.registry.platforms import Platform
from tests.unit.registry.support import images
from tests.unit.registry.support.images import Blob, Built

LAYER = Blob(b"layer")
NAMED = {"unknown/unknown": Platform("unknown", "unknown"), "none": Platform()}


def entry(platform: str | None, number: int) -> Descriptor:
    return Descriptor(
        images.OCI_MANIFEST,
        f"sha256:{number:064x}",
        1,
        NAMED.get(platform) or platforms.parse(platform) if platform else None,
    )


def chosen(node: str, *entries: str | None) -> str | None:
    listed = [entry(platform, number) for number, platform in enumerate(entries)]
    found = manifests.choose(listed, platforms.parse(node))
    return entries[int(found.digest.removeprefix("sha256:"), 16)]


@pytest.mark.parametrize("built", [images.image(LAYER), images.docker_image(LAYER)])
def test_oci_and_docker_manifests_are_parsed(built: Built) -> None:
    [content] = built.manifests

    manifest = manifests.parse(content.content, content.media_type)

    assert isinstance(manifest, Manifest)
    assert [blob.digest for blob in manifest.blobs] == [blob.digest for blob in built.blobs]


@pytest.mark.parametrize("media_type", [images.OCI_INDEX, images.DOCKER_LIST])
def test_oci_and_docker_indexes_are_parsed(media_type: str) -> None:
    built = images.index({"linux/arm64/v8": images.image(LAYER)}, media_type=media_type)

    index = manifests.parse(built.manifests[0].content, media_type)

    assert isinstance(index, Index)
    assert index.manifests[0].platform == Platform("linux", "arm64", "v8")


def test_a_repeated_layer_counts_once() -> None:
    built = images.image(LAYER, Blob(b"other"), LAYER)

    manifest = manifests.parse(built.manifests[0].content, images.OCI_MANIFEST)

    assert isinstance(manifest, Manifest)
    assert [blob.size for blob in manifest.blobs[1:]] == [len(b"layer"), len(b"other")]


def with_config(**changed: object) -> bytes:
    return json.dumps({"config": LAYER.entry | changed, "layers": []}).encode()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<html>", "Invalid JSON"),
        (b"{}", "config: Field required"),
        (with_config(digest="../x"), "config.digest: "),
        (with_config(size=-1), "config.size: "),
        (b'{"layers": [' + b",".join([b"1"] * 100_000) + b"]}", "layers"),
    ],
)
def test_an_invalid_manifest_is_refused_with_the_first_reasons(content: bytes, said: str) -> None:
    with pytest.raises(ContentError, match=said) as refused:
        manifests.parse(content, images.OCI_MANIFEST)

    assert len(str(refused.value)) < 1000


def test_an_unknown_media_type_is_refused() -> None:
    with pytest.raises(ContentError, match=r"is 'text/html'; allowed: application/vnd\.oci"):
        manifests.parse(b"{}", "text/html")


@pytest.mark.parametrize(
    ("media_type", "content"),
    [
        (images.OCI_MANIFEST, {"layers": [], "manifests": []}),
        (images.OCI_MANIFEST, {"layers": [], "mediaType": images.OCI_INDEX}),
        (images.OCI_INDEX, {"manifests": [], "config": None}),
        (images.DOCKER_LIST, {"manifests": [], "layers": []}),
        (images.DOCKER_LIST, {"manifests": [], "mediaType": images.DOCKER_MANIFEST}),
    ],
)
def test_content_of_two_kinds_is_refused(media_type: str, content: dict[str, object]) -> None:
    config = {"config": LAYER.entry} if media_type == images.OCI_MANIFEST else {}

    with pytest.raises(ContentError, match="and the content of another one"):
        manifests.parse(json.dumps(config | content).encode(), media_type)


def test_null_is_an_empty_list() -> None:
    manifest = {"schemaVersion": 2, "config": LAYER.entry, "layers": None, "annotations": None}
    content = json.dumps(manifest).encode()

    assert manifests.parse(content, images.OCI_MANIFEST) == Manifest(LAYER.descriptor, ())
    assert manifests.parse(b'{"manifests": null}', images.OCI_INDEX) == Index(())
    # Pruning would remove the configuration if it were left out.
    assert manifests.digests_in(content) == (LAYER.digest,)


@pytest.mark.parametrize(
    "platform",
    [
        {"os": "linux", "architecture": "amd64", "variant": None, "os.features": None},
        {"os": "", "architecture": "amd64"},
        {"architecture": "AMD64"},
        {"os": "Linux", "architecture": "x86_64", "os.version": "5"},
    ],
)
def test_platforms_are_read_as_containerd_reads_them(platform: dict[str, object]) -> None:
    other = {"os": "linux", "architecture": "amd64", "os.features": ["erofs"]}
    listed = [Blob(b"other").entry | {"platform": other}, LAYER.entry | {"platform": platform}]
    index = manifests.parse(json.dumps({"manifests": listed}).encode(), images.OCI_INDEX)
    assert isinstance(index, Index)

    assert manifests.choose(index.manifests, Platform("linux", "amd64")).digest == LAYER.digest


@pytest.mark.parametrize(
    ("node", "entries", "choice"),
    [
        ("linux/arm64", ["linux/amd64", "linux/arm64", "linux/s390x"], "linux/arm64"),
        # The default variant may be omitted.
        ("linux/arm64", ["linux/amd64", "linux/arm64/v8"], "linux/arm64/v8"),
        ("linux/arm64/v8", ["linux/amd64", "linux/arm64"], "linux/arm64"),
        ("linux/arm/v7", ["linux/arm/v5", "linux/arm/v6", "linux/arm/v8"], "linux/arm/v6"),
        ("linux/amd64/v2", ["linux/amd64", "linux/amd64/v3"], "linux/amd64"),
    ],
)
def test_the_newest_variant_that_the_node_runs_is_chosen(
    node: str, entries: list[str], choice: str
) -> None:
    assert chosen(node, *entries) == choice


@pytest.mark.parametrize("other", NAMED)
def test_a_missing_platform_is_reported_with_the_known_ones(other: str) -> None:
    with pytest.raises(PlatformError, match=r"for linux/amd64; available for: linux/arm64$"):
        chosen("linux/amd64", "linux/arm64", other)


def test_attestations_are_not_chosen() -> None:
    image = images.image(LAYER)
    built = images.index({"linux/amd64": image}, images.attestation(image))
    index = manifests.parse(built.manifests[0].content, images.OCI_INDEX)
    assert isinstance(index, Index)

    assert len(index.manifests) == 2
    assert manifests.choose(index.manifests, Platform("linux", "amd64")).digest == image.digest
    with pytest.raises(PlatformError, match=r"available for: linux/amd64$"):
        manifests.choose(index.manifests, Platform("linux", "arm64"))


def layers(number: int) -> bytes:
    """A manifest with many layers."""
    blobs = [Blob(str(name).encode()).entry for name in range(number)]
    named = {"schemaVersion": 2, "config": images.config().entry, "layers": blobs}
    return json.dumps(named).encode()


def test_the_number_of_layers_is_limited_in_an_image_and_not_in_a_storage() -> None:
    most = manifests.PARTS_LIMIT
    allowed = manifests.parse(layers(most), images.OCI_MANIFEST)

    assert isinstance(allowed, Manifest)
    assert len(allowed.layers) == most
    with pytest.raises(ContentError, match="it has 20000 layers; allowed: at most 1000"):
        manifests.parse(layers(20_000), images.OCI_MANIFEST)
    # Pruning would remove a layer that is left out.
    assert len(manifests.digests_in(layers(20_000))) == 20_001
    index = json.dumps({"schemaVersion": 2, "manifests": [LAYER.entry] * (most + 1)}).encode()
    with pytest.raises(ContentError, match="it has 1001 manifests; allowed: at most 1000"):
        manifests.parse(index, images.OCI_INDEX)


@pytest.mark.parametrize(
    ("subject", "found"),
    [
        (LAYER.entry, LAYER.digest),
        *zip((None, 5, "text", [], {}, {"digest": 5}, {"digest": "a"}), [None] * 7, strict=True),
    ],
)
def test_a_manifest_refers_to_its_parts_whatever_its_subject_is(
    subject: object, found: str | None
) -> None:
    named = {"schemaVersion": 2, "config": LAYER.entry, "subject": subject}
    content = json.dumps(named).encode()

    assert manifests.subject_in(content) == found
    assert manifests.digests_in(content) == (LAYER.digest,)


def test_other_content_has_no_subject() -> None:
    assert manifests.subject_in(b"") is None
    assert manifests.subject_in(b'["subject"]') is None
    assert manifests.subject_in(b'{"subject": ' + b"[" * 100_000) is None


@pytest.mark.parametrize("piece", ["{}", "[]", '{"a":[{}]}'])
def test_json_that_would_take_much_memory_is_not_parsed(piece: str) -> None:
    named = f'{{"schemaVersion": 2, "config": {json.dumps(LAYER.entry)}, "layers": ['
    content = (named + ",".join([piece] * 1_000_000)).encode()

    with pytest.raises(ContentError, match="objects and lists; allowed: at most 65536"):
        manifests.parse(content, images.OCI_MANIFEST)
    assert manifests.digests_in(content) == (LAYER.digest,)
