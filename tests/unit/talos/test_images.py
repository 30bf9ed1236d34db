from pathlib import Path

import pytest

from talos_registry_cache.talos import images
from talos_registry_cache.talos.errors import CommandError, TalosError, UnsupportedError
from talos_registry_cache.talos.versions import Talosctl, Version
from tests.unit.talos import programs


def talosctl(folder: Path, version: Version, script: str) -> Talosctl:
    return Talosctl(programs.shell(folder / "talosctl", script), version)


@pytest.mark.parametrize(
    ("version", "command"),
    [
        (Version(0, 7), "images"),
        (Version(1, 5), "images"),
        (Version(1, 6), "image default"),
        (Version(1, 11, 5), "image default"),
        (Version(1, 12), "image k8s-bundle"),
        (Version(1, 13), "image k8s-bundle"),
    ],
)
def test_each_version_has_its_own_command(tmp_path: Path, version: Version, command: str) -> None:
    script = f'[ "$*" = "{command}" ] || exit 1; echo quay.io/a:1; echo; echo ghcr.io/b/c:v2'

    found = images.of_kubernetes(talosctl(tmp_path, version, script))

    assert found == ("quay.io/a:1", "ghcr.io/b/c:v2")


@pytest.mark.parametrize("kubernetes", ["1.35.0", "v1.35.0"])
def test_images_of_another_version_of_kubernetes(tmp_path: Path, kubernetes: str) -> None:
    script = '[ "$*" = "image k8s-bundle --k8s-version v1.35.0" ] && echo quay.io/a:1'

    assert images.of_kubernetes(talosctl(tmp_path, Version(1, 13), script), kubernetes)


def test_before_1_13_only_the_default_version_of_kubernetes_is_listed(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"allowed for other versions: talosctl 1.13"):
        images.of_kubernetes(talosctl(tmp_path, Version(1, 12), ""), "1.35.0")


def test_before_0_7_there_is_no_list(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"cannot list images; allowed: talosctl 0.7"):
        images.of_kubernetes(talosctl(tmp_path, Version(0, 6), ""))


@pytest.mark.parametrize("printed", ["", "quay.io/a:1\nError: no", "usage"])
def test_other_output_is_an_error(tmp_path: Path, printed: str) -> None:
    script = f"printf '{printed}'"
    with pytest.raises(TalosError, match="allowed: image references"):
        images.of_kubernetes(talosctl(tmp_path, Version(1, 13), script))


def test_a_failure_shows_its_reason(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="image k8s-bundle failed with exit code 1: no"):
        images.of_kubernetes(talosctl(tmp_path, Version(1, 13), "echo no >&2; exit 1"))
