from pathlib import Path

import pytest

from talos_registry_cache.cli import selection
from talos_registry_cache.cli.commands.prune import number_of_bytes, seconds
from talos_registry_cache.cli.console import size
from talos_registry_cache.cli.errors import UsageError
from talos_registry_cache.registry.platforms import Platform
from talos_registry_cache.registry.reference import parse


def test_images_come_from_arguments_and_files_each_once(tmp_path: Path) -> None:
    first, second = tmp_path / "first.txt", tmp_path / "second.txt"
    first.write_text("# a comment\n\nquay.io/team/app:1  # why\nalpine\n")
    second.write_text("alpine\ngcr.io/tool:2")

    found = selection.gather(["busybox:1", "alpine"], [first, second], None, None)

    assert found == tuple(
        map(parse, ("busybox:1", "alpine", "quay.io/team/app:1", "gcr.io/tool:2"))
    )


def test_an_invalid_line_is_named_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / "images.txt"
    path.write_text("alpine\nteam/App:1\n")

    with pytest.raises(UsageError, match=r"images\.txt, line 2: 'team/App:1' is not an image"):
        selection.from_file(path)


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "images.txt"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(UsageError, match=r"images\.txt cannot be read"):
        selection.from_file(path)


def test_an_endless_list_is_refused() -> None:
    with pytest.raises(UsageError, match=r"/dev/zero cannot be read: .* larger than 4194304 bytes"):
        selection.from_file(Path("/dev/zero"))


def test_a_platform_is_read_or_refused() -> None:
    assert selection.platform("linux/arm64") == Platform("linux", "arm64")
    with pytest.raises(UsageError, match="is not a platform"):
        selection.platform("arm64")


@pytest.mark.parametrize(
    ("text", "expected"), [("90s", 90), ("720h", 2_592_000), ("30d", 2_592_000)]
)
def test_ages_are_read(text: str, expected: int) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize(("text", "expected"), [("0", 0), ("20g", 20 * 10**9), ("5MB", 5_000_000)])
def test_sizes_are_read(text: str, expected: int) -> None:
    assert number_of_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "-1h", "1.5h", "h", "1w", "1 h"])
def test_invalid_ages_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not an age"):
        seconds(text)


@pytest.mark.parametrize("text", ["", "-1", "g", "1.5g", "1p"])
def test_invalid_sizes_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a size"):
        number_of_bytes(text)


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_960, "1.0 MB"), (5_240_000_000, "5.2 GB")],
)
def test_bytes_are_formatted_with_a_unit(number: int, text: str) -> None:
    assert size(number) == text
