from pathlib import Path

import pytest

from talos_registry_cache.talos import images
from talos_registry_cache.talos.errors import CommandError, TalosError, UnsupportedError
from talos_registry_cache.talos.versions import Talosctl, Version
from tests.unit.talos import programs


def talosctl(folder: Path, version: Version, script: str) -> Talosctl:
    return Talosctl(programs.shell(folder / "talosctl", script), version)


@pytest.mark.parametrize(
    ("version", "kubernetes", "command"),
    [
        (Version(0, 7), None, "images"),
        (Version(1, 5), None, "images"),
        (Version(1, 6), None, "image default"),
        (Version(1, 11, 5), None, "image default"),
        (Version(1, 12), None, "image k8s-bundle"),
        (Version(1, 13), "1.35.0", "image k8s-bundle --k8s-version v1.35.0"),
        (Version(1, 13), "v1.35.0", "image k8s-bundle --k8s-version v1.35.0"),
    ],
)
def test_each_version_has_its_own_command(
    tmp_path: Path, version: Version, kubernetes: str | None, command: str
) -> None:
    script = f'[ "$*" = "{command}" ] || exit 1; echo quay.io/a:1; echo; echo ghcr.io/b/c:v2'

    found = images.of_kubernetes(talosctl(tmp_path, version, script), kubernetes)

    assert found == ("quay.io/a:1", "ghcr.io/b/c:v2")


@pytest.mark.parametrize(
    ("version", "kubernetes", "allowed"),
    [
        (Version(1, 12), "1.35.0", "allowed for other versions: talosctl 1.13"),
        (Version(0, 6), None, "cannot list images; allowed: talosctl 0.7"),
    ],
)
def test_older_versions_cannot_list_images(
    tmp_path: Path, version: Version, kubernetes: str | None, allowed: str
) -> None:
    with pytest.raises(UnsupportedError, match=allowed):
        images.of_kubernetes(talosctl(tmp_path, version, ""), kubernetes)


@pytest.mark.parametrize("printed", ["", "quay.io/a:1\nError: no", "usage"])
def test_other_output_is_an_error(tmp_path: Path, printed: str) -> None:
    script = f"printf '{printed}'"
    with pytest.raises(TalosError, match="allowed: image references"):
        images.of_kubernetes(talosctl(tmp_path, Version(1, 13), script))


def test_a_failure_shows_its_reason(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="image k8s-bundle failed with exit code 1: no"):
        images.of_kubernetes(talosctl(tmp_path, Version(1, 13), "echo no >&2; exit 1"))


@pytest.mark.parametrize(
    ("talos", "more"),
    [
        (Version(0, 14, 3), ("ghcr.io/talos-systems/talos:v0.14.3",)),
        (Version(1, 13, 9), ("ghcr.io/siderolabs/talos:v1.13.9",)),
        (
            Version(1, 14, 2),
            (
                "ghcr.io/siderolabs/talos:v1.14.2",
                f"factory.talos.dev/metal-installer/{'a' * 64}:v1.14.2",
            ),
        ),
    ],
)
def test_a_cluster_also_needs_the_node_image_and_the_installer(
    tmp_path: Path, talos: Version, more: tuple[str, ...]
) -> None:
    script = '[ "$*" = "image k8s-bundle --k8s-version v1.35.0" ] && echo quay.io/a:1'

    found = images.of_cluster(talosctl(tmp_path, Version(1, 14), script), talos, "1.35.0", "a" * 64)

    assert found == ("quay.io/a:1", *more)


@pytest.mark.parametrize(
    ("talos", "schematic", "image"),
    [
        (Version(1, 13, 9), images.DEFAULT_SCHEMATIC, None),
        (
            Version(1, 14, 0, "-rc.1"),
            images.DEFAULT_SCHEMATIC,
            f"factory.talos.dev/metal-installer/{images.DEFAULT_SCHEMATIC}:v1.14.0-rc.1",
        ),
        (Version(1, 14), "a" * 64, f"factory.talos.dev/metal-installer/{'a' * 64}:v1.14.0"),
    ],
)
def test_the_installer_comes_from_the_image_factory_since_1_14(
    talos: Version, schematic: str, image: str | None
) -> None:
    assert images.installer(talos, schematic) == image
