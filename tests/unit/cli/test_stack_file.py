"""The images that a stack file lists, as `cachectl lock` reads them."""

from pathlib import Path

import pytest

from components.settings.images import Images as Settings
from components.settings.images import TalosImages as TalosSettings
from talos_registry_cache.cli import stack_file
from talos_registry_cache.cli.errors import UsageError

MANIFEST = "{apiVersion: v1, kind: Pod, spec: {containers: [{name: a, image: 'quay.io/a/b:3'}]}}"


def write(folder: Path, text: str) -> Path:
    (folder / "Pulumi.dev.yaml").write_text(text)
    return folder


@pytest.mark.parametrize("key", ["images", "talos-registry-cache:images"])
def test_all_lists_of_a_stack_file_are_read_each_image_once(tmp_path: Path, key: str) -> None:
    (tmp_path / "images.txt").write_text("ghcr.io/a/b:2  # why\nnginx:1\n")
    (tmp_path / "app.yaml").write_text(MANIFEST)
    write(
        tmp_path,
        f"config: {{'{key}': {{references: ['nginx:1'], file: images.txt, manifests: [app.yaml],"
        " platforms: all, attachments: all, lock: other.lock}}",
    )

    found = stack_file.read(tmp_path, "dev")

    assert list(map(str, found.listed(tmp_path))) == [
        "docker.io/library/nginx:1",
        "ghcr.io/a/b:2",
        "quay.io/a/b:3",
    ]
    assert (found.platforms, found.attachments, found.lock) == ("all", "all", "other.lock")


@pytest.mark.parametrize("text", ["", "config: {}", "config: {images: null}", "[]"])
def test_a_stack_file_without_images_lists_none(tmp_path: Path, text: str) -> None:
    found = stack_file.read(write(tmp_path, text), "dev")

    assert found == stack_file.Images()
    assert found.listed(tmp_path) == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, r"Pulumi\.dev\.yaml cannot be read: .*; or give IMAGE or --images"),
        ("config: [", r"Pulumi\.dev\.yaml is not YAML"),
        ("config: {images: {references: nginx}}", r"images\.references: Input should be a valid"),
        ("config: {images: {references: ['A:1']}}", "'A:1' is not an image reference"),
        ("config: {images: {file: missing.txt}}", r"missing\.txt cannot be read"),
        ("config: {images: {manifests: [missing.yaml]}}", r"missing\.yaml"),
    ],
)
def test_what_cannot_be_read_is_a_mistake_of_the_user(
    tmp_path: Path, text: str | None, said: str
) -> None:
    if text is not None:
        write(tmp_path, text)

    with pytest.raises(UsageError, match=said):
        stack_file.read(tmp_path, "dev").listed(tmp_path)


def test_it_knows_the_same_settings_as_the_program() -> None:
    for own, settings in (
        (stack_file.Images, Settings),
        (stack_file.TalosImages, TalosSettings),
    ):
        assert own.model_fields.keys() == settings.model_fields.keys()
