"""The settings below the key `images`."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components import settings
from components.settings import SettingsError
from components.settings.images import Images
from talos_registry_cache.registry import reference

CACHES = {"upstreams": {"docker.io": None}}
DIGEST = f"sha256:{'0' * 64}"


def parse(images: Any) -> Images:
    parsed = settings.parse("dev", caches=CACHES, images=images).images
    assert parsed is not None
    return parsed


def mistakes(images: Any, caches: Any = CACHES, **rest: Any) -> list[str]:
    with pytest.raises(SettingsError) as refused:
        settings.parse("dev", caches=caches, images=images, **rest)
    head, *lines = str(refused.value).splitlines()
    assert head == "Pulumi.dev.yaml has mistakes, nothing was changed:"
    return [line.removeprefix("  ") for line in lines]


def mistake(images: Any, **rest: Any) -> str:
    (only,) = mistakes(images, **rest)
    return only


@pytest.mark.parametrize("images", [None, {}, ""])
def test_a_stack_needs_no_images(images: Any) -> None:
    assert settings.parse("dev", caches=CACHES, images=images).images is None


def test_what_is_left_out_is_nothing() -> None:
    images = parse({"references": ["nginx"]})

    assert (images.file, images.talos, images.platform) == (None, None, None)
    assert parse({"file": "images.txt"}).references == []


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
def test_references_are_kept_in_full(written: str, canonical: str) -> None:
    assert parse({"references": [written]}).references == [canonical]


PARTS = st.text("abc012", min_size=1, max_size=5)


@given(registry=st.sampled_from(["", "quay.io/", "docker.io/"]), name=PARTS, tag=PARTS)
def test_what_is_kept_is_kept_as_it_is(registry: str, name: str, tag: str) -> None:
    once = parse({"references": [f"{registry}{name}:{tag}"]}).references

    assert parse({"references": once}).references == once
    assert str(reference.parse(once[0])) == once[0]


def test_talos_has_the_defaults_of_its_talosctl() -> None:
    talos = parse({"talos": {}}).talos

    assert talos is not None
    assert (talos.talosctl, talos.talos_version, talos.kubernetes_version) == (
        "talosctl",
        None,
        None,
    )


@pytest.mark.parametrize(
    ("written", "platform"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm/v7", "linux/arm/v7"),
    ],
)
def test_a_platform_has_one_spelling(written: str, platform: str) -> None:
    assert parse({"references": ["nginx"], "platform": written}).platform == platform


# Mistakes


@pytest.mark.parametrize(
    ("images", "path", "found"),
    [
        ({"references": ["a b"]}, "images.references[0]", "found 'a b'"),
        ({"references": ["nginx", "A"]}, "images.references[1]", "found 'A'"),
        ({"references": [1]}, "images.references[0]", "found 1; allowed: a text"),
        ({"references": "nginx"}, "images.references", "found 'nginx'; allowed: a list"),
        ({"file": ""}, "images.file", "found ''; allowed: a text that is not empty"),
        ({"platform": "amd64"}, "images.platform", "found 'amd64'; allowed: a platform such as"),
        ({"talos": {"talosctl": ""}}, "images.talos.talosctl", "found ''"),
        (
            {"talos": {"talosVersion": "latest"}},
            "images.talos.talosVersion",
            "found 'latest'; allowed: a version such as v1.11.5",
        ),
        (
            {"talos": {"kubernetesVersion": "1.35"}},
            "images.talos.kubernetesVersion",
            "found '1.35'; allowed: a version such as",
        ),
        (
            {"refrences": ["nginx"]},
            "images.refrences",
            "found an unknown key (did you mean references?)",
        ),
        ({"talos": {"version": "v1.11.5"}}, "images.talos.version", "found an unknown key"),
        (["nginx"], "images", "found ['nginx']; allowed: a mapping"),
    ],
)
def test_a_mistake_is_told_with_its_path_and_what_was_found(
    images: Any, path: str, found: str
) -> None:
    assert mistake(images).startswith(f"{path}: {found}")


def test_all_mistakes_are_told_at_once() -> None:
    images = {"references": ["a b", "nginx", "C"], "platform": "amd64", "files": []}

    assert [line.split(": ")[0] for line in mistakes(images)] == [
        "images.references[0]",
        "images.references[2]",
        "images.platform",
        "images.files",
    ]


def test_a_reference_is_refused_with_the_part_that_is_wrong() -> None:
    text = mistake({"references": ["quay.io/App:1"]})

    assert "its repository is 'App'; allowed: lowercase letters and digits" in text


def test_images_need_caches() -> None:
    assert mistake({"references": ["nginx"]}, caches=None, clusters={"demo": None}) == (
        "images: found without caches; allowed: beside them"
    )
