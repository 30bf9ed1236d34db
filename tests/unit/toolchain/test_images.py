"""The images that a stack names are prepared, and no others."""

from pathlib import Path

import pytest

from components.settings import caches, front
from toolchain import images, official_image
from toolchain.paths import ROOT

HOST = "unix:///var/run/docker.sock"
REGISTRY, NGINX = images.DEFAULTS
(OLDER,) = images.BUILDERS.keys() - {*images.DEFAULTS}
OWN = "registry.example/registry:3"


@pytest.fixture
def ensured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The images that are prepared, on an engine that has none."""
    made: list[str] = []
    monkeypatch.setattr(official_image, "is_there", lambda *_: False)
    monkeypatch.setattr(official_image, "ensure", lambda _, reference, __: made.append(reference))
    return made


def test_default_images_are_those_of_the_settings() -> None:
    assert images.DEFAULTS == (caches.DEFAULT_IMAGE, front.DEFAULT_IMAGE)


@pytest.mark.parametrize(
    ("settings", "prepared"),
    [
        ("upstreams: {docker.io: {port: 5000}}", {REGISTRY, NGINX}),
        (f"{{image: {OWN}, upstreams: {{docker.io: null}}}}", {NGINX}),
        (f"{{image: {OWN}, front: {{image: {OWN}}}}}", set()),
        (f"{{image: {OWN}, upstreams: {{quay.io: {{image: '{OLDER}'}}}}}}", {OLDER, NGINX}),
        (f"{{image: {OLDER}}} # instead of {REGISTRY}", {OLDER, NGINX}),
        (f"{{image: {OWN}}} # instead of {OLDER}", {NGINX}),
        # `up` reports the mistake.
        ("[]", {REGISTRY, NGINX}),
        ("{broken", set()),
    ],
)
@pytest.mark.parametrize("key", ["caches", "talos-registry-cache:caches"])
def test_images_that_a_stack_file_names_are_prepared(
    ensured: list[str], tmp_path: Path, key: str, settings: str, prepared: set[str]
) -> None:
    file = tmp_path / "Pulumi.mine.yaml"
    file.write_text(f"config:\n  clusters: {{}}\n  {key}:\n    {settings}\n")

    images.ensure(HOST, [file])

    assert {*ensured} == prepared


@pytest.mark.parametrize(
    ("stacks", "prepared"),
    [
        ([], {REGISTRY, NGINX}),
        (["guide", "talos"], {REGISTRY, OLDER, NGINX}),
        # It uses the caches of another stack.
        (["qemu"], set()),
    ],
)
def test_images_of_the_stacks_here_are_prepared(
    ensured: list[str], stacks: list[str], prepared: set[str]
) -> None:
    images.ensure(HOST, [ROOT / f"Pulumi.{name}.yaml" for name in stacks])

    assert {*ensured} == prepared


def test_an_image_on_the_engine_is_not_looked_for_in_the_stack_file(
    monkeypatch: pytest.MonkeyPatch, ensured: list[str]
) -> None:
    monkeypatch.setattr(official_image, "is_there", lambda *_: True)
    monkeypatch.setattr(images, "named", lambda _: pytest.fail("would slow down every `up`"))

    images.ensure(HOST, [ROOT / "Pulumi.guide.yaml"])

    assert ensured == []
