"""The settings below the key `images`."""

from typing import Any

import pytest

from components import settings
from components.settings.images import Images
from tests.unit.components.parsed_settings import assert_refused, of

DIGEST = f"sha256:{'0' * 64}"


def parse(images: Any) -> Images:
    parsed = settings.parse("dev", of(images, "images")).images
    assert parsed is not None
    return parsed


@pytest.mark.parametrize("images", [None, {}, ""])
def test_a_stack_needs_no_images(images: Any) -> None:
    assert settings.parse("dev", of({}) | {"images": images}).images is None
    assert parse({"references": ["nginx"]}).platforms is None


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.29", "docker.io/library/nginx:1.29"),
        ("quay.io/a/b", "quay.io/a/b:latest"),
        (f"quay.io/a/b@{DIGEST}", f"quay.io/a/b@{DIGEST}"),
        (f"quay.io/a/b:1@{DIGEST}", f"quay.io/a/b:1@{DIGEST}"),
        ("localhost:5000/a:1", "localhost:5000/a:1"),
    ],
)
def test_references_are_canonical(written: str, canonical: str) -> None:
    (image,) = parse({"references": [written]}).references
    assert str(image) == canonical


@pytest.mark.parametrize(
    ("written", "platforms"),
    [
        (["linux/amd64"], ["linux/amd64"]),
        (["linux/x86_64", "linux/aarch64"], ["linux/amd64", "linux/arm64"]),
        (["linux/arm/v7"], ["linux/arm/v7"]),
        ("all", ["all"]),
        (["all"], ["all"]),
    ],
)
def test_platforms_are_normalized(written: Any, platforms: list[str]) -> None:
    assert parse({"platforms": written}).platforms == platforms


@pytest.mark.parametrize(
    ("images", "path", "kind"),
    [
        ("references: [a b]", "references[0]", "found 'a b'; allowed: an image reference"),
        ("references: [nginx, A]", "references[1]", "found 'A'"),
        ("references: [quay.io/App:1]", "references[0]", "its repository is 'App'; allowed: low"),
        ("references: [1]", "references[0]", "a text"),
        ("references: nginx", "references", "a list"),
        ("[nginx]", "", "found ['nginx']; allowed: a mapping"),
        ("file: ''", "file", "non-empty text"),
        ("platform: linux/amd64", "platform", "an unknown key (did you mean platforms?)"),
        ("platforms: linux/amd64", "platforms", "found 'linux/amd64'; allowed: all, or a list"),
        ("platforms: []", "platforms", "found []; allowed: all, or a list of platforms such as"),
        ("platforms: [linux/amd64, arm64]", "platforms[1]", "found 'arm64'; allowed: a platform"),
        ("platforms: [linux/amd64, all]", "platforms[1]", "found 'all'; allowed: a platform"),
        ("talos: {talosctl: ''}", "talos.talosctl", "non-empty text"),
        ("talos: {talosVersion: latest}", "talos.talosVersion", "a version such as v1.11.5"),
        ("talos: {kubernetesVersion: '1.3'}", "talos.kubernetesVersion", "a version such as"),
        ("talos: {version: v1.11.5}", "talos.version", "allowed: talosctl, talosVersion, kuber"),
        ("refrences: [nginx]", "refrences", "(did you mean references?); allowed: references, f"),
    ],
)
def test_an_invalid_value_is_reported_at_its_path(images: str, path: str, kind: str) -> None:
    assert_refused(of(images, "images"), f"images.{path}".removesuffix("."), kind)


def test_images_without_caches_are_refused() -> None:
    written = {"images": {"references": ["a"]}, "clusters": {"demo": None}}

    assert_refused(written, "images", "found without caches")
