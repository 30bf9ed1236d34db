import os
from collections.abc import Callable
from pathlib import Path

import pytest

from talos_registry_cache.cli import selection
from talos_registry_cache.cli.commands.prune import number_of_bytes, seconds
from talos_registry_cache.cli.errors import UsageError
from talos_registry_cache.cli.selection import Cluster
from talos_registry_cache.registry.platforms import Platform
from talos_registry_cache.registry.reference import Reference, parse
from talos_registry_cache.talos.images import DEFAULT_SCHEMATIC
from tests.unit.talos import programs


def test_images_come_from_arguments_and_files_each_once(tmp_path: Path) -> None:
    first, second = tmp_path / "first.txt", tmp_path / "second.txt"
    first.write_text("# a comment\n\nquay.io/team/app:1  # why\nalpine\n")
    second.write_text("alpine\ngcr.io/tool:2")

    found = selection.gather(["busybox:1", "alpine"], [first, second])

    assert found == tuple(
        map(parse, ("busybox:1", "alpine", "quay.io/team/app:1", "gcr.io/tool:2"))
    )


def test_repositories_have_no_tag_and_no_digest() -> None:
    assert selection.repositories(["localhost:5010/app", "app"]) == (
        Reference("localhost:5010", "app", None, None),
        Reference("docker.io", "library/app", None, None),
    )
    for image in ("localhost:5010/app:dev", f"localhost:5010/app@sha256:{'0' * 64}"):
        with pytest.raises(UsageError, match=r"is an image; allowed: .* localhost:5010/app$"):
            selection.repositories([image])
    with pytest.raises(UsageError, match="is not an image reference"):
        selection.repositories(["localhost:5010/App"])


@pytest.fixture
def _talosctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A talosctl 1.14.1 on PATH."""
    said = programs.VERSION_OUTPUT.format(tag="v1.14.1")
    script = f'[ "$1" = version ] && echo "{said}" || echo quay.io/coreos/etcd:v3.6.4'
    programs.shell(tmp_path / "talosctl", script)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)


@pytest.mark.usefixtures("_talosctl")
@pytest.mark.parametrize(
    ("cluster", "schematic", "version"),
    [
        (Cluster("1.14"), DEFAULT_SCHEMATIC, "v1.14.1"),
        (Cluster("v1.14.3"), DEFAULT_SCHEMATIC, "v1.14.3"),
        (Cluster(None, "1.36.0"), DEFAULT_SCHEMATIC, "v1.14.1"),
        (Cluster("1.14", None, "a" * 64), "a" * 64, "v1.14.1"),
    ],
)
def test_images_of_a_cluster_are_those_of_the_settings_with_the_installer(
    cluster: Cluster, schematic: str, version: str
) -> None:
    assert selection.gather(["alpine"], [], cluster) == tuple(
        map(
            parse,
            (
                "alpine",
                "quay.io/coreos/etcd:v3.6.4",
                f"ghcr.io/siderolabs/talos:{version}",
                f"factory.talos.dev/metal-installer/{schematic}:{version}",
            ),
        )
    )


@pytest.mark.usefixtures("_talosctl")
@pytest.mark.parametrize(
    ("cluster", "error"),
    [
        (Cluster("1.13"), "is v1.14.1 and lists the images of that version only"),
        (Cluster("1.14", None, "A" * 64), "'A+' is not the ID of a schematic; allowed: 64 "),
        (Cluster(None, None, "a" * 64), "--schematic needs --talos-version"),
        (Cluster("latest"), "'latest' is not a version"),
    ],
)
def test_a_cluster_that_has_no_list_of_images_is_refused(cluster: Cluster, error: str) -> None:
    with pytest.raises(UsageError, match=error):
        selection.gather([], [], cluster)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"alpine\nteam/App:1\n", "images.txt, line 2: 'team/App:1' is not an image"),
        (None, "images.txt cannot be read"),
        (b"\xff\xfe", "images.txt cannot be read"),
    ],
)
def test_a_file_that_is_no_list_of_images_is_refused(
    tmp_path: Path, content: bytes | None, error: str
) -> None:
    path = tmp_path / "images.txt"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(UsageError, match=error):
        selection.from_file(path)
    with pytest.raises(UsageError, match=r"/dev/zero cannot be read: .* larger than 4194304"):
        selection.from_file(Path("/dev/zero"))


def test_platforms_are_read_or_refused() -> None:
    assert selection.platforms_of(["linux/arm64"]) == (Platform("linux", "arm64"),)
    assert selection.platforms_of(["linux/arm64", "all"]) == "all"
    with pytest.raises(UsageError, match="is not a platform"):
        selection.platforms_of(["linux/amd64", "arm64"])


@pytest.mark.parametrize(
    ("parse_number", "text", "expected"),
    [
        (seconds, "90s", 90),
        (seconds, "720h", 2_592_000),
        (seconds, "30d", 2_592_000),
        (number_of_bytes, "0", 0),
        (number_of_bytes, "20g", 20 * 10**9),
        (number_of_bytes, "5MB", 5_000_000),
        *((seconds, text, None) for text in ("", "-1h", "1.5h", "h", "1w", "1 h")),
        *((number_of_bytes, text, None) for text in ("", "-1", "g", "1.5g", "1p")),
    ],
)
def test_ages_and_sizes_are_whole_numbers_with_a_unit(
    parse_number: Callable[[str], float], text: str, expected: int | None
) -> None:
    if expected is None:
        with pytest.raises(UsageError, match=r"is not (an age|a size)"):
            parse_number(text)
    else:
        assert parse_number(text) == expected
