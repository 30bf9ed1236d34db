from benchmarks.support import image_set
from talos_registry_cache.registry import manifests, reference
from talos_registry_cache.registry.manifests import Index, Manifest

SCALE = 0.001


def test_the_images_are_about_as_large_as_those_of_a_cluster() -> None:
    blobs = {
        blob.digest: len(blob.content) for image in image_set.images(SCALE) for blob in image.blobs
    }

    assert 430_000 < sum(blobs.values()) < 450_000


def test_each_reference_is_a_valid_image() -> None:
    names = [reference.parse(text) for text in image_set.REFERENCES]
    images = list(image_set.images(SCALE))

    assert [(image.repository, image.tag) for image in images] == [
        (name.repository, name.tag) for name in names
    ]
    assert {name.registry for name in names} == set(image_set.REGISTRIES)
    for image in images:
        index = manifests.parse(image.index.content, image.index.media_type)
        manifest = manifests.parse(image.manifest.content, image.manifest.media_type)
        assert isinstance(index, Index)
        assert isinstance(manifest, Manifest)
        assert [one.digest for one in index.manifests] == [image.manifest.digest]
        assert [one.digest for one in manifest.blobs] == [blob.digest for blob in image.blobs]
