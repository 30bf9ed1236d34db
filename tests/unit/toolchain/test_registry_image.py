"""The registry images have the pinned versions, and are built like the official ones."""

import re
from pathlib import Path

import pytest

from components.settings import caches
from toolchain import front_image, golang, official_image, registry_image
from toolchain.official_image import Content
from toolchain.paths import ROOT

HOST = "unix:///var/run/docker.sock"
DEFAULT = registry_image.reference()
OLDER = registry_image.reference(registry_image.OLDER)


def test_default_image_has_the_pinned_version() -> None:
    go_mod = (ROOT / "toolchain" / "go" / "registry" / "go.mod").read_text()
    pinned = re.search(r"^require \S+/distribution/v3 v(\S+)$", go_mod, re.MULTILINE)

    assert pinned is not None
    assert caches.DEFAULT_IMAGE == DEFAULT == f"registry:{pinned[1]}"


@pytest.mark.parametrize("path", sorted(ROOT.glob("Pulumi.*.yaml")), ids=lambda path: path.stem)
def test_every_image_in_a_stack_file_can_be_built(path: Path) -> None:
    named = set(re.findall(r"image:\s*\"?([^\s\"},]+)", path.read_text()))

    assert named <= {DEFAULT, OLDER, front_image.REFERENCE}


@pytest.fixture
def ensured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Content]:
    """The images that are prepared, on a machine that builds each of them."""
    made: dict[str, Content] = {}
    for name in ("registry", "registry-3.0", "certificates"):
        (tmp_path / name).write_text(f"the {name}")
    monkeypatch.setattr(golang, "ensure", lambda program: tmp_path / program.name)
    monkeypatch.setattr(registry_image, "CERTIFICATES", tmp_path / "certificates")
    monkeypatch.setattr(
        official_image, "ensure", lambda _, reference, build: made.update({reference: build()})
    )
    return made


def test_built_image_has_its_own_registry_and_stores_as_an_unprivileged_user(
    ensured: dict[str, Content],
) -> None:
    registry_image.ensure(HOST)
    registry_image.ensure_older(HOST)

    assert ensured[OLDER].programs == {"bin/registry": b"the registry-3.0"}
    content = ensured[DEFAULT]
    assert content.programs == {"bin/registry": b"the registry"}
    assert content.files["etc/ssl/certs/ca-certificates.crt"] == b"the certificates"
    (storage,) = content.owned
    assert f"rootdirectory: /{storage}" in content.files["etc/distribution/config.yml"].decode()
    assert f"VOLUME /{storage}" in content.instructions
